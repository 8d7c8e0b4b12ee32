from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import evidence_pb2 as _evidence_pb2
from pellucid.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Score(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_UNSPECIFIED: _ClassVar[Score]
    SCORE_LOGIT: _ClassVar[Score]
    SCORE_LOG_PROBABILITY: _ClassVar[Score]
    SCORE_PROBABILITY: _ClassVar[Score]

class Quadrature(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUADRATURE_UNSPECIFIED: _ClassVar[Quadrature]
    QUADRATURE_GAUSS_LEGENDRE: _ClassVar[Quadrature]
    QUADRATURE_TRAPEZOID: _ClassVar[Quadrature]
    QUADRATURE_ADAPTIVE: _ClassVar[Quadrature]

class Statistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATISTIC_UNSPECIFIED: _ClassVar[Statistic]
    STATISTIC_MEAN: _ClassVar[Statistic]
    STATISTIC_MEAN_SQUARE: _ClassVar[Statistic]
    STATISTIC_VARIANCE: _ClassVar[Statistic]

class Segmentation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENTATION_UNSPECIFIED: _ClassVar[Segmentation]
    SEGMENTATION_GRID: _ClassVar[Segmentation]
    SEGMENTATION_SLIC: _ClassVar[Segmentation]

class LrpRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LRP_RULE_UNSPECIFIED: _ClassVar[LrpRule]
    LRP_RULE_EPSILON: _ClassVar[LrpRule]
    LRP_RULE_COMPOSITE: _ClassVar[LrpRule]

class HeadFusion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_FUSION_UNSPECIFIED: _ClassVar[HeadFusion]
    HEAD_FUSION_MEAN: _ClassVar[HeadFusion]
    HEAD_FUSION_MAX: _ClassVar[HeadFusion]
    HEAD_FUSION_MIN: _ClassVar[HeadFusion]

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
SCORE_UNSPECIFIED: Score
SCORE_LOGIT: Score
SCORE_LOG_PROBABILITY: Score
SCORE_PROBABILITY: Score
QUADRATURE_UNSPECIFIED: Quadrature
QUADRATURE_GAUSS_LEGENDRE: Quadrature
QUADRATURE_TRAPEZOID: Quadrature
QUADRATURE_ADAPTIVE: Quadrature
STATISTIC_UNSPECIFIED: Statistic
STATISTIC_MEAN: Statistic
STATISTIC_MEAN_SQUARE: Statistic
STATISTIC_VARIANCE: Statistic
SEGMENTATION_UNSPECIFIED: Segmentation
SEGMENTATION_GRID: Segmentation
SEGMENTATION_SLIC: Segmentation
LRP_RULE_UNSPECIFIED: LrpRule
LRP_RULE_EPSILON: LrpRule
LRP_RULE_COMPOSITE: LrpRule
HEAD_FUSION_UNSPECIFIED: HeadFusion
HEAD_FUSION_MEAN: HeadFusion
HEAD_FUSION_MAX: HeadFusion
HEAD_FUSION_MIN: HeadFusion
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
    __slots__ = ("model", "image", "top_k", "include_logits", "bucket_size", "explain", "explain_budget_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LOGITS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: _data_pb2.Image
    top_k: int
    include_logits: bool
    bucket_size: int
    explain: _containers.RepeatedCompositeFieldContainer[ExplainRequest]
    explain_budget_ms: float
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., top_k: _Optional[int] = ..., include_logits: bool = ..., bucket_size: _Optional[int] = ..., explain: _Optional[_Iterable[_Union[ExplainRequest, _Mapping]]] = ..., explain_budget_ms: _Optional[float] = ...) -> None: ...

class AttachedExplanation(_message.Message):
    __slots__ = ("explanation", "failure")
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    explanation: ExplainResponse
    failure: _data_pb2.Failure
    def __init__(self, explanation: _Optional[_Union[ExplainResponse, _Mapping]] = ..., failure: _Optional[_Union[_data_pb2.Failure, _Mapping]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("run", "predictions", "logits", "receipt", "explanations")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    run: Run
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    logits: _data_pb2.Tensor
    receipt: Receipt
    explanations: _containers.RepeatedCompositeFieldContainer[AttachedExplanation]
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., logits: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., explanations: _Optional[_Iterable[_Union[AttachedExplanation, _Mapping]]] = ...) -> None: ...

class PredictBatchRequest(_message.Message):
    __slots__ = ("predict", "images")
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    predict: PredictRequest
    images: _containers.RepeatedCompositeFieldContainer[_data_pb2.Image]
    def __init__(self, predict: _Optional[_Union[PredictRequest, _Mapping]] = ..., images: _Optional[_Iterable[_Union[_data_pb2.Image, _Mapping]]] = ...) -> None: ...

class PredictBatchResult(_message.Message):
    __slots__ = ("prediction", "failure")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    prediction: PredictResponse
    failure: _data_pb2.Failure
    def __init__(self, prediction: _Optional[_Union[PredictResponse, _Mapping]] = ..., failure: _Optional[_Union[_data_pb2.Failure, _Mapping]] = ...) -> None: ...

class PredictBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PredictBatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[PredictBatchResult, _Mapping]]] = ...) -> None: ...

class ExplainBatchRequest(_message.Message):
    __slots__ = ("explain", "images")
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    explain: ExplainRequest
    images: _containers.RepeatedCompositeFieldContainer[_data_pb2.Image]
    def __init__(self, explain: _Optional[_Union[ExplainRequest, _Mapping]] = ..., images: _Optional[_Iterable[_Union[_data_pb2.Image, _Mapping]]] = ...) -> None: ...

class ExplainBatchResult(_message.Message):
    __slots__ = ("explanation", "failure")
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    explanation: ExplainResponse
    failure: _data_pb2.Failure
    def __init__(self, explanation: _Optional[_Union[ExplainResponse, _Mapping]] = ..., failure: _Optional[_Union[_data_pb2.Failure, _Mapping]] = ...) -> None: ...

class ExplainBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ExplainBatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ExplainBatchResult, _Mapping]]] = ...) -> None: ...

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

class Classes(_message.Message):
    __slots__ = ("class_indices", "labels")
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, class_indices: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("class_index", "label", "neuron", "classes", "against_class_index", "against_label", "score")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    AGAINST_CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    AGAINST_LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    label: str
    neuron: Neuron
    classes: Classes
    against_class_index: int
    against_label: str
    score: Score
    def __init__(self, class_index: _Optional[int] = ..., label: _Optional[str] = ..., neuron: _Optional[_Union[Neuron, _Mapping]] = ..., classes: _Optional[_Union[Classes, _Mapping]] = ..., against_class_index: _Optional[int] = ..., against_label: _Optional[str] = ..., score: _Optional[_Union[Score, str]] = ...) -> None: ...

class ResolvedTarget(_message.Message):
    __slots__ = ("class_index", "neuron", "classes", "label", "score", "top_prediction", "against_class_index", "against_label", "score_kind")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TOP_PREDICTION_FIELD_NUMBER: _ClassVar[int]
    AGAINST_CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    AGAINST_LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    neuron: Neuron
    classes: Classes
    label: str
    score: float
    top_prediction: bool
    against_class_index: int
    against_label: str
    score_kind: Score
    def __init__(self, class_index: _Optional[int] = ..., neuron: _Optional[_Union[Neuron, _Mapping]] = ..., classes: _Optional[_Union[Classes, _Mapping]] = ..., label: _Optional[str] = ..., score: _Optional[float] = ..., top_prediction: bool = ..., against_class_index: _Optional[int] = ..., against_label: _Optional[str] = ..., score_kind: _Optional[_Union[Score, str]] = ...) -> None: ...

class Gradient(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Deconvnet(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GuidedBackprop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Baseline(_message.Message):
    __slots__ = ("fill", "blur_sigma_px", "seed", "tensor")
    FILL_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_PX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    fill: _data_pb2.Fill
    blur_sigma_px: float
    seed: int
    tensor: _data_pb2.Tensor
    def __init__(self, fill: _Optional[_Union[_data_pb2.Fill, str]] = ..., blur_sigma_px: _Optional[float] = ..., seed: _Optional[int] = ..., tensor: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Occlusion(_message.Message):
    __slots__ = ("window_px", "stride_px", "fill", "blur_sigma_px", "seed", "window_count")
    WINDOW_PX_FIELD_NUMBER: _ClassVar[int]
    STRIDE_PX_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_PX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    window_px: int
    stride_px: int
    fill: _data_pb2.Fill
    blur_sigma_px: float
    seed: int
    window_count: int
    def __init__(self, window_px: _Optional[int] = ..., stride_px: _Optional[int] = ..., fill: _Optional[_Union[_data_pb2.Fill, str]] = ..., blur_sigma_px: _Optional[float] = ..., seed: _Optional[int] = ..., window_count: _Optional[int] = ...) -> None: ...

class InputXGradient(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IntegratedGradients(_message.Message):
    __slots__ = ("step_count", "quadrature", "baseline")
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUADRATURE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    step_count: int
    quadrature: Quadrature
    baseline: Baseline
    def __init__(self, step_count: _Optional[int] = ..., quadrature: _Optional[_Union[Quadrature, str]] = ..., baseline: _Optional[_Union[Baseline, _Mapping]] = ...) -> None: ...

class SmoothGrad(_message.Message):
    __slots__ = ("sample_count", "noise_level", "statistic", "seed")
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOISE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    sample_count: int
    noise_level: float
    statistic: Statistic
    seed: int
    def __init__(self, sample_count: _Optional[int] = ..., noise_level: _Optional[float] = ..., statistic: _Optional[_Union[Statistic, str]] = ..., seed: _Optional[int] = ...) -> None: ...

class ExpectedGradients(_message.Message):
    __slots__ = ("sample_count", "baseline", "seed")
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    sample_count: int
    baseline: Baseline
    seed: int
    def __init__(self, sample_count: _Optional[int] = ..., baseline: _Optional[_Union[Baseline, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class GradCam(_message.Message):
    __slots__ = ("layer", "relu")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    RELU_FIELD_NUMBER: _ClassVar[int]
    layer: str
    relu: bool
    def __init__(self, layer: _Optional[str] = ..., relu: bool = ...) -> None: ...

class GradCamPlusPlus(_message.Message):
    __slots__ = ("layer", "relu")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    RELU_FIELD_NUMBER: _ClassVar[int]
    layer: str
    relu: bool
    def __init__(self, layer: _Optional[str] = ..., relu: bool = ...) -> None: ...

class LayerCam(_message.Message):
    __slots__ = ("layer", "relu")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    RELU_FIELD_NUMBER: _ClassVar[int]
    layer: str
    relu: bool
    def __init__(self, layer: _Optional[str] = ..., relu: bool = ...) -> None: ...

class HiResCam(_message.Message):
    __slots__ = ("layer", "relu")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    RELU_FIELD_NUMBER: _ClassVar[int]
    layer: str
    relu: bool
    def __init__(self, layer: _Optional[str] = ..., relu: bool = ...) -> None: ...

class GuidedGradCam(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class ScoreCam(_message.Message):
    __slots__ = ("layer", "map_count")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    MAP_COUNT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    map_count: int
    def __init__(self, layer: _Optional[str] = ..., map_count: _Optional[int] = ...) -> None: ...

class Rise(_message.Message):
    __slots__ = ("mask_count", "cell_count", "keep_probability", "seed")
    MASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    CELL_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEEP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    mask_count: int
    cell_count: int
    keep_probability: float
    seed: int
    def __init__(self, mask_count: _Optional[int] = ..., cell_count: _Optional[int] = ..., keep_probability: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Lime(_message.Message):
    __slots__ = ("segmentation", "segment_count", "sample_count", "kernel_width", "ridge", "baseline", "seed")
    SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    KERNEL_WIDTH_FIELD_NUMBER: _ClassVar[int]
    RIDGE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    segmentation: Segmentation
    segment_count: int
    sample_count: int
    kernel_width: float
    ridge: float
    baseline: Baseline
    seed: int
    def __init__(self, segmentation: _Optional[_Union[Segmentation, str]] = ..., segment_count: _Optional[int] = ..., sample_count: _Optional[int] = ..., kernel_width: _Optional[float] = ..., ridge: _Optional[float] = ..., baseline: _Optional[_Union[Baseline, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class KernelShap(_message.Message):
    __slots__ = ("segmentation", "segment_count", "sample_count", "baseline", "seed")
    SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    segmentation: Segmentation
    segment_count: int
    sample_count: int
    baseline: Baseline
    seed: int
    def __init__(self, segmentation: _Optional[_Union[Segmentation, str]] = ..., segment_count: _Optional[int] = ..., sample_count: _Optional[int] = ..., baseline: _Optional[_Union[Baseline, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class SegmentDetails(_message.Message):
    __slots__ = ("segments", "values", "baseline_score")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    BASELINE_SCORE_FIELD_NUMBER: _ClassVar[int]
    segments: _data_pb2.Tensor
    values: _data_pb2.Tensor
    baseline_score: float
    def __init__(self, segments: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., values: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., baseline_score: _Optional[float] = ...) -> None: ...

class Lrp(_message.Message):
    __slots__ = ("rule", "epsilon")
    RULE_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    rule: LrpRule
    epsilon: float
    def __init__(self, rule: _Optional[_Union[LrpRule, str]] = ..., epsilon: _Optional[float] = ...) -> None: ...

class DeepLift(_message.Message):
    __slots__ = ("baseline",)
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    baseline: Baseline
    def __init__(self, baseline: _Optional[_Union[Baseline, _Mapping]] = ...) -> None: ...

class AttentionRollout(_message.Message):
    __slots__ = ("head_fusion",)
    HEAD_FUSION_FIELD_NUMBER: _ClassVar[int]
    head_fusion: HeadFusion
    def __init__(self, head_fusion: _Optional[_Union[HeadFusion, str]] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("reason", "description")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    reason: str
    description: str
    def __init__(self, reason: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("model", "image", "target", "outputs", "rendering", "bucket_size", "until", "evidence", "gradient", "deconvnet", "guided_backprop", "occlusion", "input_x_gradient", "integrated_gradients", "smooth_grad", "expected_gradients", "grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "guided_grad_cam", "score_cam", "rise", "lime", "kernel_shap", "lrp", "deep_lift", "attention_rollout")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    DECONVNET_FIELD_NUMBER: _ClassVar[int]
    GUIDED_BACKPROP_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_FIELD_NUMBER: _ClassVar[int]
    INPUT_X_GRADIENT_FIELD_NUMBER: _ClassVar[int]
    INTEGRATED_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    SMOOTH_GRAD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    GRAD_CAM_FIELD_NUMBER: _ClassVar[int]
    GRAD_CAM_PLUS_PLUS_FIELD_NUMBER: _ClassVar[int]
    LAYER_CAM_FIELD_NUMBER: _ClassVar[int]
    HIRES_CAM_FIELD_NUMBER: _ClassVar[int]
    GUIDED_GRAD_CAM_FIELD_NUMBER: _ClassVar[int]
    SCORE_CAM_FIELD_NUMBER: _ClassVar[int]
    RISE_FIELD_NUMBER: _ClassVar[int]
    LIME_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SHAP_FIELD_NUMBER: _ClassVar[int]
    LRP_FIELD_NUMBER: _ClassVar[int]
    DEEP_LIFT_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: _data_pb2.Image
    target: Target
    outputs: _containers.RepeatedScalarFieldContainer[ExplainOutput]
    rendering: Rendering
    bucket_size: int
    until: _evidence_pb2.Until
    evidence: _evidence_pb2.Evidence
    gradient: Gradient
    deconvnet: Deconvnet
    guided_backprop: GuidedBackprop
    occlusion: Occlusion
    input_x_gradient: InputXGradient
    integrated_gradients: IntegratedGradients
    smooth_grad: SmoothGrad
    expected_gradients: ExpectedGradients
    grad_cam: GradCam
    grad_cam_plus_plus: GradCamPlusPlus
    layer_cam: LayerCam
    hires_cam: HiResCam
    guided_grad_cam: GuidedGradCam
    score_cam: ScoreCam
    rise: Rise
    lime: Lime
    kernel_shap: KernelShap
    lrp: Lrp
    deep_lift: DeepLift
    attention_rollout: AttentionRollout
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., target: _Optional[_Union[Target, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[ExplainOutput, str]]] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., bucket_size: _Optional[int] = ..., until: _Optional[_Union[_evidence_pb2.Until, _Mapping]] = ..., evidence: _Optional[_Union[_evidence_pb2.Evidence, _Mapping]] = ..., gradient: _Optional[_Union[Gradient, _Mapping]] = ..., deconvnet: _Optional[_Union[Deconvnet, _Mapping]] = ..., guided_backprop: _Optional[_Union[GuidedBackprop, _Mapping]] = ..., occlusion: _Optional[_Union[Occlusion, _Mapping]] = ..., input_x_gradient: _Optional[_Union[InputXGradient, _Mapping]] = ..., integrated_gradients: _Optional[_Union[IntegratedGradients, _Mapping]] = ..., smooth_grad: _Optional[_Union[SmoothGrad, _Mapping]] = ..., expected_gradients: _Optional[_Union[ExpectedGradients, _Mapping]] = ..., grad_cam: _Optional[_Union[GradCam, _Mapping]] = ..., grad_cam_plus_plus: _Optional[_Union[GradCamPlusPlus, _Mapping]] = ..., layer_cam: _Optional[_Union[LayerCam, _Mapping]] = ..., hires_cam: _Optional[_Union[HiResCam, _Mapping]] = ..., guided_grad_cam: _Optional[_Union[GuidedGradCam, _Mapping]] = ..., score_cam: _Optional[_Union[ScoreCam, _Mapping]] = ..., rise: _Optional[_Union[Rise, _Mapping]] = ..., lime: _Optional[_Union[Lime, _Mapping]] = ..., kernel_shap: _Optional[_Union[KernelShap, _Mapping]] = ..., lrp: _Optional[_Union[Lrp, _Mapping]] = ..., deep_lift: _Optional[_Union[DeepLift, _Mapping]] = ..., attention_rollout: _Optional[_Union[AttentionRollout, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("run", "target", "gradient", "deconvnet", "guided_backprop", "occlusion", "input_x_gradient", "integrated_gradients", "smooth_grad", "expected_gradients", "grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "guided_grad_cam", "score_cam", "rise", "lime", "kernel_shap", "lrp", "deep_lift", "attention_rollout", "attribution", "heatmap", "rendering", "input_box", "occlusion_details", "segment_details", "warnings", "receipt", "convergence", "evidence")
    RUN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    DECONVNET_FIELD_NUMBER: _ClassVar[int]
    GUIDED_BACKPROP_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_FIELD_NUMBER: _ClassVar[int]
    INPUT_X_GRADIENT_FIELD_NUMBER: _ClassVar[int]
    INTEGRATED_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    SMOOTH_GRAD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    GRAD_CAM_FIELD_NUMBER: _ClassVar[int]
    GRAD_CAM_PLUS_PLUS_FIELD_NUMBER: _ClassVar[int]
    LAYER_CAM_FIELD_NUMBER: _ClassVar[int]
    HIRES_CAM_FIELD_NUMBER: _ClassVar[int]
    GUIDED_GRAD_CAM_FIELD_NUMBER: _ClassVar[int]
    SCORE_CAM_FIELD_NUMBER: _ClassVar[int]
    RISE_FIELD_NUMBER: _ClassVar[int]
    LIME_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SHAP_FIELD_NUMBER: _ClassVar[int]
    LRP_FIELD_NUMBER: _ClassVar[int]
    DEEP_LIFT_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    INPUT_BOX_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_DETAILS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_DETAILS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    CONVERGENCE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    run: Run
    target: ResolvedTarget
    gradient: Gradient
    deconvnet: Deconvnet
    guided_backprop: GuidedBackprop
    occlusion: Occlusion
    input_x_gradient: InputXGradient
    integrated_gradients: IntegratedGradients
    smooth_grad: SmoothGrad
    expected_gradients: ExpectedGradients
    grad_cam: GradCam
    grad_cam_plus_plus: GradCamPlusPlus
    layer_cam: LayerCam
    hires_cam: HiResCam
    guided_grad_cam: GuidedGradCam
    score_cam: ScoreCam
    rise: Rise
    lime: Lime
    kernel_shap: KernelShap
    lrp: Lrp
    deep_lift: DeepLift
    attention_rollout: AttentionRollout
    attribution: _data_pb2.Tensor
    heatmap: Heatmap
    rendering: _data_pb2.EncodedImage
    input_box: _data_pb2.Box
    occlusion_details: OcclusionDetails
    segment_details: SegmentDetails
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    receipt: Receipt
    convergence: _evidence_pb2.Convergence
    evidence: _evidence_pb2.EvidenceResult
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., target: _Optional[_Union[ResolvedTarget, _Mapping]] = ..., gradient: _Optional[_Union[Gradient, _Mapping]] = ..., deconvnet: _Optional[_Union[Deconvnet, _Mapping]] = ..., guided_backprop: _Optional[_Union[GuidedBackprop, _Mapping]] = ..., occlusion: _Optional[_Union[Occlusion, _Mapping]] = ..., input_x_gradient: _Optional[_Union[InputXGradient, _Mapping]] = ..., integrated_gradients: _Optional[_Union[IntegratedGradients, _Mapping]] = ..., smooth_grad: _Optional[_Union[SmoothGrad, _Mapping]] = ..., expected_gradients: _Optional[_Union[ExpectedGradients, _Mapping]] = ..., grad_cam: _Optional[_Union[GradCam, _Mapping]] = ..., grad_cam_plus_plus: _Optional[_Union[GradCamPlusPlus, _Mapping]] = ..., layer_cam: _Optional[_Union[LayerCam, _Mapping]] = ..., hires_cam: _Optional[_Union[HiResCam, _Mapping]] = ..., guided_grad_cam: _Optional[_Union[GuidedGradCam, _Mapping]] = ..., score_cam: _Optional[_Union[ScoreCam, _Mapping]] = ..., rise: _Optional[_Union[Rise, _Mapping]] = ..., lime: _Optional[_Union[Lime, _Mapping]] = ..., kernel_shap: _Optional[_Union[KernelShap, _Mapping]] = ..., lrp: _Optional[_Union[Lrp, _Mapping]] = ..., deep_lift: _Optional[_Union[DeepLift, _Mapping]] = ..., attention_rollout: _Optional[_Union[AttentionRollout, _Mapping]] = ..., attribution: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., heatmap: _Optional[_Union[Heatmap, _Mapping]] = ..., rendering: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., input_box: _Optional[_Union[_data_pb2.Box, _Mapping]] = ..., occlusion_details: _Optional[_Union[OcclusionDetails, _Mapping]] = ..., segment_details: _Optional[_Union[SegmentDetails, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., convergence: _Optional[_Union[_evidence_pb2.Convergence, _Mapping]] = ..., evidence: _Optional[_Union[_evidence_pb2.EvidenceResult, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("predict", "explain", "image_sha256", "weights_sha256", "preprocessing", "precision", "device", "thread_count", "versions", "result_sha256", "sketch")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    THREAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    RESULT_SHA256_FIELD_NUMBER: _ClassVar[int]
    SKETCH_FIELD_NUMBER: _ClassVar[int]
    predict: PredictRequest
    explain: ExplainRequest
    image_sha256: str
    weights_sha256: str
    preprocessing: _model_pb2.Preprocessing
    precision: _model_pb2.Precision
    device: str
    thread_count: int
    versions: _containers.ScalarMap[str, str]
    result_sha256: str
    sketch: _data_pb2.Tensor
    def __init__(self, predict: _Optional[_Union[PredictRequest, _Mapping]] = ..., explain: _Optional[_Union[ExplainRequest, _Mapping]] = ..., image_sha256: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., preprocessing: _Optional[_Union[_model_pb2.Preprocessing, _Mapping]] = ..., precision: _Optional[_Union[_model_pb2.Precision, str]] = ..., device: _Optional[str] = ..., thread_count: _Optional[int] = ..., versions: _Optional[_Mapping[str, str]] = ..., result_sha256: _Optional[str] = ..., sketch: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ExplainStreamRequest(_message.Message):
    __slots__ = ("explain",)
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    explain: ExplainRequest
    def __init__(self, explain: _Optional[_Union[ExplainRequest, _Mapping]] = ...) -> None: ...

class ExplainStreamResponse(_message.Message):
    __slots__ = ("explanation", "last")
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    explanation: ExplainResponse
    last: bool
    def __init__(self, explanation: _Optional[_Union[ExplainResponse, _Mapping]] = ..., last: bool = ...) -> None: ...
