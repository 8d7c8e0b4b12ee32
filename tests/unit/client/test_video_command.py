"""What becomes of a camera's frames on the command line, without a server."""

from collections.abc import Iterator
from typing import Any

import pytest
from pellucid.cli.video import _run
from pellucid.errors import Internal, InvalidArgument, Violation
from pellucid.optimizing import Course
from pellucid.video import StylizedFrame, VideoSummary

LARGE = InvalidArgument("is too large", violations=[Violation("frame.image", "is too large")])


def frame(index: int, error: Any = None, dropped_count: int = 0) -> StylizedFrame:
    return StylizedFrame(index, 0.0, None, error, dropped_count, 1.0)


def course(*events: Any) -> Any:
    def each() -> Iterator[Any]:
        for event in events:
            if isinstance(event, BaseException):
                raise event
            yield event

    return Course(each(), VideoSummary)  # type: ignore[arg-type]


def test_the_first_failure_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [frame(0, LARGE), frame(1), frame(2, Internal("it broke")), frame(3, dropped_count=1)]
    taken: list[int] = []
    run = _run(
        course(*frames, VideoSummary(6, 2, 2, 2, 1)),
        lambda one: taken.append(one.index) is None,
        None,
        True,
    )
    assert taken == [1, 3]
    assert (run.count, run.failed_count, run.dropped_count) == (2, 2, 2)
    told = capsys.readouterr().err
    assert told == "pellucid: a frame failed: is too large; --side sets the size of frames\n"


@pytest.mark.parametrize("count", [3, 1000])
def test_where_no_frame_comes_back_it_ends(count: int) -> None:
    """After some, or at the end of the stream."""
    seen: list[int] = []

    def each() -> Iterator[Any]:
        for i in range(count):
            seen.append(i)
            yield frame(i, LARGE)
        yield VideoSummary(count, 0, 0, count, 1)

    stream: Any = Course(each(), VideoSummary)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="is too large"):
        _run(stream, lambda _: True, None, True)
    assert len(seen) == min(count, 10)


def test_what_was_dropped_is_known_without_a_summary() -> None:
    stopped = _run(
        course(frame(0), frame(9, dropped_count=8), KeyboardInterrupt()),
        lambda _: True,
        None,
        True,
    )
    assert (stopped.count, stopped.dropped_count) == (2, 8)
    closed = _run(
        course(frame(0), frame(5, dropped_count=4)), lambda one: not one.index, None, True
    )
    assert (closed.count, closed.dropped_count) == (1, 4)
