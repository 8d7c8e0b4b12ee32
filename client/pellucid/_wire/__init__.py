"""Between Python arguments and messages: the pure core that both clients share."""

from .calls import Attempts, call_metadata, failure_of
from .photos import loaded
from .receipts import replay, replay_request
from .requests import (
    METHODS,
    common_score,
    endable,
    evidence_of,
    evidence_options,
    explain_batch_request,
    explain_request,
    get_model_request,
    parameter,
    predict_batch_request,
    predict_request,
    request_sha256,
    stream_request,
)
from .responses import (
    explain_result,
    explain_results,
    model,
    model_summaries,
    predict_result,
    predict_results,
)

__all__ = [
    "METHODS",
    "Attempts",
    "call_metadata",
    "common_score",
    "endable",
    "evidence_of",
    "evidence_options",
    "explain_batch_request",
    "explain_request",
    "explain_result",
    "explain_results",
    "failure_of",
    "get_model_request",
    "loaded",
    "model",
    "model_summaries",
    "parameter",
    "predict_batch_request",
    "predict_request",
    "predict_result",
    "predict_results",
    "replay",
    "replay_request",
    "request_sha256",
    "stream_request",
]
