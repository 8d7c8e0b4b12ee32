from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fill(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILL_UNSPECIFIED: _ClassVar[Fill]
    FILL_BLACK: _ClassVar[Fill]
    FILL_WHITE: _ClassVar[Fill]
    FILL_MEAN: _ClassVar[Fill]
    FILL_BLUR: _ClassVar[Fill]

class ExplainOutput(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLAIN_OUTPUT_UNSPECIFIED: _ClassVar[ExplainOutput]
    EXPLAIN_OUTPUT_ATTRIBUTION: _ClassVar[ExplainOutput]
    EXPLAIN_OUTPUT_HEATMAP: _ClassVar[ExplainOutput]
    EXPLAIN_OUTPUT_RENDERING: _ClassVar[ExplainOutput]

class ColorScale(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOR_SCALE_UNSPECIFIED: _ClassVar[ColorScale]
    COLOR_SCALE_SIGNED: _ClassVar[ColorScale]
    COLOR_SCALE_ABSOLUTE: _ClassVar[ColorScale]
FILL_UNSPECIFIED: Fill
FILL_BLACK: Fill
FILL_WHITE: Fill
FILL_MEAN: Fill
FILL_BLUR: Fill
EXPLAIN_OUTPUT_UNSPECIFIED: ExplainOutput
EXPLAIN_OUTPUT_ATTRIBUTION: ExplainOutput
EXPLAIN_OUTPUT_HEATMAP: ExplainOutput
EXPLAIN_OUTPUT_RENDERING: ExplainOutput
COLOR_SCALE_UNSPECIFIED: ColorScale
COLOR_SCALE_SIGNED: ColorScale
COLOR_SCALE_ABSOLUTE: ColorScale

class Batch(_message.Message):
    __slots__ = ("bucket_size", "row_count", "own_row_count")
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    OWN_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    bucket_size: int
    row_count: int
    own_row_count: int
    def __init__(self, bucket_size: _Optional[int] = ..., row_count: _Optional[int] = ..., own_row_count: _Optional[int] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("model", "model_version", "preprocessing", "precision", "device", "decode_ms", "queue_ms", "run_ms", "render_ms", "batches")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    RUN_MS_FIELD_NUMBER: _ClassVar[int]
    RENDER_MS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    preprocessing: _model_pb2.Preprocessing
    precision: _model_pb2.Precision
    device: str
    decode_ms: float
    queue_ms: float
    run_ms: float
    render_ms: float
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., preprocessing: _Optional[_Union[_model_pb2.Preprocessing, _Mapping]] = ..., precision: _Optional[_Union[_model_pb2.Precision, str]] = ..., device: _Optional[str] = ..., decode_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., run_ms: _Optional[float] = ..., render_ms: _Optional[float] = ..., batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("class_index", "label", "probability", "logit")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    label: str
    probability: float
    logit: float
    def __init__(self, class_index: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., logit: _Optional[float] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model", "image", "top_k", "include_logits", "bucket_size")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LOGITS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: _data_pb2.Image
    top_k: int
    include_logits: bool
    bucket_size: int
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., top_k: _Optional[int] = ..., include_logits: bool = ..., bucket_size: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("run", "predictions", "logits")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    run: Run
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    logits: _data_pb2.Tensor
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., logits: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Neuron(_message.Message):
    __slots__ = ("layer", "channel", "y", "x")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    layer: str
    channel: int
    y: int
    x: int
    def __init__(self, layer: _Optional[str] = ..., channel: _Optional[int] = ..., y: _Optional[int] = ..., x: _Optional[int] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("class_index", "label", "neuron")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    label: str
    neuron: Neuron
    def __init__(self, class_index: _Optional[int] = ..., label: _Optional[str] = ..., neuron: _Optional[_Union[Neuron, _Mapping]] = ...) -> None: ...

class ResolvedTarget(_message.Message):
    __slots__ = ("class_index", "neuron", "label", "score", "top_prediction")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TOP_PREDICTION_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    neuron: Neuron
    label: str
    score: float
    top_prediction: bool
    def __init__(self, class_index: _Optional[int] = ..., neuron: _Optional[_Union[Neuron, _Mapping]] = ..., label: _Optional[str] = ..., score: _Optional[float] = ..., top_prediction: bool = ...) -> None: ...

class Gradient(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Deconvnet(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GuidedBackprop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Occlusion(_message.Message):
    __slots__ = ("window_px", "stride_px", "fill", "blur_sigma_px")
    WINDOW_PX_FIELD_NUMBER: _ClassVar[int]
    STRIDE_PX_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_PX_FIELD_NUMBER: _ClassVar[int]
    window_px: int
    stride_px: int
    fill: Fill
    blur_sigma_px: float
    def __init__(self, window_px: _Optional[int] = ..., stride_px: _Optional[int] = ..., fill: _Optional[_Union[Fill, str]] = ..., blur_sigma_px: _Optional[float] = ...) -> None: ...

class OcclusionDetails(_message.Message):
    __slots__ = ("falls", "largest_fall", "largest_rise")
    FALLS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FALL_FIELD_NUMBER: _ClassVar[int]
    LARGEST_RISE_FIELD_NUMBER: _ClassVar[int]
    falls: _data_pb2.Tensor
    largest_fall: _data_pb2.Box
    largest_rise: _data_pb2.Box
    def __init__(self, falls: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., largest_fall: _Optional[_Union[_data_pb2.Box, _Mapping]] = ..., largest_rise: _Optional[_Union[_data_pb2.Box, _Mapping]] = ...) -> None: ...

class Rendering(_message.Message):
    __slots__ = ("color_scale", "percentile", "longest_side_px", "format", "legend")
    COLOR_SCALE_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    LONGEST_SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LEGEND_FIELD_NUMBER: _ClassVar[int]
    color_scale: ColorScale
    percentile: float
    longest_side_px: int
    format: _data_pb2.ImageFormat
    legend: bool
    def __init__(self, color_scale: _Optional[_Union[ColorScale, str]] = ..., percentile: _Optional[float] = ..., longest_side_px: _Optional[int] = ..., format: _Optional[_Union[_data_pb2.ImageFormat, str]] = ..., legend: bool = ...) -> None: ...

class Heatmap(_message.Message):
    __slots__ = ("image", "color_scale", "limit", "percentile")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COLOR_SCALE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    image: _data_pb2.EncodedImage
    color_scale: ColorScale
    limit: float
    percentile: float
    def __init__(self, image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., color_scale: _Optional[_Union[ColorScale, str]] = ..., limit: _Optional[float] = ..., percentile: _Optional[float] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "image", "target", "outputs", "rendering", "bucket_size", "gradient", "deconvnet", "guided_backprop", "occlusion")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    DECONVNET_FIELD_NUMBER: _ClassVar[int]
    GUIDED_BACKPROP_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: _data_pb2.Image
    target: Target
    outputs: _containers.RepeatedScalarFieldContainer[ExplainOutput]
    rendering: Rendering
    bucket_size: int
    gradient: Gradient
    deconvnet: Deconvnet
    guided_backprop: GuidedBackprop
    occlusion: Occlusion
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., target: _Optional[_Union[Target, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[ExplainOutput, str]]] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., bucket_size: _Optional[int] = ..., gradient: _Optional[_Union[Gradient, _Mapping]] = ..., deconvnet: _Optional[_Union[Deconvnet, _Mapping]] = ..., guided_backprop: _Optional[_Union[GuidedBackprop, _Mapping]] = ..., occlusion: _Optional[_Union[Occlusion, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("run", "target", "gradient", "deconvnet", "guided_backprop", "occlusion", "attribution", "heatmap", "rendering", "input_box", "occlusion_details")
    RUN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    DECONVNET_FIELD_NUMBER: _ClassVar[int]
    GUIDED_BACKPROP_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    INPUT_BOX_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    run: Run
    target: ResolvedTarget
    gradient: Gradient
    deconvnet: Deconvnet
    guided_backprop: GuidedBackprop
    occlusion: Occlusion
    attribution: _data_pb2.Tensor
    heatmap: Heatmap
    rendering: _data_pb2.EncodedImage
    input_box: _data_pb2.Box
    occlusion_details: OcclusionDetails
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., target: _Optional[_Union[ResolvedTarget, _Mapping]] = ..., gradient: _Optional[_Union[Gradient, _Mapping]] = ..., deconvnet: _Optional[_Union[Deconvnet, _Mapping]] = ..., guided_backprop: _Optional[_Union[GuidedBackprop, _Mapping]] = ..., occlusion: _Optional[_Union[Occlusion, _Mapping]] = ..., attribution: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., heatmap: _Optional[_Union[Heatmap, _Mapping]] = ..., rendering: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., input_box: _Optional[_Union[_data_pb2.Box, _Mapping]] = ..., occlusion_details: _Optional[_Union[OcclusionDetails, _Mapping]] = ...) -> None: ...
