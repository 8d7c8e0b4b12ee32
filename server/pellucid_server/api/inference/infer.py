"""ModelInfer: tensors in, tensors out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pellucid.v1 import data_pb2, inference_pb2

from ...models.registry import Model
from ..service import check_size
from .bundles import Answered, Plan, Response
from .requests import OUTPUTS, SCORES, InferRequest, Wanted, read_infer
from .tensors import BYTES, Tensor

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Inferred:
    """What a request is answered with, in whichever protocol."""

    model: str
    version: str
    id: str
    outputs: Sequence[Tensor]


@dataclass(frozen=True)
class _Taken:
    """What is kept of a response."""

    logits: bytes = b""
    best: Sequence[inference_pb2.Prediction] = ()
    explanation: data_pb2.Tensor = field(default_factory=data_pb2.Tensor)
    heatmap: bytes = b""
    rendering: bytes = b""


def plan_infer(
    request: InferRequest, model: Model, most_bytes: int, write: Callable[[Inferred], _Answer]
) -> Plan[_Taken, _Answer]:
    """How a request is answered.

    Args:
        request: What is asked.
        model: Of which model.
        most_bytes: How long the tensors of an answer may be.
        write: Makes the answer of them.

    Raises:
        InvalidArgument: With every violation.
    """
    bundle, wanted = read_infer(request, model.name, model.network.class_count)
    count = len(bundle.images)

    def take(response: Response) -> _Taken:
        if isinstance(response, inference_pb2.PredictResponse):
            return _Taken(response.logits.data, response.predictions)
        # The images' maps are of one size: too many are seen at the first one.
        check_size(len(response.attribution.data) * count, most_bytes)
        return _Taken(
            explanation=response.attribution,
            heatmap=response.heatmap.image.data,
            rendering=response.rendering.data,
        )

    def answer(answered: Sequence[Answered[_Taken]]) -> _Answer:
        outputs = [_output(one, answered) for one in wanted]
        check_size(sum(tensor.byte_count for tensor in outputs), most_bytes)
        return write(Inferred(model.name, model.version, request.id, outputs))

    return Plan(bundle, take, answer)


def _output(wanted: Wanted, answered: Sequence[Answered[_Taken]]) -> Tensor:
    """One tensor of an answer, over all images."""
    name = wanted.name
    parts = [one.prediction if name in SCORES else one.explanation for one in answered]
    taken = [part for part in parts if part is not None]
    assert len(taken) == len(answered)
    if wanted.class_count:
        words = [
            _class_words(name, one) for part in taken for one in part.best[: wanted.class_count]
        ]
        return Tensor(name, BYTES, (len(taken), wanted.class_count), words)
    shape: tuple[int, ...] = (len(taken),)
    match name:
        case "logits" | "probabilities":
            logits = np.array([np.frombuffer(part.logits, "<f4") for part in taken])
            scores = logits if name == "logits" else _softmax(logits)
            return Tensor(name, "FP32", scores.shape, scores.tobytes())
        case "explanation":
            shape += tuple(taken[0].explanation.shape)
            return Tensor(name, "FP32", shape, b"".join(p.explanation.data for p in taken))
        case _:
            assert OUTPUTS[name].datatype == BYTES
            return Tensor(name, BYTES, shape, [getattr(part, name) for part in taken])


def _class_words(name: str, one: inference_pb2.Prediction) -> bytes:
    """A class as the classification extension writes it."""
    score = one.logit if name == "logits" else one.probability
    return f"{score:f}:{one.class_index}:{one.label}".encode()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """By row, summed in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities.astype("<f4")
