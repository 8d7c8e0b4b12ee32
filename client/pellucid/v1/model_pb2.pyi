from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FLOAT32: _ClassVar[Precision]
    PRECISION_FLOAT64: _ClassVar[Precision]
    PRECISION_TF32: _ClassVar[Precision]
    PRECISION_BFLOAT16: _ClassVar[Precision]

class Interpolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERPOLATION_UNSPECIFIED: _ClassVar[Interpolation]
    INTERPOLATION_BILINEAR: _ClassVar[Interpolation]
    INTERPOLATION_BICUBIC: _ClassVar[Interpolation]

class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAYOUT_UNSPECIFIED: _ClassVar[Layout]
    LAYOUT_CHANNELS: _ClassVar[Layout]
    LAYOUT_MAPS: _ClassVar[Layout]
    LAYOUT_MAPS_CHANNELS_LAST: _ClassVar[Layout]
    LAYOUT_TOKENS: _ClassVar[Layout]

class Lane(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LANE_UNSPECIFIED: _ClassVar[Lane]
    LANE_FORWARD: _ClassVar[Lane]
    LANE_GRADIENT: _ClassVar[Lane]
    LANE_LRP: _ClassVar[Lane]
    LANE_DEEPLIFT: _ClassVar[Lane]

class Platform(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLATFORM_UNSPECIFIED: _ClassVar[Platform]
    PLATFORM_TORCH: _ClassVar[Platform]
    PLATFORM_ONNX: _ClassVar[Platform]
PRECISION_UNSPECIFIED: Precision
PRECISION_FLOAT32: Precision
PRECISION_FLOAT64: Precision
PRECISION_TF32: Precision
PRECISION_BFLOAT16: Precision
INTERPOLATION_UNSPECIFIED: Interpolation
INTERPOLATION_BILINEAR: Interpolation
INTERPOLATION_BICUBIC: Interpolation
LAYOUT_UNSPECIFIED: Layout
LAYOUT_CHANNELS: Layout
LAYOUT_MAPS: Layout
LAYOUT_MAPS_CHANNELS_LAST: Layout
LAYOUT_TOKENS: Layout
LANE_UNSPECIFIED: Lane
LANE_FORWARD: Lane
LANE_GRADIENT: Lane
LANE_LRP: Lane
LANE_DEEPLIFT: Lane
PLATFORM_UNSPECIFIED: Platform
PLATFORM_TORCH: Platform
PLATFORM_ONNX: Platform

class Preprocessing(_message.Message):
    __slots__ = ("resize_shorter_side_px", "height_px", "width_px", "interpolation", "mean", "std")
    RESIZE_SHORTER_SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    resize_shorter_side_px: int
    height_px: int
    width_px: int
    interpolation: Interpolation
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, resize_shorter_side_px: _Optional[int] = ..., height_px: _Optional[int] = ..., width_px: _Optional[int] = ..., interpolation: _Optional[_Union[Interpolation, str]] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "type", "shape", "targetable", "note", "layout", "grid")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    TARGETABLE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    targetable: bool
    note: str
    layout: Layout
    grid: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., targetable: bool = ..., note: _Optional[str] = ..., layout: _Optional[_Union[Layout, str]] = ..., grid: _Optional[_Iterable[int]] = ...) -> None: ...

class MethodSupport(_message.Message):
    __slots__ = ("method", "supported", "reason", "row_count", "anytime", "evidence")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SUPPORTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    ANYTIME_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    method: str
    supported: bool
    reason: str
    row_count: int
    anytime: bool
    evidence: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, method: _Optional[str] = ..., supported: bool = ..., reason: _Optional[str] = ..., row_count: _Optional[int] = ..., anytime: bool = ..., evidence: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchCost(_message.Message):
    __slots__ = ("lane", "bucket_size", "row_ms")
    LANE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    ROW_MS_FIELD_NUMBER: _ClassVar[int]
    lane: Lane
    bucket_size: int
    row_ms: float
    def __init__(self, lane: _Optional[_Union[Lane, str]] = ..., bucket_size: _Optional[int] = ..., row_ms: _Optional[float] = ...) -> None: ...

class Onnx(_message.Message):
    __slots__ = ("opset", "provider", "fixed_batch_size", "parity", "white_box_refusal", "notes")
    OPSET_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    FIXED_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    WHITE_BOX_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    opset: int
    provider: str
    fixed_batch_size: int
    parity: float
    white_box_refusal: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, opset: _Optional[int] = ..., provider: _Optional[str] = ..., fixed_batch_size: _Optional[int] = ..., parity: _Optional[float] = ..., white_box_refusal: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("name", "ready", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    ready: bool
    version: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., ready: bool = ..., version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("name", "ready", "version", "reason", "architecture", "preprocessing", "precision", "layers", "methods", "labels", "costs", "gate_count", "device", "platform", "onnx")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    GATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    ONNX_FIELD_NUMBER: _ClassVar[int]
    name: str
    ready: bool
    version: str
    reason: str
    architecture: str
    preprocessing: Preprocessing
    precision: Precision
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    methods: _containers.RepeatedCompositeFieldContainer[MethodSupport]
    labels: _containers.RepeatedScalarFieldContainer[str]
    costs: _containers.RepeatedCompositeFieldContainer[BatchCost]
    gate_count: int
    device: str
    platform: Platform
    onnx: Onnx
    def __init__(self, name: _Optional[str] = ..., ready: bool = ..., version: _Optional[str] = ..., reason: _Optional[str] = ..., architecture: _Optional[str] = ..., preprocessing: _Optional[_Union[Preprocessing, _Mapping]] = ..., precision: _Optional[_Union[Precision, str]] = ..., layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., methods: _Optional[_Iterable[_Union[MethodSupport, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., costs: _Optional[_Iterable[_Union[BatchCost, _Mapping]]] = ..., gate_count: _Optional[int] = ..., device: _Optional[str] = ..., platform: _Optional[_Union[Platform, str]] = ..., onnx: _Optional[_Union[Onnx, _Mapping]] = ...) -> None: ...
