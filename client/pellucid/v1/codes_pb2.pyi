from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CodePooling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_POOLING_UNSPECIFIED: _ClassVar[CodePooling]
    CODE_POOLING_MEAN: _ClassVar[CodePooling]
    CODE_POOLING_MAX: _ClassVar[CodePooling]
    CODE_POOLING_FLATTEN: _ClassVar[CodePooling]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_EUCLIDEAN: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_MANHATTAN: _ClassVar[Metric]
CODE_POOLING_UNSPECIFIED: CodePooling
CODE_POOLING_MEAN: CodePooling
CODE_POOLING_MAX: CodePooling
CODE_POOLING_FLATTEN: CodePooling
METRIC_UNSPECIFIED: Metric
METRIC_EUCLIDEAN: Metric
METRIC_COSINE: Metric
METRIC_MANHATTAN: Metric

class EmbedRequest(_message.Message):
    __slots__ = ("model", "images", "layer", "pooling", "data_type", "bucket_size")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[_data_pb2.Image]
    layer: str
    pooling: CodePooling
    data_type: _data_pb2.DataType
    bucket_size: int
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_data_pb2.Image, _Mapping]]] = ..., layer: _Optional[str] = ..., pooling: _Optional[_Union[CodePooling, str]] = ..., data_type: _Optional[_Union[_data_pb2.DataType, str]] = ..., bucket_size: _Optional[int] = ...) -> None: ...

class EmbedResult(_message.Message):
    __slots__ = ("row", "failure")
    ROW_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    row: int
    failure: _data_pb2.Failure
    def __init__(self, row: _Optional[int] = ..., failure: _Optional[_Union[_data_pb2.Failure, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("run", "layer", "codes", "results")
    RUN_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    run: _inference_pb2.Run
    layer: str
    codes: _data_pb2.Tensor
    results: _containers.RepeatedCompositeFieldContainer[EmbedResult]
    def __init__(self, run: _Optional[_Union[_inference_pb2.Run, _Mapping]] = ..., layer: _Optional[str] = ..., codes: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., results: _Optional[_Iterable[_Union[EmbedResult, _Mapping]]] = ...) -> None: ...

class TSne(_message.Message):
    __slots__ = ("perplexity", "early_exaggeration", "early_exaggeration_step_count", "step_count", "learning_rate")
    PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    EARLY_EXAGGERATION_FIELD_NUMBER: _ClassVar[int]
    EARLY_EXAGGERATION_STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    perplexity: float
    early_exaggeration: float
    early_exaggeration_step_count: int
    step_count: int
    learning_rate: float
    def __init__(self, perplexity: _Optional[float] = ..., early_exaggeration: _Optional[float] = ..., early_exaggeration_step_count: _Optional[int] = ..., step_count: _Optional[int] = ..., learning_rate: _Optional[float] = ...) -> None: ...

class Umap(_message.Message):
    __slots__ = ("neighbor_count", "min_distance")
    NEIGHBOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    neighbor_count: int
    min_distance: float
    def __init__(self, neighbor_count: _Optional[int] = ..., min_distance: _Optional[float] = ...) -> None: ...

class Pca(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProjectSpec(_message.Message):
    __slots__ = ("model", "layer", "pooling", "t_sne", "umap", "pca", "component_count", "metric", "seed", "grid", "map", "photos", "codes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    T_SNE_FIELD_NUMBER: _ClassVar[int]
    UMAP_FIELD_NUMBER: _ClassVar[int]
    PCA_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    PHOTOS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    model: str
    layer: str
    pooling: CodePooling
    t_sne: TSne
    umap: Umap
    pca: Pca
    component_count: int
    metric: Metric
    seed: int
    grid: bool
    map: _data_pb2.Tensor
    photos: _containers.RepeatedCompositeFieldContainer[_data_pb2.Image]
    codes: _data_pb2.Tensor
    def __init__(self, model: _Optional[str] = ..., layer: _Optional[str] = ..., pooling: _Optional[_Union[CodePooling, str]] = ..., t_sne: _Optional[_Union[TSne, _Mapping]] = ..., umap: _Optional[_Union[Umap, _Mapping]] = ..., pca: _Optional[_Union[Pca, _Mapping]] = ..., component_count: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., seed: _Optional[int] = ..., grid: bool = ..., map: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., photos: _Optional[_Iterable[_Union[_data_pb2.Image, _Mapping]]] = ..., codes: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ProjectRequest(_message.Message):
    __slots__ = ("spec", "image", "codes")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    spec: ProjectSpec
    image: _data_pb2.Image
    codes: _data_pb2.Tensor
    def __init__(self, spec: _Optional[_Union[ProjectSpec, _Mapping]] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., codes: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ProjectProgress(_message.Message):
    __slots__ = ("stage", "step", "step_count", "divergence")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    step: int
    step_count: int
    divergence: float
    def __init__(self, stage: _Optional[str] = ..., step: _Optional[int] = ..., step_count: _Optional[int] = ..., divergence: _Optional[float] = ...) -> None: ...

class ProjectResult(_message.Message):
    __slots__ = ("points", "places", "grid_shape", "spec", "kept_variance", "divergence", "codes", "run", "notes")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    GRID_SHAPE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    KEPT_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    points: _data_pb2.Tensor
    places: _data_pb2.Tensor
    grid_shape: _containers.RepeatedScalarFieldContainer[int]
    spec: ProjectSpec
    kept_variance: float
    divergence: float
    codes: _data_pb2.Tensor
    run: _inference_pb2.Run
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, points: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., places: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., grid_shape: _Optional[_Iterable[int]] = ..., spec: _Optional[_Union[ProjectSpec, _Mapping]] = ..., kept_variance: _Optional[float] = ..., divergence: _Optional[float] = ..., codes: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., run: _Optional[_Union[_inference_pb2.Run, _Mapping]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ProjectResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: ProjectProgress
    result: ProjectResult
    def __init__(self, progress: _Optional[_Union[ProjectProgress, _Mapping]] = ..., result: _Optional[_Union[ProjectResult, _Mapping]] = ...) -> None: ...
