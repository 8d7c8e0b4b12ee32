from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TopPatchesRequest(_message.Message):
    __slots__ = ("model", "layer", "channel", "top_k", "include_photos")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PHOTOS_FIELD_NUMBER: _ClassVar[int]
    model: str
    layer: str
    channel: int
    top_k: int
    include_photos: bool
    def __init__(self, model: _Optional[str] = ..., layer: _Optional[str] = ..., channel: _Optional[int] = ..., top_k: _Optional[int] = ..., include_photos: bool = ...) -> None: ...

class Patch(_message.Message):
    __slots__ = ("photo", "sha256", "activation", "y", "x", "box", "image", "input")
    PHOTO_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    photo: str
    sha256: str
    activation: float
    y: int
    x: int
    box: _data_pb2.Box
    image: _data_pb2.EncodedImage
    input: _data_pb2.EncodedImage
    def __init__(self, photo: _Optional[str] = ..., sha256: _Optional[str] = ..., activation: _Optional[float] = ..., y: _Optional[int] = ..., x: _Optional[int] = ..., box: _Optional[_Union[_data_pb2.Box, _Mapping]] = ..., image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., input: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ...) -> None: ...

class ActivationHistogram(_message.Message):
    __slots__ = ("edges", "counts")
    EDGES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, edges: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class IndexSummary(_message.Message):
    __slots__ = ("model", "model_version", "photo_count", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PHOTO_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    photo_count: int
    version: str
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., photo_count: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class TopPatchesResponse(_message.Message):
    __slots__ = ("index", "patches", "histogram")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    index: IndexSummary
    patches: _containers.RepeatedCompositeFieldContainer[Patch]
    histogram: ActivationHistogram
    def __init__(self, index: _Optional[_Union[IndexSummary, _Mapping]] = ..., patches: _Optional[_Iterable[_Union[Patch, _Mapping]]] = ..., histogram: _Optional[_Union[ActivationHistogram, _Mapping]] = ...) -> None: ...

class SimilarRequest(_message.Message):
    __slots__ = ("model", "image", "top_k", "explain_count", "bucket_size")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    model: str
    image: _data_pb2.Image
    top_k: int
    explain_count: int
    bucket_size: int
    def __init__(self, model: _Optional[str] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., top_k: _Optional[int] = ..., explain_count: _Optional[int] = ..., bucket_size: _Optional[int] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("photo", "sha256", "similarity", "image", "query_attribution", "match_attribution", "query_rendering", "match_rendering")
    PHOTO_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    QUERY_ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    MATCH_ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_RENDERING_FIELD_NUMBER: _ClassVar[int]
    MATCH_RENDERING_FIELD_NUMBER: _ClassVar[int]
    photo: str
    sha256: str
    similarity: float
    image: _data_pb2.EncodedImage
    query_attribution: _data_pb2.Tensor
    match_attribution: _data_pb2.Tensor
    query_rendering: _data_pb2.EncodedImage
    match_rendering: _data_pb2.EncodedImage
    def __init__(self, photo: _Optional[str] = ..., sha256: _Optional[str] = ..., similarity: _Optional[float] = ..., image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., query_attribution: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., match_attribution: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., query_rendering: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., match_rendering: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ...) -> None: ...

class SimilarResponse(_message.Message):
    __slots__ = ("run", "index", "matches")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    run: _inference_pb2.Run
    index: IndexSummary
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    def __init__(self, run: _Optional[_Union[_inference_pb2.Run, _Mapping]] = ..., index: _Optional[_Union[IndexSummary, _Mapping]] = ..., matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ...) -> None: ...
