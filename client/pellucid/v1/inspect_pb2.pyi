from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SheetScale(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHEET_SCALE_UNSPECIFIED: _ClassVar[SheetScale]
    SHEET_SCALE_EACH: _ClassVar[SheetScale]
    SHEET_SCALE_SHARED: _ClassVar[SheetScale]
SHEET_SCALE_UNSPECIFIED: SheetScale
SHEET_SCALE_EACH: SheetScale
SHEET_SCALE_SHARED: SheetScale

class Sheet(_message.Message):
    __slots__ = ("tile_count", "tile_px", "scale", "format", "include_tensor")
    TILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TILE_PX_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TENSOR_FIELD_NUMBER: _ClassVar[int]
    tile_count: int
    tile_px: int
    scale: SheetScale
    format: _data_pb2.ImageFormat
    include_tensor: bool
    def __init__(self, tile_count: _Optional[int] = ..., tile_px: _Optional[int] = ..., scale: _Optional[_Union[SheetScale, str]] = ..., format: _Optional[_Union[_data_pb2.ImageFormat, str]] = ..., include_tensor: bool = ...) -> None: ...

class InspectFilters(_message.Message):
    __slots__ = ("layer", "input_channel", "sheet")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    INPUT_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SHEET_FIELD_NUMBER: _ClassVar[int]
    layer: str
    input_channel: int
    sheet: Sheet
    def __init__(self, layer: _Optional[str] = ..., input_channel: _Optional[int] = ..., sheet: _Optional[_Union[Sheet, _Mapping]] = ...) -> None: ...

class InspectActivations(_message.Message):
    __slots__ = ("layer", "sheet")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHEET_FIELD_NUMBER: _ClassVar[int]
    layer: str
    sheet: Sheet
    def __init__(self, layer: _Optional[str] = ..., sheet: _Optional[_Union[Sheet, _Mapping]] = ...) -> None: ...

class InspectGradients(_message.Message):
    __slots__ = ("layer", "target", "sheet")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SHEET_FIELD_NUMBER: _ClassVar[int]
    layer: str
    target: _inference_pb2.Target
    sheet: Sheet
    def __init__(self, layer: _Optional[str] = ..., target: _Optional[_Union[_inference_pb2.Target, _Mapping]] = ..., sheet: _Optional[_Union[Sheet, _Mapping]] = ...) -> None: ...

class InspectWalk(_message.Message):
    __slots__ = ("top_k",)
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    top_k: int
    def __init__(self, top_k: _Optional[int] = ...) -> None: ...

class InspectColumn(_message.Message):
    __slots__ = ("x_px", "y_px")
    X_PX_FIELD_NUMBER: _ClassVar[int]
    Y_PX_FIELD_NUMBER: _ClassVar[int]
    x_px: int
    y_px: int
    def __init__(self, x_px: _Optional[int] = ..., y_px: _Optional[int] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("model", "image", "filters", "activations", "gradients", "walk", "column", "bucket_size")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    WALK_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: _data_pb2.Image
    filters: InspectFilters
    activations: InspectActivations
    gradients: InspectGradients
    walk: InspectWalk
    column: InspectColumn
    bucket_size: int
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., filters: _Optional[_Union[InspectFilters, _Mapping]] = ..., activations: _Optional[_Union[InspectActivations, _Mapping]] = ..., gradients: _Optional[_Union[InspectGradients, _Mapping]] = ..., walk: _Optional[_Union[InspectWalk, _Mapping]] = ..., column: _Optional[_Union[InspectColumn, _Mapping]] = ..., bucket_size: _Optional[int] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("min", "max", "mean", "standard_deviation", "zero_share")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    ZERO_SHARE_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    mean: float
    standard_deviation: float
    zero_share: float
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ..., mean: _Optional[float] = ..., standard_deviation: _Optional[float] = ..., zero_share: _Optional[float] = ...) -> None: ...

class ReceptiveField(_message.Message):
    __slots__ = ("height_px", "width_px", "stride_y_px", "stride_x_px", "whole")
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    STRIDE_Y_PX_FIELD_NUMBER: _ClassVar[int]
    STRIDE_X_PX_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    height_px: int
    width_px: int
    stride_y_px: int
    stride_x_px: int
    whole: bool
    def __init__(self, height_px: _Optional[int] = ..., width_px: _Optional[int] = ..., stride_y_px: _Optional[int] = ..., stride_x_px: _Optional[int] = ..., whole: bool = ...) -> None: ...

class TileSheet(_message.Message):
    __slots__ = ("image", "channels", "strengths", "lows", "highs", "column_count", "tile_shape")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STRENGTHS_FIELD_NUMBER: _ClassVar[int]
    LOWS_FIELD_NUMBER: _ClassVar[int]
    HIGHS_FIELD_NUMBER: _ClassVar[int]
    COLUMN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TILE_SHAPE_FIELD_NUMBER: _ClassVar[int]
    image: _data_pb2.EncodedImage
    channels: _containers.RepeatedScalarFieldContainer[int]
    strengths: _containers.RepeatedScalarFieldContainer[float]
    lows: _containers.RepeatedScalarFieldContainer[float]
    highs: _containers.RepeatedScalarFieldContainer[float]
    column_count: int
    tile_shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., channels: _Optional[_Iterable[int]] = ..., strengths: _Optional[_Iterable[float]] = ..., lows: _Optional[_Iterable[float]] = ..., highs: _Optional[_Iterable[float]] = ..., column_count: _Optional[int] = ..., tile_shape: _Optional[_Iterable[int]] = ...) -> None: ...

class LayerSheet(_message.Message):
    __slots__ = ("layer", "sheet", "statistics", "tensor", "target")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHEET_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    layer: str
    sheet: TileSheet
    statistics: Statistics
    tensor: _data_pb2.Tensor
    target: _inference_pb2.ResolvedTarget
    def __init__(self, layer: _Optional[str] = ..., sheet: _Optional[_Union[TileSheet, _Mapping]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., tensor: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., target: _Optional[_Union[_inference_pb2.ResolvedTarget, _Mapping]] = ...) -> None: ...

class LayerRow(_message.Message):
    __slots__ = ("layer", "type", "shape", "statistics", "dead_count", "saturated_count", "channel_count", "receptive_field")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    DEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    SATURATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_FIELD_NUMBER: _ClassVar[int]
    layer: str
    type: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    statistics: Statistics
    dead_count: int
    saturated_count: int
    channel_count: int
    receptive_field: ReceptiveField
    def __init__(self, layer: _Optional[str] = ..., type: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., dead_count: _Optional[int] = ..., saturated_count: _Optional[int] = ..., channel_count: _Optional[int] = ..., receptive_field: _Optional[_Union[ReceptiveField, _Mapping]] = ...) -> None: ...

class LayerWalk(_message.Message):
    __slots__ = ("rows", "predictions")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[LayerRow]
    predictions: _containers.RepeatedCompositeFieldContainer[_inference_pb2.Prediction]
    def __init__(self, rows: _Optional[_Iterable[_Union[LayerRow, _Mapping]]] = ..., predictions: _Optional[_Iterable[_Union[_inference_pb2.Prediction, _Mapping]]] = ...) -> None: ...

class LayerPlace(_message.Message):
    __slots__ = ("layer", "y", "x", "box", "activation")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    layer: str
    y: int
    x: int
    box: _data_pb2.Box
    activation: _data_pb2.Tensor
    def __init__(self, layer: _Optional[str] = ..., y: _Optional[int] = ..., x: _Optional[int] = ..., box: _Optional[_Union[_data_pb2.Box, _Mapping]] = ..., activation: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ...) -> None: ...

class LayerColumn(_message.Message):
    __slots__ = ("places",)
    PLACES_FIELD_NUMBER: _ClassVar[int]
    places: _containers.RepeatedCompositeFieldContainer[LayerPlace]
    def __init__(self, places: _Optional[_Iterable[_Union[LayerPlace, _Mapping]]] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("run", "layer", "walk", "column")
    RUN_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WALK_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    run: _inference_pb2.Run
    layer: LayerSheet
    walk: LayerWalk
    column: LayerColumn
    def __init__(self, run: _Optional[_Union[_inference_pb2.Run, _Mapping]] = ..., layer: _Optional[_Union[LayerSheet, _Mapping]] = ..., walk: _Optional[_Union[LayerWalk, _Mapping]] = ..., column: _Optional[_Union[LayerColumn, _Mapping]] = ...) -> None: ...
