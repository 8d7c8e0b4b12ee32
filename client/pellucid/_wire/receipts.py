"""Receipts: the requests that they hold, and what comes of these compared with them."""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from google.protobuf import json_format

from .. import types
from ..errors import BadArgument
from ..v1 import inference_pb2
from .arrays import array_of
from .photos import image_of, sha256_of
from .responses import explain_result, predict_result


def replay_request(
    receipt: types.Receipt, photo: types.Photo
) -> tuple[inference_pb2.Receipt, str, inference_pb2.PredictRequest | inference_pb2.ExplainRequest]:
    """The receipt as its message, the RPC that it is of, and the request to send again.

    Raises:
        BadArgument: It is no receipt, or the photo is not the one that it is of.
    """
    message = inference_pb2.Receipt()
    try:
        # Read strictly: a parameter that is passed over would make another result.
        json_format.ParseDict(dict(receipt.fields), message)
    except (json_format.ParseError, ValueError) as error:
        raise BadArgument(f"receipt: cannot be read: {error}") from None
    kind = message.WhichOneof("request")
    if kind is None:
        raise BadArgument("receipt: holds no request")
    try:
        array_of(message.sketch)
    except (KeyError, ValueError):
        raise BadArgument("receipt: cannot be read: its sketch is damaged") from None
    image = image_of(photo)
    if sha256_of(image) != message.image_sha256:
        raise BadArgument("photo: is not the one that the receipt is of; its SHA-256 is another")
    request: inference_pb2.PredictRequest | inference_pb2.ExplainRequest
    if kind == "predict":
        request = inference_pb2.PredictRequest()
        request.CopyFrom(message.predict)
        request.include_logits = True
    else:
        request = inference_pb2.ExplainRequest()
        request.CopyFrom(message.explain)
        request.outputs.append(inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION)
    request.image.CopyFrom(image)
    return message, kind.capitalize(), request


def replay(
    before: inference_pb2.Receipt,
    response: inference_pb2.PredictResponse | inference_pb2.ExplainResponse,
) -> types.Replay:
    """What came of a request that was sent again, compared with its receipt."""
    result: types.PredictResult | types.ExplainResult
    if isinstance(response, inference_pb2.PredictResponse):
        result, exact = predict_result(response), response.logits.data
    else:
        result, exact = explain_result(response), response.attribution.data
    after = response.receipt
    sketch, again = (array_of(r.sketch).astype(np.float64) for r in (before, after))
    equal = hashlib.sha256(exact).hexdigest() == before.result_sha256
    difference = 0.0
    if not equal:
        difference = math.inf
        if sketch.shape == again.shape:
            norm = float(np.linalg.norm(sketch)) or 1.0
            difference = float(np.linalg.norm(again - sketch)) / norm
    return types.Replay(equal, difference, tuple(_notes(before, after)), result)


def _notes(before: inference_pb2.Receipt, after: inference_pb2.Receipt) -> Iterator[str]:
    request = before.explain if before.HasField("explain") else before.predict
    if not request.HasField("bucket_size"):
        yield "made without bucket_size: equal bits were not promised"
    for name in ("weights_sha256", "device", "thread_count"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield f"{name} was {was}, is {now}"
    for name in ("preprocessing", "precision"):
        if getattr(before, name) != getattr(after, name):
            yield f"{name} is another"
    for package in sorted({*before.versions, *after.versions}):
        was, now = before.versions.get(package, "none"), after.versions.get(package, "none")
        if was != now:
            yield f"{package} was {was}, is {now}"
