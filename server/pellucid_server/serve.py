"""The server's life: ports, warm-up, serving, drain."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
import time

import uvicorn

from .api.connections import HttpServer, WebSocketConnection
from .api.grpc import build_server
from .api.locked import Lock
from .api.probes import ProbeServer, build_wsgi
from .api.rest import build_app
from .api.service import Service
from .config import Settings
from .engine.admission import QueueLimits
from .engine.device import TorchDevice, keep_freed_memory, pick_device
from .engine.engine import Engine
from .engine.rows import Lane
from .index.mounted import mount
from .locks import Tokens, Watched, read_tokens
from .models.registry import FailedModel, Model, Precision, Registry, loads
from .models.styles.library import Library, StyleModel, style_loads
from .observe import Metrics
from .processes import Processes
from .tls import HttpContext, Identity, grpc_credentials, read_identity
from .workers import Workers

log = logging.getLogger(__name__)

_CLOSE_S = 5.0
"""How long responses that are ready may take to leave."""

_WATCH_S = 1.0
"""How often the files of tokens and of TLS are looked at."""

_MOST_WAITING_MAPS = 16
"""For a process: each takes seconds to minutes."""


class NoModels(RuntimeError):
    """None of the models could be loaded."""


class Server:
    """One process: gRPC, REST and metrics on one loop, and one engine thread.

    Whoever starts it stops it, also after a start that failed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.http_port = self.grpc_port = self.metrics_port = 0
        self._opened = contextlib.AsyncExitStack()
        self._leaving = threading.Event()
        self._tokens = _watched_tokens(settings)
        self._identity = _watched_identity(settings)
        self._metrics = Metrics()
        self._workers = Workers(settings.worker_count, settings.max_requests)
        self._opened.callback(self._workers.shutdown)
        reader = Workers(0, settings.max_requests)
        self._opened.callback(reader.shutdown)
        self._torch_device = pick_device(settings.device)
        if self._torch_device.type == "cpu":
            keep_freed_memory()
        self.engine = Engine(
            TorchDevice(self._torch_device),
            self._workers,
            buckets=settings.buckets,
            iteration_budget_ms=settings.iteration_budget_ms,
            limits=QueueLimits(
                device_ms=settings.queue_budget_ms,
                optimize_ms=settings.optimize_budget_ms,
                byte_count=settings.queue_bytes,
            ),
            observer=self._metrics,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self._metrics.watch(self.engine.admission)
        processes = Processes(settings.process_count, _MOST_WAITING_MAPS, settings.process_bytes)
        self._opened.callback(processes.shutdown)
        self.service = Service(
            settings, self.engine, self._workers, reader, self._metrics, processes
        )

    async def start(self, *, freeze: bool = False) -> None:
        """Opens the ports, then loads and warms up the models; returns early when told to leave.

        Args:
            freeze: Whether the process does nothing else: what is there by then stays, half a
                million objects, so that Python's collector need not look at it.

        Raises:
            OSError: A port cannot be opened.
            NoModels: None of the models could be loaded.
        """
        self.engine.start()
        self._opened.push_async_callback(asyncio.to_thread, self.engine.stop)
        lock = None
        if self._tokens is not None:
            lock = Lock(self._tokens, self._metrics.unauthenticated)
        await self._open_grpc(lock)
        await self._open_http(lock)
        self._open_metrics()
        self._watch()
        registry, library = await asyncio.to_thread(lambda: (self._load(), self._load_styles()))
        if self._leaving.is_set():
            return
        if not registry:
            reasons = "; ".join(f"{m.name}: {m.reason}" for m in registry.failed)
            raise NoModels(reasons or f"there is no model folder in {self.settings.model_folders}")
        indices = await asyncio.to_thread(mount, self.settings.indices, registry)
        self.service.open(registry, library, indices)
        self._opened.push_async_callback(self._drain)
        if freeze:
            gc.collect()
            gc.freeze()
            gc.collect()  # how much is left tells Python when it is to be the next time
            self._opened.callback(gc.unfreeze)
        await self._health.set(True)

    def leave(self) -> None:
        """Ends a start at the next model."""
        self._leaving.set()

    async def stop(self) -> None:
        """Finishes what was taken, then closes everything."""
        await self._opened.aclose()

    async def _drain(self) -> None:
        await self._health.set(False)
        if not await self.service.drain(self.settings.drain_timeout_s):
            log.warning("the drain ran out of time; requests in flight are refused")
            await asyncio.to_thread(self.engine.stop)

    def _load(self) -> Registry:
        settings = self.settings
        models: list[Model | FailedModel] = []
        for load in loads(
            settings.models,
            settings.model_folders,
            device=self._torch_device,
            precision=Precision(settings.precision),
            side_px=settings.input_px,
        ):
            if self._leaving.is_set():
                break
            started_s = time.monotonic()
            model = self.engine.call(load)
            if isinstance(model, Model):
                self._limit(model)
                self.engine.warm_up(model)
                log.info(
                    "%s: loaded and warmed up in %.0f s", model.name, time.monotonic() - started_s
                )
            models.append(model)
        return Registry(models)

    def _load_styles(self) -> Library:
        loaded: list[StyleModel | FailedModel] = []
        for load in style_loads(self.settings.styles, device=self._torch_device):
            if self._leaving.is_set():
                break
            model = self.engine.call(load)
            if isinstance(model, StyleModel):
                self.engine.warm_up(model)
            loaded.append(model)
        return Library(loaded)

    def _limit(self, model: Model) -> None:
        most = model.limits.max_bucket_size
        larger = [b for b in self.settings.buckets if most is not None and b > most]
        for lane in Lane if larger else ():
            self.engine.costs_of(model).cap(lane, min(larger))

    async def _open_grpc(self, lock: Lock | None) -> None:
        host, port = self.settings.host, self.settings.grpc_port
        server, self._health = build_server(self.service, self.settings, lock)
        self._opened.push_async_callback(server.stop, _CLOSE_S)
        await self._health.set(False)
        try:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            if self._identity is None:
                self.grpc_port = server.add_insecure_port(address)
            else:
                credentials = grpc_credentials(self._identity)
                self.grpc_port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise _cannot_open("gRPC", host, port) from None
        await server.start()

    async def _open_http(self, lock: Lock | None) -> None:
        host, port = self.settings.host, self.settings.http_port
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = socket.create_server(address[:2], family=family)
            # asyncio does it only for sockets that name their protocol. A response would wait for
            # the acknowledgement of its headers, which peers delay by 40 ms.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise _cannot_open("HTTP", host, port, error) from None
        self._opened.callback(listening.close)
        self.http_port = listening.getsockname()[1]
        config = uvicorn.Config(
            build_app(self.service, self.settings, lock),
            lifespan="off",
            ws=WebSocketConnection,
            ws_max_size=self.settings.max_message_bytes,
            ws_ping_interval=None,  # answers would wait behind frames that flow control holds back
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(_CLOSE_S),
        )
        config.load()
        config.ssl = None if self._identity is None else HttpContext(self._identity)
        server = HttpServer(config, self.settings.max_requests)
        serving = asyncio.create_task(server.serve(sockets=[listening]))

        async def close() -> None:
            server.should_exit = True
            await serving

        self._opened.push_async_callback(close)
        while not server.started:
            await asyncio.sleep(0.01)

    def _open_metrics(self) -> None:
        host, port = self.settings.host, self.settings.metrics_port
        app = build_wsgi(self._metrics.registry, lambda: self.service.ready)
        try:
            server = ProbeServer(host, port, app)
        except OSError as error:
            raise _cannot_open("metrics", host, port, error) from None
        self._opened.callback(server.server_close)
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        self._opened.callback(server.shutdown)
        self.metrics_port = server.server_port

    def _watch(self) -> None:
        watched = [one for one in (self._tokens, self._identity) if one is not None]

        async def watch() -> None:
            while True:
                await asyncio.sleep(_WATCH_S)
                for one in watched:
                    await asyncio.to_thread(one.refresh)

        if watched:
            watching = asyncio.create_task(watch())
            self._opened.callback(watching.cancel)


def _watched_tokens(settings: Settings) -> Watched[Tokens] | None:
    path = settings.token_file
    return None if path is None else Watched([path], lambda: read_tokens(path))


def _watched_identity(settings: Settings) -> Watched[Identity] | None:
    certificate, key = settings.tls_certificate, settings.tls_key
    client_ca = settings.tls_client_ca
    if certificate is None or key is None:
        return None
    paths = [path for path in (certificate, key, client_ca) if path is not None]
    return Watched(paths, lambda: read_identity(certificate, key, client_ca))


def _cannot_open(what: str, host: str, port: int, error: OSError | None = None) -> OSError:
    why = "it is taken, or not allowed" if error is None else error.strerror
    return OSError(f"port {port} of {what} cannot be opened on {host}: {why}")


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    asked = asyncio.create_task(stopping.wait())
    server = Server(settings)
    failed = False
    try:
        starting = asyncio.create_task(server.start(freeze=True))
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            server.leave()
        await starting
        if not asked.done():
            if settings.checkpoint_key_file is None:
                log.info("no checkpoint_key_file: checkpoints are good on this server alone")
            if settings.token_file is not None and settings.tls_certificate is None:
                log.warning("tokens come in plain text: whoever sees the traffic can use them")
            log.info(
                "serving on %s: HTTP %d, gRPC %d, metrics %d",
                settings.host,
                server.http_port,
                server.grpc_port,
                server.metrics_port,
            )
            ended = asyncio.create_task(asyncio.to_thread(server.engine.join))
            await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
            failed = ended.done()
        log.info("draining")
    finally:
        asked.cancel()
        await server.stop()
    if failed:
        raise RuntimeError("the engine thread failed; the log has the details")
