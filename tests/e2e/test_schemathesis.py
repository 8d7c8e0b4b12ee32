"""The whole server over HTTP, held to its own OpenAPI document by generated requests."""

import asyncio
import base64
import io
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from pellucid_server.config import Settings
from pellucid_server.serve import Server
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.harness import photo

OPERATIONS = [
    ("POST", "/v1/predict"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that runs in a thread of its own."""
    settings = Settings(
        models=("efficientnet_lite0",), input_px=96, http_port=0, grpc_port=0, metrics_port=0
    )
    started, stopping = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def serve() -> None:
        server = Server(settings)
        await server.start()
        found.extend([asyncio.get_running_loop(), f"http://127.0.0.1:{server.http_port}"])
        started.set()
        await stopping.wait()
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(120)
    loop, address = found
    yield address
    loop.call_soon_threadsafe(stopping.set)
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo("cat")).resize((160, 120)).save(file, "png")
    return file.getvalue()
