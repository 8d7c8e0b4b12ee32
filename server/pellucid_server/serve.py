"""The server's life: ports, warm-up, serving, drain."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from prometheus_client import start_http_server

from .api.grpc import build_server
from .api.rest import build_app
from .api.service import Service
from .config import Settings
from .engine.admission import QueueLimits
from .engine.device import TorchDevice, keep_freed_memory, pick_device
from .engine.engine import Engine
from .engine.rows import Lane
from .models.registry import Model, Precision, Registry, load_registry
from .observe import Metrics

log = logging.getLogger(__name__)

_CLOSE_S = 5.0
"""How long responses that are ready may take to leave."""


class NoModels(RuntimeError):
    """None of the models could be loaded."""


class _QuietUvicorn(uvicorn.Server):
    """Leaves signals alone: their one owner is serve."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One process: gRPC, REST and metrics on one loop, and one engine thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.http_port = self.grpc_port = self.metrics_port = 0
        self._metrics = Metrics()
        self._workers = ThreadPoolExecutor(settings.worker_count, thread_name_prefix="worker")
        self._torch_device = pick_device(settings.device)
        if self._torch_device.type == "cpu":
            keep_freed_memory()
        self.engine = Engine(
            TorchDevice(self._torch_device),
            self._workers,
            buckets=settings.buckets,
            iteration_budget_ms=settings.iteration_budget_ms,
            limits=QueueLimits(settings.queue_budget_ms, settings.queue_bytes),
            observer=self._metrics,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self.service = Service(settings, self.engine, self._workers, self._metrics)

    async def start(self) -> None:
        """Opens the ports, then loads and warms up the models.

        Raises:
            NoModels: None of them could be loaded.
        """
        self.engine.start()
        await self._open_grpc()
        await self._open_http()
        metrics_server, _ = start_http_server(
            self.settings.metrics_port, self.settings.host, self._metrics.registry
        )
        self._metrics_server = metrics_server
        self.metrics_port = metrics_server.server_port
        registry = await asyncio.to_thread(self._load)
        if not registry:
            reasons = "; ".join(f"{m.name}: {m.reason}" for m in registry.failed)
            raise NoModels(reasons or f"there is no model folder in {self.settings.model_folders}")
        self.service.open(registry)
        await self._health.set(True)

    async def stop(self) -> None:
        """Finishes what was admitted, then closes everything."""
        await self._health.set(False)
        drained = await asyncio.to_thread(self.engine.drain, self.settings.drain_timeout_s)
        if not drained:
            log.warning("the drain ran out of time; requests in flight are refused")
            await asyncio.to_thread(self.engine.stop)
        await self._grpc.stop(_CLOSE_S)
        self._http.should_exit = True
        await self._http_task
        if drained:
            await asyncio.to_thread(self.engine.stop)
        self._metrics_server.shutdown()
        self._metrics_server.server_close()
        self._workers.shutdown()

    def _load(self) -> Registry:
        settings = self.settings
        registry = self.engine.call(
            lambda: load_registry(
                settings.models,
                settings.model_folders,
                device=self._torch_device,
                precision=Precision(settings.precision),
                side_px=settings.input_px,
            )
        )
        for model in registry.values():
            self._limit(model)
            self.engine.warm_up(model)
        return registry

    def _limit(self, model: Model) -> None:
        most = model.limits.max_bucket_size
        larger = [b for b in self.settings.buckets if most is not None and b > most]
        for lane in Lane if larger else ():
            self.engine.costs_of(model).cap(lane, min(larger))

    async def _open_grpc(self) -> None:
        settings = self.settings
        self._grpc, self._health = build_server(self.service, settings)
        await self._health.set(False)
        try:
            self.grpc_port = self._grpc.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
        except RuntimeError:
            raise OSError(f"port {settings.grpc_port} could not be opened") from None
        await self._grpc.start()

    async def _open_http(self) -> None:
        settings = self.settings
        self._http = _QuietUvicorn(
            uvicorn.Config(
                build_app(self.service, settings),
                host=settings.host,
                port=settings.http_port,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=int(_CLOSE_S),
            )
        )
        self._http_task = asyncio.create_task(self._http.serve())
        while not self._http.started:
            if self._http_task.done():
                self._http_task.result()
                raise OSError(f"port {settings.http_port} could not be opened")
            await asyncio.sleep(0.01)
        self.http_port = self._http.servers[0].sockets[0].getsockname()[1]


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    server = Server(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await server.start()
    except NoModels:
        await server.stop()
        raise
    log.info(
        "serving on %s: HTTP %d, gRPC %d, metrics %d",
        settings.host,
        server.http_port,
        server.grpc_port,
        server.metrics_port,
    )
    ended = asyncio.create_task(asyncio.to_thread(server.engine.join))
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
    failed = ended.done()
    log.info("draining")
    await server.stop()
    await ended
    if failed:
        raise RuntimeError("the engine thread failed; the log has the details")
