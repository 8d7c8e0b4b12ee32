"""Universal perturbations: by hand, against a plain recomputation, and resumed to the same bits."""

import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import attack_pb2, checkpoint_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.errors import InvalidArgument, Unavailable
from pellucid_server.methods.attack.universal import Universalized
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import Preview, Progress
from pellucid_server.models.registry import Model, Precision, Registry
from PIL import Image
from torch import Tensor, nn

from tests.harness import Runner, model, photo, running, tiny_model, untouched

KEY = b"0123456789abcdef"
BORDER = 100.5


class Red(nn.Module):
    """Two classes: by whether the first pixel's red is above the border."""

    def forward(self, x: Tensor) -> Tensor:
        red = (x[:, 0, 0, 0] * 0.229 + 0.485) * 255
        return torch.stack([0 * red, (red - BORDER) / 50], 1)


class Mixed(nn.Module):
    """Four classes of photos of 8 × 8 pixels, whose borders are curved."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(192, 32), nn.Linear(32, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(x.flatten(1)).tanh())
        return logits


def of(array: np.ndarray) -> data_pb2.Image:
    tensor = data_pb2.Tensor(data_type=1, shape=array.shape, data=array.tobytes())
    return data_pb2.Image(tensor=tensor)


def spec(photos: Sequence[np.ndarray], **options: Any) -> optimize_pb2.OptimizeSpec:
    pace = {k: options.pop(k) for k in list(options) if k.endswith("_every")}
    attack = attack_pb2.Attack(universal=attack_pb2.Universal(**options), **pace)
    return optimize_pb2.OptimizeSpec(attack=attack, photos=[of(one) for one in photos])


def read(request: optimize_pb2.OptimizeSpec, on: Model) -> wire.AskedOptimize:
    call = wire.Call("", time.monotonic() + 300)
    limits = wire.Limits(10**6, (1,), 10**6, Buckets(4), KEY)
    return wire.read_optimize(request, call, Registry([on]), limits)


def run(runner: Runner, asked: wire.AskedOptimize, shown: list[Any] | None = None) -> Universalized:
    outlet = None if shown is None else lambda done: shown.append(done.result)
    made = runner.engine.submit(asked.spec, outlet=outlet).future.result(300).result
    assert isinstance(made, Universalized)
    return made


def reds(*values: int) -> list[np.ndarray]:
    photos = [np.full((2, 2, 3), 77, np.uint8) for _ in values]
    for one, value in zip(photos, values, strict=True):
        one[0, 0, 0] = value
    return photos


@pytest.mark.parametrize(
    ("epsilon", "expected", "rate"), [(20.0, 20, 2 / 3), (5.9, 5, 1 / 3), (3.0, 3, 0.0)]
)
def test_by_hand(epsilon: float, expected: int, rate: float) -> None:
    """All change is in one value: what the third photo needs is beyond every budget."""
    asked = read(spec(reds(90, 96, 60), epsilon=epsilon, pass_count=3), tiny_model(Red()))
    with running() as runner:
        made = run(runner, asked)
    change = torch.zeros(3, 2, 2)
    change[0, 0, 0] = expected
    assert torch.equal(made.perturbation, change)
    assert made.fooled.tolist() == [value + expected > BORDER for value in (90, 96, 60)]
    assert float(made.fooled.double().mean()) == pytest.approx(rate)
    assert made.pass_count == 3


def test_it_ends_where_enough_change() -> None:
    """11 and a little moves the first over the border, and the second with it."""
    asked = read(spec(reds(90, 96), epsilon=20.0, fooling_rate=1.0), tiny_model(Red()))
    shown: list[Any] = []
    with running() as runner:
        made = run(runner, asked, shown)
    assert made.fooled.all()
    assert made.pass_count < 10
    assert made.perturbation[0, 0, 0] >= 11
    assert not made.perturbation.flatten()[1:].any()
    assert [one.step for one in shown] == [2 * k for k in range(1, made.pass_count + 1)]
    assert shown[-1].score == 1.0
    assert torch.equal(
        made.perturbed.int() - made.photos.int(),
        made.perturbation.int()[None].expand(2, -1, -1, -1),
    )


def test_what_is_told_is_what_the_network_says() -> None:
    """On Lite0 in float64, recomputed with the network as it is built."""
    crops = [np.ascontiguousarray(photo(name)[:200, :200]) for name in ("cat", "rocket")]
    on = model("efficientnet_lite0", Precision.FLOAT64)
    shown: list[Any] = []
    request = spec(crops, epsilon=7.5, pass_count=1, step_count=2, preview_every=2)
    request.attack.universal.candidate_count = 3
    with running() as runner:
        made = run(runner, read(request, on), shown)
    assert float(made.perturbation.abs().max()) <= 7
    assert torch.equal(made.perturbation, made.perturbation.round())
    network, steps = untouched("efficientnet_lite0"), on.preprocessing
    mean, std = (
        torch.tensor(numbers, dtype=torch.float64).view(3, 1, 1)
        for numbers in (steps.mean, steps.std)
    )
    seen = np.stack([steps.unnormalize(steps.apply(crop)) for crop in crops])
    pixels = torch.from_numpy(seen).permute(0, 3, 1, 2).double()
    assert torch.equal(made.photos.double(), pixels)
    changed = (pixels + made.perturbation).clamp(0, 255)
    assert torch.equal(made.perturbed.double(), changed)
    before, after = (network((x / 255 - mean) / std) for x in (pixels, changed))
    assert torch.allclose(made.before, before)
    assert torch.allclose(made.after, after)
    assert torch.equal(made.fooled, before.argmax(1) != after.argmax(1))
    rates = [one.score for one in shown if isinstance(one, Progress)]
    assert rates[-1] == float(made.fooled.double().mean())
    assert {tuple(one.picture.shape) for one in shown if isinstance(one, Preview)} == {(3, 96, 96)}


def test_an_l2_budget_holds_at_8_bits() -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(6)]
    request = spec(photos, norm=attack_pb2.NORM_L2, epsilon=30.5, pass_count=4, fooling_rate=1.0)
    with running() as runner:
        made = run(runner, read(request, tiny_model(Mixed(), 8)))
    assert 0 < float(made.perturbation.norm()) <= 30.5
    assert torch.equal(made.perturbation, made.perturbation.round())


# Going on.


def packed(asked: wire.AskedOptimize, snapshot: Snapshot) -> bytes:
    parts = wire.write_checkpoint(asked.spec, asked.settings, [snapshot], KEY)
    return b"".join(part.chunk for part in parts)


def long_spec(**options: Any) -> optimize_pb2.OptimizeSpec:
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(7)]
    return spec(photos, pass_count=4, fooling_rate=1.0, epsilon=3.0, **options)


def test_going_on_from_any_checkpoint_ends_in_the_same_bits() -> None:
    on = tiny_model(Mixed(), 8)
    shown: list[Any] = []
    asked = read(long_spec(checkpoint_every=3), on)
    with running() as runner:
        whole = run(runner, asked, shown)
        snapshots = [one for one in shown if isinstance(one, Snapshot)]
        assert [one.total for one in snapshots] == list(range(3, 7 * whole.pass_count + 1, 3))
        assert {one.octave for one in snapshots} == set(range(whole.pass_count))
        for snapshot in snapshots:
            request = long_spec()
            request.checkpoint = packed(asked, snapshot)
            again = read(request, on)
            assert again.notes == ()
            rest = run(runner, again)
            assert rest.pass_count == whole.pass_count
            assert torch.equal(rest.perturbation, whole.perturbation)
            assert torch.equal(rest.after, whole.after)
            left, all_of_it = (
                sum(one.spec.method.row_counts(on, one.spec.target).values())
                for one in (again, asked)
            )
            assert left < all_of_it
    other = long_spec(seed=1)
    other.checkpoint = packed(asked, snapshots[0])
    with pytest.raises(InvalidArgument, match="is of another attack"):
        read(other, on)
    fewer = long_spec()
    del fewer.photos[3]
    fewer.checkpoint = packed(asked, snapshots[0])
    with pytest.raises(InvalidArgument, match="is of another photo"):
        read(fewer, on)


@pytest.mark.parametrize("epsilon", [3.0, 5.0, 7.0, 10.0])
def test_half_the_size_keeps_the_budget_and_whole_numbers(epsilon: float) -> None:
    """From the last one, whose best perturbation is the result: no later pass is better."""
    on, shown = tiny_model(Red()), list[Any]()
    half = checkpoint_pb2.CHECKPOINT_PRECISION_HALF
    request = spec(reds(90, 60), epsilon=epsilon, pass_count=3, checkpoint_every=1)
    request.attack.checkpoint_precision = half
    asked = read(request, on)
    with running() as runner:
        whole = run(runner, asked, shown)
        *_, last = [one for one in shown if isinstance(one, Snapshot)]
        request.checkpoint = packed(asked, last)
        resumed = read(request, on)
        assert resumed.notes == ("bits differ: the checkpoint is of half precision",)
        rest = run(runner, resumed)
    assert float(whole.perturbation.max()) == epsilon
    assert torch.equal(rest.perturbation, whole.perturbation)
    assert torch.equal(
        rest.perturbed.int() - rest.photos.int(),
        rest.perturbation.int()[None].expand(2, -1, -1, -1),
    )


@pytest.mark.parametrize("after", [0, 5])
def test_a_server_that_stops_hands_it_over(after: int) -> None:
    """After so many photos; at once, what is shown is the start."""
    on, shown = tiny_model(Mixed(), 8), []
    asked = read(long_spec(checkpoint_every=10_000, progress_every=1), on)
    with running() as runner:
        whole = run(runner, read(long_spec(), on))

        def keep(done: Any) -> None:
            shown.append(done.result)
            if isinstance(done.result, Progress) and done.result.step == after:
                runner.engine.hand_over()

        if after == 0:
            runner.engine.hand_over()
        job = runner.engine.submit(asked.spec, outlet=keep)
        with pytest.raises(Unavailable):
            job.future.result(60)
    [snapshot] = [one for one in shown if isinstance(one, Snapshot)]
    assert snapshot is shown[-1]
    assert snapshot.total >= after
    with running() as runner:
        request = long_spec(checkpoint_every=10_000)
        request.checkpoint = packed(asked, snapshot)
        rest = run(runner, read(request, on))
    assert torch.equal(rest.perturbation, whole.perturbation)
    assert torch.equal(rest.after, whole.after)


def test_who_wants_no_checkpoints_is_finished_here() -> None:
    on = tiny_model(Mixed(), 8)
    with running() as runner:
        runner.engine.hand_over()
        assert run(runner, read(long_spec(), on)).pass_count


# What is wrong.


def refusals(request: optimize_pb2.OptimizeSpec, on: Model | None = None) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        read(request, on or tiny_model(Red()))
    return {v.field: v.description for v in caught.value.violations}


def test_everything_that_is_wrong_is_named_at_once() -> None:
    request = spec(
        reds(1), epsilon=5, pass_count=0, fooling_rate=0.0, candidate_count=3, overshoot=-1.0
    )
    request.photos.append(of(np.zeros((3, 2, 2), np.float32)))
    request.photos[1].tensor.data_type = data_pb2.DATA_TYPE_FLOAT32
    request.photos.append(data_pb2.Image(encoded=b"no photo"))
    request.photo_count = 2
    request.image.encoded = b"no photo"
    request.format = data_pb2.IMAGE_FORMAT_JPEG
    request.attack.class_index = 1
    request.attack.transfer = True
    found = refusals(request)
    assert found["attack.universal.pass_count"] == "is 0; must be 1 to 100"
    assert found["attack.universal.candidate_count"] == "is 3; must be 2 to 2"
    assert set(found) == {
        *(f"attack.universal.{n}" for n in ("pass_count", "fooling_rate", "candidate_count")),
        "attack.universal.overshoot",
        *("attack.class_index", "attack.transfer", "image", "photo_count", "format"),
        *("photos[1].tensor", "photos[2].encoded"),
    }
    for norm, most in ((attack_pb2.NORM_LINF, "255"), (attack_pb2.NORM_L2, "1e+06")):
        for epsilon in (0.0, 0.5):
            assert refusals(spec(reds(1), epsilon=epsilon, norm=norm)) == {
                "attack.universal.epsilon": f"is {epsilon}; must be 1 to {most}: at 8 bits nothing "
                "less is a change"
            }


def test_how_many_photos_there_may_be() -> None:
    assert refusals(spec([])) == {"photos": "has 0; must have 1 to 1024"}
    assert refusals(spec(reds(*[1] * 1025))) == {"photos": "has 1025; must have 1 to 1024"}


def test_photos_are_for_nothing_else() -> None:
    request = spec(reds(1))
    request.attack.fgsm.SetInParent()
    request.image.CopyFrom(request.photos[0])
    assert refusals(request) == {"photos": "is for Universal of attack"}
    ascend = optimize_pb2.Ascend(objectives=[optimize_pb2.Objective(class_index=1)])
    request = optimize_pb2.OptimizeSpec(ascend=ascend, photos=request.photos)
    on = model("efficientnet_lite0")
    assert refusals(request, on) == {"photos": "is for Universal of attack"}


def test_a_photo_that_cannot_be_decoded_is_named_by_its_place() -> None:
    """Its header is that of a photo: that its rest is not shows in a worker."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        file, "png"
    )
    request = spec(reds(*range(20)))
    request.photos[18].encoded = file.getvalue()[:2000]
    with running() as runner, pytest.raises(InvalidArgument) as caught:
        run(runner, read(request, tiny_model(Red())))
    [violation] = caught.value.violations
    assert violation.field == "photos[18].encoded"
