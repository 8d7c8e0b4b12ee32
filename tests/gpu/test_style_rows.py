"""Stylized images on a CUDA device: a row's bits are its own. Skipped where there is none."""

import io
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import data_pb2, stylize_pb2
from pellucid_server import wire
from pellucid_server.engine.device import TorchDevice
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.registry import Registry, load_model
from pellucid_server.models.styles.library import Library, style_loads
from PIL import Image

from tests.harness import PHOTOS, Runner, photo, running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CUDA = torch.device("cuda")
LIMITS = wire.Limits(10**6, (1, 8), 10**6, Buckets(8), b"0123456789abcdef")


def image(name: str) -> data_pb2.Image:
    """96 × 64 px."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo(name)[..., :3])).resize((96, 64)).save(data, "PNG")
    return data_pb2.Image(encoded=data.getvalue())


def call() -> wire.Call:
    return wire.Call("", time.monotonic() + 300)


def together_and_alone(runner: Runner, specs: list[Any]) -> tuple[list[Any], list[Any]]:
    with runner.held():
        jobs = [runner.engine.submit(spec) for spec in specs]
        runner.submitted += jobs
    wait([job.future for job in jobs], timeout=300)
    alone = [runner.engine.submit(spec).future.result(300) for spec in specs]
    return [job.future.result() for job in jobs], alone


def test_fast_style(styles: Path) -> None:
    library = Library([load() for load in style_loads(styles, device=CUDA)])
    specs = []
    for k in range(8):
        request = stylize_pb2.StylizeSpec(content=image(PHOTOS[k % 4]), fast={"side_px": 96})
        request.fast.styles.add(name=str(3 * k))
        request.fast.bucket_size = 8
        specs.append(wire.read_fast(request, call(), library, LIMITS).spec)
    with running(TorchDevice(CUDA), buckets=(1, 8)) as runner:
        together, alone = together_and_alone(runner, specs)
    assert {ride.row_count for done in together for ride in done.rides} == {8}
    assert {ride.row_count for done in alone for ride in done.rides} == {1}
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.result.picture, other.result.picture)


@pytest.mark.parametrize("update", [stylize_pb2.STYLE_UPDATE_ADAM, stylize_pb2.STYLE_UPDATE_LBFGS])
def test_optimized_style(update: Any) -> None:
    registry = Registry([load_model("efficientnet_lite0", device=CUDA, side_px=96)])
    specs = []
    for k in range(8):
        request = stylize_pb2.StylizeSpec(content=image(PHOTOS[k % 4]), neural={"side_px": 96})
        request.styles.add(image=image(PHOTOS[(k + 1 + k // 4) % 4]))
        request.neural.step_count, request.neural.update = 4 + k % 3, update
        request.neural.normalization = 1 + k % 2
        specs.append(wire.read_stylize(request, call(), registry, LIMITS).spec)
    with running(TorchDevice(CUDA)) as runner:
        together, alone = together_and_alone(runner, specs)
    assert max(ride.row_count for done in together for ride in done.rides) > 1
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.result.picture, other.result.picture)
        assert one.result.end.progress == other.result.end.progress
