"""A prediction outlives whatever happens to the explanations that are attached to it."""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from pellucid_server import wire
from pellucid_server.api.attached import run_attached
from pellucid_server.engine.job import Done, Ride, Spec, Timing
from pellucid_server.engine.rows import Chore, ClassTarget, Rows, TopTarget, Want
from pellucid_server.errors import (
    DeadlineExpired,
    DeadlineTooShort,
    Internal,
    Overloaded,
    PellucidError,
    Unavailable,
)
from pellucid_server.methods.attached import Attached
from pellucid_server.methods.explain.explain import Explain, Until
from pellucid_server.methods.predict import Predict, PredictResult
from pellucid_server.wire import METHODS
from pellucid_server.wire.requests import Explained, default_method

from tests import harness

LOGITS = torch.tensor([0.0, 3.0, 1.0])
NAMES = ("gradient", "occlusion", "rise")


def asked(names: tuple[str, ...] = NAMES, budget_ms: float | None = None) -> wire.Asked:
    model = harness.model("efficientnet_lite0")
    spec = harness.spec(model, Predict(1, False), "cat")
    attached = []
    for name in names:
        made = default_method(METHODS[name], model)
        assert not isinstance(made, str)
        attached.append(Explained(Explain(made), TopTarget(), view=None))  # type: ignore[arg-type]
    return wire.Asked(spec, attached=tuple(attached), explain_budget_ms=budget_ms)


def done(value: Any, rides: int = 1) -> Done:
    return Done(value, None, (Ride(1, 1, 1),) * rides, Timing(0.0, finished_s=float(rides)))


class Engine:
    """Shows and ends as it is told, run by run; keeps what it was asked.

    Where it is told what each method costs, it refuses what does not fit.
    """

    def __init__(self, *runs: list[Any], costs_ms: Mapping[str, float] | None = None) -> None:
        self._runs = iter(runs)
        self._costs_ms = costs_ms or {}
        self.specs: list[Spec] = []

    def cost_ms(self, spec: Spec) -> float:
        method = spec.method
        assert isinstance(method, Attached)
        return sum(self._costs_ms.get(explain.name, 0.0) for explain, _ in method.parts)

    async def run(self, spec: Spec, outlet: Callable[[Done], None] | None = None) -> Done:
        self.specs.append(spec)
        if isinstance(spec.method, Predict):
            return done("predicted alone")
        if self._costs_ms and self.cost_ms(spec) > (spec.deadline_s - time.monotonic()) * 1e3:
            raise DeadlineTooShort("all of them")
        for step in next(self._runs):
            if isinstance(step, PellucidError):
                raise step
            assert outlet is not None
            outlet(step)
        return done(None)

    def outcome(self, request: wire.Asked) -> tuple[Done, list[Done | PellucidError]]:
        return asyncio.run(run_attached(request, time.monotonic(), self.run, self.cost_ms))

    def outcomes(self, request: wire.Asked) -> tuple[Done, list[Any]]:
        prediction, outcomes = self.outcome(request)
        return prediction, [o if isinstance(o, PellucidError) else o.result for o in outcomes]

    def asked_for(self, run: int) -> list[str]:
        method = self.specs[run].method
        assert isinstance(method, Attached)
        return [explain.name for explain, _ in method.parts]


PREDICTED = done(PredictResult(LOGITS))


def test_all_goes_well() -> None:
    engine = Engine([PREDICTED, done("a", 1), done("b", 3), done("c", 6)])
    prediction, outcomes = engine.outcome(asked())
    assert prediction.result.logits is LOGITS
    assert [one.result for one in outcomes] == ["a", "b", "c"]
    # Each has the batches that it rode in itself; the first one shares the prediction's.
    assert [len(one.rides) for one in outcomes] == [1, 2, 3]
    assert [one.timing.launched_s for one in outcomes] == [0.0, 1.0, 3.0]
    assert len(engine.specs) == 1


def test_one_that_fails_is_left_out_and_the_others_go_on_with_what_is_known() -> None:
    error = Internal()
    engine = Engine([PREDICTED, done("a"), error], [done("c")])
    prediction, outcomes = engine.outcomes(asked())
    assert prediction is PREDICTED
    assert outcomes == ["a", error, "c"]
    assert engine.asked_for(1) == ["rise"]
    assert engine.specs[1].method.top == 1  # the best class of LOGITS


def test_the_first_that_fails_before_anything_is_shown() -> None:
    error = Internal()
    engine = Engine([error], [PREDICTED, done("b"), done("c")])
    prediction, outcomes = engine.outcomes(asked())
    assert prediction is PREDICTED
    assert outcomes == [error, "b", "c"]
    assert engine.specs[1].method.top is None


@pytest.mark.parametrize("kind", [DeadlineExpired, Overloaded, Unavailable])
def test_what_stops_all_of_them_is_said_of_each_and_the_prediction_is_made_alone(
    kind: type[PellucidError],
) -> None:
    error = kind("no")
    engine = Engine([error])
    request = asked()
    prediction, outcomes = engine.outcomes(request)
    assert prediction.result == "predicted alone"
    assert outcomes == [error] * 3
    assert engine.specs[-1].deadline_s == request.spec.deadline_s


def test_a_budget_that_passes_in_the_middle_keeps_what_was_made() -> None:
    error = DeadlineExpired("late")
    engine = Engine([PREDICTED, done("a"), error])
    assert engine.outcomes(asked()) == (PREDICTED, ["a", error, error])
    assert len(engine.specs) == 1


@pytest.mark.parametrize("names", list(itertools.permutations(NAMES)))
def test_what_costs_too_much_is_not_tried_and_the_others_are(names: tuple[str, ...]) -> None:
    costs_ms = {"gradient": 1e2, "occlusion": 1e3, "rise": 8e7}
    others = [name for name in names if name != "rise"]
    engine = Engine([PREDICTED, *map(done, others)], costs_ms=costs_ms)
    prediction, outcomes = engine.outcomes(asked(names))
    assert prediction is PREDICTED
    refused = outcomes.pop(names.index("rise"))
    assert outcomes == others
    assert [engine.asked_for(run) for run in range(2)] == [[*names], others]
    assert isinstance(refused, DeadlineTooShort)
    assert re.fullmatch(
        r"this explanation needs about 80000000 ms of device time; the budget of explanations "
        r"leaves \d+ ms",
        refused.message,
    )


def test_of_what_fits_only_one_by_one_the_first_is_made() -> None:
    engine = Engine([PREDICTED, done("a")], costs_ms=dict.fromkeys(NAMES, 2e5))
    _, outcomes = engine.outcomes(asked())
    assert outcomes[0] == "a"
    assert [type(outcome) for outcome in outcomes[1:]] == [DeadlineTooShort] * 2
    assert all("about 200000 ms" in outcome.message for outcome in outcomes[1:])


def test_none_is_affordable() -> None:
    engine = Engine(costs_ms=dict(zip(NAMES, (7e7, 8e7, 9e7), strict=True)))
    prediction, outcomes = engine.outcomes(asked())
    assert prediction.result == "predicted alone"
    assert all(
        f"about {cost}0000000 ms" in outcome.message
        for cost, outcome in zip("789", outcomes, strict=True)
    )


def test_one_that_ends_early_is_counted_so_beside_one_that_does_not() -> None:
    gradient, _, rise = (one.method for one in asked().attached)
    model = harness.model("efficientnet_lite0")
    early = replace(rise, until=Until(time_ms=300.0))
    row_ms = 20.0
    assert sum(rise.row_counts(model, TopTarget()).values()) * row_ms > 1_000
    parts = tuple((explain, TopTarget()) for explain in (early, gradient))
    # A row of the prediction, the time that the one may take, the row of the other.
    assert Attached(parts).most_ms(model, row_ms) == row_ms + 300.0 + row_ms


def test_no_prediction_is_the_requests_error() -> None:
    class Broken(Engine):
        async def run(self, spec: Spec, outlet: Any = None) -> Done:
            raise Overloaded("full")

    with pytest.raises(Overloaded):
        Broken().outcomes(asked())


@pytest.mark.parametrize(("budget_ms", "share"), [(None, 0.9), (50.0, 0.0), (1e9, 1.0)])
def test_explanations_end_by_their_budget(budget_ms: float | None, share: float) -> None:
    engine = Engine([PREDICTED, *[done(name) for name in NAMES]])
    request = asked(budget_ms=budget_ms)
    arrived_s = time.monotonic()
    asyncio.run(run_attached(request, arrived_s, engine.run, engine.cost_ms))
    expected_s = arrived_s + share * (request.spec.deadline_s - arrived_s)
    expected_s = arrived_s + 0.05 if budget_ms == 50.0 else expected_s
    assert engine.specs[0].deadline_s == pytest.approx(expected_s, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "attention_rollout"])
def test_the_first_row_of_every_method_is_the_image_itself(name: str) -> None:
    model = harness.model("efficientnet_lite0")
    made = default_method(METHODS[name], model)
    assert not isinstance(made, str)
    image = harness.photo_input("cat", "efficientnet_lite0").float()
    running = made.program(model, image, TopTarget())
    wanted = next(running)
    while isinstance(wanted, Chore):
        wanted = running.send(wanted.do(image))
    assert isinstance(wanted, Rows)
    assert torch.equal(wanted.images[0], image)
    assert wanted.target == TopTarget()


def program(parts: Any, top: int | None = None) -> Iterator[Any]:
    model = harness.model("efficientnet_lite0")
    image = harness.photo_input("cat", "efficientnet_lite0").float()
    return Attached(parts, top).program(model, image, TopTarget())


def test_the_prediction_rides_in_the_first_row_and_the_others_explain_its_class() -> None:
    parts = [(one.method, one.target) for one in asked(("grad_cam", "occlusion")).attached]
    first = next(program(parts))
    assert first.want == Want.ACTIVATION | Want.LAYER_GRADIENT | Want.LOGITS
    known = next(program(parts[1:], top=7))
    assert known.target == ClassTarget(7)
    assert known.want == Want.SCORE


def test_what_fits_by_itself_but_not_beside_other_images_is_given_up() -> None:
    error = DeadlineTooShort("the request's images need more")
    prediction, outcomes = Engine([error]).outcomes(asked())
    assert prediction.result == "predicted alone"
    assert outcomes == [error] * 3
