"""What both protocols offer: a request message in, a response message or an error out."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

from google.protobuf.message import Message
from pellucid.v1 import inference_pb2, model_pb2

from .. import wire
from ..config import Settings
from ..engine.admission import Held
from ..engine.engine import Engine
from ..engine.job import Done, Priority, Spec
from ..engine.memory import is_out_of_memory
from ..errors import (
    DeadlineExpired,
    InvalidArgument,
    OutOfMemory,
    Overloaded,
    Unavailable,
    Violation,
)
from ..locks import caller_of_token
from ..models.registry import Registry
from ..observe import Metrics
from ..workers import Workers

_RETRY_DELAY_MS = 100.0
"""When to come back if all permits are taken: about one CPU iteration."""

_Answer = TypeVar("_Answer")
_Returned = TypeVar("_Returned")


class Service:
    """PellucidService, free of any protocol. Its methods run on the server's loop."""

    def __init__(
        self, settings: Settings, engine: Engine, workers: Workers, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._metrics = metrics
        self._settings = settings
        self._limits = wire.Limits(settings.max_photo_pixels, engine.buckets)
        self._registry: Registry | None = None
        self._permits_left = settings.max_requests
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self._registry is not None and self._engine.alive and not self._draining

    def open(self, registry: Registry) -> None:
        """The models are loaded and warm: requests are answered from now on."""
        self._registry = registry

    async def drain(self, timeout_s: float) -> bool:
        """Takes nothing more in, waits until all that was is answered; false: time ran out."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self._idle.is_set()

    def call(self, caller: str, timeout_s: float | None) -> wire.Call:
        """Who calls and until when; a missing deadline is filled in, a long one cut.

        Args:
            caller: What the call says of itself; the name of its token stands above it.
            timeout_s: Its deadline, in seconds from now.
        """
        settings = self._settings
        if timeout_s is None:
            timeout_s = settings.default_timeout_ms / 1e3
        timeout_s = min(timeout_s, settings.max_timeout_ms / 1e3)
        return wire.Call(caller_of_token.get() or caller, time.monotonic() + timeout_s)

    @contextlib.contextmanager
    def arrival(self, request: Callable[[], Message]) -> Iterator[Held]:
        """Open from a request's first byte to its answer: it is counted, and so are its bytes.

        Args:
            request: Its message, as far as it has been read when it ends.
        """
        with (
            self._metrics.request(lambda: _method_of(request())),
            self._engine.admission.holding() as held,
        ):
            yield held

    async def predict(
        self,
        request: inference_pb2.PredictRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.PredictResponse], _Answer],
    ) -> _Answer:
        """Answers a request; write makes the response what is sent, and runs in a worker."""

        def read(registry: Registry) -> tuple[Spec, Callable[[Done], _Answer]]:
            spec = wire.read_predict(request, call, registry, self._limits)
            return spec, lambda done: write(wire.write_predict(spec, done))

        return await self._answer(Priority.PREDICT, call, held, read)

    async def explain(
        self,
        request: inference_pb2.ExplainRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.ExplainResponse], _Answer],
    ) -> _Answer:
        """As predict."""

        def read(registry: Registry) -> tuple[Spec, Callable[[Done], _Answer]]:
            spec, view = wire.read_explain(request, call, registry, self._limits)
            return spec, lambda done: write(wire.write_explain(spec, view, done))

        return await self._answer(Priority.EXPLAIN, call, held, read)

    async def explain_stream(
        self,
        request: inference_pb2.ExplainRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.ExplainResponse], _Answer],
    ) -> AsyncGenerator[tuple[_Answer, bool], None]:
        """As explain, coarse to fine: estimates, and the explanation; each, and whether it is that.

        Closing it cancels the job. An estimate that is overtaken by a better one is left out.
        """
        arrived_s = time.monotonic()
        async with self._permit(Priority.EXPLAIN) as registry:
            with _answerable():
                async with asyncio.timeout(call.deadline_s - arrived_s):
                    spec, view = await self._work(
                        Priority.PREDICT,
                        call,
                        lambda: wire.read_explain(
                            request, call, registry, self._limits, watched=True
                        ),
                    )
                    held.add(spec.byte_count)
            newest = _Newest()
            job = self._engine.submit(spec, arrived_s, newest.put)
            ended = asyncio.wrap_future(job.future)
            ended.add_done_callback(lambda _: newest.end())
            try:
                last = False
                while not last:
                    done = await newest.get()
                    last = done is None
                    with _answerable():
                        async with asyncio.timeout(call.deadline_s - time.monotonic()):
                            answer = await self._work(
                                Priority.EXPLAIN,
                                call,
                                functools.partial(
                                    self._write_shown, spec, view, done or await ended, write
                                ),
                            )
                    yield answer, last
            finally:
                if not job.future.done():
                    self._engine.cancel(job)

    async def list_models(self, _: model_pb2.ListModelsRequest) -> model_pb2.ListModelsResponse:
        return wire.write_models(self._open_registry())

    async def get_model(self, request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
        return wire.write_model(request.model, self._open_registry(), self._engine.costs_of)

    def _open_registry(self) -> Registry:
        if self._registry is None:
            raise Unavailable("the server is still loading its models", retry_delay_ms=1000.0)
        return self._registry

    def check_room(self, priority: Priority) -> None:
        """Refuses what cannot be taken in now, before anything of it is read.

        Raises:
            Overloaded, Unavailable: It cannot.
        """
        self._open_registry()
        if self._draining:
            raise Unavailable("the server is stopping; another replica will answer")
        self._engine.admission.check_room(priority)
        if self._permits_left == 0:
            raise Overloaded(
                f"{self._settings.max_requests} requests are under way",
                retry_delay_ms=_RETRY_DELAY_MS,
            )

    async def _answer(
        self,
        priority: Priority,
        call: wire.Call,
        held: Held,
        read: Callable[[Registry], tuple[Spec, Callable[[Done], _Answer]]],
    ) -> _Answer:
        """Validates, runs and renders, all of it by the deadline."""
        arrived_s = time.monotonic()
        async with self._permit(priority) as registry:
            with _answerable():
                async with asyncio.timeout(call.deadline_s - arrived_s):
                    # Reading headers is short: what must be refused is, before any rendering.
                    spec, write = await self._work(Priority.PREDICT, call, lambda: read(registry))
                    held.add(spec.byte_count)
                    done = await self._run(spec, arrived_s)
                    return await self._work(priority, call, lambda: self._write(spec, done, write))

    @contextlib.asynccontextmanager
    async def _permit(self, priority: Priority) -> AsyncIterator[Registry]:
        """Held by a request while it is under way; a drain waits for all of them."""
        self.check_room(priority)
        registry = self._open_registry()
        self._permits_left -= 1
        self._idle.clear()
        try:
            yield registry
        finally:
            self._permits_left += 1
            if self._permits_left == self._settings.max_requests:
                self._idle.set()

    async def _work(
        self, priority: Priority, call: wire.Call, function: Callable[[], _Returned]
    ) -> _Returned:
        return await asyncio.wrap_future(self._workers.submit(function, priority, call.deadline_s))

    async def _run(self, spec: Spec, arrived_s: float) -> Done:
        job = self._engine.submit(spec, arrived_s)
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            if not job.future.done():
                self._engine.cancel(job)

    def _write_shown(
        self,
        spec: Spec,
        view: wire.View,
        done: Done,
        write: Callable[[inference_pb2.ExplainResponse], _Answer],
    ) -> _Answer:
        return self._write(spec, done, lambda of: write(wire.write_explain(spec, view, of)))

    def _write(self, spec: Spec, done: Done, write: Callable[[Done], _Answer]) -> _Answer:
        done.timing.render_started_s = time.monotonic()
        self._metrics.queued(spec.method.name, done.timing.queue_ms)
        return write(done)


class _Newest:
    """The newest estimate of a job, which takes the place of the one before. On the loop."""

    def __init__(self) -> None:
        self._done: Done | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, done: Done) -> None:
        self._done = done
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def get(self) -> Done | None:
        """Waits for a newer one; None: the job has ended."""
        while self._done is None and not self._ended:
            await self._changed.wait()
            self._changed.clear()
        done, self._done = self._done, None
        return None if self._ended else done


@contextlib.contextmanager
def _answerable() -> Iterator[None]:
    """What runs out, of time or of memory, as an error that a caller can be told."""
    try:
        yield
    except TimeoutError:
        raise DeadlineExpired("the deadline passed before the result was ready") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory("the server has too little memory for this request") from None
        raise


def check_size(byte_count: int, most: int) -> None:
    """Refuses to send more than the cap.

    Raises:
        InvalidArgument: The request asks for too much.
    """
    if byte_count > most:
        found = Violation(
            "outputs",
            f"the response takes {byte_count} bytes; at most {most} are sent: ask for fewer "
            "outputs or a smaller rendering",
        )
        raise InvalidArgument(f"outputs: {found.description}", violations=[found])


def _method_of(request: Message) -> str:
    """What a request is counted as."""
    if isinstance(request, inference_pb2.ExplainRequest):
        return request.WhichOneof("method") or "explain"
    return "predict"
