"""Optimizations on a CUDA device. Skipped where there is none."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import pytest
import torch
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.engine.device import TorchDevice
from pellucid_server.engine.job import Job
from pellucid_server.errors import Unavailable
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import Progress
from pellucid_server.models.registry import Model, Registry, load_model

from tests.harness import Runner, cached, photo, running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

KEY = b"0123456789abcdef"
Asked = wire.AskedOptimize


@cached
def network() -> Model:
    return load_model("efficientnet_lite0", device=torch.device("cuda"), side_px=96)


@pytest.fixture
def gpu() -> Iterator[Runner]:
    with running(TorchDevice(torch.device("cuda"))) as runner:
        yield runner


def read(spec: optimize_pb2.OptimizeSpec) -> Asked:
    limits = wire.Limits(10**6, (1,), 10**6, Buckets(4), KEY)
    return wire.read_optimize(
        spec, wire.Call("", time.monotonic() + 300), Registry([network()]), limits
    )


def image() -> data_pb2.Image:
    cat = photo("cat")
    return data_pb2.Image(
        tensor=data_pb2.Tensor(
            data_type=data_pb2.DATA_TYPE_UINT8, shape=cat.shape, data=cat.tobytes()
        )
    )


def ascend(*objectives: optimize_pb2.Objective, photo: bool = False, **fields: Any) -> Any:
    spec = optimize_pb2.OptimizeSpec(ascend=optimize_pb2.Ascend(objectives=objectives, **fields))
    if photo:
        spec.image.CopyFrom(image())
    return spec


def pgd(**fields: Any) -> optimize_pb2.OptimizeSpec:
    attack = attack_pb2.Attack(pgd=attack_pb2.Pgd(**fields))
    return optimize_pb2.OptimizeSpec(attack=attack, image=image())


def of_class(index: int) -> optimize_pb2.Objective:
    return optimize_pb2.Objective(class_index=index)


ENERGY = optimize_pb2.Objective(energy=optimize_pb2.Energy(layer="blocks.3.1"))
CODE = optimize_pb2.Objective(code=optimize_pb2.Code(layer="blocks.1.1"))
DIVERSITY = optimize_pb2.Objective(diversity=optimize_pb2.Diversity(layer="blocks.2.0"), weight=30)

KINDS = (
    lambda k: ascend(of_class(k), step_count=4 + k % 3, seed=k),
    lambda k: ascend(of_class(k), preset=optimize_pb2.PRESET_YOSINSKI_1, step_count=5),
    lambda k: ascend(CODE, preset=optimize_pb2.PRESET_MAHENDRAN, photo=True, step_count=4, seed=k),
    lambda k: ascend(ENERGY, preset=optimize_pb2.PRESET_MORDVINTSEV, photo=True, octave_count=2),
    lambda k: ascend(of_class(k), DIVERSITY, restart_count=3, step_count=4, seed=k),
    lambda k: pgd(step_count=3 + k % 3, seed=k, restart_count=2),
)


def bits_of(job: Job) -> list[Any]:
    """The ends' scores and images."""
    made = job.future.result(300).result
    pictures = getattr(made, "pictures", None)
    tensors = [made.unrounded, made.logits] if pictures is None else pictures
    assert all(tensor.device.type == "cpu" for tensor in tensors)
    return [*(end.progress for end in made.ends), *(tensor.numpy().tobytes() for tensor in tensors)]


def test_bits_do_not_depend_on_neighbours(gpu: Runner) -> None:
    asked = [read(kind(k)) for k, kind in zip(range(18), itertools.cycle(KINDS), strict=False)]
    with gpu.held():
        jobs = [gpu.engine.submit(one.spec) for one in asked]
        gpu.submitted += jobs
    wait([job.future for job in jobs], timeout=300)
    for one, job in zip(asked, jobs, strict=True):
        assert bits_of(gpu.engine.submit(one.spec)) == bits_of(job)


@pytest.mark.parametrize("kind", [0, 2, 4], ids=["class", "code", "diversity"])
def test_what_was_handed_over_goes_on_to_the_same_bits(kind: int) -> None:
    """A server that leaves while a batch is on its way: its last state is that of whole steps."""
    spec = KINDS[kind](1)
    spec.ascend.step_count, spec.ascend.checkpoint_every, spec.ascend.progress_every = 40, 1000, 3
    with running(TorchDevice(torch.device("cuda"))) as runner:
        whole = bits_of(runner.engine.submit(read(spec).spec))
    shown: list[Any] = []

    with running(TorchDevice(torch.device("cuda"))) as runner:

        def leave(done: Any) -> None:
            shown.append(done.result)
            if isinstance(done.result, Progress) and done.result.step == 9:
                runner.engine.hand_over()

        asked = read(spec)
        job = runner.engine.submit(asked.spec, outlet=leave)
        with pytest.raises(Unavailable):
            job.future.result(300)
    snapshots = [one for one in shown if isinstance(one, Snapshot)]
    assert len(snapshots) == asked.image_count
    assert all(9 <= one.total < 40 for one in snapshots)
    parts = wire.write_checkpoint(asked.spec, asked.settings, snapshots, KEY, asked.notes)
    spec.checkpoint = b"".join(part.chunk for part in parts)
    again = read(spec)
    assert again.notes == ()
    with running(TorchDevice(torch.device("cuda"))) as runner:
        assert bits_of(runner.engine.submit(again.spec)) == whole


@pytest.mark.parametrize("norm", [attack_pb2.NORM_LINF, attack_pb2.NORM_L2])
def test_pgd_stays_within_its_budget_and_lowers_the_class(gpu: Runner, norm: Any) -> None:
    spec = pgd(norm=norm, step_count=10, restart_count=3)
    made = gpu.engine.submit(read(spec).spec).future.result(300).result
    change = (made.pixels.double() - made.base.pixels.double()).flatten(1)
    size = change.abs().amax(1) if norm == attack_pb2.NORM_LINF else change.norm(dim=1)
    assert (size <= (8 if norm == attack_pb2.NORM_LINF else 765)).all()
    assert (size > 0).all()
    source = made.base.source
    assert (made.logits[:, source] < made.base.logits[source]).all()
