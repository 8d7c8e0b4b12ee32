from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import stylize_pb2 as _stylize_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VideoOverflow(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VIDEO_OVERFLOW_UNSPECIFIED: _ClassVar[VideoOverflow]
    VIDEO_OVERFLOW_DROP_OLDEST: _ClassVar[VideoOverflow]
    VIDEO_OVERFLOW_KEEP_ALL: _ClassVar[VideoOverflow]

class FrameFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_FORMAT_UNSPECIFIED: _ClassVar[FrameFormat]
    FRAME_FORMAT_JPEG: _ClassVar[FrameFormat]
    FRAME_FORMAT_RGB: _ClassVar[FrameFormat]
VIDEO_OVERFLOW_UNSPECIFIED: VideoOverflow
VIDEO_OVERFLOW_DROP_OLDEST: VideoOverflow
VIDEO_OVERFLOW_KEEP_ALL: VideoOverflow
FRAME_FORMAT_UNSPECIFIED: FrameFormat
FRAME_FORMAT_JPEG: FrameFormat
FRAME_FORMAT_RGB: FrameFormat

class StylizeVideoSpec(_message.Message):
    __slots__ = ("fast", "styles", "overflow", "smoothing", "format", "quality", "frame_timeout_ms")
    FAST_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    FRAME_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    fast: _stylize_pb2.Fast
    styles: _containers.RepeatedCompositeFieldContainer[_stylize_pb2.StylePicture]
    overflow: VideoOverflow
    smoothing: float
    format: FrameFormat
    quality: int
    frame_timeout_ms: float
    def __init__(self, fast: _Optional[_Union[_stylize_pb2.Fast, _Mapping]] = ..., styles: _Optional[_Iterable[_Union[_stylize_pb2.StylePicture, _Mapping]]] = ..., overflow: _Optional[_Union[VideoOverflow, str]] = ..., smoothing: _Optional[float] = ..., format: _Optional[_Union[FrameFormat, str]] = ..., quality: _Optional[int] = ..., frame_timeout_ms: _Optional[float] = ...) -> None: ...

class VideoFrame(_message.Message):
    __slots__ = ("index", "timestamp_ms", "image")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    timestamp_ms: float
    image: _data_pb2.Image
    def __init__(self, index: _Optional[int] = ..., timestamp_ms: _Optional[float] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ...) -> None: ...

class StylizeVideoRequest(_message.Message):
    __slots__ = ("spec", "frame")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    spec: StylizeVideoSpec
    frame: VideoFrame
    def __init__(self, spec: _Optional[_Union[StylizeVideoSpec, _Mapping]] = ..., frame: _Optional[_Union[VideoFrame, _Mapping]] = ...) -> None: ...

class VideoStarted(_message.Message):
    __slots__ = ("model", "model_version", "asked")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    asked: StylizeVideoSpec
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., asked: _Optional[_Union[StylizeVideoSpec, _Mapping]] = ...) -> None: ...

class StylizedFrame(_message.Message):
    __slots__ = ("index", "timestamp_ms", "image", "pixels", "failure", "dropped_count", "taken_ms")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    TAKEN_MS_FIELD_NUMBER: _ClassVar[int]
    index: int
    timestamp_ms: float
    image: _data_pb2.EncodedImage
    pixels: _data_pb2.Tensor
    failure: _data_pb2.Failure
    dropped_count: int
    taken_ms: float
    def __init__(self, index: _Optional[int] = ..., timestamp_ms: _Optional[float] = ..., image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., pixels: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., failure: _Optional[_Union[_data_pb2.Failure, _Mapping]] = ..., dropped_count: _Optional[int] = ..., taken_ms: _Optional[float] = ...) -> None: ...

class VideoSummary(_message.Message):
    __slots__ = ("received_count", "stylized_count", "dropped_count", "failed_count", "most_waiting_count")
    RECEIVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    STYLIZED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    MOST_WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    received_count: int
    stylized_count: int
    dropped_count: int
    failed_count: int
    most_waiting_count: int
    def __init__(self, received_count: _Optional[int] = ..., stylized_count: _Optional[int] = ..., dropped_count: _Optional[int] = ..., failed_count: _Optional[int] = ..., most_waiting_count: _Optional[int] = ...) -> None: ...

class StylizeVideoResponse(_message.Message):
    __slots__ = ("started", "frame", "summary")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    started: VideoStarted
    frame: StylizedFrame
    summary: VideoSummary
    def __init__(self, started: _Optional[_Union[VideoStarted, _Mapping]] = ..., frame: _Optional[_Union[StylizedFrame, _Mapping]] = ..., summary: _Optional[_Union[VideoSummary, _Mapping]] = ...) -> None: ...
