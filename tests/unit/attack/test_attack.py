"""Attacks as they are asked for: what is refused, what comes of them, and how they go on."""

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import attack_pb2, checkpoint_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.checkpoints import halved, restored
from pellucid_server.engine.rows import ClassTarget, MarginTarget, SumTarget
from pellucid_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PellucidError,
    Unavailable,
)
from pellucid_server.inputs import ArrayPhoto
from pellucid_server.methods.attack.algorithm import Budget, Shows
from pellucid_server.methods.attack.carlini_wagner_stepper import CarliniWagnerStepper, Search
from pellucid_server.methods.attack.gradient import within
from pellucid_server.methods.optimize.optimize import Buckets, Optimize, stepper_of
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import Preview, Progress, Start
from pellucid_server.methods.predict import Predict
from pellucid_server.models.registry import Model, Registry
from torch import Tensor, nn

from tests.harness import Runner, model, photo, running, tiny_model

KEY = b"0123456789abcdef"
NAME = "efficientnet_lite0"
SOURCE, GOAL = 285, 1
NAN = float("nan")


def image_of(array: np.ndarray) -> data_pb2.Image:
    number = data_pb2.DATA_TYPE_UINT8 if array.dtype == np.uint8 else data_pb2.DATA_TYPE_FLOAT32
    tensor = data_pb2.Tensor(data_type=number, shape=array.shape, data=array.tobytes())
    return data_pb2.Image(tensor=tensor)


def request(image: np.ndarray | None = None, **fields: Any) -> optimize_pb2.OptimizeSpec:
    array = photo("cat") if image is None else image
    return optimize_pb2.OptimizeSpec(attack=attack_pb2.Attack(**fields), image=image_of(array))


def pgd(**parameters: Any) -> dict[str, Any]:
    return {"pgd": attack_pb2.Pgd(**{"step_count": 4} | parameters)}


def carlini(**parameters: Any) -> dict[str, Any]:
    given = {"step_count": 5, "search_count": 3, "initial_weight": 0.1} | parameters
    return {"carlini_wagner": attack_pb2.CarliniWagner(**given)}


def read(asked: optimize_pb2.OptimizeSpec, on: Model | None = None) -> wire.AskedOptimize:
    return wire.read_optimize(
        asked,
        wire.Call("", time.monotonic() + 120),
        Registry([on or model(NAME)]),
        wire.Limits(10**6, (1,), 10**6, Buckets(4), KEY),
    )


def run(runner: Runner, asked: wire.AskedOptimize) -> tuple[Any, list[Any]]:
    """What comes of it, and what was shown on the way."""
    shown: list[Any] = []
    job = runner.engine.submit(asked.spec, outlet=lambda done: shown.append(done.result))
    return job.future.result(120), shown


# What is refused.


def refusal(
    asked: optimize_pb2.OptimizeSpec, kind: type[PellucidError] = InvalidArgument, **options: Any
) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        read(asked, **options)
    return {v.field: v.description for v in caught.value.violations}


LEAST = ": at 8 bits nothing less is a change"


@pytest.mark.parametrize("norm", [attack_pb2.NORM_LINF, attack_pb2.NORM_L2])
@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd"])
def test_budgets_that_no_change_at_8_bits_fits_into(name: str, norm: attack_pb2.Norm) -> None:
    """The smallest is of one number by one: of 1 by either norm."""
    message = {"fgsm": attack_pb2.Fgsm, "bim": attack_pb2.Bim, "pgd": attack_pb2.Pgd}[name]
    most = "255" if norm == attack_pb2.NORM_LINF else "1e+06"
    for epsilon in (0.0, 1e-9, 0.999):
        found = refusal(request(**{name: message(epsilon=epsilon, norm=norm)}))
        said = f"is {epsilon}; must be 1 to {most}{LEAST}"
        assert found.pop(f"attack.{name}.epsilon") == said
        assert not found
    read(request(**{name: message(epsilon=1.0, norm=norm)}))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (pgd(epsilon=256), {"attack.pgd.epsilon": f"is 256.0; must be 1 to 255{LEAST}"}),
        (pgd(epsilon=NAN), {"attack.pgd.epsilon": f"is nan; must be 1 to 255{LEAST}"}),
        (
            pgd(epsilon=-1, norm=attack_pb2.NORM_L2),
            {"attack.pgd.epsilon": f"is -1.0; must be 1 to 1e+06{LEAST}"},
        ),
        (
            pgd(epsilon=2, step_size=3),
            {"attack.pgd.step_size": "is 3.0; must be more than 0, at most 2"},
        ),
        (
            pgd(norm=9, restart_count=65, step_count=0, seed=-1),
            {
                "attack.pgd.norm": "is 9; must be NORM_LINF or NORM_L2",
                "attack.pgd.restart_count": "is 65; must be 1 to 64",
                "attack.pgd.step_count": "is 0; must be 1 to 10000",
                "attack.pgd.seed": None,
            },
        ),
        (
            {"fgsm": attack_pb2.Fgsm(), "class_index": 1000, "goal_class_index": -1},
            {
                "attack.class_index": "is 1000; must be 0 to 999",
                "attack.goal_class_index": "is -1; must be 0 to 999",
            },
        ),
        (
            {"bim": attack_pb2.Bim(), "class_index": 3, "goal_class_index": 3},
            {"attack.goal_class_index": "is class 3, which is the source"},
        ),
        (
            {"deep_fool": attack_pb2.DeepFool(), "goal_class_index": 3},
            {"attack.goal_class_index": None},
        ),
        (
            carlini(confidence=NAN, search_count=21),
            {
                "attack.carlini_wagner.confidence": "is nan; must be 0 to 100",
                "attack.carlini_wagner.search_count": "is 21; must be 1 to 20",
            },
        ),
        (
            {**pgd(), "progress_every": 0, "checkpoint_every": -1},
            {
                "attack.progress_every": "is 0; must be 1 to 10000",
                "attack.checkpoint_every": "is -1; must be 0 to 10000",
            },
        ),
        ({"class_index": 3}, {"attack.method": None}),
    ],
)
def test_parameters_that_are_wrong(fields: dict[str, Any], found: dict[str, str | None]) -> None:
    made = refusal(request(**fields))
    assert made.keys() == found.keys()
    for name, words in found.items():
        assert words is None or made[name] == words


def test_labels_that_do_not_exist() -> None:
    found = refusal(request(**pgd(), goal_label="no such fish"), NotFound)
    assert found.keys() == {"attack.goal_label"}


def test_photos_that_cannot_be_attacked() -> None:
    missing = request(**pgd())
    missing.ClearField("image")
    assert refusal(missing) == {"image": "required: the photo that is attacked"}
    prepared = request(np.zeros((3, 96, 96), np.float32), **pgd())
    assert "already preprocessed" in refusal(prepared)["image.tensor"]


def test_fields_of_other_methods() -> None:
    asked = request(**pgd())
    asked.guide.CopyFrom(asked.image)
    asked.photos.add().CopyFrom(asked.image)
    asked.format = data_pb2.IMAGE_FORMAT_JPEG
    assert refusal(asked).keys() == {"guide", "photos", "format"}
    ascend = optimize_pb2.OptimizeSpec(
        ascend=optimize_pb2.Ascend(
            objectives=[optimize_pb2.Objective(class_index=1)], max_linf=3, max_l2=2
        ),
    )
    assert refusal(ascend) == {
        "ascend.max_linf": "is for START_PHOTO",
        "ascend.max_l2": "is for START_PHOTO",
    }


class OneClass(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True)


def test_models_that_cannot_be_attacked() -> None:
    found = refusal(request(**pgd()), FailedPrecondition, on=tiny_model(OneClass()))
    assert "has one class" in found["model"]


def test_a_goal_that_the_photo_has_already() -> None:
    with running() as runner, pytest.raises(InvalidArgument) as caught:
        run(runner, read(request(**pgd(), goal_class_index=SOURCE)))
    [violation] = caught.value.violations
    assert violation.field == "attack.goal_class_index"
    assert "is taken for already" in violation.description
    label = model(NAME).labels[SOURCE]
    with running() as runner, pytest.raises(InvalidArgument) as caught:
        run(runner, read(request(**pgd(), goal_label=label)))
    assert [violation.field for violation in caught.value.violations] == ["attack.goal_label"]


# What comes of them.


def test_restarts_their_events_and_their_result() -> None:
    asked = read(
        request(
            **pgd(restart_count=2, seed=5, epsilon=3),
            goal_class_index=GOAL,
            progress_every=2,
            preview_every=2,
        )
    )
    asked.request.include_pixels = True
    with running() as runner:
        done, shown = run(runner, asked)
        alone, _ = run(runner, read(request(**pgd(seed=6, epsilon=3), goal_class_index=GOAL)))
    assert torch.equal(done.result.unrounded[1], alone.result.unrounded[0])
    for restart in (0, 1):
        progress = [s for s in shown if isinstance(s, Progress) and s.restart == restart]
        assert [one.step for one in progress] == [2, 4]
        previews = [s for s in shown if isinstance(s, Preview) and s.restart == restart]
        assert [one.step for one in previews] == [2, 4]
    result = wire.write_optimize(asked, done).result
    assert not result.HasField("ascend")
    assert [image.seed for image in result.images] == [5, 6]
    assert result.attack.attack.class_index == SOURCE
    assert result.attack.attack.goal_class_index == GOAL
    assert result.attack.attack.pgd.step_size == pytest.approx(0.1)
    assert result.attack.label == "Egyptian cat"
    assert result.attack.goal_label == "goldfish"
    base = done.result.base.pixels.double()
    for place, image in enumerate(result.images):
        change = done.result.pixels[place].double() - base
        assert image.adversarial.linf == change.abs().max() <= 3
        assert image.adversarial.l2 == pytest.approx(float(change.square().sum().sqrt()))
        unrounded = np.frombuffer(image.pixels.data, np.float32).reshape(3, 96, 96)
        assert np.allclose(unrounded * 255, done.result.unrounded[place], atol=1e-4)
        assert image.progress.step == image.progress.step_count == 4
        assert image.adversarial.HasField("goal_probability")
    scores = [image.progress.score for image in result.images]
    assert result.spread.largest == max(scores)


def test_what_is_told_is_what_a_prediction_says() -> None:
    with running() as runner:
        done, _ = run(runner, read(request(fgsm=attack_pb2.Fgsm())))
        pixels = done.result.pixels[0].permute(1, 2, 0).numpy()
        spec = replace(
            read(request(**pgd())).spec, method=Predict(1, True), source=ArrayPhoto(pixels, None)
        )
        logits = runner.engine.submit(spec).future.result(60).result.logits
    assert torch.equal(logits, done.result.logits[0])


def test_the_smallest_change_survives_eight_bits() -> None:
    """Rounded as it is, it would be gone: most of it is below half a grey level."""
    with running() as runner:
        small = carlini(step_count=20, search_count=5, initial_weight=0.01)
        done, _ = run(runner, read(request(**small)))
        made = done.result
        nearest = made.unrounded[0].round().permute(1, 2, 0).byte().numpy()
        spec = replace(
            read(request(**pgd())).spec, method=Predict(1, True), source=ArrayPhoto(nearest, None)
        )
        logits = runner.engine.submit(spec).future.result(60).result.logits
    assert made.succeeded(made.unrounded_logits) == [True]
    assert made.succeeded(made.logits) == [True]
    assert made.succeeded(logits[None]) == [False]
    assert float((made.pixels.double() - made.base.pixels.double()).norm()) < 300


def test_random_starts_fill_the_budget() -> None:
    """L-infinity: every value alike. L2: the radius to the dimension-th power is uniform."""
    change = within(Budget("linf", 4.0), 3, (3, 50, 50))
    assert -4 <= change.min() < -3.99
    assert 3.99 < change.max() <= 4
    assert abs(change.mean()) < 0.1
    assert change.std() == pytest.approx(8 / 12**0.5, rel=0.02)
    shape, radii = (3, 1, 1), []
    for seed in range(400):
        change = within(Budget("l2", 2.0), seed, shape)
        radii.append(float(change.norm()))
    powers = np.sort((np.array(radii) / 2) ** 3)
    assert powers.max() <= 1
    assert np.abs(powers - np.linspace(0, 1, 400)).max() < 0.08  # Kolmogorov and Smirnov, at 1%
    assert not torch.equal(within(Budget("l2", 2.0), 1, shape), within(Budget("l2", 2.0), 2, shape))


def test_an_ascent_stays_near_its_photo() -> None:
    """The budget of an attack, for any objective, at any size."""
    ascend = optimize_pb2.Ascend(
        objectives=[optimize_pb2.Objective(class_index=GOAL)],
        preset=optimize_pb2.PRESET_MORDVINTSEV,
        octave_count=1,
        jitter_px=0,
        step_count=3,
        update=optimize_pb2.UPDATE_RULE_SIGN,
        learning_rate=4,
        max_linf=5,
    )
    near = optimize_pb2.OptimizeSpec(ascend=ascend, image=image_of(photo("cat")))
    free = optimize_pb2.OptimizeSpec()
    free.CopyFrom(near)
    free.ascend.ClearField("max_linf")
    with running() as runner:
        bounded, _ = run(runner, read(near))
        unbounded, _ = run(runner, read(free))
        start, _ = run(runner, read(request(**pgd())))
    photo_there = start.result.base.pixels / 255
    assert float((bounded.result.pictures[0] - photo_there).abs().max() * 255) < 5.001
    assert float((unbounded.result.pictures[0] - photo_there).abs().max() * 255) > 7
    assert bounded.result.ends[0].progress.score > 0


def test_the_anchor_takes_no_memory_where_nothing_needs_it() -> None:
    ascend = optimize_pb2.Ascend(objectives=[optimize_pb2.Objective(class_index=GOAL)])
    plain, bounded = (
        read(one).spec.method
        for one in (optimize_pb2.OptimizeSpec(ascend=ascend), request(**pgd()))
    )
    assert isinstance(plain, Optimize)
    assert bounded.byte_count(model(NAME)) > plain.byte_count(model(NAME))
    target = SumTarget(((ClassTarget(GOAL), 1.0),))
    stepper = stepper_of(model(NAME), (96, 96), 4)
    start = Start(plain.ascent, target, None, 0, 0, last=True)
    stepper.join(start)
    assert "anchor" not in stepper._stacked
    near = replace(plain.ascent, parameterization="pixels", max_l2=3.0)
    stepper.join(replace(start, ascent=near, anchor=torch.ones(3, 96, 96)))
    assert stepper._stacked["anchor"].count_nonzero(1).tolist() == [0, 3 * 96 * 96, 0, 0]


# How they go on.


@pytest.mark.parametrize(
    "fields",
    [
        pgd(restart_count=2, step_count=6),
        pgd(norm=attack_pb2.NORM_L2, step_count=6),
        carlini(step_count=12),
    ],
    ids=["pgd", "pgd by l2", "carlini_wagner"],
)
def test_going_on_from_any_checkpoint_ends_in_the_same_bits(fields: dict[str, Any]) -> None:
    asked = read(request(**fields, checkpoint_every=2))
    with running() as runner:
        whole, shown = run(runner, asked)
        collector, checkpoints = wire.Collector(asked.image_count), []
        for snapshot in (one for one in shown if isinstance(one, Snapshot)):
            if (complete := collector.add(snapshot)) is not None:
                parts = wire.write_checkpoint(asked.spec, asked.settings, complete, KEY)
                checkpoints.append(b"".join(part.chunk for part in parts))
        assert len(checkpoints) >= 2
        for checkpoint in checkpoints:
            again = request(**fields)
            again.checkpoint = checkpoint
            resumed = read(again)
            assert resumed.notes == ()
            rest, _ = run(runner, resumed)
            assert torch.equal(rest.result.unrounded, whole.result.unrounded)
            assert torch.equal(rest.result.pixels, whole.result.pixels)
            assert [end.progress for end in rest.result.ends] == [
                end.progress for end in whole.result.ends
            ]
        other = request(**fields, goal_class_index=GOAL)
        other.checkpoint = checkpoints[0]
        assert "is of another attack" in refusal(other)["checkpoint"]


def test_a_server_that_stops_hands_an_attack_over() -> None:
    fields = carlini(step_count=30, search_count=2)
    asked, snapshots, started = read(request(**fields, checkpoint_every=10_000)), [], []
    with running() as runner:
        whole, _ = run(runner, read(request(**fields)))

        def keep(done: Any) -> None:
            if isinstance(done.result, Snapshot):
                snapshots.append(done.result)
            elif not started:
                started.append(done)
                runner.engine.hand_over()

        with pytest.raises(Unavailable):
            runner.engine.submit(asked.spec, outlet=keep).future.result(60)
    again = request(**fields)
    parts = wire.write_checkpoint(asked.spec, asked.settings, snapshots, KEY)
    again.checkpoint = b"".join(part.chunk for part in parts)
    with running() as runner:
        rest, _ = run(runner, read(again))
    assert torch.equal(rest.result.unrounded, whole.result.unrounded)


@pytest.mark.parametrize(
    "fields",
    [pgd(restart_count=2, step_count=3), carlini(step_count=12)],
    ids=["pgd", "carlini_wagner"],
)
def test_half_the_size_goes_on_close_by_and_says_so(fields: dict[str, Any]) -> None:
    """From the last one; the budget holds to the last digit all the same."""
    half = {"checkpoint_precision": checkpoint_pb2.CHECKPOINT_PRECISION_HALF}
    sizes = []
    with running() as runner:
        for form in ({}, half):
            asked = read(request(**fields, checkpoint_every=2, **form))
            assert asked.settings.checkpoint_precision == (2 if form else 1)
            whole, shown = run(runner, asked)
            collector = wire.Collector(asked.image_count)
            snapshots = [one for one in shown if isinstance(one, Snapshot)]
            *_, last = [done for one in snapshots if (done := collector.add(one)) is not None]
            parts = wire.write_checkpoint(asked.spec, asked.settings, last, KEY)
            checkpoint = b"".join(part.chunk for part in parts)
            sizes.append(len(checkpoint))
        again = request(**fields)
        again.checkpoint = checkpoint
        resumed = read(again)
        assert resumed.notes == ("bits differ: the checkpoint is of half precision",)
        rest, _ = run(runner, resumed)
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)
    base = whole.result.base.pixels.double().cpu()
    apart = float((rest.result.unrounded - whole.result.unrounded).double().norm())
    changed = float((whole.result.unrounded.double().cpu() - base).norm())
    assert 0 < apart < 0.05 * changed  # where a pixel's sign may turn
    for one in (whole.result, rest.result):
        assert all(one.succeeded(one.unrounded_logits))
    if "pgd" in fields:
        assert 0 < float((rest.result.pixels.double() - base).abs().max()) <= 8


def test_the_best_image_of_a_half_is_as_far_as_it_is_now() -> None:
    """Not as it was: what is nearer than it is better."""
    generator = torch.Generator().manual_seed(0)
    photo, change = torch.rand(2, 3, 4, 4, generator=generator)
    photo, best = 200 + 50 * photo, 200 + 50 * photo + change
    made = restored(*halved((best / 127.5 - 1).flatten()), torch.float32)
    before = float((best - photo).norm() / 255)
    zero = torch.zeros(48)
    tensors = {"parameters": zero, "first": zero, "second": zero, "best": made}
    numbers = dict.fromkeys(("weight", "lower", "upper", "succeeded", "checked_loss"), 1.0)
    state = Snapshot(0, 0, 1, 1, tensors, {**numbers, "best_norm": before})
    search = Search(
        MarginTarget(1, True, 0.0), photo, 0.01, 9, Shows(), 0, 1.0, 0.0, math.inf, None, 0.0, state
    )
    single = (torch.float32, torch.float32, torch.device("cpu"))
    stepper = CarliniWagnerStepper((4, 4), [0.5] * 3, [0.2] * 3, 2, *single)
    found = stepper.stop(stepper.join(search)).end
    now = float((found.pixels.double() - photo.double()).norm() / 255)
    assert abs(now - before) > 1e-3 * before
    assert found.norm == pytest.approx(now, rel=5e-4)  # a photo in w is off by its edge


def test_more_starts_than_memory_holds() -> None:
    """What is said to fit does, and one more does not."""
    fields = {"checkpoint_every": 1, "linear_layers": ["blocks.1.1"]}

    def asked(restart_count: int, most_bytes: int = 10**9, **changed: Any) -> wire.AskedOptimize:
        parameters = pgd(restart_count=restart_count)
        return wire.read_optimize(
            request(**parameters, **fields | changed),
            wire.Call("", time.monotonic() + 300),
            Registry([model(NAME)]),
            wire.Limits(10**6, (1,), 10**6, Buckets(4), KEY, most_bytes),
        )

    def told(restart_count: int, most_bytes: int, **changed: Any) -> dict[str, str]:
        with pytest.raises(InvalidArgument) as caught:
            asked(restart_count, most_bytes, **changed)
        return {v.field: v.description for v in caught.value.violations}

    three, four = asked(3).byte_count, asked(4).byte_count
    needs = f"makes it hold {four} bytes; must be at most {four - 1}: 3 starts"
    assert told(4, four - 1) == {"attack.checkpoint_every": f"{needs} or no checkpoints would fit"}
    assert asked(4, four - 1, checkpoint_every=0)
    assert asked(3, three)
    assert "2 starts" in told(4, three - 1)["attack.checkpoint_every"]
    least = asked(1, checkpoint_every=0).byte_count
    assert told(2, least, checkpoint_every=0)["attack.pgd.restart_count"].endswith(
        ": 1 starts would fit"
    )
    assert told(2, 1000)["attack"].endswith(": ask for fewer layers or photos")


def test_a_precision_is_of_checkpoints() -> None:
    asked = request(**pgd(), checkpoint_precision=checkpoint_pb2.CHECKPOINT_PRECISION_HALF)
    assert refusal(asked) == {"attack.checkpoint_precision": "needs checkpoint_every"}
