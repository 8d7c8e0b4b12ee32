"""The course of an optimization over several servers, without any."""

import io
from pathlib import Path

import pellucid
import pytest
from pellucid import _optimize
from pellucid.v1 import data_pb2, inference_pb2, optimize_pb2
from PIL import Image


def spec(objectives: object = 1, **parameters: object) -> optimize_pb2.OptimizeSpec:
    options = {"score": None, "model": "", "format": None}
    return _optimize.optimize_request(
        objectives, **options, include_pixels=False, parameters=parameters
    )


def course(**options: object) -> _optimize.Course:
    given = {"timeout_s": 60.0, "resume": True, "resume_from": None} | options
    return _optimize.Course(spec(), **given)


def part(chunk: bytes, *, last: bool) -> optimize_pb2.OptimizeResponse:
    return optimize_pb2.OptimizeResponse(
        checkpoint=optimize_pb2.OptimizeCheckpoint(step=7, chunk=chunk, last=last)
    )


def test_objectives_as_they_are_sent() -> None:
    ascend = spec(
        [
            (1, 2.0),
            "cup",
            pellucid.Neuron("a", 1),
            pellucid.Direction("b", [1, 2], y=0, x=3),
            (pellucid.Energy("c"), -1),
        ],
        update="adam",
        jitter_px=4,
    ).ascend
    assert list(ascend.objectives) == [
        optimize_pb2.Objective(class_index=1, weight=2),
        optimize_pb2.Objective(label="cup"),
        optimize_pb2.Objective(neuron=inference_pb2.Neuron(layer="a", channel=1)),
        optimize_pb2.Objective(
            direction=optimize_pb2.Direction(layer="b", vector=[1, 2], y=0, x=3)
        ),
        optimize_pb2.Objective(energy=optimize_pb2.Energy(layer="c"), weight=-1),
    ]
    assert ascend.preset == optimize_pb2.PRESET_MORDVINTSEV
    assert ascend.update == optimize_pb2.UPDATE_RULE_ADAM
    assert ascend.jitter_px == 4


def test_a_tuple_with_a_number_is_one_objective_and_its_weight() -> None:
    goldfish = optimize_pb2.Objective(label="goldfish")
    weighted = optimize_pb2.Objective(label="goldfish", weight=2)
    two = optimize_pb2.Objective(class_index=2)
    assert list(spec(("goldfish", 2)).ascend.objectives) == [weighted]
    assert list(spec([("goldfish", 2)]).ascend.objectives) == [weighted]
    assert list(spec(["goldfish", 2]).ascend.objectives) == [goldfish, two]
    assert list(spec(("goldfish", "cup")).ascend.objectives) == [
        goldfish,
        optimize_pb2.Objective(label="cup"),
    ]
    energy = optimize_pb2.Objective(energy=optimize_pb2.Energy(layer="c"), weight=-0.5)
    assert list(spec((pellucid.Energy("c"), -0.5)).ascend.objectives) == [energy]
    class_2 = optimize_pb2.Objective(class_index=2, weight=0.5)
    assert list(spec((2, 0.5)).ascend.objectives) == [class_2]
    with pytest.raises(pellucid.BadArgument, match=r"is \(1, 2\); must be \[1, 2\] for two"):
        spec((1, 2))
    for wrong in [("goldfish", "twice")], [("goldfish", 1, 2)]:
        with pytest.raises(pellucid.BadArgument, match=r"must be \(objective, weight\)"):
            spec(wrong)


def test_what_is_optimized_for_decides_where_nothing_is_said() -> None:
    assert spec(1).ascend.preset == optimize_pb2.PRESET_OLAH
    code = spec(pellucid.Code("a"), step_count=9).ascend
    assert (code.preset, code.step_count) == (optimize_pb2.PRESET_OLAH, 9)
    assert code.HasField("jitter_px")
    assert code.jitter_px == 0
    named = spec(pellucid.Code("a"), preset="mahendran").ascend
    assert named == optimize_pb2.Ascend(
        objectives=[optimize_pb2.Objective(code=optimize_pb2.Code(layer="a"))],
        preset=optimize_pb2.PRESET_MAHENDRAN,
    )


def test_a_checkpoint_comes_and_goes_in_parts() -> None:
    going = course()
    assert [m.WhichOneof("part") for m in going.messages()] == ["spec"]
    assert going.messages()[0].spec.ascend.checkpoint_every == _optimize.CHECKPOINT_EVERY
    assert going.event(part(b"ab", last=False)) is None
    made = going.event(part(b"c", last=True))
    assert (made.step, made.data) == (7, b"abc")
    assert going.event(part(b"lost", last=False)) is None  # its server goes here
    again = going.messages()
    assert [m.checkpoint_chunk for m in again[1:]] == [b"abc"]
    assert again[0].spec.checkpoint_bytes == 3
    assert going.event(part(b"d", last=True)).data == b"d"
    large = course(resume_from=bytes(9 << 20)).messages()
    assert [len(m.checkpoint_chunk) >> 20 for m in large[1:]] == [1] * 9


def begun(**options: object) -> _optimize.Course:
    going = course(**options)
    going.event(optimize_pb2.OptimizeResponse(queued=optimize_pb2.OptimizeQueued()))
    return going


def test_only_a_server_that_left_is_gone_on_from() -> None:
    left, wrong = pellucid.Unavailable("left"), pellucid.InvalidArgument("wrong")
    assert 0 < begun().pause_s(left) < 2
    full = pellucid.ResourceExhausted("full", retry_delay_s=3.0)
    assert begun().pause_s(full) == 3.0
    for going, error in (
        (begun(), wrong),
        (begun(resume=False), left),
        (begun(timeout_s=0.1), left),
        (begun(timeout_s=2.0), full),
        (begun(), pellucid.ResourceExhausted("too large")),
        (course(), left),
    ):
        with pytest.raises(type(error), match=str(error)):
            going.pause_s(error)
    assert not course(resume=False).messages()[0].spec.ascend.HasField("checkpoint_every")


def test_time_that_runs_out_while_no_server_answers_is_theirs_to_explain() -> None:
    left = pellucid.Unavailable("left", reason="STOPPING")
    late = pellucid.DeadlineExceeded("Deadline Exceeded")
    going = begun()
    going.pause_s(left)
    with pytest.raises(pellucid.Unavailable) as caught:
        going.pause_s(late)
    assert caught.value is left
    for ends in ("another server is at work", "a server says that there is too little time"):
        going = begun()
        going.pause_s(left)
        error = late
        if ends == "another server is at work":
            going.event(optimize_pb2.OptimizeResponse(queued=optimize_pb2.OptimizeQueued()))
        else:
            error = pellucid.DeadlineExceeded("costs more", reason="TOO_COSTLY")
        with pytest.raises(pellucid.DeadlineExceeded):
            going.pause_s(error)


def test_events_of_a_later_contract_are_passed_over() -> None:
    assert _optimize.event(optimize_pb2.OptimizeResponse()) is None
    image = data_pb2.EncodedImage(data=b"jpeg")
    preview = optimize_pb2.OptimizePreview(step=3, image=image)
    made = _optimize.event(optimize_pb2.OptimizeResponse(preview=preview))
    assert (made.restart, made.step, made.jpeg) == (0, 3, b"jpeg")


def test_a_result_is_saved_in_either_format(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (250, 10, 20)).save(file, "png")
    made = pellucid.OptimizedImage(file.getvalue(), "png", None, 0, None, "")
    made.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == file.getvalue()
    made.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "JPEG"
        assert opened.size == (4, 3)
