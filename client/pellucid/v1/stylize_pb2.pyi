from pellucid.v1 import checkpoint_pb2 as _checkpoint_pb2
from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import inference_pb2 as _inference_pb2
from pellucid.v1 import optimize_pb2 as _optimize_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GramNormalization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRAM_NORMALIZATION_UNSPECIFIED: _ClassVar[GramNormalization]
    GRAM_NORMALIZATION_GATYS: _ClassVar[GramNormalization]
    GRAM_NORMALIZATION_JOHNSON: _ClassVar[GramNormalization]

class Pooling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOLING_UNSPECIFIED: _ClassVar[Pooling]
    POOLING_AS_TRAINED: _ClassVar[Pooling]
    POOLING_AVERAGE: _ClassVar[Pooling]

class OriginalColors(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGINAL_COLORS_UNSPECIFIED: _ClassVar[OriginalColors]
    ORIGINAL_COLORS_OFF: _ClassVar[OriginalColors]
    ORIGINAL_COLORS_LUMINANCE: _ClassVar[OriginalColors]
    ORIGINAL_COLORS_HISTOGRAM: _ClassVar[OriginalColors]

class StyleStart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STYLE_START_UNSPECIFIED: _ClassVar[StyleStart]
    STYLE_START_CONTENT: _ClassVar[StyleStart]
    STYLE_START_NOISE: _ClassVar[StyleStart]
    STYLE_START_IMAGE: _ClassVar[StyleStart]

class StyleUpdate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STYLE_UPDATE_UNSPECIFIED: _ClassVar[StyleUpdate]
    STYLE_UPDATE_ADAM: _ClassVar[StyleUpdate]
    STYLE_UPDATE_LBFGS: _ClassVar[StyleUpdate]
GRAM_NORMALIZATION_UNSPECIFIED: GramNormalization
GRAM_NORMALIZATION_GATYS: GramNormalization
GRAM_NORMALIZATION_JOHNSON: GramNormalization
POOLING_UNSPECIFIED: Pooling
POOLING_AS_TRAINED: Pooling
POOLING_AVERAGE: Pooling
ORIGINAL_COLORS_UNSPECIFIED: OriginalColors
ORIGINAL_COLORS_OFF: OriginalColors
ORIGINAL_COLORS_LUMINANCE: OriginalColors
ORIGINAL_COLORS_HISTOGRAM: OriginalColors
STYLE_START_UNSPECIFIED: StyleStart
STYLE_START_CONTENT: StyleStart
STYLE_START_NOISE: StyleStart
STYLE_START_IMAGE: StyleStart
STYLE_UPDATE_UNSPECIFIED: StyleUpdate
STYLE_UPDATE_ADAM: StyleUpdate
STYLE_UPDATE_LBFGS: StyleUpdate

class WeightedLayer(_message.Message):
    __slots__ = ("layer", "weight")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    weight: float
    def __init__(self, layer: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class Neural(_message.Message):
    __slots__ = ("content_layers", "style_layers", "normalization", "content_weight", "style_weight", "tv_weight", "side_px", "start", "update", "learning_rate", "step_count", "scale_count", "pooling", "original_colors", "seed", "progress_every", "preview_every", "checkpoint_every", "checkpoint_precision")
    CONTENT_LAYERS_FIELD_NUMBER: _ClassVar[int]
    STYLE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TV_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCALE_COUNT_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_COLORS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_EVERY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_PRECISION_FIELD_NUMBER: _ClassVar[int]
    content_layers: _containers.RepeatedCompositeFieldContainer[WeightedLayer]
    style_layers: _containers.RepeatedCompositeFieldContainer[WeightedLayer]
    normalization: GramNormalization
    content_weight: float
    style_weight: float
    tv_weight: float
    side_px: int
    start: StyleStart
    update: StyleUpdate
    learning_rate: float
    step_count: int
    scale_count: int
    pooling: Pooling
    original_colors: OriginalColors
    seed: int
    progress_every: int
    preview_every: int
    checkpoint_every: int
    checkpoint_precision: _checkpoint_pb2.CheckpointPrecision
    def __init__(self, content_layers: _Optional[_Iterable[_Union[WeightedLayer, _Mapping]]] = ..., style_layers: _Optional[_Iterable[_Union[WeightedLayer, _Mapping]]] = ..., normalization: _Optional[_Union[GramNormalization, str]] = ..., content_weight: _Optional[float] = ..., style_weight: _Optional[float] = ..., tv_weight: _Optional[float] = ..., side_px: _Optional[int] = ..., start: _Optional[_Union[StyleStart, str]] = ..., update: _Optional[_Union[StyleUpdate, str]] = ..., learning_rate: _Optional[float] = ..., step_count: _Optional[int] = ..., scale_count: _Optional[int] = ..., pooling: _Optional[_Union[Pooling, str]] = ..., original_colors: _Optional[_Union[OriginalColors, str]] = ..., seed: _Optional[int] = ..., progress_every: _Optional[int] = ..., preview_every: _Optional[int] = ..., checkpoint_every: _Optional[int] = ..., checkpoint_precision: _Optional[_Union[_checkpoint_pb2.CheckpointPrecision, str]] = ...) -> None: ...

class NamedStyle(_message.Message):
    __slots__ = ("name", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight: float
    def __init__(self, name: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class Fast(_message.Message):
    __slots__ = ("styles", "strength", "side_px", "original_colors", "bucket_size")
    STYLES_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_COLORS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    styles: _containers.RepeatedCompositeFieldContainer[NamedStyle]
    strength: float
    side_px: int
    original_colors: OriginalColors
    bucket_size: int
    def __init__(self, styles: _Optional[_Iterable[_Union[NamedStyle, _Mapping]]] = ..., strength: _Optional[float] = ..., side_px: _Optional[int] = ..., original_colors: _Optional[_Union[OriginalColors, str]] = ..., bucket_size: _Optional[int] = ...) -> None: ...

class StylePicture(_message.Message):
    __slots__ = ("image", "weight")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    image: _data_pb2.Image
    weight: float
    def __init__(self, image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class StylizeSpec(_message.Message):
    __slots__ = ("model", "neural", "fast", "content", "styles", "mask", "start", "format", "include_pixels", "checkpoint", "checkpoint_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NEURAL_FIELD_NUMBER: _ClassVar[int]
    FAST_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    neural: Neural
    fast: Fast
    content: _data_pb2.Image
    styles: _containers.RepeatedCompositeFieldContainer[StylePicture]
    mask: _data_pb2.Image
    start: _data_pb2.Image
    format: _data_pb2.ImageFormat
    include_pixels: bool
    checkpoint: bytes
    checkpoint_bytes: int
    def __init__(self, model: _Optional[str] = ..., neural: _Optional[_Union[Neural, _Mapping]] = ..., fast: _Optional[_Union[Fast, _Mapping]] = ..., content: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., styles: _Optional[_Iterable[_Union[StylePicture, _Mapping]]] = ..., mask: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., start: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., format: _Optional[_Union[_data_pb2.ImageFormat, str]] = ..., include_pixels: bool = ..., checkpoint: _Optional[bytes] = ..., checkpoint_bytes: _Optional[int] = ...) -> None: ...

class StylizeRequest(_message.Message):
    __slots__ = ("spec", "checkpoint_chunk")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    spec: StylizeSpec
    checkpoint_chunk: bytes
    def __init__(self, spec: _Optional[_Union[StylizeSpec, _Mapping]] = ..., checkpoint_chunk: _Optional[bytes] = ...) -> None: ...

class StylizeProgress(_message.Message):
    __slots__ = ("step", "step_count", "loss", "content_losses", "style_losses", "tv_loss")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_LOSSES_FIELD_NUMBER: _ClassVar[int]
    STYLE_LOSSES_FIELD_NUMBER: _ClassVar[int]
    TV_LOSS_FIELD_NUMBER: _ClassVar[int]
    step: int
    step_count: int
    loss: float
    content_losses: _containers.RepeatedScalarFieldContainer[float]
    style_losses: _containers.RepeatedScalarFieldContainer[float]
    tv_loss: float
    def __init__(self, step: _Optional[int] = ..., step_count: _Optional[int] = ..., loss: _Optional[float] = ..., content_losses: _Optional[_Iterable[float]] = ..., style_losses: _Optional[_Iterable[float]] = ..., tv_loss: _Optional[float] = ...) -> None: ...

class StylizeResult(_message.Message):
    __slots__ = ("run", "image", "pixels", "neural", "fast", "progress", "stop_reason", "clipped_share", "notes")
    RUN_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    NEURAL_FIELD_NUMBER: _ClassVar[int]
    FAST_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_SHARE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    run: _inference_pb2.Run
    image: _data_pb2.EncodedImage
    pixels: _data_pb2.Tensor
    neural: Neural
    fast: Fast
    progress: StylizeProgress
    stop_reason: str
    clipped_share: float
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[_Union[_inference_pb2.Run, _Mapping]] = ..., image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., pixels: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., neural: _Optional[_Union[Neural, _Mapping]] = ..., fast: _Optional[_Union[Fast, _Mapping]] = ..., progress: _Optional[_Union[StylizeProgress, _Mapping]] = ..., stop_reason: _Optional[str] = ..., clipped_share: _Optional[float] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListStylesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StyleNetwork(_message.Message):
    __slots__ = ("name", "version", "ready", "reason", "styles", "takes_pictures", "licence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    TAKES_PICTURES_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    ready: bool
    reason: str
    styles: _containers.RepeatedScalarFieldContainer[str]
    takes_pictures: bool
    licence: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., ready: bool = ..., reason: _Optional[str] = ..., styles: _Optional[_Iterable[str]] = ..., takes_pictures: bool = ..., licence: _Optional[str] = ...) -> None: ...

class ListStylesResponse(_message.Message):
    __slots__ = ("networks",)
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    networks: _containers.RepeatedCompositeFieldContainer[StyleNetwork]
    def __init__(self, networks: _Optional[_Iterable[_Union[StyleNetwork, _Mapping]]] = ...) -> None: ...

class StylizeResponse(_message.Message):
    __slots__ = ("queued", "progress", "preview", "result", "checkpoint")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    queued: _optimize_pb2.OptimizeQueued
    progress: StylizeProgress
    preview: _optimize_pb2.OptimizePreview
    result: StylizeResult
    checkpoint: _optimize_pb2.OptimizeCheckpoint
    def __init__(self, queued: _Optional[_Union[_optimize_pb2.OptimizeQueued, _Mapping]] = ..., progress: _Optional[_Union[StylizeProgress, _Mapping]] = ..., preview: _Optional[_Union[_optimize_pb2.OptimizePreview, _Mapping]] = ..., result: _Optional[_Union[StylizeResult, _Mapping]] = ..., checkpoint: _Optional[_Union[_optimize_pb2.OptimizeCheckpoint, _Mapping]] = ...) -> None: ...
