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

class Norm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORM_UNSPECIFIED: _ClassVar[Norm]
    NORM_LINF: _ClassVar[Norm]
    NORM_L2: _ClassVar[Norm]
NORM_UNSPECIFIED: Norm
NORM_LINF: Norm
NORM_L2: Norm

class Fgsm(_message.Message):
    __slots__ = ("epsilon", "norm")
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    norm: Norm
    def __init__(self, epsilon: _Optional[float] = ..., norm: _Optional[_Union[Norm, str]] = ...) -> None: ...

class Bim(_message.Message):
    __slots__ = ("epsilon", "norm", "step_count", "step_size")
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    norm: Norm
    step_count: int
    step_size: float
    def __init__(self, epsilon: _Optional[float] = ..., norm: _Optional[_Union[Norm, str]] = ..., step_count: _Optional[int] = ..., step_size: _Optional[float] = ...) -> None: ...

class Pgd(_message.Message):
    __slots__ = ("epsilon", "norm", "step_count", "step_size", "seed", "restart_count")
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    norm: Norm
    step_count: int
    step_size: float
    seed: int
    restart_count: int
    def __init__(self, epsilon: _Optional[float] = ..., norm: _Optional[_Union[Norm, str]] = ..., step_count: _Optional[int] = ..., step_size: _Optional[float] = ..., seed: _Optional[int] = ..., restart_count: _Optional[int] = ...) -> None: ...

class DeepFool(_message.Message):
    __slots__ = ("norm", "step_count", "candidate_count", "overshoot")
    NORM_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OVERSHOOT_FIELD_NUMBER: _ClassVar[int]
    norm: Norm
    step_count: int
    candidate_count: int
    overshoot: float
    def __init__(self, norm: _Optional[_Union[Norm, str]] = ..., step_count: _Optional[int] = ..., candidate_count: _Optional[int] = ..., overshoot: _Optional[float] = ...) -> None: ...

class CarliniWagner(_message.Message):
    __slots__ = ("step_count", "search_count", "learning_rate", "confidence", "initial_weight")
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEARCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    step_count: int
    search_count: int
    learning_rate: float
    confidence: float
    initial_weight: float
    def __init__(self, step_count: _Optional[int] = ..., search_count: _Optional[int] = ..., learning_rate: _Optional[float] = ..., confidence: _Optional[float] = ..., initial_weight: _Optional[float] = ...) -> None: ...

class Universal(_message.Message):
    __slots__ = ("epsilon", "norm", "pass_count", "fooling_rate", "step_count", "candidate_count", "overshoot", "seed")
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    FOOLING_RATE_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OVERSHOOT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    norm: Norm
    pass_count: int
    fooling_rate: float
    step_count: int
    candidate_count: int
    overshoot: float
    seed: int
    def __init__(self, epsilon: _Optional[float] = ..., norm: _Optional[_Union[Norm, str]] = ..., pass_count: _Optional[int] = ..., fooling_rate: _Optional[float] = ..., step_count: _Optional[int] = ..., candidate_count: _Optional[int] = ..., overshoot: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Attack(_message.Message):
    __slots__ = ("fgsm", "bim", "pgd", "deep_fool", "carlini_wagner", "universal", "class_index", "label", "goal_class_index", "goal_label", "linear_layers", "transfer", "progress_every", "preview_every", "checkpoint_every", "checkpoint_precision")
    FGSM_FIELD_NUMBER: _ClassVar[int]
    BIM_FIELD_NUMBER: _ClassVar[int]
    PGD_FIELD_NUMBER: _ClassVar[int]
    DEEP_FOOL_FIELD_NUMBER: _ClassVar[int]
    CARLINI_WAGNER_FIELD_NUMBER: _ClassVar[int]
    UNIVERSAL_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    GOAL_CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    GOAL_LABEL_FIELD_NUMBER: _ClassVar[int]
    LINEAR_LAYERS_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_EVERY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_PRECISION_FIELD_NUMBER: _ClassVar[int]
    fgsm: Fgsm
    bim: Bim
    pgd: Pgd
    deep_fool: DeepFool
    carlini_wagner: CarliniWagner
    universal: Universal
    class_index: int
    label: str
    goal_class_index: int
    goal_label: str
    linear_layers: _containers.RepeatedScalarFieldContainer[str]
    transfer: bool
    progress_every: int
    preview_every: int
    checkpoint_every: int
    checkpoint_precision: _checkpoint_pb2.CheckpointPrecision
    def __init__(self, fgsm: _Optional[_Union[Fgsm, _Mapping]] = ..., bim: _Optional[_Union[Bim, _Mapping]] = ..., pgd: _Optional[_Union[Pgd, _Mapping]] = ..., deep_fool: _Optional[_Union[DeepFool, _Mapping]] = ..., carlini_wagner: _Optional[_Union[CarliniWagner, _Mapping]] = ..., universal: _Optional[_Union[Universal, _Mapping]] = ..., class_index: _Optional[int] = ..., label: _Optional[str] = ..., goal_class_index: _Optional[int] = ..., goal_label: _Optional[str] = ..., linear_layers: _Optional[_Iterable[str]] = ..., transfer: bool = ..., progress_every: _Optional[int] = ..., preview_every: _Optional[int] = ..., checkpoint_every: _Optional[int] = ..., checkpoint_precision: _Optional[_Union[_checkpoint_pb2.CheckpointPrecision, str]] = ...) -> None: ...

class LinearEffect(_message.Message):
    __slots__ = ("layer", "predicted", "relative_change")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    layer: str
    predicted: float
    relative_change: float
    def __init__(self, layer: _Optional[str] = ..., predicted: _Optional[float] = ..., relative_change: _Optional[float] = ...) -> None: ...

class LinearView(_message.Message):
    __slots__ = ("class_index", "label", "happened", "effects")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    HAPPENED_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    label: str
    happened: float
    effects: _containers.RepeatedCompositeFieldContainer[LinearEffect]
    def __init__(self, class_index: _Optional[int] = ..., label: _Optional[str] = ..., happened: _Optional[float] = ..., effects: _Optional[_Iterable[_Union[LinearEffect, _Mapping]]] = ...) -> None: ...

class TransferScore(_message.Message):
    __slots__ = ("model", "before", "after", "source_before", "source_after", "fooled")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    FOOLED_FIELD_NUMBER: _ClassVar[int]
    model: str
    before: _inference_pb2.Prediction
    after: _inference_pb2.Prediction
    source_before: float
    source_after: float
    fooled: bool
    def __init__(self, model: _Optional[str] = ..., before: _Optional[_Union[_inference_pb2.Prediction, _Mapping]] = ..., after: _Optional[_Union[_inference_pb2.Prediction, _Mapping]] = ..., source_before: _Optional[float] = ..., source_after: _Optional[float] = ..., fooled: bool = ...) -> None: ...

class Adversarial(_message.Message):
    __slots__ = ("success", "success_unrounded", "prediction", "source_probability", "goal_probability", "linf", "l2", "perturbation", "perturbation_gain", "linear", "transfer")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_UNROUNDED_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    GOAL_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LINF_FIELD_NUMBER: _ClassVar[int]
    L2_FIELD_NUMBER: _ClassVar[int]
    PERTURBATION_FIELD_NUMBER: _ClassVar[int]
    PERTURBATION_GAIN_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    success: bool
    success_unrounded: bool
    prediction: _inference_pb2.Prediction
    source_probability: float
    goal_probability: float
    linf: float
    l2: float
    perturbation: _data_pb2.EncodedImage
    perturbation_gain: float
    linear: _containers.RepeatedCompositeFieldContainer[LinearView]
    transfer: _containers.RepeatedCompositeFieldContainer[TransferScore]
    def __init__(self, success: bool = ..., success_unrounded: bool = ..., prediction: _Optional[_Union[_inference_pb2.Prediction, _Mapping]] = ..., source_probability: _Optional[float] = ..., goal_probability: _Optional[float] = ..., linf: _Optional[float] = ..., l2: _Optional[float] = ..., perturbation: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., perturbation_gain: _Optional[float] = ..., linear: _Optional[_Iterable[_Union[LinearView, _Mapping]]] = ..., transfer: _Optional[_Iterable[_Union[TransferScore, _Mapping]]] = ...) -> None: ...

class PhotoOutcome(_message.Message):
    __slots__ = ("before", "after")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    before: _inference_pb2.Prediction
    after: _inference_pb2.Prediction
    def __init__(self, before: _Optional[_Union[_inference_pb2.Prediction, _Mapping]] = ..., after: _Optional[_Union[_inference_pb2.Prediction, _Mapping]] = ...) -> None: ...

class UniversalResult(_message.Message):
    __slots__ = ("perturbation", "picture", "picture_gain", "fooling_rate", "pass_count", "linf", "l2", "photos")
    PERTURBATION_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    PICTURE_GAIN_FIELD_NUMBER: _ClassVar[int]
    FOOLING_RATE_FIELD_NUMBER: _ClassVar[int]
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    LINF_FIELD_NUMBER: _ClassVar[int]
    L2_FIELD_NUMBER: _ClassVar[int]
    PHOTOS_FIELD_NUMBER: _ClassVar[int]
    perturbation: _data_pb2.Tensor
    picture: _data_pb2.EncodedImage
    picture_gain: float
    fooling_rate: float
    pass_count: int
    linf: float
    l2: float
    photos: _containers.RepeatedCompositeFieldContainer[PhotoOutcome]
    def __init__(self, perturbation: _Optional[_Union[_data_pb2.Tensor, _Mapping]] = ..., picture: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., picture_gain: _Optional[float] = ..., fooling_rate: _Optional[float] = ..., pass_count: _Optional[int] = ..., linf: _Optional[float] = ..., l2: _Optional[float] = ..., photos: _Optional[_Iterable[_Union[PhotoOutcome, _Mapping]]] = ...) -> None: ...

class AttackResult(_message.Message):
    __slots__ = ("attack", "original", "prediction", "label", "goal_label", "source_probability", "universal")
    ATTACK_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    GOAL_LABEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    UNIVERSAL_FIELD_NUMBER: _ClassVar[int]
    attack: Attack
    original: _data_pb2.EncodedImage
    prediction: _inference_pb2.Prediction
    label: str
    goal_label: str
    source_probability: float
    universal: UniversalResult
    def __init__(self, attack: _Optional[_Union[Attack, _Mapping]] = ..., original: _Optional[_Union[_data_pb2.EncodedImage, _Mapping]] = ..., prediction: _Optional[_Union[_inference_pb2.Prediction, _Mapping]] = ..., label: _Optional[str] = ..., goal_label: _Optional[str] = ..., source_probability: _Optional[float] = ..., universal: _Optional[_Union[UniversalResult, _Mapping]] = ...) -> None: ...
