"""A real server on free ports, in a thread with a loop of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pellucid_server.config import Settings
from pellucid_server.serve import Server
from PIL import Image

from tests.harness import photo

_Returned = TypeVar("_Returned")


@dataclass
class Running:
    """A server, and the loop that it runs on."""

    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.server.http_port}"

    @property
    def metrics(self) -> str:
        return f"http://127.0.0.1:{self.server.metrics_port}/metrics"

    def do(self, work: Coroutine[Any, Any, _Returned]) -> _Returned:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=120)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The engine stands still until the block ends."""
        reached, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            reached.set()
            go_on.wait(60)

        holder = threading.Thread(target=self.server.engine.call, args=(stand_still,))
        holder.start()
        reached.wait(60)
        try:
            yield
        finally:
            go_on.set()
            holder.join()


@contextmanager
def loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def serving(start: bool = True, **settings: Any) -> Iterator[Running]:
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    defaults = ports | {"input_px": 96, "styles": None, "buckets": (1, 2, 4)}

    async def make() -> Server:
        return Server(Settings(**(defaults | settings)))

    with loop_in_a_thread() as loop:
        running = Running(asyncio.run_coroutine_threadsafe(make(), loop).result(60), loop)
        try:
            if start:
                running.do(running.server.start())
            yield running
        finally:
            running.do(running.server.stop())


@pytest.fixture(scope="session")
def make_server() -> Callable[..., Any]:
    return serving


@pytest.fixture(scope="session")
def served() -> Iterator[Running]:
    models, buckets = ("efficientnet_lite0", "resnet18", "no_such_network"), (1, 2, 4, 8)
    with serving(models=models, buckets=buckets) as running:
        yield running


@pytest.fixture(scope="session")
def cat_jpg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "cat.jpg"
    Image.fromarray(photo("cat")).save(path, quality=95)
    return path
