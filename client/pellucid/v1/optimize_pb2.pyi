from pellucid.v1 import attack_pb2 as _attack_pb2
from pellucid.v1 import checkpoint_pb2 as _checkpoint_pb2
from pellucid.v1 import data_pb2 as _data_pb2
from pellucid.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Preset(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESET_UNSPECIFIED: _ClassVar[Preset]
    PRESET_OLAH: _ClassVar[Preset]
    PRESET_SIMONYAN: _ClassVar[Preset]
    PRESET_YOSINSKI_1: _ClassVar[Preset]
    PRESET_YOSINSKI_2: _ClassVar[Preset]
    PRESET_YOSINSKI_3: _ClassVar[Preset]
    PRESET_YOSINSKI_4: _ClassVar[Preset]
    PRESET_MAHENDRAN: _ClassVar[Preset]
    PRESET_MORDVINTSEV: _ClassVar[Preset]

class Parameterization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARAMETERIZATION_UNSPECIFIED: _ClassVar[Parameterization]
    PARAMETERIZATION_PIXELS: _ClassVar[Parameterization]
    PARAMETERIZATION_SPECTRUM: _ClassVar[Parameterization]

class UpdateRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPDATE_RULE_UNSPECIFIED: _ClassVar[UpdateRule]
    UPDATE_RULE_ADAM: _ClassVar[UpdateRule]
    UPDATE_RULE_MOMENTUM: _ClassVar[UpdateRule]
    UPDATE_RULE_NORMALIZED: _ClassVar[UpdateRule]
    UPDATE_RULE_PROGRESS: _ClassVar[UpdateRule]
    UPDATE_RULE_SIGN: _ClassVar[UpdateRule]
    UPDATE_RULE_UNIT: _ClassVar[UpdateRule]

class Start(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_UNSPECIFIED: _ClassVar[Start]
    START_NOISE: _ClassVar[Start]
    START_GREY: _ClassVar[Start]
    START_PHOTO: _ClassVar[Start]
PRESET_UNSPECIFIED: Preset
PRESET_OLAH: Preset
PRESET_SIMONYAN: Preset
PRESET_YOSINSKI_1: Preset
PRESET_YOSINSKI_2: Preset
PRESET_YOSINSKI_3: Preset
PRESET_YOSINSKI_4: Preset
PRESET_MAHENDRAN: Preset
PRESET_MORDVINTSEV: Preset
PARAMETERIZATION_UNSPECIFIED: Parameterization
PARAMETERIZATION_PIXELS: Parameterization
PARAMETERIZATION_SPECTRUM: Parameterization
UPDATE_RULE_UNSPECIFIED: UpdateRule
UPDATE_RULE_ADAM: UpdateRule
UPDATE_RULE_MOMENTUM: UpdateRule
UPDATE_RULE_NORMALIZED: UpdateRule
UPDATE_RULE_PROGRESS: UpdateRule
UPDATE_RULE_SIGN: UpdateRule
UPDATE_RULE_UNIT: UpdateRule
START_UNSPECIFIED: Start
START_NOISE: Start
START_GREY: Start
START_PHOTO: Start

class Direction(_message.Message):
    __slots__ = ("layer", "vector", "y", "x")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    layer: str
    vector: _containers.RepeatedScalarFieldContainer[float]
    y: int
    x: int
    def __init__(self, layer: _Optional[str] = ..., vector: _Optional[_Iterable[float]] = ..., y: _Optional[int] = ..., x: _Optional[int] = ...) -> None: ...

class Code(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class Energy(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class Guide(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class Diversity(_message.Message):
    __slots__ = ("layer",)
    LAYER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    def __init__(self, layer: _Optional[str] = ...) -> None: ...

class Objective(_message.Message):
    __slots__ = ("class_index", "label", "neuron", "direction", "code", "energy", "guide", "diversity", "score", "weight")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENERGY_FIELD_NUMBER: _ClassVar[int]
    GUIDE_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    label: str
    neuron: _inference_pb2.Neuron
    direction: Direction
    code: Code
    energy: Energy
    guide: Guide
    diversity: Diversity
    score: _inference_pb2.Score
    weight: float
    def __init__(self, class_index: _Optional[int] = ..., label: _Optional[str] = ..., neuron: _Optional[_Union[_inference_pb2.Neuron, _Mapping]] = ..., direction: _Optional[_Union[Direction, _Mapping]] = ..., code: _Optional[_Union[Code, _Mapping]] = ..., energy: _Optional[_Union[Energy, _Mapping]] = ..., guide: _Optional[_Union[Guide, _Mapping]] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ..., score: _Optional[_Union[_inference_pb2.Score, str]] = ..., weight: _Optional[float] = ...) -> None: ...

class Ascend(_message.Message):
    __slots__ = ("objectives", "preset", "step_count", "parameterization", "update", "learning_rate", "momentum", "progress", "height_px", "width_px", "start", "noise_std", "seed", "restart_count", "clip_pixels", "l2_decay", "lp_penalty", "lp_order", "tv_penalty", "tv_beta", "blur_sigma_px", "blur_every", "small_norm_percentile", "small_contribution_percentile", "jitter_px", "rotation_degrees", "scaling", "octave_count", "octave_scale", "progress_every", "preview_every", "checkpoint_every", "max_linf", "max_l2", "checkpoint_precision")
    OBJECTIVES_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERIZATION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    NOISE_STD_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLIP_PIXELS_FIELD_NUMBER: _ClassVar[int]
    L2_DECAY_FIELD_NUMBER: _ClassVar[int]
    LP_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LP_ORDER_FIELD_NUMBER: _ClassVar[int]
    TV_PENALTY_FIELD_NUMBER: _ClassVar[int]
    TV_BETA_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_PX_FIELD_NUMBER: _ClassVar[int]
    BLUR_EVERY_FIELD_NUMBER: _ClassVar[int]
    SMALL_NORM_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    SMALL_CONTRIBUTION_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    JITTER_PX_FIELD_NUMBER: _ClassVar[int]
    ROTATION_DEGREES_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    OCTAVE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OCTAVE_SCALE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_EVERY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_FIELD_NUMBER: _ClassVar[int]
    MAX_LINF_FIELD_NUMBER: _ClassVar[int]
    MAX_L2_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_PRECISION_FIELD_NUMBER: _ClassVar[int]
    objectives: _containers.RepeatedCompositeFieldContainer[Objective]
    preset: Preset
    step_count: int
    parameterization: Parameterization
    update: UpdateRule
    learning_rate: float
    momentum: float
    progress: float
    height_px: int
    width_px: int
    start: Start
    noise_std: float
    seed: int
    restart_count: int
    clip_pixels: bool
    l2_decay: float
    lp_penalty: float
    lp_order: float
    tv_penalty: float
    tv_beta: float
    blur_sigma_px: float
    blur_every: int
    small_norm_percentile: float
    small_contribution_percentile: float
    jitter_px: int
    rotation_degrees: float
    scaling: float
    octave_count: int
    octave_scale: float
    progress_every: int
    preview_every: int
    checkpoint_every: int
    max_linf: float
    max_l2: float
    checkpoint_precision: _checkpoint_pb2.CheckpointPrecision
    def __init__(self, objectives: _Optional[_Iterable[_Union[Objective, _Mapping]]] = ..., preset: _Optional[_Union[Preset, str]] = ..., step_count: _Optional[int] = ..., parameterization: _Optional[_Union[Parameterization, str]] = ..., update: _Optional[_Union[UpdateRule, str]] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., progress: _Optional[float] = ..., height_px: _Optional[int] = ..., width_px: _Optional[int] = ..., start: _Optional[_Union[Start, str]] = ..., noise_std: _Optional[float] = ..., seed: _Optional[int] = ..., restart_count: _Optional[int] = ..., clip_pixels: bool = ..., l2_decay: _Optional[float] = ..., lp_penalty: _Optional[float] = ..., lp_order: _Optional[float] = ..., tv_penalty: _Optional[float] = ..., tv_beta: _Optional[float] = ..., blur_sigma_px: _Optional[float] = ..., blur_every: _Optional[int] = ..., small_norm_percentile: _Optional[float] = ..., small_contribution_percentile: _Optional[float] = ..., jitter_px: _Optional[int] = ..., rotation_degrees: _Optional[float] = ..., scaling: _Optional[float] = ..., octave_count: _Optional[int] = ..., octave_scale: _Optional[float] = ..., progress_every: _Optional[int] = ..., preview_every: _Optional[int] = ..., checkpoint_every: _Optional[int] = ..., max_linf: _Optional[float] = ..., max_l2: _Optional[float] = ..., checkpoint_precision: _Optional[_Union[_checkpoint_pb2.CheckpointPrecision, str]] = ...) -> None: ...

class OptimizeSpec(_message.Message):
    __slots__ = ("model", "ascend", "attack", "image", "guide", "format", "include_pixels", "checkpoint", "checkpoint_bytes", "photos", "photo_count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ASCEND_FIELD_NUMBER: _ClassVar[int]
    ATTACK_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GUIDE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PHOTOS_FIELD_NUMBER: _ClassVar[int]
    PHOTO_COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    ascend: Ascend
    attack: _attack_pb2.Attack
    image: _data_pb2.Image
    guide: _data_pb2.Image
    format: _data_pb2.ImageFormat
    include_pixels: bool
    checkpoint: bytes
    checkpoint_bytes: int
    photos: _containers.RepeatedCompositeFieldContainer[_data_pb2.Image]
    photo_count: int
    def __init__(self, model: _Optional[str] = ..., ascend: _Optional[_Union[Ascend, _Mapping]] = ..., attack: _Optional[_Union[_attack_pb2.Attack, _Mapping]] = ..., image: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., guide: _Optional[_Union[_data_pb2.Image, _Mapping]] = ..., format: _Optional[_Union[_data_pb2.ImageFormat, str]] = ..., include_pixels: bool = ..., checkpoint: _Optional[bytes] = ..., checkpoint_bytes: _Optional[int] = ..., photos: _Optional[_Iterable[_Union[_data_pb2.Image, _Mapping]]] = ..., photo_count: _Optional[int] = ...) -> None: ...

class OptimizeRequest(_message.Message):
    __slots__ = ("spec", "checkpoint_chunk", "photo")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    PHOTO_FIELD_NUMBER: _ClassVar[int]
    spec: OptimizeSpec
    checkpoint_chunk: bytes
    photo: _data_pb2.Image
    def __init__(self, spec: _Optional[_Union[OptimizeSpec, _Mapping]] = ..., checkpoint_chunk: _Optional[bytes] = ..., photo: _Optional[_Union[_data_pb2.Image, _Mapping]] = ...) -> None: ...

class OptimizeQueued(_message.Message):
    __slots__ = ("cost_ms", "others_ms", "bucket_size")
    COST_MS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_MS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SIZE_FIELD_NUMBER: _ClassVar[int]
    cost_ms: float
    others_ms: float
    bucket_size: int
    def __init__(self, cost_ms: _Optional[float] = ..., others_ms: _Optional[float] = ..., bucket_size: _Optional[int] = ...) -> None: ...

class OptimizeProgress(_message.Message):
    __slots__ = ("restart", "step", "step_count", "score", "terms", "lp_penalty", "tv_penalty")
    RESTART_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    LP_PENALTY_FIELD_NUMBER: _ClassVar[int]
    TV_PENALTY_FIELD_NUMBER: _ClassVar[int]
    restart: int
    step: int
    step_count: int
    score: float
    terms: _containers.RepeatedScalarFieldContainer[float]
    lp_penalty: float
    tv_penalty: float
    def __init__(self, restart: _Optional[int] = ..., step: _Optional[int] = ..., step_count: _Optional[int] = ..., score: _Optional[float] = ..., terms: _Optional[_Iterable[float]] = ..., lp_penalty: _Optional[float] = ..., tv_penalty: _Optional[float] = ...) -> None: ...

class OptimizePreview(_message.Message):
    __slots__ = ("restart", "step", "image")
    RESTART_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    restart: int
    step: int
    image: _data_pb2.EncodedImage
    def __init__(self, restart: _Optional[int] = ..., step: _Optional[int] = ..., image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ...) -> None: ...

class OptimizeCheckpoint(_message.Message):
    __slots__ = ("step", "chunk", "last")
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    step: int
    chunk: bytes
    last: bool
    def __init__(self, step: _Optional[int] = ..., chunk: _Optional[bytes] = ..., last: bool = ...) -> None: ...

class OptimizedImage(_message.Message):
    __slots__ = ("image", "pixels", "seed", "progress", "stop_reason", "adversarial")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    ADVERSARIAL_FIELD_NUMBER: _ClassVar[int]
    image: _data_pb2.EncodedImage
    pixels: _data_pb2.Tensor
    seed: int
    progress: OptimizeProgress
    stop_reason: str
    adversarial: _attack_pb2.Adversarial
    def __init__(self, image: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., pixels: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., seed: _Optional[int] = ..., progress: _Optional[_Union[OptimizeProgress, _Mapping]] = ..., stop_reason: _Optional[str] = ..., adversarial: _Optional[_Union[_attack_pb2.Adversarial, _Mapping]] = ...) -> None: ...

class ScoreSpread(_message.Message):
    __slots__ = ("least", "mean", "largest", "standard_deviation")
    LEAST_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    least: float
    mean: float
    largest: float
    standard_deviation: float
    def __init__(self, least: _Optional[float] = ..., mean: _Optional[float] = ..., largest: _Optional[float] = ..., standard_deviation: _Optional[float] = ...) -> None: ...

class OptimizeResult(_message.Message):
    __slots__ = ("run", "ascend", "images", "best", "spread", "notes", "attack")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ASCEND_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    ATTACK_FIELD_NUMBER: _ClassVar[int]
    run: _inference_pb2.Run
    ascend: Ascend
    images: _containers.RepeatedCompositeFieldContainer[OptimizedImage]
    best: int
    spread: ScoreSpread
    notes: _containers.RepeatedScalarFieldContainer[str]
    attack: _attack_pb2.AttackResult
    def __init__(self, run: _Optional[_Union[_inference_pb2.Run, _Mapping]] = ..., ascend: _Optional[_Union[Ascend, _Mapping]] = ..., images: _Optional[_Iterable[_Union[OptimizedImage, _Mapping]]] = ..., best: _Optional[int] = ..., spread: _Optional[_Union[ScoreSpread, _Mapping]] = ..., notes: _Optional[_Iterable[str]] = ..., attack: _Optional[_Union[_attack_pb2.AttackResult, _Mapping]] = ...) -> None: ...

class OptimizeResponse(_message.Message):
    __slots__ = ("queued", "progress", "preview", "result", "checkpoint")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    queued: OptimizeQueued
    progress: OptimizeProgress
    preview: OptimizePreview
    result: OptimizeResult
    checkpoint: OptimizeCheckpoint
    def __init__(self, queued: _Optional[_Union[OptimizeQueued, _Mapping]] = ..., progress: _Optional[_Union[OptimizeProgress, _Mapping]] = ..., preview: _Optional[_Union[OptimizePreview, _Mapping]] = ..., result: _Optional[_Union[OptimizeResult, _Mapping]] = ..., checkpoint: _Optional[_Union[OptimizeCheckpoint, _Mapping]] = ...) -> None: ...
