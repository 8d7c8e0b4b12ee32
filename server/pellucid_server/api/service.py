"""What both protocols offer: a request message in, a response message or an error out."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

from google.protobuf.message import Message
from pellucid.v1 import inference_pb2, model_pb2

from .. import wire
from ..config import Settings
from ..engine.engine import Engine
from ..engine.job import Done, Spec
from ..errors import DeadlineExpired, InvalidArgument, Overloaded, Unavailable, Violation
from ..models.registry import Registry
from ..observe import Metrics

_RETRY_DELAY_MS = 100.0
"""When to come back if all permits are taken: about one CPU iteration."""

_DEADLINE_GRACE_S = 0.5
"""The engine reports an expired deadline itself; past this the handler does."""

_Response = TypeVar("_Response", bound=Message)
_Returned = TypeVar("_Returned")


class Service:
    """PellucidService, free of any protocol. Its methods run on the server's loop."""

    def __init__(
        self, settings: Settings, engine: Engine, workers: Executor, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._metrics = metrics
        self._settings = settings
        self._limits = wire.Limits(settings.max_photo_pixels, engine.buckets)
        self._registry: Registry | None = None
        self._permits_left = settings.max_requests

    @property
    def ready(self) -> bool:
        return self._registry is not None and self._engine.alive

    def open(self, registry: Registry) -> None:
        """The models are loaded and warm: requests are answered from now on."""
        self._registry = registry

    def call(self, caller: str, timeout_s: float | None) -> wire.Call:
        """Who calls and until when; a missing deadline is filled in, a long one cut."""
        settings = self._settings
        if timeout_s is None:
            timeout_s = settings.default_timeout_ms / 1e3
        timeout_s = min(timeout_s, settings.max_timeout_ms / 1e3)
        return wire.Call(caller, time.monotonic() + timeout_s)

    async def predict(
        self, request: inference_pb2.PredictRequest, call: wire.Call
    ) -> inference_pb2.PredictResponse:
        with self._metrics.request("predict"):
            async with self._permit() as registry:
                spec = await self._work(
                    lambda: wire.read_predict(request, call, registry, self._limits)
                )
                done = await self._run(spec)
                return self._fitting(await self._work(lambda: wire.write_predict(spec, done)))

    async def explain(
        self, request: inference_pb2.ExplainRequest, call: wire.Call
    ) -> inference_pb2.ExplainResponse:
        with self._metrics.request(request.WhichOneof("method") or "explain"):
            async with self._permit() as registry:
                spec, view = await self._work(
                    lambda: wire.read_explain(request, call, registry, self._limits)
                )
                done = await self._run(spec)
                return self._fitting(await self._work(lambda: wire.write_explain(spec, view, done)))

    async def list_models(self, _: model_pb2.ListModelsRequest) -> model_pb2.ListModelsResponse:
        return wire.write_models(self._open_registry())

    async def get_model(self, request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
        return wire.write_model(request.model, self._open_registry(), self._engine.costs_of)

    def _open_registry(self) -> Registry:
        if self._registry is None:
            raise Unavailable("the server is still loading its models", retry_delay_ms=1000.0)
        return self._registry

    def check_room(self) -> None:
        """Refuses what cannot be taken in now, before anything of it is read.

        Raises:
            Overloaded, Unavailable: It cannot.
        """
        self._open_registry()
        self._engine.admission.check_room()
        if self._permits_left == 0:
            raise Overloaded(
                f"{self._settings.max_requests} requests are under way",
                retry_delay_ms=_RETRY_DELAY_MS,
            )

    @contextlib.asynccontextmanager
    async def _permit(self) -> AsyncIterator[Registry]:
        """Held by a request from its first byte of work to its response."""
        self.check_room()
        registry = self._open_registry()
        self._permits_left -= 1
        try:
            yield registry
        finally:
            self._permits_left += 1

    async def _work(self, function: Callable[[], _Returned]) -> _Returned:
        return await asyncio.get_running_loop().run_in_executor(self._workers, function)

    async def _run(self, spec: Spec) -> Done:
        job = self._engine.submit(spec)
        left_s = spec.deadline_s - time.monotonic() + _DEADLINE_GRACE_S
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.future), left_s)
        except TimeoutError:
            raise DeadlineExpired("the deadline passed before the result was ready") from None
        finally:
            if not job.future.done():
                self._engine.cancel(job)

    def _fitting(self, response: _Response) -> _Response:
        size, most = response.ByteSize(), self._settings.max_message_bytes
        if size > most:
            found = Violation(
                "outputs",
                f"the response takes {size} bytes; at most {most} are sent: ask for fewer "
                "outputs or a smaller rendering",
            )
            raise InvalidArgument(f"outputs: {found.description}", violations=[found])
        return response
