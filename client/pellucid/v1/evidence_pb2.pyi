from pellucid.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_COMPLETE: _ClassVar[StopReason]
    STOP_REASON_TOLERANCE: _ClassVar[StopReason]
    STOP_REASON_ROW_COUNT: _ClassVar[StopReason]
    STOP_REASON_TIME: _ClassVar[StopReason]
    STOP_REASON_RUNNING: _ClassVar[StopReason]

class CurveOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CURVE_ORDER_UNSPECIFIED: _ClassVar[CurveOrder]
    CURVE_ORDER_MAP: _ClassVar[CurveOrder]
    CURVE_ORDER_RANDOM: _ClassVar[CurveOrder]
    CURVE_ORDER_CENTER: _ClassVar[CurveOrder]
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_COMPLETE: StopReason
STOP_REASON_TOLERANCE: StopReason
STOP_REASON_ROW_COUNT: StopReason
STOP_REASON_TIME: StopReason
STOP_REASON_RUNNING: StopReason
CURVE_ORDER_UNSPECIFIED: CurveOrder
CURVE_ORDER_MAP: CurveOrder
CURVE_ORDER_RANDOM: CurveOrder
CURVE_ORDER_CENTER: CurveOrder

class Until(_message.Message):
    __slots__ = ("tolerance", "row_count", "time_ms")
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    tolerance: float
    row_count: int
    time_ms: float
    def __init__(self, tolerance: _Optional[float] = ..., row_count: _Optional[int] = ..., time_ms: _Optional[float] = ...) -> None: ...

class Convergence(_message.Message):
    __slots__ = ("stop", "row_count", "error", "standard_error", "residual")
    STOP_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    stop: StopReason
    row_count: int
    error: float
    standard_error: _data_pb2.Tensor
    residual: float
    def __init__(self, stop: _Optional[_Union[StopReason, str]] = ..., row_count: _Optional[int] = ..., error: _Optional[float] = ..., standard_error: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., residual: _Optional[float] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("completeness", "curves", "stability", "randomization", "cascade", "agreement")
    COMPLETENESS_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    STABILITY_FIELD_NUMBER: _ClassVar[int]
    RANDOMIZATION_FIELD_NUMBER: _ClassVar[int]
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    completeness: Completeness
    curves: Curves
    stability: Stability
    randomization: Randomization
    cascade: Cascade
    agreement: Agreement
    def __init__(self, completeness: _Optional[_Union[Completeness, _Mapping]] = ..., curves: _Optional[_Union[Curves, _Mapping]] = ..., stability: _Optional[_Union[Stability, _Mapping]] = ..., randomization: _Optional[_Union[Randomization, _Mapping]] = ..., cascade: _Optional[_Union[Cascade, _Mapping]] = ..., agreement: _Optional[_Union[Agreement, _Mapping]] = ...) -> None: ...

class Completeness(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Curves(_message.Message):
    __slots__ = ("step_count", "deletion_fill", "insertion_fill", "blur_sigma_px", "seed")
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETION_FILL_FIELD_NUMBER: _ClassVar[int]
    INSERTION_FILL_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_PX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    step_count: int
    deletion_fill: _data_pb2.Fill
    insertion_fill: _data_pb2.Fill
    blur_sigma_px: float
    seed: int
    def __init__(self, step_count: _Optional[int] = ..., deletion_fill: _Optional[_Union[_data_pb2.Fill, str]] = ..., insertion_fill: _Optional[_Union[_data_pb2.Fill, str]] = ..., blur_sigma_px: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Stability(_message.Message):
    __slots__ = ("sample_count", "noise_level", "seed")
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOISE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    sample_count: int
    noise_level: float
    seed: int
    def __init__(self, sample_count: _Optional[int] = ..., noise_level: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Randomization(_message.Message):
    __slots__ = ("seed",)
    SEED_FIELD_NUMBER: _ClassVar[int]
    seed: int
    def __init__(self, seed: _Optional[int] = ...) -> None: ...

class Cascade(_message.Message):
    __slots__ = ("stage_count", "seed")
    STAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    stage_count: int
    seed: int
    def __init__(self, stage_count: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("methods",)
    METHODS_FIELD_NUMBER: _ClassVar[int]
    methods: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, methods: _Optional[_Iterable[str]] = ...) -> None: ...

class EvidenceResult(_message.Message):
    __slots__ = ("completeness", "curves", "stability", "randomization", "cascade", "agreement", "row_count")
    COMPLETENESS_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    STABILITY_FIELD_NUMBER: _ClassVar[int]
    RANDOMIZATION_FIELD_NUMBER: _ClassVar[int]
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    completeness: CompletenessResult
    curves: CurvesResult
    stability: StabilityResult
    randomization: RandomizationResult
    cascade: CascadeResult
    agreement: AgreementResult
    row_count: int
    def __init__(self, completeness: _Optional[_Union[CompletenessResult, _Mapping]] = ..., curves: _Optional[_Union[CurvesResult, _Mapping]] = ..., stability: _Optional[_Union[StabilityResult, _Mapping]] = ..., randomization: _Optional[_Union[RandomizationResult, _Mapping]] = ..., cascade: _Optional[_Union[CascadeResult, _Mapping]] = ..., agreement: _Optional[_Union[AgreementResult, _Mapping]] = ..., row_count: _Optional[int] = ...) -> None: ...

class CompletenessResult(_message.Message):
    __slots__ = ("attribution_sum", "expected_sum", "relative_error")
    ATTRIBUTION_SUM_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SUM_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    attribution_sum: float
    expected_sum: float
    relative_error: float
    def __init__(self, attribution_sum: _Optional[float] = ..., expected_sum: _Optional[float] = ..., relative_error: _Optional[float] = ...) -> None: ...

class Curve(_message.Message):
    __slots__ = ("order", "deletion", "insertion", "deletion_area", "insertion_area")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    DELETION_FIELD_NUMBER: _ClassVar[int]
    INSERTION_FIELD_NUMBER: _ClassVar[int]
    DELETION_AREA_FIELD_NUMBER: _ClassVar[int]
    INSERTION_AREA_FIELD_NUMBER: _ClassVar[int]
    order: CurveOrder
    deletion: _containers.RepeatedScalarFieldContainer[float]
    insertion: _containers.RepeatedScalarFieldContainer[float]
    deletion_area: float
    insertion_area: float
    def __init__(self, order: _Optional[_Union[CurveOrder, str]] = ..., deletion: _Optional[_Iterable[float]] = ..., insertion: _Optional[_Iterable[float]] = ..., deletion_area: _Optional[float] = ..., insertion_area: _Optional[float] = ...) -> None: ...

class CurvesResult(_message.Message):
    __slots__ = ("shares", "curves", "chart")
    SHARES_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    CHART_FIELD_NUMBER: _ClassVar[int]
    shares: _containers.RepeatedScalarFieldContainer[float]
    curves: _containers.RepeatedCompositeFieldContainer[Curve]
    chart: _data_pb2.EncodedImage
    def __init__(self, shares: _Optional[_Iterable[float]] = ..., curves: _Optional[_Iterable[_Union[Curve, _Mapping]]] = ..., chart: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ...) -> None: ...

class StabilityResult(_message.Message):
    __slots__ = ("correlations", "mean", "least")
    CORRELATIONS_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    correlations: _containers.RepeatedScalarFieldContainer[float]
    mean: float
    least: float
    def __init__(self, correlations: _Optional[_Iterable[float]] = ..., mean: _Optional[float] = ..., least: _Optional[float] = ...) -> None: ...

class RandomizationResult(_message.Message):
    __slots__ = ("correlation", "absolute_correlation")
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_CORRELATION_FIELD_NUMBER: _ClassVar[int]
    correlation: float
    absolute_correlation: float
    def __init__(self, correlation: _Optional[float] = ..., absolute_correlation: _Optional[float] = ...) -> None: ...

class CascadeStage(_message.Message):
    __slots__ = ("layer", "layer_count", "correlation", "absolute_correlation")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_CORRELATION_FIELD_NUMBER: _ClassVar[int]
    layer: str
    layer_count: int
    correlation: float
    absolute_correlation: float
    def __init__(self, layer: _Optional[str] = ..., layer_count: _Optional[int] = ..., correlation: _Optional[float] = ..., absolute_correlation: _Optional[float] = ...) -> None: ...

class CascadeResult(_message.Message):
    __slots__ = ("stages",)
    STAGES_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedCompositeFieldContainer[CascadeStage]
    def __init__(self, stages: _Optional[_Iterable[_Union[CascadeStage, _Mapping]]] = ...) -> None: ...

class MethodAgreement(_message.Message):
    __slots__ = ("method", "correlation", "top_overlap")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    TOP_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    method: str
    correlation: float
    top_overlap: float
    def __init__(self, method: _Optional[str] = ..., correlation: _Optional[float] = ..., top_overlap: _Optional[float] = ...) -> None: ...

class AgreementResult(_message.Message):
    __slots__ = ("methods",)
    METHODS_FIELD_NUMBER: _ClassVar[int]
    methods: _containers.RepeatedCompositeFieldContainer[MethodAgreement]
    def __init__(self, methods: _Optional[_Iterable[_Union[MethodAgreement, _Mapping]]] = ...) -> None: ...
