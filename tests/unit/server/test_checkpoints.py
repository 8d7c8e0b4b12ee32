"""Checkpoints: signed, bound to what they are of, and enough to go on to the same bits."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.checkpoints import (
    BadCheckpoint,
    Checkpoint,
    halved,
    read_key,
    restored,
    unpack,
)
from pellucid_server.config import Settings
from pellucid_server.errors import InvalidArgument, Unavailable
from pellucid_server.methods.optimize.optimize import Buckets, Optimize, Optimized
from pellucid_server.methods.optimize.snapshot import Declared, Snapshot
from pellucid_server.models.registry import Registry
from pellucid_server.wire.checkpoints import read_checkpoint
from pellucid_server.wire.fields import Violations

from tests.harness import Runner, model, photo, running

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"
NAME = "efficientnet_lite0"
MADE = Checkpoint({"octave": 1}, {"a": torch.arange(6.0).view(2, 3)})


def test_there_and_back() -> None:
    data = MADE.pack(KEY)
    assert data == MADE.pack(KEY)
    back = unpack(data, KEY)
    assert back.header == MADE.header
    assert torch.equal(back.tensors["a"], MADE.tensors["a"])


def test_no_changed_byte_goes_unseen() -> None:
    data = MADE.pack(KEY)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(BadCheckpoint):
            unpack(bytes(changed), KEY)
    for wrong in (b"", data[:-1], data + b"\0", data[:30], b"pickle"):
        with pytest.raises(BadCheckpoint):
            unpack(wrong, KEY)
    with pytest.raises(BadCheckpoint, match="signed with another key"):
        unpack(data, OTHER_KEY)
    assert unpack(data, KEY)


def test_keys_are_read_and_checked_at_start(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    assert read_key(key) == KEY
    assert Settings(checkpoint_key_file=key).checkpoint_key_file == key
    key.write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes; it needs at least 16"):
        Settings(checkpoint_key_file=key)


def spec(**parameters: Any) -> optimize_pb2.OptimizeSpec:
    parameters = {"step_count": 6, "checkpoint_every": 2, "seed": 3} | parameters
    apart = parameters.pop("apart", False)
    ascend = optimize_pb2.Ascend(
        objectives=[
            optimize_pb2.Objective(class_index=1),
            optimize_pb2.Objective(code=optimize_pb2.Code(layer="blocks.1.1")),
        ],
        **parameters,
    )
    if apart:
        diversity = optimize_pb2.Diversity(layer="blocks.2.0")
        ascend.objectives.add(diversity=diversity, weight=30)
    image = data_pb2.Tensor(data_type=1, shape=photo("cat").shape, data=photo("cat").tobytes())
    return optimize_pb2.OptimizeSpec(ascend=ascend, image=data_pb2.Image(tensor=image))


def read(
    request: optimize_pb2.OptimizeSpec, key: bytes = KEY, bucket: int = 4, on: Any = None
) -> wire.AskedOptimize:
    return wire.read_optimize(
        request,
        wire.Call("", time.monotonic() + 120),
        Registry([on or model(NAME)]),
        wire.Limits(10**6, (1,), 10**6, Buckets(bucket), key),
    )


def run(runner: Runner, asked: wire.AskedOptimize) -> tuple[Optimized, list[bytes]]:
    """What comes of it, and all checkpoints on the way."""
    collector, checkpoints = wire.Collector(asked.image_count), []

    def keep(done: Any) -> None:
        if isinstance(done.result, Snapshot):
            complete = collector.add(done.result)
            if complete is not None:
                checkpoints.append(packed(asked, complete))

    job = runner.engine.submit(asked.spec, outlet=keep)
    return job.future.result(120).result, checkpoints


def packed(asked: wire.AskedOptimize, snapshots: Any) -> bytes:
    parts = wire.write_checkpoint(asked.spec, asked.settings, snapshots, KEY, asked.notes)
    return b"".join(part.chunk for part in parts)


OCTAVES = {
    "preset": optimize_pb2.PRESET_MORDVINTSEV,
    "octave_count": 2,
    "step_count": 4,
    "restart_count": 2,
    "update": optimize_pb2.UPDATE_RULE_ADAM,
    "start": optimize_pb2.START_NOISE,
}


APART = {"restart_count": 3, "apart": True}


@pytest.mark.parametrize("parameters", [{}, {"restart_count": 5}, OCTAVES, APART], ids=str)
def test_going_on_from_any_checkpoint_ends_in_the_same_bits(parameters: dict[str, Any]) -> None:
    with running() as runner:
        whole, checkpoints = run(runner, read(spec(**parameters)))
        assert len(checkpoints) >= 2
        for checkpoint in checkpoints:
            request = spec(**parameters)
            request.checkpoint = checkpoint
            asked = read(request)
            assert asked.notes == ()
            rest, _ = run(runner, asked)
            assert torch.equal(rest.pictures, whole.pictures)
            assert [end.progress for end in rest.ends] == [end.progress for end in whole.ends]


def test_what_is_done_is_not_paid_for_again() -> None:
    with running() as runner:
        asked = read(spec(restart_count=2))
        _, checkpoints = run(runner, asked)
        request = spec(restart_count=2)
        request.checkpoint = checkpoints[1]
        rest = read(request)
        before, after = (
            one.spec.method.row_counts(one.spec.model, one.spec.target) for one in (asked, rest)
        )
    assert sum(before.values()) - sum(after.values()) == 2 * 4


def test_on_another_bucket_it_says_that_bits_may_differ() -> None:
    with running() as runner:
        _, checkpoints = run(runner, read(spec()))
        request = spec()
        request.checkpoint = checkpoints[0]
        asked = read(request, bucket=1)
        assert asked.notes == ("bits may differ: bucket_size was 4, is 1",)
        rest, later = run(runner, asked)
        assert rest.ends[0].finite
        # Where it goes on from that in turn, it is still not the run that was not interrupted.
        request.checkpoint = later[0]
        assert read(request, bucket=1).notes == asked.notes


HALF = optimize_pb2.CHECKPOINT_PRECISION_HALF


def test_half_the_size_goes_on_close_by_and_says_so() -> None:
    """One step after it: further on, a gate that flips sends images apart."""
    asked, halves = spec(step_count=7), spec(step_count=7, checkpoint_precision=HALF)
    with running() as runner:
        whole, full = run(runner, read(asked))
        same, half = run(runner, read(halves))
        assert torch.equal(same.pictures, whole.pictures)
        assert [len(one) for one in half] == pytest.approx([len(one) / 2 for one in full], rel=0.01)
        asked.checkpoint = half[-1]  # whichever form is asked for now
        going = read(asked)
        assert going.notes == ("bits differ: the checkpoint is of half precision",)
        rest, _ = run(runner, going)
    difference = (rest.pictures - whole.pictures).abs()
    assert 0 < float(difference.max()) < 0.02
    assert float(difference.mean()) < 1e-3
    [end], [expected] = rest.ends, whole.ends
    assert end.progress.step == 7
    assert end.progress.score == pytest.approx(expected.progress.score, rel=0.05)


def test_halves_against_their_definition() -> None:
    """A relative error of 1e-3 at most over 16 orders of magnitude, whatever the largest is."""
    decades = torch.logspace(-16, 0, 1000, dtype=torch.float64)
    for scale in (1e-30, 1.0, 3.7, 1e8):
        tensor = scale * torch.cat([decades, -decades])
        back = restored(*halved(tensor), torch.float64)
        assert float(((back - tensor) / tensor).abs().max()) < 1e-3
    special = torch.tensor([0.0, -0.0, 4.0, -math.inf, math.nan])
    small, factor = halved(special)
    assert small.dtype is torch.half
    back = restored(small, factor, torch.float32)
    assert back[:4].tolist() == special[:4].tolist()
    assert back[4].isnan()
    assert restored(*halved(torch.zeros(3)), torch.float32).tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    with running() as runner:
        return run(runner, read(spec()))[1][0]


def test_how_often_events_come_may_differ(checkpoint: bytes) -> None:
    request = spec(checkpoint_every=0, progress_every=1, preview_every=3)
    request.checkpoint = checkpoint
    method = read(request).spec.method
    assert isinstance(method, Optimize)
    assert method.states[0].step == 2


def test_a_checkpoint_of_something_else_is_refused(checkpoint: bytes) -> None:
    def refusal(request: optimize_pb2.OptimizeSpec, **options: Any) -> str:
        request.checkpoint = request.checkpoint or checkpoint
        with pytest.raises(InvalidArgument) as caught:
            read(request, **options)
        [violation] = caught.value.violations
        assert violation.field == "checkpoint"
        return violation.description

    assert "is of another ascend" in refusal(spec(seed=4))
    assert "is of another ascend" in refusal(spec(learning_rate=0.1))
    other = spec()
    other.image.tensor.data = np.zeros_like(photo("cat")).tobytes()
    assert refusal(other) == "is of another photo"
    renamed = replace(model(NAME), weights_sha256="f" * 64)
    assert refusal(spec(), on=renamed) == "is of another model version"
    assert "signed with another key" in refusal(spec(), key=OTHER_KEY)
    tampered = spec()
    tampered.checkpoint = checkpoint[:-1] + bytes([checkpoint[-1] ^ 1])
    assert "is damaged" in refusal(tampered)


@dataclass(frozen=True)
class Searching:
    """A method whose state is a tensor, a count and a bound that may be infinite."""

    image_count: int = 2
    length: int = 3

    def declared(self, model: Any) -> list[Declared]:
        counts = {"image": ((self.length,), torch.float64), "seen": ((1,), torch.int64)}
        return [Declared(counts, frozenset({"bound", "third"}))]


def searched(restart: int, **numbers: float) -> Snapshot:
    tensors = {
        "image": torch.rand(3, dtype=torch.float64, generator=GENERATOR.manual_seed(restart)),
        "seen": torch.tensor([2**60 + restart]),
    }
    return Snapshot(restart, 0, 4 + restart, 4 + restart, tensors, numbers)


GENERATOR = torch.Generator()
STATES = [searched(0, bound=math.inf, third=1 / 3), searched(1, bound=1e-300, third=-0.0)]


def searching(**method: Any) -> Any:
    return replace(read(spec()).spec, method=Searching(**method))


def written(settings: Any, states: list[Snapshot]) -> bytes:
    parts = wire.write_checkpoint(searching(), settings, states, KEY)
    return b"".join(part.chunk for part in parts)


def test_whatever_a_method_declares_comes_back_to_the_bit() -> None:
    attack = attack_pb2.Attack(class_index=3, progress_every=4)
    data = written(attack, STATES)
    attack.progress_every, found = 9, Violations()
    states, notes = read_checkpoint(found, searching(), attack, data, KEY)
    found.raise_any()
    assert notes == ()
    for state, expected in zip(states, STATES, strict=True):
        assert (state.restart, state.octave) == (expected.restart, 0)
        assert (state.step, state.total) == (expected.step, expected.total)
        assert state.numbers == expected.numbers
        assert math.copysign(1, state.numbers["third"]) == math.copysign(
            1, expected.numbers["third"]
        )
        assert state.tensors.keys() == expected.tensors.keys()
        for name, tensor in expected.tensors.items():
            assert torch.equal(state.tensors[name], tensor)


@pytest.mark.parametrize(
    ("settings", "method", "states", "expected"),
    [
        (attack_pb2.Attack(class_index=4), {}, STATES, "is of another attack: only how often"),
        (optimize_pb2.Ascend(), {}, STATES, "is of another method"),
        (None, {"image_count": 3}, STATES, "is no checkpoint of this version"),
        (None, {"length": 4}, STATES, "is no checkpoint of this version"),
        (
            None,
            {},
            [replace(one, numbers={"bound": 1.0}) for one in STATES],
            "is no checkpoint of this version",
        ),
        (
            None,
            {},
            [replace(one, tensors={"image": one.tensors["image"]}) for one in STATES],
            "is no checkpoint of this version",
        ),
        (
            None,
            {},
            [
                replace(one, tensors=dict(one.tensors) | {"seen": torch.tensor([1.0])})
                for one in STATES
            ],
            "is no checkpoint of this version",
        ),
        (None, {}, [replace(one, octave=1) for one in STATES], "is no checkpoint of this version"),
    ],
    ids=(
        *("settings", "method", "images", "shape", "numbers", "missing tensor", "dtype"),
        "octave",
    ),
)
def test_what_other_code_signed_is_refused(
    settings: Any, method: dict[str, Any], states: list[Snapshot], expected: str
) -> None:
    attack, found = attack_pb2.Attack(class_index=3), Violations()
    data = written(attack, states)
    read_checkpoint(found, searching(**method), settings or attack, data, KEY)
    with pytest.raises(InvalidArgument) as caught:
        found.raise_any()
    [violation] = caught.value.violations
    assert violation.field == "checkpoint"
    assert violation.description.startswith(expected)


def test_a_server_that_stops_shows_the_last_state() -> None:
    with running() as runner:
        whole, _ = run(runner, read(spec(step_count=40)))
        asked, snapshots = read(spec(step_count=40, checkpoint_every=10_000)), []
        started = []

        def keep(done: Any) -> None:
            if isinstance(done.result, Snapshot):
                snapshots.append(done.result)
            elif not started:
                started.append(done)
                runner.engine.hand_over()

        job = runner.engine.submit(asked.spec, outlet=keep)
        with pytest.raises(Unavailable):
            job.future.result(60)
        assert 0 < snapshots[0].step < 40
        late = runner.engine.submit(read(spec(step_count=40)).spec, outlet=snapshots.append)
        with pytest.raises(Unavailable):
            late.future.result(60)
        assert snapshots[1].result.step == 0
    with running() as runner:
        request = spec(step_count=40, checkpoint_every=10_000)
        request.checkpoint = packed(asked, snapshots[:1])
        rest, _ = run(runner, read(request))
    assert torch.equal(rest.pictures, whole.pictures)
