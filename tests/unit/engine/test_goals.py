"""What optimizations are after: scores and seeds against autograd and against loops."""

import numpy as np
import pytest
import torch
from pellucid_server.engine.rows import (
    ClassTarget,
    CodeTarget,
    DirectionTarget,
    DiversityTarget,
    EnergyTarget,
    GuideTarget,
    MarginTarget,
    NeuronTarget,
    Score,
    SumTarget,
    TopTarget,
)
from pellucid_server.engine.seeds import score
from pellucid_server.engine.siblings import Siblings

GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


ACTIVATIONS = {"": drawn(4, 5), "maps": drawn(4, 3, 2, 4)}
CODE, VECTOR, FEATURES = drawn(3, 2, 4), drawn(3), drawn(3, 7)
ENERGY = float(CODE.square().sum())


def by_hand(target: object, logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The score of one image, written from the definitions."""
    match target:
        case ClassTarget(index, Score.LOGIT):
            return logits[index]
        case ClassTarget(index, Score.LOG_PROBABILITY):
            return logits.log_softmax(0)[index]
        case NeuronTarget(channel=channel):
            return maps[channel].sum()
        case DirectionTarget(y=None):
            return torch.einsum("c,chw->", VECTOR, maps)
        case DirectionTarget(y=y, x=x):
            return VECTOR.dot(maps[:, y, x])
        case CodeTarget():
            return -(maps - CODE).square().sum() / CODE.square().sum()
        case EnergyTarget():
            return maps.square().sum() / 2
        case GuideTarget():
            places = [maps[:, y, x] for y in range(2) for x in range(4)]
            return sum(torch.stack([p.dot(f) for f in FEATURES.T]).max() for p in places)
        case MarginTarget(index, sought, confidence):
            other = torch.cat([logits[:index], logits[index + 1 :]]).max()
            margin = other - logits[index] if sought else logits[index] - other
            return -(margin + confidence).clamp_min(0)
        case _:
            raise AssertionError(target)


GOALS = (
    ClassTarget(2),
    ClassTarget(1, Score.LOG_PROBABILITY),
    NeuronTarget("maps", 1),
    DirectionTarget("maps", VECTOR),
    DirectionTarget("maps", VECTOR, 1, 3),
    CodeTarget("maps", CODE, ENERGY),
    EnergyTarget("maps"),
    GuideTarget("maps", FEATURES),
    MarginTarget(int(ACTIVATIONS[""][0].argmax()), False, 0.5),
    MarginTarget(3, True, 9.0),
    MarginTarget(int(ACTIVATIONS[""][2].argmax()), True),
)


def test_sums_of_goals_against_autograd() -> None:
    """Rows that share kinds and layers, padding among them."""
    rows = (
        SumTarget(((GOALS[0], 1.0), (GOALS[5], -2.0), (GOALS[6], 0.5), (GOALS[8], 1.5))),
        SumTarget(((GOALS[7], 3.0), (GOALS[1], 1.0), (GOALS[3], -1.0), (GOALS[5], 1.0))),
        SumTarget(((GOALS[4], 2.0), (GOALS[9], -2.0), (GOALS[10], 7.0), (GOALS[6], 1.0))),
        None,
    )
    scores = score(ACTIVATIONS, rows)
    assert scores.terms.shape == (4, 4)
    for row, target in enumerate(rows):
        leaves = [ACTIVATIONS[name][row].clone().requires_grad_() for name in ("", "maps")]
        terms = target.terms if target else ()
        each = [by_hand(goal, *leaves) for goal, _ in terms]
        total = sum((w * one for (_, w), one in zip(terms, each, strict=True)), leaves[0].sum() * 0)
        expected = torch.autograd.grad(total, leaves, materialize_grads=True)
        assert float(scores.values[row]) == pytest.approx(float(total.detach()), rel=1e-12)
        assert scores.terms[row].tolist() == pytest.approx(
            [*(float(one.detach()) for one in each), *[0.0] * (4 - len(each))], rel=1e-12
        )
        for name, gradient in zip(("", "maps"), expected, strict=True):
            assert torch.allclose(scores.seeds[name][row], gradient, rtol=1e-12, atol=1e-14)


def test_margins_that_are_reached_pull_no_more() -> None:
    made = score(ACTIVATIONS, [None, None, SumTarget(((GOALS[10], 1.0),)), None])
    assert made.values[2] == 0
    assert not made.seeds[""].any()
    left = score(ACTIVATIONS, [SumTarget(((GOALS[8], 1.0),)), None, None, None])
    assert left.values[0] < 0
    assert sorted(left.seeds[""][0].tolist()) == [-1, 0, 0, 0, 1]


def test_other_rows_of_the_batch_are_as_they_were() -> None:
    """A prediction beside a code: its class, its score, its seed."""
    plain = score(ACTIVATIONS, [TopTarget(), ClassTarget(3), None, NeuronTarget("maps", 2)])
    code = SumTarget(((GOALS[5], 1.0), (GOALS[0], 2.0)))
    mixed = score(ACTIVATIONS, [TopTarget(), ClassTarget(3), code, NeuronTarget("maps", 2)])
    for row in (0, 1, 3):
        assert mixed.values[row] == plain.values[row]
        for name, seed in plain.seeds.items():
            assert torch.equal(mixed.seeds[name][row], seed[row])
    assert mixed.classes.tolist() == [*plain.classes[:2].tolist(), -1, -1]


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: type(goal).__name__)
def test_a_goal_alone_is_the_goal_itself(goal: object) -> None:
    alone = score(ACTIVATIONS, [SumTarget(((goal, 1.0),))] * 4)
    for row in range(4):
        value = by_hand(goal, ACTIVATIONS[""][row], ACTIVATIONS["maps"][row])
        assert float(alone.values[row]) == pytest.approx(float(value), rel=1e-12)


def test_a_row_has_the_same_bits_beside_others() -> None:
    """Whatever terms its neighbours have."""
    single = {name: a.float() for name, a in ACTIVATIONS.items()}
    code = CodeTarget("maps", CODE.float(), ENERGY)
    mine = SumTarget(((code, 1.0), (EnergyTarget("maps"), 0.1)))
    other = SumTarget(((GuideTarget("maps", FEATURES.float()), 1.0), (code, 1.0)))
    alone = score(single, [mine, None, None, None])
    beside = score(single, [mine, other, other, other])
    assert torch.equal(alone.seeds["maps"][0], beside.seeds["maps"][0])
    assert alone.values[0] == beside.values[0]
    assert np.array_equal(alone.terms[0, :2], beside.terms[0, :2])


# Images that are unlike each other.


def likeness(maps: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
    """The mean cosine of Gram matrices, written from the definition: C×H×W each."""

    def gram(one: torch.Tensor) -> torch.Tensor:
        return torch.einsum("chw,dhw->cd", one, one)

    cosines = [
        (gram(maps) * gram(other)).sum() / gram(maps).norm() / gram(other).norm()
        for other in others
    ]
    return torch.stack(cosines).mean()


def test_unlike_the_others_as_they_were_a_step_before() -> None:
    """Three images at three steps, each step's rows in batches of another kind and order."""
    siblings = Siblings(3, "maps", 3, torch.float64, torch.device("cpu"))
    steps = [drawn(3, 3, 2, 4) for _ in range(3)]
    for step, batches in enumerate([[[0, 1], [2]], [[2, 0], [1]], [[1], [0], [2]]]):
        for places in batches:
            goals = [DiversityTarget("maps", siblings, place, step) for place in places]
            rows = [SumTarget(((goal, 2.0), (EnergyTarget("maps"), 0.5))) for goal in goals]
            made = score(
                {"maps": torch.cat([steps[step][places], drawn(1, 3, 2, 4)])}, [*rows, None]
            )
            for row, place in enumerate(places):
                leaf = steps[step][place].clone().requires_grad_()
                others = [steps[step - 1][k] for k in range(3) if k != place]
                expected = -likeness(leaf, others) if step else 0 * leaf.sum()
                total = 2 * expected + leaf.square().sum() / 4
                assert made.terms[row, 0].item() == pytest.approx(expected.item(), rel=1e-12)
                assert made.values[row].item() == pytest.approx(total.item(), rel=1e-12)
                [gradient] = torch.autograd.grad(total, leaf)
                assert torch.allclose(made.seeds["maps"][row], gradient, rtol=1e-10, atol=1e-13)
            assert not made.seeds["maps"][-1].any()
            assert made.values[-1] == 0


def test_who_has_ended_pushes_nobody() -> None:
    """An image that is not finite, and goes no further; and one of nothing but zeros."""
    siblings = Siblings(3, "maps", 3, torch.float64, torch.device("cpu"))
    maps = drawn(3, 3, 2, 4)
    maps[1] = float("nan")
    for step in range(2):
        goals = [DiversityTarget("maps", siblings, place, step) for place in range(3)]
        made = score({"maps": maps}, [SumTarget(((goal, 1.0),)) for goal in goals])
    assert made.values[0].item() == pytest.approx(-likeness(maps[0], [maps[2]]).item() / 2)
    for step in (2, 3):
        maps[2] *= 0
        goals = [DiversityTarget("maps", siblings, place, step) for place in (0, 2)]
        made = score({"maps": maps[[0, 2]]}, [SumTarget(((goal, 1.0),)) for goal in goals])
        assert made.seeds["maps"].isfinite().all()
        assert made.values[1] == 0
    assert made.values[0] == 0


def test_siblings_go_on_from_their_state() -> None:
    """One of them a step ahead of the other, as in the middle of a round."""
    siblings, again = (Siblings(2, "maps", 3, torch.float64, torch.device("cpu")) for _ in "ab")

    def step(of: Siblings, place: int, at: int) -> float:
        maps = drawn_again(place, at)
        goal = DiversityTarget("maps", of, place, at)
        return float(score({"maps": maps}, [SumTarget(((goal, 1.0),))]).values[0])

    for at in range(2):
        for place in range(2):
            step(siblings, place, at)
    step(siblings, 0, 2)
    for place, made in ((0, 3), (1, 2)):
        again.restore(place, made, siblings.state(place, made))
    for place, at in ((1, 2), (1, 3), (0, 3)):
        assert step(again, place, at) == step(siblings, place, at) < 0


def drawn_again(*seeds: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * seeds[0] + seeds[1])
    return torch.randn(1, 3, 2, 4, generator=generator, dtype=torch.float64)
