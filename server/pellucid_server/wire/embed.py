"""Codes of images: what is asked, and what came of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from pellucid.v1 import codes_pb2, data_pb2, inference_pb2
from torch import Tensor

from ..engine.job import Done, Source, Spec
from ..engine.rows import TopTarget
from ..errors import InvalidArgument, PellucidError, Violation
from ..methods.inspect.embed import Embed, Embedded, Pooling, code_length, default_layer
from ..models.network import PENULTIMATE
from ..models.registry import Model, Registry
from .failures import write_failure
from .fields import Fields, Violations, find_layer, one_of, why_not, write_tensor
from .limits import Call, Limits, check_sendable
from .requests import find_model, of_each, read_bucket_size, read_images
from .responses import write_run

_DTYPES = {
    data_pb2.DATA_TYPE_UNSPECIFIED: torch.float32,
    data_pb2.DATA_TYPE_FLOAT32: torch.float32,
    data_pb2.DATA_TYPE_FLOAT16: torch.float16,
}


@dataclass(frozen=True)
class AskedEmbed:
    """A validated request, of one image; dtype: of the code as it is sent."""

    spec: Spec
    dtype: torch.dtype

    @property
    def byte_count(self) -> int:
        """Bytes that it holds until it is answered."""
        return self.spec.byte_count


@dataclass(frozen=True)
class Code:
    """What came of one image: its code as it is sent, and what it was computed by."""

    layer: str
    code: Tensor
    run: inference_pb2.Run


def read_embed(
    request: codes_pb2.EmbedRequest, call: Call, registry: Registry, limits: Limits
) -> list[AskedEmbed | PellucidError]:
    """An EmbedRequest: for each image the request, or what is wrong with that image.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation that concerns all.
    """
    found = Violations()
    images = read_images(found, request.images)
    model = find_model(found, request.model, registry)
    layer = _read_layer(found, request.layer, model)
    pooling = cast(Pooling, Fields(found, "", request).choice("pooling", "mean"))
    dtype = _DTYPES.get(request.data_type)
    if dtype is None:
        allowed = one_of([data_pb2.DataType.Name(number) for number in _DTYPES if number])
        found.invalid("data_type", f"is {request.data_type}; must be {allowed}")
    bucket_size = read_bucket_size(found, request, limits)
    if model is not None and layer is not None and dtype is not None:
        length = code_length(model.network, layer, pooling)
        what, byte_count = f"{len(images)} codes of {length} numbers", length * dtype.itemsize
        instead = "ask for fewer at once, or for their mean"
        check_sendable(found, "images", what, len(images) * byte_count, limits, instead)

    def asked(source: Source) -> AskedEmbed:
        assert model is not None
        assert layer is not None
        assert dtype is not None
        method = Embed(layer, pooling)
        spec = Spec(model, method, source, TopTarget(), call.deadline_s, call.caller, bucket_size)
        return AskedEmbed(spec, dtype)

    return of_each(found, images, model, limits, None, asked)


def _read_layer(found: Violations, name: str, model: Model | None) -> str | None:
    """The layer's name, or PENULTIMATE; None where something is wrong with it."""
    if model is None:
        return None
    network = model.network
    if network.white_box_refusal is not None:
        found.refused("layer", network.white_box_refusal)
        return None
    if not name or (name == PENULTIMATE and network.classifier is not None):
        return default_layer(network)
    layer = find_layer(found, "layer", name, model)
    if layer is not None and not layer.targetable:
        found.refused("layer", f"{layer.name} cannot be looked at: {why_not(layer)}")
    return None if layer is None else layer.name


def write_code(asked: AskedEmbed, done: Done) -> Code:
    """The code of one image.

    Raises:
        InvalidArgument: It has numbers that half precision has not.
    """
    method, result = asked.spec.method, done.result
    assert isinstance(method, Embed)
    assert isinstance(result, Embedded)
    code = result.code.to(asked.dtype)
    if not code.isfinite().all():
        most, largest = torch.finfo(asked.dtype).max, float(result.code.abs().max())
        found = Violation(
            "data_type",
            f"the code has numbers up to {largest:.4g}, where {most:.6g} is the most of "
            "DATA_TYPE_FLOAT16; ask for DATA_TYPE_FLOAT32",
        )
        raise InvalidArgument(f"data_type: {found.description}", violations=[found])
    return Code(method.layer, code, write_run(asked.spec, done))


def write_embed(
    outcomes: Sequence[Code | PellucidError],
) -> codes_pb2.EmbedResponse:
    """The codes, and what came of each image."""
    codes = [one for one in outcomes if isinstance(one, Code)]
    response = codes_pb2.EmbedResponse()
    rows = 0
    for outcome in outcomes:
        if isinstance(outcome, PellucidError):
            response.results.add(failure=write_failure(outcome))
        else:
            response.results.add(row=rows)
            rows += 1
    if codes:
        response.layer = codes[0].layer
        response.codes.CopyFrom(write_tensor(torch.stack([one.code for one in codes])))
        response.run.CopyFrom(_together([one.run for one in codes]))
    return response


def _together(runs: Sequence[inference_pb2.Run]) -> inference_pb2.Run:
    """The first, with the longest times and the batches of all."""
    run = inference_pb2.Run()
    run.CopyFrom(runs[0])
    for other in runs[1:]:
        run.batches.extend(other.batches)
        for name in ("decode_ms", "queue_ms", "run_ms", "render_ms"):
            setattr(run, name, max(getattr(run, name), getattr(other, name)))
    return run
