"""Checkpoints: signed, bound to what they are of, and enough to go on to the same bits."""

import hmac
import json
import math
import time
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from google.protobuf import json_format
from pellucid.v1 import attack_pb2, checkpoint_pb2, data_pb2, inference_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.checkpoints import (
    BadCheckpoint,
    Checkpoint,
    halved,
    restored,
    unpack,
)
from pellucid_server.config import Settings
from pellucid_server.errors import InvalidArgument, Unavailable
from pellucid_server.methods.optimize.optimize import Buckets, Optimize, Optimized
from pellucid_server.methods.optimize.snapshot import Declared, Snapshot
from pellucid_server.methods.optimize.stepper import Preview, Progress
from pellucid_server.models.registry import Registry
from pellucid_server.signing import read_key
from pellucid_server.wire.checkpoints import most_checkpoint_bytes, read_checkpoint
from pellucid_server.wire.fields import Violations
from pydantic import ValidationError
from torch import Tensor, nn

from tests.harness import Runner, model, photo, running, tiny_model

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"
NAME = "efficientnet_lite0"
MADE = Checkpoint({"octave": 1}, {"a": torch.arange(6.0).view(2, 3)})


def test_there_and_back() -> None:
    data = MADE.pack(KEY)
    assert data == MADE.pack(KEY)
    back = unpack(data, KEY)
    assert back.header == MADE.header
    assert torch.equal(back.tensors["a"], MADE.tensors["a"])


def test_tensors_are_as_safetensors_reads_them() -> None:
    """By that library's own reader; whatever their layout and width are."""
    tensors = {
        "odd": torch.rand(3, generator=GENERATOR.manual_seed(1)).half(),
        "turned": torch.rand(2, 3, 4, dtype=torch.float64).permute(2, 0, 1),
        "counts": torch.tensor([2**60, -1]),
        "one": torch.tensor(0.5),
    }
    data = Checkpoint({}, tensors).pack(KEY)
    back = safetensors.torch.load(data[data.index(b"{}") + 2 : -32])
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype is tensor.dtype
        assert torch.equal(back[name], tensor)


def test_what_a_checkpoint_is_read_from_may_go() -> None:
    """Its tensors are copies, and the only ones that are made."""
    made = Checkpoint({}, {"a": torch.arange(2.0**18), "b": torch.ones(3, dtype=torch.float64)})
    data = bytearray(made.pack(KEY))
    tracemalloc.start()
    back = unpack(data, KEY)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) - 1000 < most < 1.1 * len(data)
    data[:] = bytes(len(data))
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in made.tensors.items())


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "BF16", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": 2, "data_offsets": 8},
        [],
    ],
    ids=str,
)
def test_what_this_key_signed_and_this_code_cannot_read_is_refused(entry: Any) -> None:
    inner = json.dumps({"a": entry}).encode()
    header = b"{}"
    body = b"pellucid checkpoint 3\n" + len(header).to_bytes(4, "little") + header
    body += len(inner).to_bytes(8, "little") + inner + bytes(8)
    with pytest.raises(BadCheckpoint, match="is no checkpoint of this version"):
        unpack(body + hmac.digest(KEY, body, "sha256"), KEY)


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


def test_keys_are_read_and_checked_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    assert read_key(key) == KEY
    assert Settings(checkpoint_key_file=key).checkpoint_key_file == key
    key.write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes; it needs at least 16"):
        Settings(checkpoint_key_file=key)

    def fail(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ValidationError, match=f"{key}: cannot be read: Permission denied"):
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


LIMITS = wire.Limits(10**6, (1,), 10**6, Buckets(4), KEY)


def read(
    request: optimize_pb2.OptimizeSpec,
    rest: bytes = b"",
    on: Any = None,
    limits: wire.Limits = LIMITS,
    *,
    follows: bool = False,
    **limited: Any,
) -> wire.AskedOptimize:
    call = wire.Call("", time.monotonic() + 120)
    registry, limits = Registry([on or model(NAME)]), replace(limits, **limited)
    return wire.read_optimize(request, call, registry, limits, rest, follows=follows)


def refused(request: optimize_pb2.OptimizeSpec, *args: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        read(request, *args, **options)
    return {one.field: one.description for one in caught.value.violations}


def run(runner: Runner, asked: wire.AskedOptimize) -> tuple[Optimized, list[bytes]]:
    """What comes of it, and all checkpoints on the way."""
    collector, checkpoints = wire.Collector(asked.image_count, asked.states), []

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
            assert all(map(torch.equal, rest.pictures, whole.pictures))
            assert [end.progress for end in rest.ends] == [end.progress for end in whole.ends]


class Cliff(nn.Module):
    """The mean of red, which is no number beyond a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.conv, self.limit = nn.Conv2d(3, 2, 1, bias=False), limit
        self.conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1]]).view(2, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        level = self.conv(images).mean((2, 3))
        return level + 0 * (self.limit - level[:, :1]).sqrt()


def climbing(apart: bool, **parameters: Any) -> optimize_pb2.OptimizeSpec:
    ascend = optimize_pb2.Ascend(
        objectives=[optimize_pb2.Objective(class_index=0)],
        preset=optimize_pb2.PRESET_MORDVINTSEV,
        start=optimize_pb2.START_NOISE,
        update=optimize_pb2.UPDATE_RULE_SIGN,
        **{"noise_std": 100, "learning_rate": 0.1, "octave_count": 2, "step_count": 4}
        | {"restart_count": 3, "checkpoint_every": 1, "progress_every": 1, "jitter_px": 0}
        | parameters,
    )
    if apart:
        ascend.objectives.add(diversity=optimize_pb2.Diversity(layer="conv"), weight=1e-3)
    return optimize_pb2.OptimizeSpec(ascend=ascend)


def same(rest: Optimized, whole: Optimized) -> bool:
    told = [[(end.finite, repr(end.progress)) for end in one.ends] for one in (rest, whole)]
    pairs = zip(rest.ends, whole.ends, strict=True)
    return told[0] == told[1] and all(torch.equal(a.picture, b.picture) for a, b in pairs)


@pytest.mark.parametrize("apart", [False, True], ids=["each", "apart"])
def test_an_image_that_ended_early_is_in_every_later_checkpoint(apart: bool) -> None:
    with running() as runner:
        free = read(climbing(apart), on=tiny_model(Cliff(1e6), 64))
        scores: dict[int, list[float]] = {}

        def note(done: Any) -> None:
            if isinstance(done.result, Progress):
                scores.setdefault(done.result.restart, []).append(done.result.terms[0])

        runner.engine.submit(free.spec, outlet=note).future.result(60)
        first = max(scores, key=lambda restart: scores[restart][0])
        cliff = tiny_model(Cliff((scores[first][1] + scores[first][2]) / 2), 64)
        asked = read(climbing(apart), on=cliff)
        whole, checkpoints = run(runner, asked)
        assert [end.finite for end in whole.ends] == [k != first for k in range(3)]
        assert whole.ends[first].progress.step == 2
        assert len(checkpoints) >= 7
        for place, checkpoint in enumerate(checkpoints):
            request = climbing(apart)
            request.checkpoint = checkpoint
            rest, later = run(runner, read(request, on=cliff))
            assert same(rest, whole)
            assert len(later) >= 6 - place
            if place:
                assert later[-1:] in ([], checkpoints[-1:])


def test_a_server_that_stops_as_some_images_have_made_their_last_step() -> None:
    """The one of an octave's: others have a step to go. Batches are of one image."""
    one = replace(LIMITS, optimize_buckets=Buckets(1))
    given = {"preview_every": 4, "checkpoint_every": 1000, "restart_count": 2}
    shown: list[Snapshot] = []
    with running() as runner:
        asked = read(climbing(False, **given), on=tiny_model(Cliff(1e6), 64), limits=one)
        whole, _ = run(runner, asked)

        def keep(done: Any) -> None:
            if isinstance(done.result, Snapshot):
                shown.append(done.result)
            elif isinstance(done.result, Preview):
                runner.engine.hand_over()

        job = runner.engine.submit(asked.spec, outlet=keep)
        with pytest.raises(Unavailable):
            job.future.result(60)
    assert sorted(one.step for one in shown) == [3, 4]
    assert [one.octave for one in shown] == [0, 0]
    request = climbing(False, **given)
    request.checkpoint = packed(asked, sorted(shown, key=lambda one: one.restart))
    with running() as runner:
        rest, _ = run(runner, read(request, on=tiny_model(Cliff(1e6), 64), limits=one))
    assert same(rest, whole)


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
        asked = read(request, optimize_buckets=Buckets(1))
        assert asked.notes == ("bits may differ: bucket_size was 4, is 1",)
        rest, later = run(runner, asked)
        assert rest.ends[0].finite
        # Where it goes on from that in turn, it is still not the run that was not interrupted.
        request.checkpoint = later[0]
        assert read(request, optimize_buckets=Buckets(1)).notes == asked.notes


HALF = checkpoint_pb2.CHECKPOINT_PRECISION_HALF


def test_half_the_size_goes_on_close_by_and_says_so() -> None:
    """One step after it: further on, a gate that flips sends images apart."""
    asked, halves = spec(step_count=7), spec(step_count=7, checkpoint_precision=HALF)
    with running() as runner:
        whole, full = run(runner, read(asked))
        same, half = run(runner, read(halves))
        assert all(map(torch.equal, same.pictures, whole.pictures))
        assert [len(one) for one in half] == pytest.approx([len(one) / 2 for one in full], rel=0.01)
        asked.checkpoint = half[-1]  # whichever form is asked for now
        going = read(asked)
        assert going.notes == ("bits differ: the checkpoint is of half precision",)
        rest, _ = run(runner, going)
    difference = (torch.stack(rest.pictures) - torch.stack(whole.pictures)).abs()
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


def test_parts_fit_and_are_made_as_they_are_taken() -> None:
    """Of a cap of responses, whichever it is: in base64 they fit as well."""
    attack = attack_pb2.Attack(class_index=3)
    whole = written(attack, STATES)
    for most_bytes in (1 << 10, 1000, 1 << 30):
        parts = list(wire.write_checkpoint(searching(), attack, STATES, KEY, (), most_bytes))
        assert b"".join(part.chunk for part in parts) == whole
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
        for part in parts:
            response = optimize_pb2.OptimizeResponse(checkpoint=part)
            assert len(json_format.MessageToJson(part)) <= most_bytes
            assert response.ByteSize() <= most_bytes
    assert len(parts) == 1
    torn = replace(STATES[1], tensors={"image": torch.ones(2, dtype=torch.complex64)})
    lazy = wire.write_checkpoint(searching(), attack, [STATES[0], torn], KEY)
    with pytest.raises(KeyError):
        list(lazy)


def test_a_checkpoint_is_bound_to_values_not_to_how_they_are_written() -> None:
    """A parameter that an older server did not know, and that is off, is no other setting."""
    settings = optimize_pb2.Ascend(seed=3, l2_decay=0.5, step_count=6)
    settings.objectives.add(neuron=inference_pb2.Neuron(layer="a"), weight=1)
    data, found = written(settings, STATES), Violations()
    newer = optimize_pb2.Ascend.FromString(settings.SerializeToString())
    newer.tv_penalty, newer.clip_pixels, newer.progress_every = 0, False, 7
    read_checkpoint(found, searching(), newer, data, KEY)
    found.raise_any()
    for change in ({"seed": 4}, {"l2_decay": 0.0}, {"tv_penalty": 1e-9}, {"clip_pixels": True}):
        other = optimize_pb2.Ascend.FromString(settings.SerializeToString())
        other.MergeFrom(optimize_pb2.Ascend(**change))
        found = Violations()
        read_checkpoint(found, searching(), other, data, KEY)
        assert len(found) == 1
    other = optimize_pb2.Ascend.FromString(settings.SerializeToString())
    other.objectives[0].neuron.channel = 0  # one channel is not all of them
    found = Violations()
    read_checkpoint(found, searching(), other, data, KEY)
    assert len(found) == 1
    first, second = (attack_pb2.Attack(class_index=0), attack_pb2.Attack())
    found = Violations()
    read_checkpoint(found, searching(), second, written(first, STATES), KEY)
    assert len(found) == 1


def test_no_checkpoint_is_larger_than_is_said() -> None:
    """Of the full and of the half form, and of images that are kept apart."""
    for parameters in ({}, {"restart_count": 2}, APART, OCTAVES, {"checkpoint_precision": HALF}):
        with running() as runner:
            asked = read(spec(**parameters))
            _, checkpoints = run(runner, asked)
            half = "checkpoint_precision" in parameters
            most = most_checkpoint_bytes(asked.spec, in_halves=half)
            largest = max(map(len, checkpoints))
            assert largest <= most <= 1.1 * largest + (80 << 10)


def test_what_is_no_checkpoint_of_the_job_is_refused_by_its_size() -> None:
    request = spec()
    most = most_checkpoint_bytes(read(request).spec)
    for byte_count, said in (
        (most + 1, f"makes {most + 1} bytes; a checkpoint of this job has at most {most}"),
        (-1, "is -1; must be at least 0"),
    ):
        request.checkpoint_bytes = byte_count
        assert refused(request, follows=True) == {"checkpoint_bytes": said}
    request.checkpoint_bytes = 100
    said = "is for streams, in which more follows; here checkpoint has it all"
    assert refused(request) == {"checkpoint_bytes": said}
    assert refused(request, b"0" * 99) == {"checkpoint_bytes": said}
    assert set(refused(request, b"0" * 100)) == {"checkpoint"}
    assert read(request, follows=True).spec.method.states == ()
    request.checkpoint_bytes, request.checkpoint = 0, bytes(most + 1)
    assert refused(request) == {
        "checkpoint": f"makes {most + 1} bytes; a checkpoint of this job has at most {most}"
    }


def test_a_server_makes_none_that_it_would_not_take() -> None:
    small = replace(LIMITS, max_checkpoint_bytes=300_000)
    said = refused(spec(), limits=small)
    assert "goes on from at most 300000" in said.pop("ascend.checkpoint_every")
    assert not said
    assert read(spec(checkpoint_every=0), limits=small)


def test_snapshots_count_as_memory() -> None:
    """Three sets of those that a job makes, their halves, and those that it came from; by hand."""
    one = 4 * 4 * 3 * 96 * (96 // 2 + 1) * 2
    counts = [
        read(spec(restart_count=2, **options)).byte_count
        for options in (
            {"checkpoint_every": 0},
            {"checkpoint_every": 1},
            {"checkpoint_every": 1, "checkpoint_precision": HALF},
        )
    ]
    assert counts[1] - counts[0] == 3 * 2 * one
    assert counts[2] - counts[1] == one
    with running() as runner:
        _, [first, *_] = run(runner, read(spec(restart_count=2)))
    request = spec(restart_count=2, checkpoint_every=0)
    request.checkpoint = first
    assert read(request).byte_count - counts[0] == 2 * one


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
    assert "signed with another key" in refusal(spec(), checkpoint_key=OTHER_KEY)
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
    assert all(map(torch.equal, rest.pictures, whole.pictures))
