"""Every method at once, on two models, for many callers: to the bit, and nobody waits long."""

import copy
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pellucid_server.engine.device import TorchDevice
from pellucid_server.engine.engine import Unobserved
from pellucid_server.engine.job import Job
from pellucid_server.engine.schedule import Batch
from pellucid_server.methods.evidence.comparisons import Cascade, Randomization, Stability
from pellucid_server.methods.evidence.curves import Curves
from pellucid_server.methods.explain import cams, paths, programs, rise
from pellucid_server.methods.explain import segments as by_segments
from pellucid_server.methods.explain.explain import Explain
from pellucid_server.methods.explain.gradients import (
    Deconvnet,
    Gradient,
    GuidedBackprop,
    InputXGradient,
)
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.predict import Predict
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision
from pellucid_server.wire import METHODS

from tests.harness import CPU, PHOTOS, model, photo_input, running
from tests.oracle.networks import SIDE_PX, seeded

CALLERS = 32
BUCKET = 8
CONVNET_PX = 48


class Clock(TorchDevice):
    """Notes when each batch is launched, and calls back."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.launched_s: list[float] = []
        self.on_launch: Any = lambda: None

    def launch(self, *args: Any) -> Any:
        self.launched_s.append(time.monotonic())
        self.on_launch()
        return super().launch(*args)


class Callers(Unobserved):
    """Notes whose rows were run, in order."""

    def __init__(self) -> None:
        self.callers: list[str] = []

    def batch(self, batch: Batch, batch_ms: float) -> None:
        self.callers += [ticket.job.spec.caller for ticket in batch.tickets]


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    """A ConvNet with rectifiers, and a transformer of four blocks."""
    convolutional = model("resnet18", side_px=CONVNET_PX)
    shallow = copy.deepcopy(seeded("vit_tiny"))
    shallow.blocks = shallow.blocks[:4]
    network = Network(
        shallow,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        dtype=torch.float32,
        device=CPU,
    )
    transformer = Model(
        name="vit_tiny",
        version="0",
        architecture="vit_tiny",
        network=network,
        preprocessing=convolutional.preprocessing,
        labels=convolutional.labels,
        precision=Precision.FLOAT32,
        weights_sha256="0" * 64,
    )
    return convolutional, transformer


def every_method(layer: str) -> Iterator[Any]:
    yield from (Gradient(), Deconvnet(), GuidedBackprop(), InputXGradient())
    yield Occlusion(48, 48, "noise", seed=2)
    yield from (paths.IntegratedGradients(step_count=5), paths.SmoothGrad(4, seed=3))
    yield paths.ExpectedGradients(4, seed=4)
    yield from (cams.GradCam(layer), cams.GradCamPlusPlus(layer), cams.LayerCam(layer))
    yield from (cams.HiResCam(layer), cams.GuidedGradCam(layer), cams.ScoreCam(layer, map_count=5))
    yield rise.Rise(mask_count=10, seed=5)
    yield by_segments.Lime(segment_count=8, sample_count=12, seed=6)
    yield by_segments.KernelShap("grid", segment_count=9, sample_count=12, seed=7)
    yield from (programs.Lrp(), programs.Lrp("epsilon", 1e-4), programs.DeepLift())
    yield programs.AttentionRollout()


def every_call(models: tuple[Model, Model]) -> list[tuple[Model, Any, torch.Tensor]]:
    calls: list[tuple[Model, Any, torch.Tensor]] = []
    photos = itertools.cycle(PHOTOS)
    for on, layer in zip(models, ("layer3", "blocks.2"), strict=True):
        for method in every_method(layer):
            if method.refusal(on) is None:
                image = photo_input(next(photos), "resnet18", on.network.height_px).float()
                calls += [(on, method, image)]
    return calls


def test_every_method_is_there(models: tuple[Model, Model]) -> None:
    assert {method.name for _, method, _ in every_call(models)} == set(METHODS)


def test_every_method_at_once(models: tuple[Model, Model]) -> None:
    calls, clock = every_call(models), Clock()
    predicts: list[Job] = []
    rows = Callers()
    with running(clock, buckets=(BUCKET,), observer=rows) as runner:

        def predict_now_and_then() -> None:
            if len(clock.launched_s) % 5 == 0:
                image = photo_input("cat", "resnet18", CONVNET_PX).float()
                predicts.append(runner.submit(models[0], Predict(1, False), image, caller="p"))

        with runner.held():
            jobs = [
                runner.submit(on, method, image, caller=str(place % CALLERS))
                for place, (on, method, image) in enumerate(calls)
            ]
        clock.on_launch = predict_now_and_then
        together = [job.future.result(300) for job in jobs]
        order, clock.on_launch = list(rows.callers), lambda: None
        for job in predicts:
            job.future.result(60)
        for done, (on, method, image) in zip(together, calls, strict=True):
            alone = runner.run(on, method, image)
            assert all(ride.row_count == ride.own_row_count for ride in alone.rides)
            assert done.result.attribution.isfinite().all()
            assert done.result.attribution.any() or "CAM" in (type(method).__doc__ or "")
            assert torch.equal(done.result.attribution, alone.result.attribution), method.name
            assert done.result.target == alone.result.target
            assert done.result.score == alone.result.score
    shared = [
        ride for done in together for ride in done.rides if ride.own_row_count < ride.row_count
    ]
    assert len(shared) > len(jobs) / 2
    # Nobody starves: nobody had two batches' worth before everybody had begun.
    last_to_begin = max(order.index(caller) for caller in {job.spec.caller for job in jobs})
    assert max(Counter(order[:last_to_begin]).values()) <= 2 * BUCKET
    assert len(predicts) > 3
    for job in predicts:
        timing = job.timing
        waited = [s for s in clock.launched_s if timing.ready_s < s < timing.launched_s]
        assert len(waited) <= 3


def test_evidence_of_many_callers_at_once(models: tuple[Model, Model]) -> None:
    """It rides in the same batches, has the same bits as alone, and lets predictions by."""
    measures = (Curves(3), Stability(2), Randomization(), Cascade(1))
    methods = (Gradient(), GuidedBackprop(), Occlusion(24, 24, "mean"), cams.GradCam("layer3.0"))
    calls = [
        (Explain(method, measures=measures), photo_input(name, "resnet18", CONVNET_PX).float())
        for name in ("cat", "coffee")
        for method in methods
    ]
    clock, predicts = Clock(), []
    with running(clock, buckets=(BUCKET,)) as runner:

        def predict_now_and_then() -> None:
            if len(clock.launched_s) % 5 == 0:
                predicts.append(
                    runner.submit(models[0], Predict(1, False), calls[0][1], caller="p")
                )

        with runner.held():
            jobs = [
                runner.submit(models[0], asked, image, caller=str(place))
                for place, (asked, image) in enumerate(calls)
            ]
        clock.on_launch = predict_now_and_then
        together = [job.future.result(300) for job in jobs]
        clock.on_launch = lambda: None
        for job in predicts:
            job.future.result(60)
        for done, (asked, image) in zip(together, calls, strict=True):
            alone = runner.run(models[0], asked, image)
            assert set(done.result.evidence) == {measure.name for measure in measures}
            assert done.result.evidence == alone.result.evidence
    rides = [ride for done in together for ride in done.rides]
    assert sum(ride.own_row_count < ride.row_count for ride in rides) > len(rides) / 3
    assert len(predicts) > 3
    for job in predicts:
        timing = job.timing
        waited = [s for s in clock.launched_s if timing.ready_s < s < timing.launched_s]
        assert len(waited) <= 3
