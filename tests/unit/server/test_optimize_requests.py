"""Optimizations that cannot be: what is said of each, before anything is run."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from pellucid.v1 import inference_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.errors import FailedPrecondition, InvalidArgument, NotFound, PellucidError
from pellucid_server.methods.optimize.optimize import Buckets, Optimize
from pellucid_server.models.registry import Registry
from torch import Tensor, nn

from tests.harness import model, tiny_model

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
    ascend = optimize_pb2.Ascend(objectives=objectives, **given)
    call = wire.Call("", time.monotonic() + 60)
    request = optimize_pb2.OptimizeSpec(ascend=ascend)
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
    assert asked.ascend.objectives[1].diversity.layer == "blocks.1.1"
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
    limits = replace(LIMITS, max_optimize_bytes=each // 4)
    assert refused(InvalidArgument, one, on=tiny, limits=limits) == {
        "ascend.height_px": f"is too much for memory: an image of 32 × 32 takes {each} bytes on "
        f"its way; in the server's {each // 4}, one of about 16 × 16 fits"
    }
    # Images that keep apart hold two matrices of channels by channels each, besides.
    apart = read(one, diversity("conv"), on=tiny, restart_count=2).spec.method
    assert isinstance(apart, Optimize)
    assert apart.byte_count(tiny) == 2 * (each + 2 * 2 * 2 * 4)


def test_steps_and_precisions_beyond_what_is_allowed() -> None:
    one, half = Objective(class_index=1), optimize_pb2.CHECKPOINT_PRECISION_HALF
    assert refused(InvalidArgument, one, step_count=10_001) == {
        "ascend.step_count": "is 10001; must be 1 to 10000"
    }
    assert refused(InvalidArgument, one, checkpoint_precision=half) == {
        "ascend.checkpoint_precision": "needs checkpoint_every"
    }
