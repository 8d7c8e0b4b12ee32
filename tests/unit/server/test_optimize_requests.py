"""Optimizations that cannot be: what is said of each, before anything is run."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pellucid import render
from pellucid.v1 import checkpoint_pb2, inference_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.engine.rows import ClassTarget, CodeTarget, EnergyTarget, NeuronTarget
from pellucid_server.errors import FailedPrecondition, InvalidArgument, NotFound, PellucidError
from pellucid_server.methods.optimize.optimize import Buckets, FromPhoto, Optimize
from pellucid_server.models.registry import Registry
from PIL import Image
from torch import Tensor, nn

from tests.harness import model, running, tiny_model

NAME = "efficientnet_lite0"
LIMITS = wire.Limits(10**6, (1,), 10**6, Buckets(4), b"")

Objective = optimize_pb2.Objective


class Pooling(nn.Module):
    """Halves its maps five times: of fewer than 32 pixels nothing is left."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.pool = nn.MaxPool2d(2)
        self.dense = nn.Linear(2, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        for _ in range(5):
            maps = self.pool(maps)
        return self.dense(maps.mean((2, 3)))


class Skipping(nn.Module):
    """Leaves out a border of ten pixels: of an image of twenty nothing is left."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.dense = nn.ZeroPad2d(-10), nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.cut(images).mean((2, 3)))


def read(
    *objectives: optimize_pb2.Objective, on: Any = None, limits: wire.Limits = LIMITS, **given: Any
) -> wire.AskedOptimize:
    pixels = given.pop("include_pixels", False)
    ascend = optimize_pb2.Ascend(objectives=objectives, **given)
    call = wire.Call("", time.monotonic() + 60)
    request = optimize_pb2.OptimizeSpec(ascend=ascend, include_pixels=pixels)
    return wire.read_optimize(request, call, Registry([on or model(NAME)]), limits)


def refused(
    kind: type[PellucidError], *objectives: optimize_pb2.Objective, **given: Any
) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        read(*objectives, **given)
    return {one.field: one.description for one in caught.value.violations}


def diversity(layer: str) -> optimize_pb2.Objective:
    return Objective(diversity=optimize_pb2.Diversity(layer=layer))


def test_diversity_is_of_several_images_and_of_maps() -> None:
    field = "ascend.objectives[1].diversity"
    one = Objective(class_index=1)
    assert refused(InvalidArgument, one, diversity("blocks.1.1")) == {
        field: "is of several images: needs ascend.restart_count of 2 or more"
    }
    asked = read(one, diversity("blocks.1.1"), restart_count=2)
    assert asked.request.ascend.objectives[1].diversity.layer == "blocks.1.1"
    several = {"restart_count": 2}
    assert refused(FailedPrecondition, one, diversity("classifier"), **several) == {
        f"{field}.layer": "classifier has no maps: its output is 1000"
    }
    assert refused(InvalidArgument, one, diversity("conv_head"), **several) == {
        f"{field}.layer": "conv_head has 1280 channels; must have at most 512"
    }
    assert set(refused(NotFound, one, diversity("blocks.9"), **several)) == {f"{field}.layer"}


def test_layers_and_channels_that_are_not_there() -> None:
    layer = inference_pb2.Neuron(layer="blocks.1.9")
    found = refused(NotFound, Objective(neuron=layer))
    assert "blocks.1.1" in found["ascend.objectives[0].neuron.layer"]
    channel = inference_pb2.Neuron(layer="blocks.1.1", channel=24)
    assert refused(InvalidArgument, Objective(neuron=channel)) == {
        "ascend.objectives[0].neuron.channel": "is 24; must be 0 to 23"
    }


def test_a_size_that_leaves_a_layer_empty_names_it() -> None:
    torch.manual_seed(0)
    energy = optimize_pb2.Energy(layer="conv")
    found = refused(
        FailedPrecondition,
        Objective(energy=energy),
        on=tiny_model(Pooling(), 64),
        height_px=16,
        width_px=40,
    )
    assert found == {
        "ascend.height_px": "Pooling does not run on an image of 16 × 40: it gets no further than "
        "pool#3, whose output is 2 × 1 × 2: the next layer would be empty, or it takes no other "
        "size than 64 × 64"
    }
    found = refused(
        FailedPrecondition,
        Objective(energy=optimize_pb2.Energy(layer="cut")),
        on=tiny_model(Skipping(), 64),
        height_px=40,
        width_px=20,
    )
    assert "no further than cut, whose output is 3 × 20 × 0" in found["ascend.height_px"]


def test_more_images_than_memory_holds() -> None:
    """At 32 × 32: eight tensors of a spectrum's 3 · 32 · 17 · 2 numbers of four bytes."""
    each, tiny = 8 * 3 * 32 * 17 * 2 * 4, tiny_model(Pooling(), 32)
    limits = replace(LIMITS, max_optimize_bytes=3 * each)
    one = Objective(class_index=1)
    method = read(one, on=tiny, limits=limits, restart_count=3).spec.method
    assert isinstance(method, Optimize)
    assert method.byte_count(tiny) == 3 * each
    assert refused(InvalidArgument, one, on=tiny, limits=limits, restart_count=4) == {
        "ascend.restart_count": f"is too much for memory: an image of 32 × 32 takes {each} bytes "
        f"on its way; in the server's {3 * each}, 3 such images fit"
    }
    paced = {"restart_count": 2, "checkpoint_every": 1}  # each with three sets of half its size
    kept = refused(InvalidArgument, one, on=tiny, limits=limits, **paced)
    assert kept == {
        "ascend.checkpoint_every": f"makes it hold {5 * each} bytes; must be at most "
        f"{limits.max_optimize_bytes}: no checkpoints would fit"
    }
    limits = replace(LIMITS, max_optimize_bytes=each // 4)
    assert refused(InvalidArgument, one, on=tiny, limits=limits) == {
        "ascend.height_px": f"is too much for memory: an image of 32 × 32 takes {each} bytes on "
        f"its way; in the server's {each // 4}, one of about 16 × 16 fits"
    }
    # Images that keep apart hold two matrices of channels by channels each, besides.
    apart = read(one, diversity("conv"), on=tiny, restart_count=2).spec.method
    assert isinstance(apart, Optimize)
    of_layer = (2 + 16) * 2 * 32 * 32 * 4
    assert apart.byte_count(tiny) == 2 * (each + 2 * 2 * 2 * 4 + of_layer)


def test_layers_that_goals_are_of_count() -> None:
    """Activation and seed of each of them, what scoring one takes, and the codes of photos."""
    tiny = tiny_model(Pooling(), 32)
    energy, neuron = EnergyTarget("conv"), NeuronTarget("pool", 1)
    codes = [FromPhoto(CodeTarget, "pool", 0)] * 3

    def bytes_of(*goals: Any, restart_count: int = 1) -> int:
        method = read(Objective(class_index=1), on=tiny, restart_count=restart_count).spec.method
        return replace(method, objectives=tuple((goal, 1.0) for goal in goals)).byte_count(tiny)

    none = bytes_of(ClassTarget(1))
    conv, pool = 2 * 32 * 32 * 4, 2 * 16 * 16 * 4
    assert bytes_of(energy) == bytes_of(*[energy] * 16) == none + (2 + 16) * conv
    assert bytes_of(energy, neuron) == none + (2 + 16) * conv + 2 * pool
    assert bytes_of(*codes) == none + (2 + 16) * pool + 3 * pool
    many = 8 * none + 4 * (2 + 16) * conv  # four to a batch
    assert bytes_of(energy, restart_count=8) == many


def test_places_are_in_every_octave() -> None:
    octaves: dict[str, Any] = {
        "height_px": 96,
        "width_px": 128,
        "octave_count": 3,
        "octave_scale": 2.0,
        "parameterization": optimize_pb2.PARAMETERIZATION_PIXELS,
    }
    neuron = inference_pb2.Neuron(layer="blocks.2.0", y=2, x=4)
    assert refused(InvalidArgument, Objective(neuron=neuron), **octaves) == {
        "ascend.objectives[0].neuron.x": "is 4; must be at most 3: in the smallest octave, of "
        "24 × 32, blocks.2.0 is 3 × 4"
    }
    neuron.y, neuron.x = 12, 15
    assert refused(InvalidArgument, Objective(neuron=neuron), **octaves) == {
        "ascend.objectives[0].neuron.y": "is 12; must be 0 to 11"
    }
    vector = [1.0] * 40
    direction = optimize_pb2.Direction(layer="blocks.2.0", vector=vector, y=11, x=15)
    found = refused(InvalidArgument, Objective(direction=direction), **octaves)
    assert "at most 2: in the smallest octave" in found["ascend.objectives[0].direction.y"]
    assert "at most 3: in the smallest octave" in found["ascend.objectives[0].direction.x"]
    neuron.y, neuron.x = 2, 3
    assert read(Objective(neuron=neuron), **octaves)


class Doubling(nn.Module):
    """Adds its maps to themselves, halved and doubled: of odd sides that cannot be."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.dense = nn.MaxPool2d(2), nn.Linear(3, 4)
        self.twice = nn.Upsample(scale_factor=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense((images + self.twice(self.pool(images))).mean((2, 3)))


def test_sizes_of_octaves_are_tried_before_any_step() -> None:
    """The outermost on arrival; one between them by the job, which then ends at once."""
    octaves: dict[str, Any] = {
        "octave_count": 3,
        "octave_scale": 1.5,
        "parameterization": optimize_pb2.PARAMETERIZATION_PIXELS,
        "step_count": 1,
        "progress_every": 1,
    }
    tiny, tried = tiny_model(Doubling(), 64), []
    at = tiny.network.shapes_at

    def noted(*size: int) -> Any:
        tried.append(size)
        return at(*size)

    tiny.network.shapes_at = noted  # type: ignore[method-assign]
    asked = read(Objective(class_index=1), on=tiny, **octaves)
    assert set(tried) == {(28, 28), (64, 64)}
    shown: list[Any] = []
    with running() as runner, pytest.raises(FailedPrecondition) as caught:
        runner.engine.submit(asked.spec, outlet=shown.append).future.result(60)
    [violation] = caught.value.violations
    assert violation.field == "ascend.octave_scale"
    assert violation.description == (
        "Doubling does not run on the octave of 43 × 43: it gets no further than twice"
    )
    assert not shown


def test_results_that_cannot_be_sent_are_refused_before_they_are_made() -> None:
    """64 × 64: 12 bytes of numbers a pixel, exactly; pictures as of noise, which are largest."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    largest = max(
        len(render.encode(Image.fromarray(noise), file_format)) for file_format in ("png", "jpeg")
    )
    one, tiny = Objective(class_index=1), tiny_model(Pooling(), 64)

    def most_sent(**given: Any) -> int:
        """The least cap that a request of this kind is taken with."""
        low, high = 0, 1 << 30
        while high - low > 1:
            cap = (low + high) // 2
            try:
                read(one, on=tiny, limits=replace(LIMITS, max_response_bytes=cap), **given)
                high = cap
            except InvalidArgument as error:
                [violation] = error.violations
                assert violation.field in ("ascend", "include_pixels")
                low = cap
        return high

    pictures = most_sent(restart_count=8)
    assert 8 * largest < pictures < 8 * (largest + 3000)
    assert most_sent(restart_count=8, include_pixels=True) == pictures + 8 * 12 * 64 * 64
    limits = replace(LIMITS, max_response_bytes=pictures - 1)
    assert refused(InvalidArgument, one, on=tiny, limits=limits, restart_count=8) == {
        "ascend": f"8 images of 4096 pixels may take {pictures} bytes; at most {pictures - 1} are "
        "sent: ask for fewer or smaller ones"
    }


def test_the_rate_of_a_preset_is_of_the_images_size() -> None:
    """Mahendran's 0.001, before a gradient times height·width·3·57.4²."""
    given = {"preset": optimize_pb2.PRESET_MAHENDRAN, "height_px": 32, "width_px": 48}
    method = read(Objective(class_index=1), on=tiny_model(Pooling(), 64), **given).spec.method
    assert isinstance(method, Optimize)
    assert method.ascent.learning_rate == pytest.approx(0.001 * 32 * 48 * 3 * 57.4**2)


def test_steps_and_precisions_beyond_what_is_allowed() -> None:
    one, half = Objective(class_index=1), checkpoint_pb2.CHECKPOINT_PRECISION_HALF
    assert refused(InvalidArgument, one, step_count=10_001) == {
        "ascend.step_count": "is 10001; must be 1 to 10000"
    }
    assert refused(InvalidArgument, one, checkpoint_precision=half) == {
        "ascend.checkpoint_precision": "needs checkpoint_every"
    }
