"""Stylized video: specs from requests and from frames, results to frames."""

from dataclasses import dataclass, replace
from io import BytesIO
from math import prod

import numpy as np
from numpy.typing import NDArray
from pellucid.v1 import data_pb2, video_pb2
from PIL import Image
from torch import Tensor

from ..engine.job import Done, Spec
from ..engine.rows import TopTarget
from ..errors import PellucidError
from ..inputs import Decodable, Nothing, PlainPhoto
from ..methods.stylize.fast import Fast, NamedStyles, Painted, PictureStyles
from ..methods.stylize.video import FrameStylize, Smoother, StyleCode, Video
from ..models.styles.library import CodeModel, Library, Painter, StyleModel
from .failures import write_failure
from .fast import check_bucket, check_size, read_which, write_settings
from .fields import Violations, read_plain, times, write_parameters
from .limits import Call, Limits
from .requests import read_bucket_size
from .stylize import read_photo, size_of

_BESIDE_BYTES = 1 << 10
"""Of a frame's message besides its pixels; as a JPEG they take no more than three bytes each."""


@dataclass(frozen=True)
class AskedVideo:
    """A validated request.

    Attributes:
        video: How frames come and go.
        fast: How they are painted.
        resized: Whether fast says their size, or they keep their own.
        painter: The network.
        styles: Which.
        bucket_size: The batch size that they are painted at, if it is fixed.
        settings: What was asked, all but the pictures, every parameter filled in.
    """

    video: Video
    fast: Fast
    resized: bool
    painter: Painter
    styles: NamedStyles | PictureStyles
    bucket_size: int | None
    settings: video_pb2.StylizeVideoSpec

    @property
    def keeps_all(self) -> bool:
        """Whether no frame is dropped."""
        return self.video.overflow == "keep_all"


def read_video(request: video_pb2.StylizeVideoSpec, library: Library, limits: Limits) -> AskedVideo:
    """A stream's first message.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    video = read_plain(found, "", request, Video)
    fast = read_plain(found, "fast", request.fast, Fast)
    if fast is not None and fast.original_colors == "histogram":
        allowed = "ORIGINAL_COLORS_OFF or ORIGINAL_COLORS_LUMINANCE"
        found.invalid("fast.original_colors", f"is ORIGINAL_COLORS_HISTOGRAM; must be {allowed}")
    bucket_size = read_bucket_size(found.inside("fast"), request.fast, limits)
    painter, styles = read_which(found, request, None, library, limits)
    found.raise_any()
    assert video is not None
    assert fast is not None
    assert painter is not None
    assert styles is not None
    resized = request.fast.HasField("side_px")
    settings = video_pb2.StylizeVideoSpec()
    write_settings(fast, request.fast, settings.fast)
    if not resized:
        settings.fast.ClearField("side_px")
    write_parameters(video, settings, tensors=False)
    for style in request.styles:
        settings.styles.add(weight=style.weight if style.HasField("weight") else 1.0)
    return AskedVideo(video, fast, resized, painter, styles, bucket_size, settings)


def code_spec(asked: AskedVideo, call: Call) -> Spec[CodeModel] | None:
    """What computes the code of pictures; None for styles that have names."""
    if isinstance(asked.styles, NamedStyles):
        return None
    return Spec(
        asked.styles.predictor,
        StyleCode(asked.styles),
        Nothing(),
        TopTarget(),
        call.deadline_s,
        call.caller,
        1,
    )


def named_code(asked: AskedVideo) -> Tensor:
    """The code of styles that have names."""
    assert isinstance(asked.styles, NamedStyles)
    return asked.styles.network.code_of(asked.styles.weights)


@dataclass(frozen=True)
class FrameReader:
    """Frames as specs: all of one size, which the first one fixes that has an allowed one.

    Attributes:
        asked: The stream's request.
        code: Of its styles.
        limits: Of frames.
        size: Height and width of frames, once one has fixed them.
    """

    asked: AskedVideo
    code: Tensor
    limits: Limits
    size: tuple[int, int] | None = None

    def read(
        self, frame: video_pb2.VideoFrame, call: Call
    ) -> tuple[Spec[StyleModel], "FrameReader"]:
        """A frame's spec, and what reads the next one. In a worker.

        Raises:
            InvalidArgument: With every violation.
        """
        found = Violations()
        source = read_photo(found, "frame.image", frame.image, self.limits)
        size = None if source is None else self._size_of(found, source)
        found.raise_any()
        assert source is not None
        assert size is not None
        spec: Spec[StyleModel] = Spec(
            self.asked.painter,
            FrameStylize(self.asked.fast, self.code, size, self.asked.bucket_size),
            PlainPhoto(source, None, size),
            TopTarget(),
            call.deadline_s,
            call.caller,
            self.asked.bucket_size,
        )
        return spec, replace(self, size=size_of(source))

    def _size_of(self, found: Violations, source: Decodable) -> tuple[int, int]:
        """Height and width of the result."""
        own = size_of(source)
        size = self.asked.fast.size(*own) if self.asked.resized else own
        large_field = "fast.side_px" if self.asked.resized else "frame.image"
        if self.size is not None and own != self.size:
            found.invalid(
                "frame.image",
                f"is of {times(own)} pixels, and the stream of {times(self.size)}: all frames of "
                "a stream are of one size",
            )
        else:
            check_size(found, size, large_field, "frame.image", self.limits)
            check_bucket(found, self.asked.bucket_size, size, self.limits)
            most = self.limits.max_response_bytes
            if (byte_count := 3 * prod(size) + _BESIDE_BYTES) > most:
                found.invalid(
                    large_field,
                    f"makes an image of {times(size)}, which takes up to {byte_count} bytes; at "
                    f"most {most} are sent",
                )
        return size


def write_started(asked: AskedVideo) -> video_pb2.StylizeVideoResponse:
    """The spec is valid."""
    started = video_pb2.VideoStarted(
        model=asked.painter.name, model_version=asked.painter.version, asked=asked.settings
    )
    return video_pb2.StylizeVideoResponse(started=started)


def write_frame(
    asked: AskedVideo, smoother: Smoother, done: Done
) -> tuple[video_pb2.StylizedFrame, Smoother]:
    """What came of a frame, and what smooths the next one. In a worker."""
    assert isinstance(done.result, Painted)
    frame, result = done.loaded.input.numpy(), done.result.picture.float().numpy()
    made, smoother = smoother.smooth(frame, result)
    pixels = np.rint(made * 255).astype(np.uint8).transpose(1, 2, 0)
    if asked.video.format == "rgb":
        tensor = data_pb2.Tensor(
            data_type=data_pb2.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()
        )
        return video_pb2.StylizedFrame(pixels=tensor), smoother
    return video_pb2.StylizedFrame(image=_jpeg(pixels, asked.video.quality)), smoother


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> data_pb2.EncodedImage:
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    height_px, width_px = pixels.shape[:2]
    return data_pb2.EncodedImage(
        format=data_pb2.IMAGE_FORMAT_JPEG,
        data=file.getvalue(),
        width_px=width_px,
        height_px=height_px,
    )


def write_failed(error: PellucidError) -> video_pb2.StylizedFrame:
    """A frame failed."""
    return video_pb2.StylizedFrame(failure=write_failure(error))
