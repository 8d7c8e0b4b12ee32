"""Calls that have ended hold nothing: neither what was answered, nor what was refused or left."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid_server.api import sweep

from tests.harness import expect_nothing_held

LAYER = "nowhere"
Ask = Callable[[pellucid.Client, bytes], Any]

ANSWERED: dict[str, Ask] = {
    "predict": lambda client, photo: client.predict(photo),
    "explain": lambda client, photo: client.explain(photo),
    "stream": lambda client, photo: list(client.explain_stream(photo, "smooth_grad")),
    "optimize": lambda client, photo: client.optimize("goldfish", step_count=3).result(),
    "project": lambda client, photo: client.project(np.eye(9, dtype=np.float32), "pca").result(),
}
REFUSED: dict[str, tuple[Ask, type[pellucid.PellucidError]]] = {
    "label": (
        lambda client, photo: client.explain(photo, target="nonsense"),
        pellucid.NotFound,
    ),
    "parameter": (
        lambda client, photo: client.explain(photo, "smooth_grad", sample_count=1),
        pellucid.InvalidArgument,
    ),
    "photo": (
        lambda client, photo: client.predict(photo[:-300]),
        pellucid.InvalidArgument,
    ),
    "deadline": (
        lambda client, photo: client.explain(photo, "rise", timeout_s=0.05),
        pellucid.DeadlineExceeded,
    ),
    "stream": (
        lambda client, photo: list(client.explain_stream(photo, "rise", mask_count=0)),
        pellucid.InvalidArgument,
    ),
    "optimize": (
        lambda client, photo: client.optimize(pellucid.Neuron(LAYER, 1)).result(),
        pellucid.NotFound,
    ),
    "stylize": (
        lambda client, photo: client.stylize(photo, photo[:-300], step_count=3).result(),
        pellucid.InvalidArgument,
    ),
    "embed": (
        lambda client, photo: client.embed([photo], layer=LAYER),
        pellucid.NotFound,
    ),
}


@pytest.fixture
def client(served: Any) -> Any:
    with pellucid.Client(served.grpc, max_retries=0, timeout_s=60) as client:
        yield client


@pytest.fixture
def photo(cat_jpg: Path) -> bytes:
    return cat_jpg.read_bytes()


@pytest.fixture
def unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "gc", SimpleNamespace(collect=lambda: 0))


@pytest.mark.usefixtures("unswept")
@pytest.mark.parametrize("name", ANSWERED)
def test_an_answered_call(client: pellucid.Client, photo: bytes, name: str) -> None:
    expect_nothing_held(lambda: ANSWERED[name](client, photo) and None)


@pytest.mark.usefixtures("unswept")
def test_an_answer_that_has_failures_in_it(client: pellucid.Client, photo: bytes) -> None:
    def ask() -> None:
        good, bad = client.explain_batch([photo, photo[:-300]])
        assert isinstance(good, pellucid.ExplainResult)
        assert isinstance(bad, pellucid.InvalidArgument)
        result = client.predict(photo, explain=["gradient", "rise"], explain_budget_ms=50)
        assert isinstance(result.explanations[1], pellucid.DeadlineExceeded)

    expect_nothing_held(ask)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_call(client: pellucid.Client, photo: bytes, name: str) -> None:
    call, kind = REFUSED[name]

    def ask() -> None:
        try:
            call(client, photo)
        except kind as error:
            error.__traceback__ = None
        else:
            pytest.fail("it was answered")

    expect_nothing_held(ask)


def test_a_stream_that_is_left(client: pellucid.Client, photo: bytes) -> None:
    def ask() -> None:
        with contextlib.closing(client.explain_stream(photo, "smooth_grad")) as stream:
            assert next(stream)

    expect_nothing_held(ask)


def test_calls_that_are_left(served: Any, photo: bytes) -> None:
    async def leave() -> None:
        async with pellucid.AsyncClient(served.grpc) as client:
            calls = [
                asyncio.ensure_future(client.explain_batch([photo, photo])),
                asyncio.ensure_future(client.explain(photo)),
                asyncio.ensure_future(client.embed([photo])),
            ]
            admission = served.server.engine.admission
            while admission.depth < 4:
                await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def ask() -> None:
        with served.held():
            asyncio.run(leave())

    expect_nothing_held(ask)


def test_a_batch_that_expires(served: Any, client: pellucid.Client, photo: bytes) -> None:
    def ask() -> None:
        with served.held(), contextlib.suppress(pellucid.DeadlineExceeded):
            late = client.explain_batch([photo, photo], timeout_s=0.3)  # or just in time
            assert all(isinstance(one, pellucid.DeadlineExceeded) for one in late)

    expect_nothing_held(ask)


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("explain", {"method": "gradient", "model": "nonsense"}, 404),
        ("explain", {"method": "rise", "timeout_ms": "50"}, 504),
        ("explain", {"method": "guided_backprop"}, 200),
        ("explain/stream", {"method": "smooth_grad"}, 200),
        ("predict", {"top_k": "0"}, 400),
    ],
)
def test_over_rest(served: Any, photo: bytes, path: str, form: dict[str, str], status: int) -> None:
    def ask() -> None:
        answer = httpx.post(f"{served.http}/v1/{path}", data=form, files={"image": photo})
        assert answer.status_code == status, answer.text

    expect_nothing_held(ask)


def test_events_that_are_left(served: Any, photo: bytes) -> None:
    def ask() -> None:
        form = {"method": "smooth_grad", "sample_count": "1000"}
        url = f"{served.http}/v1/explain/stream"
        with httpx.stream("POST", url, data=form, files={"image": photo}, timeout=60) as answer:
            assert next(answer.iter_lines())

    expect_nothing_held(ask)
