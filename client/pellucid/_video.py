"""Between Python's frames and the messages of stylized video: the core of both clients."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from typing import Any

import grpc

from . import _stylize, stylizing, video
from ._sending import awaited, sending
from ._wire.arrays import array_of
from ._wire.calls import failure_of
from ._wire.fields import read, set_fields
from ._wire.photos import image_of
from ._wire.responses import failure_in
from .errors import BadArgument, Internal
from .v1 import video_pb2


def video_request(
    styles: "stylizing.Styles", parameters: Mapping[str, Any], **options: Any
) -> video_pb2.StylizeVideoSpec:
    """What is asked; files of styles are read."""
    known_ones = _stylize.PARAMETERS["fast"]
    unknown = [name for name in parameters if name not in known_ones]
    if unknown:
        known = ", ".join(known_ones)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of a video, which has {known}")
    spec = video_pb2.StylizeVideoSpec()
    spec.fast.SetInParent()
    set_fields(spec, **options)
    set_fields(spec.fast, **parameters)
    for image, photo in _stylize.add_styles(spec, styles, names=True):
        image.CopyFrom(image_of(photo))
    return spec


class _Feed:
    """The messages of a call. What goes wrong with a frame ends them, and is raised at the end.

    Args:
        spec: The first.
    """

    def __init__(self, spec: video_pb2.StylizeVideoSpec) -> None:
        self._spec = spec
        self._error: Exception | None = None

    def messages(self, frames: "video.Frames") -> Iterator[video_pb2.StylizeVideoRequest]:
        """In another thread."""
        yield video_pb2.StylizeVideoRequest(spec=self._spec)
        try:
            for index, frame in enumerate(frames):
                yield _message(index, frame)
        except Exception as error:
            self._error = error

    async def messages_aio(
        self, frames: "video.AsyncFrames"
    ) -> AsyncIterator[video_pb2.StylizeVideoRequest]:
        """On the loop."""
        yield video_pb2.StylizeVideoRequest(spec=self._spec)
        index = 0
        try:
            async for frame in awaited(frames):
                yield await asyncio.to_thread(_message, index, frame)
                index += 1
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raises what ended the messages too soon."""
        if self._error is not None:
            raise self._error


def _message(index: int, frame: Any) -> video_pb2.StylizeVideoRequest:
    photo, timestamp_ms = frame if isinstance(frame, tuple) else (frame, 0.0)
    made = video_pb2.VideoFrame(index=index, timestamp_ms=timestamp_ms, image=image_of(photo))
    return video_pb2.StylizeVideoRequest(frame=made)


def stream(
    call: Callable[..., Any], spec: video_pb2.StylizeVideoSpec, frames: "video.Frames"
) -> Generator[Any, None, None]:
    """Frames as they come back, and the summary: before the error, where the server ends in one."""
    feed = _Feed(spec)
    responses = call(feed.messages(frames))
    summed_up = False
    try:
        for response in responses:
            if (event := _event(response)) is not None:
                summed_up = isinstance(event, video.VideoSummary)
                yield event
    except grpc.RpcError as error:
        error.__traceback__ = None  # the call is its own error: it would hold this frame
        raise failure_of(error) from error
    finally:
        responses.cancel()
    feed.check()
    if not summed_up:
        raise _unfinished()


async def stream_aio(
    call: Callable[..., Any], spec: video_pb2.StylizeVideoSpec, frames: "video.AsyncFrames"
) -> AsyncGenerator[Any, None]:
    """The twin of stream."""
    feed = _Feed(spec)
    responses = call()
    summed_up = False
    try:
        async with sending(responses, feed.messages_aio(frames)):
            async for response in responses:
                if (event := _event(response)) is not None:
                    summed_up = isinstance(event, video.VideoSummary)
                    yield event
    except grpc.RpcError as error:
        raise failure_of(error) from error
    feed.check()
    if not summed_up:
        raise _unfinished()


def _unfinished() -> Internal:
    return Internal("the server's stream has no summary")


def _event(response: video_pb2.StylizeVideoResponse) -> Any:
    """A frame or the summary; None: of another kind."""
    match response.WhichOneof("event"):
        case "frame":
            return _frame(response.frame)
        case "summary":
            return read(video.VideoSummary, response.summary)
    return None


def _frame(frame: video_pb2.StylizedFrame) -> video.StylizedFrame:
    outcome = frame.WhichOneof("outcome")
    return read(
        video.StylizedFrame,
        frame,
        encoded=frame.image.data if outcome == "image" else None,
        error=failure_in(frame.failure) if outcome == "failure" else None,
        _raw=array_of(frame.pixels) if outcome == "pixels" else None,
    )
