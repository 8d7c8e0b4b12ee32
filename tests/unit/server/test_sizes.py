"""Which sizes a network takes, told by shapes alone; and what a stream keeps for slow readers."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pellucid.v1 import optimize_pb2
from pellucid_server import wire
from pellucid_server.api.jobs import Newest
from pellucid_server.engine.job import Done
from pellucid_server.errors import FailedPrecondition
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.registry import Registry
from pellucid_server.models.sizes import UnfitSize
from torch import Tensor, nn

from tests.harness import tiny_model


class Pooling(nn.Module):
    """Halves its maps twice: of fewer than 4 pixels nothing is left."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.pool = nn.MaxPool2d(2)
        self.dense = nn.Linear(2, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.pool(self.pool(self.conv(images))).mean((2, 3)))


class Dense(nn.Module):
    """Takes one size."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3 * 32 * 32, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(images.flatten(1))


def models() -> Registry:
    torch.manual_seed(0)
    return Registry([tiny_model(Pooling(), 32), tiny_model(Dense(), 32)])


def test_shapes_at_other_sizes() -> None:
    network = models()["Pooling"].network
    assert dict(network.shapes_at(32, 32))["pool"] == (2, 16, 16)
    assert dict(network.shapes_at(20, 9)) == {
        "conv": (2, 20, 9),
        "pool": (2, 10, 4),
        "pool#1": (2, 5, 2),
        "dense": (4,),
    }
    for size in ((3, 32), (32, 3)):
        with pytest.raises(UnfitSize):
            network.shapes_at(*size)
    with pytest.raises(UnfitSize):
        models()["Dense"].network.shapes_at(32, 33)
    assert network.shapes_at(32, 32)


@pytest.mark.parametrize(("name", "size"), [("Dense", (32, 40)), ("Dense", (16, 16))])
def test_a_size_that_a_network_does_not_take_is_refused(name: str, size: tuple[int, int]) -> None:
    ascend = optimize_pb2.Ascend(
        objectives=[optimize_pb2.Objective(class_index=1)], height_px=size[0], width_px=size[1]
    )
    with pytest.raises(FailedPrecondition, match="Dense does not run on an image of") as caught:
        wire.read_optimize(
            optimize_pb2.OptimizeSpec(model=name, ascend=ascend),
            wire.Call("", time.monotonic() + 60),
            models(),
            wire.Limits(10**6, (1,), 10**6, Buckets(4), b""),
        )
    assert "takes no other size than 32 × 32" in caught.value.message


def test_of_what_is_shown_the_newest_of_each_kind_is_kept() -> None:
    def done(kind: str, number: int) -> Done:
        return cast(Done, SimpleNamespace(kind=kind, number=number))

    async def take() -> list[tuple[str, int]]:
        newest = Newest(lambda one: cast(Any, one).kind)
        for kind, number in (("a", 1), ("b", 2), ("a", 3), ("a", 4), ("c", 5), ("b", 6)):
            newest.put(done(kind, number))
        taken = [cast(Any, await newest.get()) for _ in range(3)]
        newest.put(done("a", 7))
        newest.end()
        assert await newest.get() is None
        return [(one.kind, one.number) for one in taken]

    assert asyncio.run(take()) == [("a", 4), ("c", 5), ("b", 6)]
