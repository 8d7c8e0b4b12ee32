"""What other models make of an image: their own size, labels, precision and runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pellucid_server.engine.engine import Unobserved
from pellucid_server.engine.job import Priority
from pellucid_server.engine.rows import Lane, Program
from pellucid_server.engine.schedule import Batch
from pellucid_server.methods.attack.algorithm import Base, Scene, Shows
from pellucid_server.methods.attack.transfer import (
    Transferred,
    bucket_of,
    counterpart,
    rows_elsewhere,
    transfers,
)
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.folders import Limits
from pellucid_server.models.onnx.network import BlackBox
from pellucid_server.models.registry import Model, Precision
from PIL import Image
from torch import Tensor

from tests import exports
from tests.harness import ARCHITECTURES, Runner, model, photo, running, spec, untouched

LITE = "efficientnet_lite0"
BUCKETS = Buckets(4)


@dataclass(frozen=True)
class Transfers:
    """A method that does nothing else."""

    models: tuple[Model, ...]
    original: Tensor
    changed: Tensor
    source: int
    goal: int | None = None

    name: ClassVar[str] = "transfers"
    priority: ClassVar[Priority] = Priority.OPTIMIZE

    def row_counts(self, on: Model, target: Any) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def pace(self, on: Model) -> None:
        pass

    def most_ms(self, on: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, on: Model) -> int:
        return 0

    def program(
        self, on: Model, image: Tensor, target: Any
    ) -> Program[list[tuple[Transferred, ...]]]:
        base = Base(self.original.float(), torch.empty(0), self.source, self.goal)
        scene = Scene(on, base, 4, Shows())
        return (yield from transfers(scene, self.models, self.changed, BUCKETS))


def photo_of(name: str) -> Tensor:
    """The photo's corner, uint8 3×96×96."""
    return torch.from_numpy(photo(name)[100:196, 100:196].copy()).permute(2, 0, 1)


def logits_of(name: str, pixels: Tensor, side_px: int) -> Tensor:
    """By hand: Pillow, then the untouched network in float64."""
    steps = ARCHITECTURES[name].preprocessing(side_px)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    resampling = Image.Resampling[steps.interpolation.upper()]
    if side_px != 96:
        picture = picture.resize((side_px, 96), resampling).resize((side_px, side_px), resampling)
    values = torch.from_numpy(np.asarray(picture).copy()).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (steps.mean, steps.std))
    normalized = (values - mean) / std
    with torch.no_grad():
        logits: Tensor = untouched(name, side_px)(normalized.permute(2, 0, 1)[None])[0]
    return logits


def run(runner: Runner, on: Model, method: Transfers) -> list[tuple[Transferred, ...]]:
    made: list[tuple[Transferred, ...]] = runner.run(on, method, torch.zeros(3, 96, 96)).result
    return made


@pytest.fixture(scope="module")
def black_box(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """ResNet-18 as an ONNX file that only ONNX Runtime is taken to run."""
    folder = tmp_path_factory.mktemp("onnx") / "boxed"
    loaded = exports.load(exports.write_network(folder, "resnet18", exports.exported("resnet18")))
    runtime = loaded.network._runtime
    assert runtime is not None
    box = BlackBox(
        runtime,
        "for a test",
        height_px=96,
        width_px=96,
        device=loaded.network.device,
        tf32=False,
    )
    return replace(loaded, name="boxed", network=box)


def test_each_model_sees_the_whole_image_at_its_own_size(runner: Runner, black_box: Model) -> None:
    """Models of other sizes, precisions and runtimes."""
    lite = model(LITE, Precision.FLOAT64)
    larger = replace(model("resnet18", Precision.FLOAT64, 128), name="larger")
    models = (lite, larger, black_box)
    original, changed = photo_of("cat"), torch.stack([photo_of("coffee"), photo_of("rocket")])
    made = run(runner, lite, Transfers(models, original, changed, 285))
    assert [[of.model.name for of in one] for one in made] == [[m.name for m in models]] * 2
    for place, (name, side_px, bound) in enumerate(
        [(LITE, 96, 1e-9), ("resnet18", 128, 1e-9), ("resnet18", 96, 1e-3)]
    ):
        before = logits_of(name, original, side_px)
        for image, of_image in zip(changed, made, strict=True):
            after, found = logits_of(name, image, side_px), of_image[place]
            assert torch.allclose(found.before, before, atol=bound)
            assert torch.allclose(found.after, after, atol=bound)
            assert not torch.allclose(before, after, atol=0.1)
            assert found.source == 285
            assert found.fooled == bool(before.argmax() != after.argmax())


def test_fooled_is_by_the_goal_where_there_is_one(runner: Runner) -> None:
    on, original = model(LITE), photo_of("cat")
    changed = torch.stack([photo_of("coffee"), original])
    first, still = (int(logits_of(LITE, image, 96).argmax()) for image in changed)
    assert first != still
    for goal, expected in ((first, [True, False]), (still, [False, True]), (7, [False, False])):
        made = run(runner, on, Transfers((on,), original, changed, 0, goal))
        assert [one.fooled for [one] in made] == expected
    made = run(runner, on, Transfers((on,), original, changed, 0))
    assert [one.fooled for [one] in made] == [True, False]


def test_classes_correspond_by_label(runner: Runner) -> None:
    def labelled(*labels: str) -> Model:
        return replace(model(LITE), labels=labels)

    ours = labelled("Cat", "dog", "crane", "crane", "sea")
    others = labelled("DOG", "sea", "crane", "crane", "sea")
    assert [counterpart(ours, index, others) for index in range(5)] == [None, 0, 2, 3, 4]
    assert [counterpart(ours, index, ours) for index in range(5)] == [0, 1, 2, 3, 4]
    several = labelled("x", "crane", "y", "z", "crane")
    assert counterpart(ours, 2, several) is None
    # A goal that a model does not know is never reached there.
    on, foreign = model(LITE), replace(model(LITE), name="foreign", labels=("?",) * 1000)
    original = photo_of("cat")
    goal = int(logits_of(LITE, original, 96).argmax())
    [[own, other]] = run(runner, on, Transfers((on, foreign), original, original[None], 7, goal))
    assert (own.source, own.fooled) == (7, True)
    assert (other.source, other.fooled) == (None, False)


class Told(Unobserved):
    """Keeps what each batch was of."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, Lane, int, int]] = []

    def batch(self, batch: Batch, batch_ms: float) -> None:
        key = batch.key
        self.batches.append((key.model.name, key.lane, batch.bucket_size, len(batch.tickets)))


def test_batches_are_of_the_model_that_runs_them() -> None:
    on = model(LITE)
    small = replace(model("resnet18", side_px=64), name="small", limits=Limits(max_bucket_size=2))
    told = Told()
    changed = torch.stack([photo_of("coffee"), photo_of("rocket")])
    method = Transfers((on, small), photo_of("cat"), changed, 285)
    with running(observer=told) as runner:
        run(runner, on, method)
    assert told.batches == [
        (LITE, Lane.FORWARD, 4, 3),
        ("small", Lane.FORWARD, 2, 2),
        ("small", Lane.FORWARD, 2, 1),
    ]
    assert [bucket_of(one, BUCKETS) for one in (on, small)] == [4, 2]
    assert bucket_of(replace(on, limits=Limits(max_bucket_size=9)), BUCKETS) == 4


def test_its_cost_is_that_of_each_model() -> None:
    on, other = model(LITE), replace(model("resnet18"), name="other")
    asked = spec(on, Transfers((), photo_of("cat"), photo_of("cat")[None], 0), "cat", bucket_size=4)
    with running() as runner:
        runner.engine.costs_of(on).record(Lane.FORWARD, 4, 40.0)
        runner.engine.costs_of(other).record(Lane.FORWARD, 4, 500.0)
        assert runner.engine.cost_ms(asked) == pytest.approx(40.0)
        # Five rows, the photo and four images, are two batches of four.
        beside = replace(asked, elsewhere=rows_elsewhere((other,), BUCKETS, 4))
        assert runner.engine.cost_ms(beside) == pytest.approx(40.0 + 2 * 500.0)
        job = runner.engine.submit(beside)
        assert job.queued_ms == pytest.approx(40.0 / 4 + 5 * 500.0 / 4)
        assert job.row_count == 1 + 5
        runner.engine.cancel(job)
