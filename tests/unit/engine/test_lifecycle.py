"""Admission, cancellation, isolation, classes, drain: what the engine owes its callers."""

import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from pellucid_server.engine.admission import QueueLimits
from pellucid_server.engine.device import Flight, Pick, TorchDevice
from pellucid_server.engine.job import Priority, Work
from pellucid_server.engine.rows import ClassTarget, Lane, Rows
from pellucid_server.errors import (
    Cancelled,
    DeadlineExpired,
    DeadlineTooShort,
    Internal,
    InvalidArgument,
    OutOfMemory,
    Overloaded,
    PellucidError,
)
from pellucid_server.inputs import ArrayPhoto
from pellucid_server.methods.explain.gradients import Gradient
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.predict import Predict
from pellucid_server.models.network import Network

from tests.harness import CPU, model, photo_input, running, spec, untouched, without_collections

SIDE_PX = 64
COARSE = Occlusion(window_px=32, stride_px=32, fill="mean", blur_sigma_px=1.0)  # 5 rows
FINE = Occlusion(window_px=16, stride_px=8, fill="mean", blur_sigma_px=1.0)  # 50 rows
PREDICT = Predict(5, False)


class SpyDevice(TorchDevice):
    """Remembers which rows were run, in which order."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.launches: list[list[Rows]] = []

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        self.launches.append([rows for rows, _ in picks])
        return super().launch(network, picks, bucket_size)


class SmallDevice(SpyDevice):
    """Has memory for no more than two rows."""

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        flight = super().launch(network, picks, bucket_size)
        if bucket_size > 2:
            raise torch.OutOfMemoryError("no memory for that")
        return flight


class FussyDevice(SpyDevice):
    """Fails whenever a row aims at class 13."""

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        if any(rows.target == ClassTarget(13) for rows, _ in picks):
            raise RuntimeError("a kernel failed")
        return super().launch(network, picks, bucket_size)


def resnet() -> Any:
    return model("resnet18", side_px=SIDE_PX)


def cat() -> torch.Tensor:
    return photo_input("cat", "resnet18", SIDE_PX).float()


def test_rows_of_a_cancelled_job_are_never_run() -> None:
    device = SpyDevice()
    with running(device) as runner:
        with runner.held():
            dropped = runner.submit(resnet(), Gradient(), cat(), ClassTarget(1))
            kept = runner.submit(resnet(), Gradient(), cat(), ClassTarget(2))
            runner.engine.cancel(dropped)
        assert kept.future.result(60)
        with pytest.raises(Cancelled):
            dropped.future.result(60)
    assert [rows.target for launch in device.launches for rows in launch] == [ClassTarget(2)]
    assert runner.engine.admission.depth == 0


def test_cancelling_stops_a_job_half_way() -> None:
    class Cancelling(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            if len(self.launches) == 2:
                runner.engine.cancel(job)
            return super().launch(network, picks, bucket_size)

    device = Cancelling()
    with running(device) as runner:
        with runner.held():
            job = runner.submit(resnet(), FINE, cat())
        with pytest.raises(Cancelled):
            job.future.result(60)
    assert len(device.launches) == 3


def test_an_expired_job_is_dropped() -> None:
    device = SpyDevice()
    with running(device) as runner:
        with runner.held():
            late = runner.submit(resnet(), Gradient(), cat(), timeout_s=0.05)
            time.sleep(0.1)
        with pytest.raises(DeadlineExpired):
            late.future.result(60)
    assert device.launches == []


def test_a_request_that_cannot_make_its_deadline_is_refused_with_its_cost() -> None:
    with running() as runner:
        runner.engine.warm_up(resnet())
        with pytest.raises(DeadlineTooShort, match=r"needs about \d+ ms.*leaves \d+ ms") as caught:
            runner.submit(resnet(), FINE, cat(), timeout_s=0.02)
        assert caught.value.retry_delay_ms is None
        assert runner.engine.admission.depth == 0


def test_a_full_queue_refuses_before_any_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    load = ArrayPhoto.load
    monkeypatch.setattr(
        ArrayPhoto, "load", lambda self, on: (decoded.append(self), load(self, on))[1]
    )
    with running(limits=QueueLimits(device_ms=100.0)) as runner:
        runner.engine.warm_up(resnet())
        admitted = []
        with runner.held():
            with pytest.raises(Overloaded, match="queue is full") as caught:
                for _ in range(1000):
                    job = runner.submit(resnet(), Gradient(), "cat")
                    admitted.append(job)
            assert caught.value.retry_delay_ms >= 50
            with pytest.raises(Overloaded):
                runner.submit(resnet(), FINE, "cat")
        for job in admitted:
            job.future.result(60)
    assert 0 < len(admitted) == len(decoded)


def test_a_row_that_is_not_finite_fails_alone() -> None:
    huge = torch.full((3, 96, 96), 3e38)
    logits = untouched.__wrapped__("resnet18").float()(huge[None])
    assert not logits.isfinite().all()
    with running(buckets=(8,)) as runner:
        with runner.held():
            bad = runner.submit(resnet(), Gradient(), huge, ClassTarget(1))
            good = [runner.submit(resnet(), Gradient(), cat(), ClassTarget(k)) for k in range(7)]
        with pytest.raises(InvalidArgument, match=r"image: .*not finite"):
            bad.future.result(60)
        alone = runner.run(resnet(), Gradient(), cat(), ClassTarget(3)).result
        results = [job.future.result(60).result for job in good]
        assert torch.equal(results[3].attribution, alone.attribution)


def test_out_of_memory_halves_and_goes_on() -> None:
    device = SmallDevice()
    with running(device, buckets=(1, 2, 4, 8)) as runner:
        with runner.held():
            jobs = [runner.submit(resnet(), Gradient(), cat(), ClassTarget(k)) for k in range(8)]
        results = [job.future.result(60) for job in jobs]
        assert {ride.bucket_size for done in results for ride in done.rides} <= {1, 2}
        # From then on no batch is tried that does not fit.
        device.launches.clear()
        with runner.held():
            again = [runner.submit(resnet(), Gradient(), cat(), ClassTarget(k)) for k in range(8)]
        assert all(job.future.result(60) for job in again)
        assert max(map(len, device.launches)) <= 2


def test_a_fixed_bucket_that_does_not_fit_is_refused_to_each_alone() -> None:
    device = SmallDevice()
    with running(device, buckets=(1, 2, 4)) as runner:
        with runner.held():
            jobs = [runner.submit(resnet(), Gradient(), cat(), bucket_size=4) for _ in range(4)]
        for job in jobs:
            with pytest.raises(OutOfMemory, match="memory") as caught:
                job.future.result(60)
            assert caught.value.retry_delay_ms is None
        assert [len(rows) for rows in device.launches] == [4, 2, 1, 1, 2, 1, 1]
        assert runner.run(resnet(), Gradient(), cat(), bucket_size=2)


def test_the_cpu_says_in_its_own_way_that_memory_ran_out() -> None:
    class Full(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            if bucket_size > 2:
                torch.empty(1 << 50)
            return super().launch(network, picks, bucket_size)

    with running(Full(), buckets=(1, 2, 4)) as runner:
        with runner.held():
            jobs = [runner.submit(resnet(), Gradient(), cat()) for _ in range(4)]
        assert all(job.future.result(60) for job in jobs)
        with pytest.raises(OutOfMemory):
            runner.run(resnet(), Gradient(), cat(), bucket_size=4)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (MemoryError(), OutOfMemory),
        (torch.OutOfMemoryError("no memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemory),
        (RuntimeError("a bug"), Internal),
    ],
)
@pytest.mark.parametrize("where", ["load", "settle", "download"])
def test_what_fails_beside_the_device_ends_its_own_job(
    monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, outcome: type[PellucidError]
) -> None:
    raising = True

    def fail_once(function: Any) -> Any:
        def failing(*args: Any, **options: Any) -> Any:
            nonlocal raising
            if raising:
                raising = False
                raise error
            return function(*args, **options)

        return failing

    device = SpyDevice()
    of, name = {
        "load": (ArrayPhoto, "load"),
        "settle": (Work, "settle"),
        "download": (device, "download"),
    }[where]
    monkeypatch.setattr(of, name, fail_once(getattr(of, name)))
    with running(device) as runner:
        with runner.held():
            jobs = [runner.submit(resnet(), Gradient(), "cat") for _ in range(3)]
        outcomes = [type(job.future.exception(60)) for job in jobs]
        assert sorted(outcomes, key=str) == sorted([type(None), type(None), outcome], key=str)
        assert runner.engine.alive
        assert runner.run(resnet(), Gradient(), cat())


def test_what_is_settled_counts_no_more() -> None:
    """Half way through, half of the cost is left."""
    left_ms: list[float] = []

    class Watched(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            left_ms.append(runner.engine.admission.device_ms)
            return super().launch(network, picks, bucket_size)

    with running(Watched(), buckets=(1,)) as runner:
        runner.engine.warm_up(resnet())
        left_ms.clear()
        job = runner.submit(resnet(), COARSE, cat())
        job.future.result(60)
    assert left_ms == pytest.approx([job.cost_ms * k / 5 for k in (5, 4, 3, 2, 1)])


def test_a_job_that_waits_to_be_decoded_ends_when_it_is_cancelled() -> None:
    with running() as runner:
        started, go_on = threading.Event(), threading.Event()
        for _ in range(3):  # every thread, that of predictions too
            runner.workers.submit(lambda: (started.set(), go_on.wait(60)), Priority.PREDICT, 1e12)
        started.wait(60)
        job = runner.submit(resnet(), Gradient(), "cat")
        runner.engine.cancel(job)
        with pytest.raises(Cancelled):
            job.future.result(10)
        assert runner.engine.admission.depth == 0
        go_on.set()


def test_a_failing_row_is_isolated() -> None:
    with running(FussyDevice()) as runner:
        with runner.held():
            jobs = [runner.submit(resnet(), Gradient(), cat(), ClassTarget(k)) for k in range(20)]
        for k, job in enumerate(jobs):
            if k == 13:
                with pytest.raises(Internal, match="internal error"):
                    job.future.result(60)
            else:
                assert job.future.result(60).result.target == ClassTarget(k)


def test_predictions_go_before_explanations() -> None:
    device = SpyDevice()
    with running(device) as runner:
        runner.engine.warm_up(resnet())
        with runner.held():
            slow = runner.submit(resnet(), FINE, cat())
            grads = [runner.submit(resnet(), Gradient(), cat()) for _ in range(40)]
            predicts = [runner.submit(resnet(), PREDICT, cat()) for _ in range(16)]
            device.launches.clear()
        for job in (slow, *grads, *predicts):
            job.future.result(60)
    first = device.launches[0]
    assert first[0].lane is Lane.FORWARD
    ends = {job: job.timing.finished_s for job in (slow, *predicts)}
    assert max(ends[job] for job in predicts) < ends[slow]


def test_no_class_starves() -> None:
    """Explanations go on, at their share, while predictions never stop coming."""
    with running(buckets=(1,)) as runner:
        runner.engine.warm_up(resnet())
        with runner.held():
            predicts = [runner.submit(resnet(), PREDICT, cat()) for _ in range(60)]
            explain = [runner.submit(resnet(), Gradient(), cat()) for _ in range(5)]
        for job in (*predicts, *explain):
            job.future.result(60)
        order = sorted((*predicts, *explain), key=lambda job: job.timing.launched_s)
    places = [place for place, job in enumerate(order) if job in explain]
    assert order[0] in predicts
    assert places[-1] < 50


def test_earliest_deadline_first_within_a_caller() -> None:
    with running(buckets=(1,)) as runner:
        with runner.held():
            late = runner.submit(resnet(), Gradient(), cat(), timeout_s=200)
            soon = runner.submit(resnet(), Gradient(), cat(), timeout_s=100)
        assert late.future.result(60).timing.launched_s > soon.future.result(60).timing.launched_s


def test_callers_share_the_device_fairly() -> None:
    """One that sends forty does not hold up one that sends two."""
    with running(buckets=(1,)) as runner:
        runner.engine.warm_up(resnet())
        with runner.held():
            crowd = [
                runner.submit(resnet(), Gradient(), cat(), caller="crowd", timeout_s=100)
                for _ in range(40)
            ]
            single = [
                runner.submit(resnet(), Gradient(), cat(), caller="single", timeout_s=200)
                for _ in range(2)
            ]
        for job in (*crowd, *single):
            job.future.result(60)
        order = sorted((*crowd, *single), key=lambda job: job.timing.launched_s)
    assert max(order.index(job) for job in single) <= 8


class Damaged:
    byte_count = 0
    sha256 = ""

    def load(self, model: Any) -> Any:
        raise InvalidArgument("image: is damaged")


class Refusing(Predict):
    def program(self, model: Any, image: Any, target: Any) -> Any:
        yield from super().program(model, image, target)
        raise InvalidArgument("refused")


@pytest.mark.parametrize(
    ("method", "image", "fails"),
    [
        (PREDICT, cat(), False),
        (Gradient(), cat(), False),
        (COARSE, cat(), False),
        (COARSE, torch.full((3, 96, 96), 3e38), True),  # the network's output is not finite
        (Refusing(5, False), cat(), True),
        (PREDICT, None, True),  # cannot be decoded
    ],
)
def test_an_engine_that_waits_holds_nothing_of_the_jobs_it_ran(
    method: Any, image: torch.Tensor | None, fails: bool
) -> None:
    def ran() -> weakref.ref[Any]:
        asked = spec(resnet(), method, "cat" if image is None else image)
        job = runner.engine.submit(replace(asked, source=Damaged()) if image is None else asked)
        assert (job.future.exception(60) is not None) == fails
        return weakref.ref(job.spec.source if job.loaded is None else job.loaded.input)

    with running() as runner, without_collections():
        held = ran()
        runner.engine.call(lambda: None)  # the iteration of the last result is over
        assert held() is None


def test_results_are_handed_over_once_an_iteration() -> None:
    calls: list[Any] = []

    def notify(resolve: Any) -> None:
        calls.append(resolve)
        resolve()

    with running(notify=notify, buckets=(16,)) as runner:
        with runner.held():
            jobs = [runner.submit(resnet(), Gradient(), cat(), ClassTarget(k)) for k in range(16)]
        for job in jobs:
            job.future.result(60)
    assert len(calls) == 1
    assert Priority.PREDICT < Priority.EXPLAIN < Priority.OPTIMIZE
