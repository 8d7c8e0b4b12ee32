"""Calls that have ended hold nothing: neither what was refused, nor who refused it."""

import gc
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid.v1 import codes_pb2, inference_pb2, optimize_pb2, stylize_pb2
from pellucid_server.engine.job import Job

from tests.harness import without_collections

_REFUSED = {
    "unknown label": lambda client, photo: client.explain(photo, target="nonsense"),
    "parameter": lambda client, photo: client.explain(photo, "smooth_grad", sample_count=1),
    "photo": lambda client, photo: client.predict(photo[:100]),
    "deadline": lambda client, photo: client.explain(photo, "rise", timeout_s=0.05),
    "of a batch": lambda client, photo: client.explain_batch([photo, photo[:100]]),
    "stream": lambda client, photo: list(client.explain_stream(photo, "rise", mask_count=1)),
    "optimize": lambda client, photo: client.optimize(pellucid.Code("nowhere"), photo=photo),
    "stylize": lambda client, photo: client.stylize(photo, photo[:100], step_count=3).result(),
    "project": lambda client, photo: client.project(np.zeros((4, 3), np.float32)).result(),
    "embed": lambda client, photo: client.embed([photo], layer="nowhere"),
}
_ANSWERED = {
    "predict": lambda client, photo: client.predict(photo),
    "explain": lambda client, photo: client.explain(photo),
    "stream": lambda client, photo: list(client.explain_stream(photo, "smooth_grad")),
    "left": lambda client, photo: next(client.explain_stream(photo, "rise")),
    "optimize": lambda client, photo: client.optimize("goldfish", step_count=3).result(),
}


_KINDS = {
    Job,
    codes_pb2.EmbedRequest,
    codes_pb2.ProjectRequest,
    inference_pb2.ExplainBatchRequest,
    inference_pb2.ExplainRequest,
    inference_pb2.ExplainStreamRequest,
    inference_pb2.PredictRequest,
    optimize_pb2.OptimizeRequest,
    stylize_pb2.StylizeRequest,
}


def _held() -> Counter[str]:
    """Jobs and requests that are there, by their kinds."""
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in _KINDS)


def _check(ask: Callable[[], None]) -> None:
    """Nothing more is held once a call, which was made before, has ended."""
    ask()
    with without_collections():
        before = _held()
        for _ in range(3):
            ask()
        until_s = time.monotonic() + 5
        while (more := _held() - before) and time.monotonic() < until_s:
            time.sleep(0.05)
        assert not more


def _ask(call: Any, client: pellucid.Client, photo: bytes) -> None:
    try:
        call(client, photo)
    except pellucid.PellucidError as error:
        error.__traceback__ = None


@pytest.mark.parametrize("name", _REFUSED)
def test_a_refused_call_is_held_by_nobody(served: Any, cat_jpg: Path, name: str) -> None:
    photo = cat_jpg.read_bytes()
    with pellucid.Client(served.grpc, max_retries=0) as client:
        _check(lambda: _ask(_REFUSED[name], client, photo))


@pytest.mark.parametrize("name", _ANSWERED)
def test_an_answered_call_is_held_by_nobody(served: Any, cat_jpg: Path, name: str) -> None:
    photo = cat_jpg.read_bytes()
    with pellucid.Client(served.grpc, max_retries=0) as client:
        _check(lambda: _ask(_ANSWERED[name], client, photo))


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("explain", {"method": "gradient", "model": "nonsense"}, 404),
        ("explain", {"method": "rise", "timeout_ms": "50"}, 504),
        ("explain", {"method": "guided_backprop"}, 200),
        ("predict", {"top_k": "0"}, 400),
    ],
)
def test_over_rest_it_is_the_same(
    served: Any, cat_jpg: Path, path: str, form: dict[str, str], status: int
) -> None:
    photo = cat_jpg.read_bytes()

    def ask() -> None:
        url = f"{served.http}/v1/{path}"
        answer = httpx.post(url, data=form, files={"image": photo})
        assert answer.status_code == status, answer.text

    _check(ask)
