"""Optimizations in one batch: joined, moved, isolated and left, as if each were alone."""

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import pytest
import torch
from pellucid_server.engine.device import Flight, Pick, TorchDevice
from pellucid_server.engine.job import Job
from pellucid_server.engine.rows import (
    ClassTarget,
    CodeTarget,
    DirectionTarget,
    EnergyTarget,
    Goal,
    GuideTarget,
    Lane,
    NeuronTarget,
    SumTarget,
)
from pellucid_server.errors import Cancelled, DeadlineExpired, Internal, OutOfMemory
from pellucid_server.inputs import ArrayPhoto, Photos
from pellucid_server.methods.attack.algorithm import Algorithm, Shows
from pellucid_server.methods.attack.attack import Attack, Attacked
from pellucid_server.methods.attack.carlini_wagner import CarliniWagner
from pellucid_server.methods.attack.gradient import Pgd
from pellucid_server.methods.optimize.ascent import PRESETS, Ascent
from pellucid_server.methods.optimize.optimize import Apart, Buckets, FromPhoto, Optimize, Optimized
from pellucid_server.methods.optimize.stepper import AscentStepper, Preview, Progress
from pellucid_server.methods.parameters import Known
from pellucid_server.methods.predict import Predict
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision

from tests.harness import CPU, Runner, model, photo, relative_error, running, spec
from tests.oracle.graph import GateRecorder, GateReplayer

NAME = "efficientnet_lite0"
SIDE = 64
BUCKETS = Buckets(4)


def ascent(preset: str = "olah", **parameters: Any) -> Ascent:
    sizes = {"height_px": SIDE, "width_px": SIDE}
    known = Known(None, sizes)
    values = {k: v(known) if callable(v) else v for k, v in PRESETS[preset].items()}
    return Ascent(**(values | {"preset": preset} | sizes | parameters))


def optimize(*goals: Goal | FromPhoto, preset: str = "olah", **parameters: Any) -> Optimize:
    return Optimize(tuple((goal, 1.0) for goal in goals), ascent(preset, **parameters), BUCKETS)


def attack(algorithm: Algorithm, goal: int | None = None) -> Attack:
    return Attack(algorithm, None, goal, Shows(), BUCKETS)


def lite() -> Model:
    return model(NAME, side_px=SIDE)


def submit(runner: Runner, method: Optimize | Attack, *, outlet: Any = None, **options: Any) -> Job:
    size = (SIDE, SIDE)
    if isinstance(method, Optimize):
        size = (method.ascent.height_px, method.ascent.width_px)
    bucket_size = BUCKETS.of(size)
    made = spec(lite(), method, torch.zeros(3, 2, 2), bucket_size=bucket_size, **options)
    photos = Photos(tuple(ArrayPhoto(photo(name), None) for name in ("cat", "coffee")), size)
    job = runner.engine.submit(replace(made, source=photos), outlet=outlet)
    runner.submitted.append(job)
    return job


def run(runner: Runner, method: Optimize | Attack, **options: Any) -> Any:
    made: Any = submit(runner, method, **options).future.result(120).result
    return made


KINDS = (
    lambda k: optimize(ClassTarget(k), step_count=3 + k % 5, seed=k),
    lambda k: optimize(
        NeuronTarget("blocks.2.0", k), preset=f"yosinski_{1 + k % 4}", step_count=2 + k % 7
    ),
    lambda k: optimize(
        FromPhoto(CodeTarget, "blocks.1.1", k % 2), preset="mahendran", step_count=4 + k % 3
    ),
    lambda k: optimize(
        EnergyTarget("blocks.3.1"), preset="mordvintsev", step_count=1 + k % 3, octave_count=2
    ),
    lambda k: optimize(
        DirectionTarget("blocks.1.0", torch.linspace(-1, 1, 24)),
        ClassTarget(k),
        FromPhoto(GuideTarget, "blocks.2.0", 1),
        preset="simonyan",
        update="normalized",
        tv_penalty=2.0,
        tv_beta=1.5,
        step_count=3,
        restart_count=2,
        start="noise",
    ),
    lambda k: attack(
        Pgd(
            norm=("linf", "l2")[k % 2],
            epsilon=(4.0, 200.0)[k % 2],
            step_size=(1.0, 50.0)[k % 2],
            step_count=2 + k % 3,
            seed=k,
            restart_count=1 + k % 2,
        ),
        goal=k,
    ),
    lambda k: attack(
        CarliniWagner(step_count=3 + k % 2, search_count=2, initial_weight=(0.1, 10.0)[k % 2]),
        goal=None if k % 3 else k,
    ),
)


def bits_of(made: Optimized | Attacked) -> list[torch.Tensor]:
    if isinstance(made, Optimized):
        return made.pictures
    return [made.unrounded, made.unrounded_logits, made.pixels, made.logits, made.base.logits]


def test_bits_do_not_depend_on_who_else_is_there() -> None:
    """32 jobs of seven kinds, half of which come while the others are under way."""
    methods = [kind(k) for k, kind in zip(range(32), itertools.cycle(KINDS), strict=False)]
    late: list[Job] = []
    lite()  # is loaded while the engine need not stand still

    def join_late(_: object) -> None:
        if not late:
            late.extend(submit(runner, method) for method in methods[16:])

    with running() as runner:
        with runner.held():
            early = [submit(runner, method, outlet=join_late) for method in methods[:16]]
        wait([job.future for job in early], timeout=120)
        together = [job.future.result(120).result for job in (*early, *late)]
        assert runner.engine._groups == {}  # the last one out closes
        for method, made in zip(methods, together, strict=True):
            alone: Any = run(runner, method)
            for one, other in zip(bits_of(made), bits_of(alone), strict=True):
                assert torch.equal(one, other)
                assert one.double().std() > 0
            assert [end.progress for end in made.ends] == [end.progress for end in alone.ends]
            assert len(made.ends) == method.image_count
            assert all(end.finite for end in made.ends)


class SpyDevice(TorchDevice):
    """Remembers what was run."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.launches: list[list[Pick]] = []
        self.buckets: list[int] = []

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        self.launches.append(list(picks))
        self.buckets.append(bucket_size)
        return super().launch(network, picks, bucket_size)


def test_batches_are_shared() -> None:
    device = SpyDevice()
    with running(device) as runner:
        with runner.held():
            jobs = [
                submit(runner, optimize(ClassTarget(k), step_count=5), caller=str(k % 2))
                for k in range(8)
            ]
        wait([job.future for job in jobs], timeout=120)
    # Six looks of each, the last of which scores the image: four to a batch.
    assert [len(picks) for picks in device.launches] == [4] * 12
    assert set(device.buckets) == {4}
    taken = [{pick[0].target.terms[0][0].index for pick in picks} for picks in device.launches]
    assert all(one | other == set(range(8)) for one, other in itertools.pairwise(taken))


def test_a_step_is_what_float64_makes_of_the_same_gates() -> None:
    """One plain step: the gradient is what the image moved by."""
    goals = (ClassTarget(285), NeuronTarget("blocks.2.0", 3))
    plain = {"update": "momentum", "momentum": 0.0, "learning_rate": 100.0, "start": "photo"}
    method = optimize(*goals, preset="simonyan", lp_penalty=0.0, step_count=1, **plain)
    single, double = lite(), model(NAME, Precision.FLOAT64, SIDE)
    steps = single.preprocessing
    std = torch.tensor(steps.std, dtype=torch.float64).view(3, 1, 1)
    start = torch.from_numpy(steps.apply(photo("cat")))

    def gradient(network: Network, image: torch.Tensor) -> torch.Tensor:
        x = image[None].clone().requires_grad_()
        taps = network.forward(x, ("", "blocks.2.0"))
        score = taps[""][0, 285] + taps["blocks.2.0"][0, 3].sum()
        return torch.autograd.grad(score, x)[0][0]

    recorder = GateRecorder()
    with recorder:
        gradient(single.network, start.float())
    with GateReplayer(recorder):
        expected = gradient(double.network, start.float().double()) / (255 * std)
    with running() as runner:
        end = run(runner, method).ends[0]
    moved = (end.image.double() - start * 255 * std) / 100.0
    # The image is kept in float32: of the difference of two of them, the rounding is known.
    rounding = float(end.image.abs().max()) * 2**-23 / 100.0
    error = float((moved - expected).norm()) - rounding * math.sqrt(moved.numel())
    assert error <= 1e-5 * float(expected.norm())
    assert relative_error(moved, expected) < 1e-2


def test_a_predict_waits_three_iterations_at_most() -> None:
    """Counted from the iteration in which it came, decoded."""

    class Watching(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            if jobs and len(self.launches) == 10:
                predicts.append(runner.submit(lite(), Predict(5, False), "cat"))
                decoded = predicts[0].chore
                assert decoded is not None
                decoded.result(60)
            return super().launch(network, picks, bucket_size)

    predicts: list[Job] = []
    jobs: list[Job] = []
    device = Watching()
    with running(device, buckets=(1, 4)) as runner:
        runner.engine.warm_up(lite())
        device.launches.clear()
        with runner.held():
            jobs += [submit(runner, optimize(ClassTarget(k), step_count=3)) for k in range(32)]
        wait([job.future for job in jobs], timeout=120)
        assert predicts[0].future.result(60)
    lanes = [picks[0][0].lane for picks in device.launches]
    assert lanes.index(Lane.FORWARD) - 10 <= 3
    assert len(lanes) > 30


def test_leaving_frees_the_slot_within_one_iteration() -> None:
    class Cancelling(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            if len(self.launches) == 3:
                runner.engine.cancel(jobs[0])
            return super().launch(network, picks, bucket_size)

    device = Cancelling()
    with running(device) as runner:
        with runner.held():
            jobs = [submit(runner, optimize(ClassTarget(k), step_count=8)) for k in range(2)]
        with pytest.raises(Cancelled):
            jobs[0].future.result(60)
        assert jobs[1].future.result(60)
        assert runner.engine.admission.depth == 0
        assert runner.engine._groups == {}
    assert [len(picks) for picks in device.launches] == [2] * 4 + [1] * 5


def test_a_deadline_frees_the_slot() -> None:
    with running() as runner:
        late = submit(runner, optimize(ClassTarget(1), step_count=10_000), timeout_s=0.5)
        with pytest.raises(DeadlineExpired):
            late.future.result(60)
        assert runner.engine._groups == {}


def test_what_is_not_finite_ends_with_the_last_good_image_alone() -> None:
    """A rate so large that the image overflows: its neighbours go on, to the same bits."""
    wild = optimize(
        EnergyTarget("conv_stem"),
        preset="simonyan",
        learning_rate=1e12,
        momentum=0.0,
        lp_penalty=0.0,
        start="noise",
        step_count=40,
    )
    calm = [optimize(ClassTarget(k), step_count=12) for k in range(3)]
    with running() as runner:
        alone = [run(runner, method) for method in calm]
        with runner.held():
            jobs = [submit(runner, method) for method in (wild, *calm)]
        bad, *good = [job.future.result(60).result for job in jobs]
    assert not bad.ends[0].finite
    assert bad.ends[0].progress.step < 40
    assert bad.ends[0].image.isfinite().all()
    assert bad.pictures[0].isfinite().all()
    assert math.isfinite(bad.ends[0].progress.score)
    for made, expected in zip(good, alone, strict=True):
        assert all(map(torch.equal, made.pictures, expected.pictures))


class Fussy(SpyDevice):
    """Fails whenever a row is after class 13."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        targets = [rows.target for rows, _ in picks]
        for target in targets:
            if isinstance(target, SumTarget) and target.terms[0][0] == ClassTarget(13):
                raise self._error
        return super().launch(network, picks, bucket_size)


def test_a_row_that_a_kernel_fails_on_ends_alone() -> None:
    with running(Fussy(RuntimeError("a bug"))) as runner:
        with runner.held():
            jobs = [submit(runner, optimize(ClassTarget(k), step_count=2)) for k in (1, 13, 2)]
        with pytest.raises(Internal):
            jobs[1].future.result(60)
        assert all(jobs[k].future.result(60) for k in (0, 2))


def test_memory_that_runs_out_does_not_end_the_engine() -> None:
    with running(Fussy(torch.OutOfMemoryError("no memory"))) as runner:
        with pytest.raises(OutOfMemory):
            run(runner, optimize(ClassTarget(13), step_count=2))
        assert run(runner, optimize(ClassTarget(1), step_count=2))


def test_memory_that_runs_out_for_one_row_ends_that_one() -> None:
    """At the bucket that its group has: neighbours go on, and explanations keep their buckets."""
    methods = [optimize(ClassTarget(k), step_count=2) for k in (1, 13, 2, 3)]
    with running(Fussy(torch.OutOfMemoryError("no memory"))) as runner:
        with runner.held():
            jobs = [submit(runner, method) for method in methods]
        with pytest.raises(OutOfMemory):
            jobs[1].future.result(60)
        for k in (0, 2, 3):
            alone = run(runner, methods[k])
            assert all(map(torch.equal, jobs[k].future.result(60).result.pictures, alone.pictures))
        assert runner.engine.costs_of(lite())._cap[Lane.GRADIENT] == 16
        assert runner.engine._groups == {}


def test_a_group_that_nobody_could_join_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(*_: object) -> int:
        raise torch.OutOfMemoryError("no memory for a slot")

    with running() as runner:
        with monkeypatch.context() as patched:
            patched.setattr(AscentStepper, "join", join)
            with pytest.raises(OutOfMemory):
                run(runner, optimize(ClassTarget(1), step_count=1))
        assert runner.engine.call(lambda: runner.engine._groups) == {}
        assert run(runner, optimize(ClassTarget(1), step_count=1))


def test_a_diverging_image_ends_as_it_would_alone() -> None:
    """Neighbours have penalties and spectra, which it has not: they compute what is not for it."""
    wild = optimize(
        EnergyTarget("conv_stem"),
        preset="simonyan",
        learning_rate=1e12,
        momentum=0.0,
        lp_penalty=0.0,
        start="noise",
        step_count=40,
    )
    others = [
        optimize(ClassTarget(1), preset="mahendran", step_count=20, learning_rate=1.0, tv_beta=3.0),
        optimize(ClassTarget(2), step_count=20),
    ]
    with running() as runner:
        alone = run(runner, wild).ends[0]
        with runner.held():
            jobs = [submit(runner, method) for method in (*others, wild)]
        end = jobs[2].future.result(60).result.ends[0]
        assert all(job.future.result(60).result.ends[0].finite for job in jobs[:2])
    assert not end.finite
    assert 1 < end.progress.step < 40
    assert end.progress == alone.progress
    assert torch.equal(end.image, alone.image)


def test_who_cannot_go_on_leaves_the_others_to_their_octaves() -> None:
    """One of three ends in the first of two: as it is, and the others as if nothing had been."""

    class Spoiling(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            flight = super().launch(network, picks, bucket_size)
            if len(self.launches) in (3, 4):  # its third look, and once more, alone
                flight.finite[1 if len(picks) > 1 else 0] = False
            return flight

    method = optimize(
        EnergyTarget("blocks.1.0"),
        preset="mordvintsev",
        step_count=4,
        octave_count=2,
        restart_count=3,
        start="noise",
    )
    device = Spoiling()
    with running() as runner:
        expected = run(runner, method).ends
    with running(device) as runner:
        ends = run(runner, method).ends
    assert [len(picks) for picks in device.launches[2:5]] == [3, 1, 2]
    assert [end.finite for end in ends] == [True, False, True]
    assert [end.progress.step for end in ends] == [8, 2, 8]
    assert [end.picture.shape[-1] for end in ends] == [64, 46, 64]
    for k in (0, 2):
        assert torch.equal(ends[k].picture, expected[k].picture)
        assert ends[k].progress == expected[k].progress


def test_a_stepper_that_fails_ends_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AscentStepper, "step", lambda *_: 1 / 0)
    with running() as runner:
        with pytest.raises(Internal):
            run(runner, optimize(ClassTarget(1), step_count=2))
        assert runner.engine.alive
        assert runner.engine._groups == {}


def test_events_tell_of_every_image_on_its_way() -> None:
    shown: list[Any] = []
    method = optimize(
        ClassTarget(1),
        EnergyTarget("blocks.1.0"),
        preset="mordvintsev",
        octave_count=2,
        restart_count=2,
        start="noise",
        step_count=4,
        progress_every=2,
        preview_every=4,
        tv_penalty=1.0,
    )
    with running() as runner:
        job = submit(runner, method, outlet=lambda done: shown.append(done.result))
        made = job.future.result(60).result
    for restart in (0, 1):
        progress = [p for p in shown if isinstance(p, Progress) and p.restart == restart]
        assert [p.step for p in progress] == [2, 6, 8]
        for one in progress:
            assert one.score == pytest.approx(sum(one.terms) - one.tv_penalty)
            assert one.tv_penalty > 0
            assert one.lp_penalty == 0
        assert progress[-1] == made.ends[restart].progress
        previews = [p for p in shown if isinstance(p, Preview) and p.restart == restart]
        assert [p.step for p in previews] == [4, 8]
        assert [tuple(p.picture.shape) for p in previews] == [(3, 46, 46), (3, 64, 64)]
        assert torch.equal(previews[-1].picture, made.pictures[restart])
    assert not torch.equal(made.pictures[0], made.pictures[1])


def test_restarts_are_jobs_of_the_seeds_that_follow() -> None:
    with running() as runner:
        made = run(runner, optimize(ClassTarget(1), step_count=3, restart_count=5, seed=7))
        for restart in (0, 3):
            single = run(runner, optimize(ClassTarget(1), step_count=3, seed=7 + restart))
            assert torch.equal(made.pictures[restart], single.pictures[0])


def test_other_sizes_and_their_buckets() -> None:
    device = SpyDevice()
    method = optimize(
        FromPhoto(CodeTarget, "blocks.1.1", 0), step_count=2, height_px=48, width_px=80
    )
    large = replace(method, ascent=replace(method.ascent, height_px=512, width_px=520))
    assert Buckets(4).of((512, 512)) == 4
    with running(device) as runner:
        made = run(runner, method)
        assert set(device.buckets) == {4}
        assert made.pictures[0].shape == (3, 48, 80)
        assert made.ends[0].progress.terms[0] > -1.5
        device.buckets.clear()
        alone = replace(large, objectives=((ClassTarget(3), 1.0),), ascent=large.ascent)
        assert run(runner, alone).pictures[0].shape == (3, 512, 520)
        assert set(device.buckets) == {1}


@pytest.mark.parametrize(
    ("parameters", "rows", "batches"),
    [
        ({"step_count": 6}, 7, 7),  # six steps, and a look at the end
        ({"step_count": 6, "restart_count": 3}, 21, 7),
        ({"step_count": 7, "restart_count": 5}, 40, 10),  # four at a time, whichever they are
        ({"step_count": 7, "restart_count": 5, "in_rounds": True}, 40, 16),  # four, and one
        ({"step_count": 7, "height_px": 32}, 4, 4),  # half as many pixels
        ({"step_count": 4, "octave_count": 2, "octave_scale": 2.0}, 6, 6),  # a quarter, and all
    ],
    ids=str,
)
def test_a_job_alone_costs_its_batches_however_empty(
    parameters: dict[str, Any], rows: int, batches: int
) -> None:
    """It is predicted to cost what it is run in: in batches of the network's own size."""
    parameters = dict(parameters)
    in_rounds = parameters.pop("in_rounds", False)
    if "octave_count" in parameters:
        parameters |= {"preset": "mordvintsev", "start": "noise"}
    method = optimize(ClassTarget(1), **parameters)
    if in_rounds:
        method = replace(method, objectives=(*method.objectives, (Apart("blocks.1.1", 24), 1.0)))
    device = SpyDevice()
    with running(device, buckets=(1, 4)) as runner:
        runner.engine.costs_of(lite()).record(Lane.GRADIENT, 4, 100.0)
        with runner.held():
            job = submit(runner, method)
            assert job.cost_ms == pytest.approx(batches * 100.0)
            assert job.queued_ms == pytest.approx(rows * 25.0)
        job.future.result(60)
    pixels = sum(picks[0][0].images.shape[2:].numel() for picks in device.launches)
    assert pixels / SIDE**2 == pytest.approx(batches)


# Images that are unlike each other, which advance in rounds.


def apart(weight: float = 50.0, **parameters: Any) -> Optimize:
    parameters = {"step_count": 5, "restart_count": 5} | parameters
    method = optimize(NeuronTarget("blocks.2.0", 3), **parameters)
    return replace(method, objectives=(*method.objectives, (Apart("blocks.1.1", 24), weight)))


def test_images_that_keep_apart_have_the_bits_of_their_job_alone() -> None:
    """Five of them, whose batches of four others fill up."""
    other = [optimize(ClassTarget(k), step_count=3 + k) for k in range(3)]
    octaves = apart(parameterization="pixels", learning_rate=1.0, octave_count=2)
    with running() as runner:
        alone = [run(runner, method) for method in (apart(), octaves)]
        with runner.held():
            jobs = [submit(runner, method) for method in (*other, apart(), octaves)]
        together = [job.future.result(120).result for job in jobs[3:]]
    for made, expected in zip(together, alone, strict=True):
        assert all(map(torch.equal, made.pictures, expected.pictures))
        assert [end.progress for end in made.ends] == [end.progress for end in expected.ends]
        assert all(-1 <= end.progress.terms[1] < -0.1 for end in made.ends)


def test_images_that_keep_apart_come_further_apart() -> None:
    """By the same measure as where it counts for nothing."""
    with running() as runner:
        like, unlike = (
            [end.progress.terms[1] for end in run(runner, apart(w, step_count=20)).ends]
            for w in (1e-9, 1e5)
        )
    assert min(unlike) > max(like) + 0.05


def test_nobody_makes_a_step_before_all_have_made_the_one_before() -> None:
    device = SpyDevice()
    with running(device) as runner:
        run(runner, apart())
    steps = [pick[0].target.kept_apart[0].step for picks in device.launches for pick in picks]
    assert steps == sorted(steps)
    assert [len(picks) for picks in device.launches] == [4, 1] * 6


def test_whose_score_is_not_finite_holds_nobody_up() -> None:
    """One of five ends after its second step; the others have the bits that they would have."""

    class Spoiling(SpyDevice):
        def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
            flight = super().launch(network, picks, bucket_size)
            for row, (rows, _) in enumerate(picks):
                [goal] = rows.target.kept_apart
                if (goal.place, goal.step) == (1, 2):
                    flight.finite[row] = False
            return flight

    device = Spoiling()
    with running(device) as runner:
        ends = run(runner, apart()).ends
    assert [end.finite for end in ends] == [True, False, True, True, True]
    assert [end.progress.step for end in ends] == [5, 2, 5, 5, 5]
    steps = [pick[0].target.kept_apart[0].step for picks in device.launches for pick in picks]
    assert steps == sorted(steps)
    assert [steps.count(step) for step in range(6)] == [5, 5, 6, 4, 4, 4]


def test_a_job_in_rounds_that_is_cancelled_is_over() -> None:
    def cancel(_: object) -> None:
        runner.engine.cancel(runner.submitted[0])

    with running() as runner:
        job = submit(runner, apart(progress_every=1), outlet=cancel)
        with pytest.raises(Cancelled):
            job.future.result(60)
        assert runner.engine._groups == {}
