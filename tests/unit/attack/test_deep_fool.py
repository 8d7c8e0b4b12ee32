"""What is left of DeepFool's perturbation at 8 bits."""

import time

import numpy as np
import torch
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.methods.attack.attack import Attacked
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.registry import Registry
from torch import Tensor, nn

from tests.harness import running, tiny_model


class Reds(nn.Module):
    """Two classes: by whether the reds of the four pixels are above 401 together."""

    def forward(self, x: Tensor) -> Tensor:
        reds = ((x[:, 0] * 0.229 + 0.485) * 255).sum((1, 2))
        return torch.stack([0 * reds, (reds - 401) / 50], 1)


def test_it_is_made_as_large_as_it_must_be() -> None:
    """A quarter of a level more in each red crosses the border, and is rounded away: twice that
    is not."""
    photo = np.full((2, 2, 3), 100, np.uint8)
    tensor = data_pb2.Tensor(data_type=1, shape=photo.shape, data=photo.tobytes())
    request = optimize_pb2.OptimizeSpec(
        attack=attack_pb2.Attack(deep_fool=attack_pb2.DeepFool()),
        image=data_pb2.Image(tensor=tensor),
    )
    asked = wire.read_optimize(
        request,
        wire.Call("", time.monotonic() + 60),
        Registry([tiny_model(Reds())]),
        wire.Limits(10**6, (1,), 10**6, Buckets(4), b"0123456789abcdef"),
    )
    with running() as runner:
        made = runner.engine.submit(asked.spec).future.result(60).result
    assert isinstance(made, Attacked)
    [unrounded], [pixels] = made.unrounded, made.pixels
    assert torch.allclose(unrounded[0], torch.tensor(100.255), atol=1e-3)
    assert torch.equal(unrounded.round(), made.base.pixels)
    assert pixels[0].unique().tolist() == [101]
    assert pixels[1:].unique().tolist() == [100]
    assert made.succeeded(made.logits) == [True]
