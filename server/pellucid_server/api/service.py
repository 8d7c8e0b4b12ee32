"""What both protocols offer: a request message in, a response message or an error out."""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from pellucid.v1 import (
    codes_pb2,
    index_pb2,
    inference_pb2,
    inspect_pb2,
    model_pb2,
    optimize_pb2,
    stylize_pb2,
    video_pb2,
)

from .. import wire
from ..config import Settings
from ..engine.admission import Held
from ..engine.engine import Engine
from ..engine.job import Done, Job, Priority
from ..errors import InvalidArgument, PellucidError, Violation, failure_of
from ..index.mounted import Indices
from ..locks import caller_of_token
from ..methods.optimize.optimize import Buckets
from ..methods.optimize.snapshot import Snapshot
from ..models.registry import Model, Registry
from ..models.styles.library import Library
from ..observe import Counts, Metrics
from ..processes import Processes
from ..signing import read_key
from ..workers import Workers
from .attached import run_attached
from .deadlines import answerable, in_time
from .events import events
from .jobs import Jobs, Newest
from .permits import Permits
from .projecting import Parts, Projecting
from .sweep import Sweeper
from .video import Receive, Send, Videos

CALLER_KEY = "pellucid-caller"
"""Metadata, or header, by which a caller names itself; its address stands in for it."""

_OPTIMIZE_BUCKETS = {"cpu": 4, "cuda": 16}
"""By kind of device alone, so that replicas agree."""

_Long = TypeVar("_Long", wire.AskedOptimize, wire.AskedStylize, covariant=True)
_Answer = TypeVar("_Answer")
_Returned = TypeVar("_Returned")
_Question = TypeVar("_Question", wire.Asked, wire.AskedInspect, wire.AskedEmbed)


class _Read(Protocol[_Long]):
    """Validates a request; follows: before what follows it is there."""

    def __call__(self, registry: Registry, rest: bytearray, *, follows: bool) -> _Long: ...


class Service:
    """PellucidService, free of any protocol. Its methods run on the server's loop.

    Args:
        settings: The server's.
        engine: What runs requests.
        workers: Validate, decode and render.
        reader: Its one thread reads bodies, see read.
        metrics: Counts requests.
        processes: Make maps.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        workers: Workers,
        reader: Workers,
        metrics: Metrics,
        processes: Processes,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._metrics = metrics
        self._sweeper = Sweeper()
        self._settings = settings
        self._limits = wire.Limits(
            settings.max_photo_pixels,
            engine.buckets,
            settings.max_optimize_pixels,
            Buckets(settings.optimize_bucket or _OPTIMIZE_BUCKETS[engine.device_kind]),
            secrets.token_bytes(32)
            if settings.checkpoint_key_file is None
            else read_key(settings.checkpoint_key_file),
            settings.queue_bytes,
            settings.max_checkpoint_bytes,
            max_photo_set_bytes=settings.max_photo_set_bytes,
            max_response_bytes=settings.max_message_bytes,
        )
        self._videos = Videos(
            engine,
            self.work,
            metrics,
            replace(self._limits, max_response_bytes=settings.max_message_bytes),
            settings.max_video_streams,
            settings.video_idle_timeout_s,
        )
        self._library = Library()
        self._indices = Indices()
        self._permits = Permits(settings.max_requests, engine.admission)
        self._jobs = Jobs(engine, workers, metrics, self._permits)
        self._projecting = Projecting(
            self._jobs, self._permits, engine.admission, processes, self._limits
        )

    @property
    def ready(self) -> bool:
        return self._permits.given and self._engine.alive

    def open(self, registry: Registry, library: Library, indices: Indices | None = None) -> None:
        """The models and styles are loaded and warm: requests are answered from now on."""
        self._library = library
        self._indices = indices or Indices()
        self._permits.open(registry)

    async def drain(self, timeout_s: float) -> bool:
        """Takes nothing more in, waits until all that was is answered; false: time ran out."""
        self._engine.hand_over()
        self._videos.end()
        return await self._permits.drain(timeout_s)

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
            self._sweeper.watching(),
        ):
            yield held

    async def read(self, function: Callable[[], _Returned], deadline_s: float) -> _Returned:
        """Reads a body, one at a time.

        Parsing holds the interpreter's lock: several at once would not be faster, and the loop and
        the engine would wait for all of them.

        Args:
            function: Reads it, off the loop.
            deadline_s: Of the request, by time.monotonic(); the caller ends the wait by then.

        Raises:
            Overloaded: Too many wait to be read.
        """
        reading = self._reader.submit(function, Priority.PREDICT, deadline_s)
        return await asyncio.wrap_future(reading)

    async def work(
        self, priority: Priority, call: wire.Call, function: Callable[[], _Returned]
    ) -> _Returned:
        """Has a worker do a part of a request, by its deadline."""
        async with in_time(call):
            return await self._jobs.work(priority, call, function)

    async def predict(
        self,
        request: inference_pb2.PredictRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.PredictResponse], _Answer],
    ) -> _Answer:
        """Answers a request; write makes the response what is sent, and runs in a worker."""
        read = functools.partial(wire.read_predict, request, call, limits=self._limits)
        return await self._one(Priority.PREDICT, call, held, read, self._predicted, write)

    async def predict_batch(
        self,
        request: inference_pb2.PredictBatchRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.PredictBatchResponse], _Answer],
    ) -> _Answer:
        """As predict, of each image."""
        read = functools.partial(wire.read_predict_batch, request, call, limits=self._limits)
        return await self._each(
            Priority.PREDICT,
            call,
            held,
            read,
            self._predicted,
            lambda outcomes: write(wire.write_predict_batch(outcomes)),
        )

    async def explain(
        self,
        request: inference_pb2.ExplainRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.ExplainResponse], _Answer],
    ) -> _Answer:
        """As predict."""
        read = functools.partial(wire.read_explain, request, call, limits=self._limits)
        return await self._one(Priority.EXPLAIN, call, held, read, self._explained, write)

    async def explain_batch(
        self,
        request: inference_pb2.ExplainBatchRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.ExplainBatchResponse], _Answer],
    ) -> _Answer:
        """As explain, of each image."""
        read = functools.partial(wire.read_explain_batch, request, call, limits=self._limits)
        return await self._each(
            Priority.EXPLAIN,
            call,
            held,
            read,
            self._explained,
            lambda outcomes: write(wire.write_explain_batch(outcomes)),
        )

    async def inspect(
        self,
        request: inspect_pb2.InspectRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inspect_pb2.InspectResponse], _Answer],
    ) -> _Answer:
        """As predict."""
        read = functools.partial(wire.read_inspect, request, call, limits=self._limits)
        return await self._one(Priority.EXPLAIN, call, held, read, self._inspected, write)

    async def embed(
        self,
        request: codes_pb2.EmbedRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[codes_pb2.EmbedResponse], _Answer],
    ) -> _Answer:
        """As predict_batch."""
        read = functools.partial(wire.read_embed, request, call, limits=self._limits)
        return await self._each(
            Priority.EXPLAIN,
            call,
            held,
            read,
            self._embedded,
            lambda outcomes: write(wire.write_embed(outcomes)),
        )

    async def explain_stream(
        self,
        request: inference_pb2.ExplainRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[inference_pb2.ExplainResponse], _Answer],
    ) -> AsyncGenerator[tuple[_Answer, bool], None]:
        """As explain, coarse to fine: estimates, and the explanation; each, and whether it is that.

        Closing it cancels the job, and so does the deadline: whoever does not read on by then
        holds nothing any more. An estimate that is overtaken by a better one is left out.
        """

        async def read(registry: Registry) -> wire.Asked:
            read = functools.partial(
                wire.read_explain, request, call, registry, self._limits, watched=True
            )
            return await self._jobs.read(Priority.EXPLAIN, call, read)

        stream = self._jobs.stream(Priority.EXPLAIN, call, held, read, Newest())
        async with contextlib.aclosing(stream) as shown:
            async for asked, _, done, last in shown:
                if done is not None:
                    made = self._rendered(asked, done)
                    async with in_time(call):
                        answer = await self._jobs.finish(Priority.EXPLAIN, call, made, write)
                    yield answer, last

    async def top_patches(
        self,
        request: index_pb2.TopPatchesRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[index_pb2.TopPatchesResponse], _Answer],
    ) -> _Answer:
        """As predict; nothing is run for it."""
        async with self._underway(Priority.EXPLAIN, call) as (registry, _):
            read = functools.partial(
                wire.read_top_patches, request, registry, self._limits, self._indices
            )
            asked = await self._jobs.read(Priority.EXPLAIN, call, read)
            made = functools.partial(wire.write_top_patches, asked)
            return await self._jobs.finish(Priority.EXPLAIN, call, made, write)

    async def similar(
        self,
        request: index_pb2.SimilarRequest,
        call: wire.Call,
        held: Held,
        write: Callable[[index_pb2.SimilarResponse], _Answer],
    ) -> _Answer:
        """As predict."""
        read = functools.partial(
            wire.read_similar, request, call, limits=self._limits, indices=self._indices
        )
        return await self._one(Priority.EXPLAIN, call, held, read, self._likened, write)

    def optimize(
        self,
        request: optimize_pb2.OptimizeSpec,
        call: wire.Call,
        held: Held,
        write: Callable[[optimize_pb2.OptimizeResponse], _Answer],
        most_bytes: int,
        receive: Callable[[], Awaitable[bytearray]] | None = None,
    ) -> AsyncGenerator[_Answer, None]:
        """The events of an optimization, the result last. Closing it, and the deadline, cancel it.

        Of events that come faster than they are taken the newest of each kind and image is left.

        Args:
            request: What is asked.
            call: By whom, and until when.
            held: What is counted of it.
            write: Makes a response what is sent; runs in a worker.
            most_bytes: Of a response.
            receive: Has the photos that follow added to the request, and returns the checkpoint
                that follows; None: nothing can. What it is to be of is validated before.
        """
        limits = replace(self._limits, max_response_bytes=most_bytes)

        def read(registry: Registry, rest: bytearray, *, follows: bool) -> wire.AskedOptimize:
            return wire.read_optimize(request, call, registry, limits, rest, follows=follows)

        def made(
            asked: wire.AskedOptimize, job: Job, done: Done | None, last: bool
        ) -> optimize_pb2.OptimizeResponse:
            if done is None:
                return wire.write_queued(asked.spec, job.cost_ms, self._others_ms(job))
            if last:
                return self._jobs.write(asked.spec, done, lambda of: wire.write_optimize(asked, of))
            return wire.write_optimize(asked, done)

        def parts(
            asked: wire.AskedOptimize, snapshots: Sequence[Snapshot]
        ) -> Iterator[optimize_pb2.OptimizeResponse]:
            for part in self._checkpoint(asked, snapshots, most_bytes):
                yield optimize_pb2.OptimizeResponse(checkpoint=part)

        follows = bool(request.checkpoint_bytes or request.photo_count)
        priority = Priority.OPTIMIZE
        later = receive if follows else None
        taken = self._taken_in(priority, request, call, held, read, later)
        return events(self._jobs, priority, call, held, taken, made, parts, write)

    def stylize(
        self,
        request: stylize_pb2.StylizeSpec,
        call: wire.Call,
        held: Held,
        write: Callable[[stylize_pb2.StylizeResponse], _Answer],
        most_bytes: int,
        receive: Callable[[], Awaitable[bytearray]] | None = None,
    ) -> AsyncGenerator[_Answer, None]:
        """As optimize."""
        limits = replace(self._limits, max_response_bytes=most_bytes)

        fast = request.HasField("fast")
        answer_of = wire.write_fast if fast else wire.write_stylize

        def read(registry: Registry, rest: bytearray, *, follows: bool) -> wire.AskedStylize:
            if fast:
                return wire.read_fast(request, call, self._library, limits)
            return wire.read_stylize(request, call, registry, limits, rest, follows=follows)

        def made(
            asked: wire.AskedStylize, job: Job, done: Done | None, last: bool
        ) -> stylize_pb2.StylizeResponse:
            if done is None:
                return wire.write_stylize_queued(asked.spec, job.cost_ms, self._others_ms(job))
            if last:
                return self._jobs.write(asked.spec, done, lambda of: answer_of(asked, of))
            return answer_of(asked, done)

        def parts(
            asked: wire.AskedStylize, snapshots: Sequence[Snapshot]
        ) -> Iterator[stylize_pb2.StylizeResponse]:
            for part in self._checkpoint(asked, snapshots, most_bytes):
                yield stylize_pb2.StylizeResponse(checkpoint=part)

        priority = Priority.EXPLAIN if fast else Priority.OPTIMIZE
        follows = bool(request.checkpoint_bytes) and not fast
        later = receive if follows else None
        taken = self._taken_in(priority, request, call, held, read, later)
        return events(self._jobs, priority, call, held, taken, made, parts, write)

    async def stylize_video(
        self,
        request: video_pb2.StylizeVideoSpec,
        call: wire.Call,
        receive: Receive,
        send: Send,
    ) -> None:
        """A stream of frames, see Videos.run; it is under way from its spec to its end."""
        with self._permits.permit(Priority.EXPLAIN):
            await self._videos.run(request, call, self._library, receive, send)

    def project(
        self,
        request: codes_pb2.ProjectSpec,
        call: wire.Call,
        held: Held,
        write: Callable[[codes_pb2.ProjectResponse], _Answer],
        most_bytes: int,
        receive: Callable[[], AsyncIterator[codes_pb2.ProjectRequest]] | None = None,
    ) -> AsyncGenerator[_Answer, None]:
        """The events of a map, the result last. Closing it, and the deadline, cancel it.

        Args:
            request: What is asked, and the photos or codes that come with it.
            call: By whom, and until when.
            held: What is counted of it.
            write: Makes a response what is sent; runs in a worker.
            most_bytes: Of a response.
            receive: Photos and codes that follow, once what is asked is validated; None: none do.
        """

        async def parts() -> Parts:
            for part in wire.parts_of(request):
                yield part, 0
            if receive is not None:
                async for part in receive():
                    yield part, part.ByteSize()

        def read(registry: Registry) -> wire.AskedProject:
            return wire.read_project(request, registry)

        return self._projecting.events(call, held, read, parts, write, most_bytes)

    def _taken_in(
        self,
        priority: Priority,
        request: optimize_pb2.OptimizeSpec | stylize_pb2.StylizeSpec,
        call: wire.Call,
        held: Held,
        read: _Read[_Long],
        receive: Callable[[], Awaitable[bytearray]] | None,
    ) -> Callable[[Registry], Awaitable[_Long]]:
        """What validates a request, before anything that follows it is received and after.

        Args:
            priority: Its class.
            request: What is asked.
            call: By whom, and until when.
            held: What is counted of it.
            read: Validates it.
            receive: Returns the checkpoint that follows; None: nothing does.
        """

        async def taken_in(registry: Registry) -> _Long:
            rest = bytearray()
            if receive is not None:
                first = functools.partial(read, registry, rest, follows=True)
                await self._jobs.read(priority, call, first)
                rest = await receive()

            read_all = functools.partial(read, registry, rest, follows=False)
            asked = await self._jobs.read(priority, call, read_all)
            held.drop(len(request.checkpoint) + len(rest))  # it has become states, counted instead
            request.ClearField("checkpoint")
            return asked

        return taken_in

    def _checkpoint(
        self,
        asked: wire.AskedOptimize | wire.AskedStylize,
        snapshots: Sequence[Snapshot],
        most_bytes: int,
    ) -> Iterator[optimize_pb2.OptimizeCheckpoint]:
        """Its parts, made in workers as they are taken."""
        key = self._limits.checkpoint_key
        return wire.write_checkpoint(
            asked.spec, asked.settings, snapshots, key, asked.notes, most_bytes
        )

    def _others_ms(self, job: Job) -> float:
        """Device time, in milliseconds, of what is admitted beside a job."""
        return max(0.0, self._engine.admission.device_ms - job.queued_ms)

    async def list_models(self, _: model_pb2.ListModelsRequest) -> model_pb2.ListModelsResponse:
        return wire.write_models(self._permits.registry())

    async def get_model(self, request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
        return wire.write_model(request.model, self._permits.registry(), self._engine.costs_of)

    async def list_styles(self, _: stylize_pb2.ListStylesRequest) -> stylize_pb2.ListStylesResponse:
        self._permits.registry()
        return wire.write_styles(self._library)

    def models(self) -> Sequence[Model]:
        """The models that answer, in the order of their loading.

        Raises:
            Unavailable: They are not loaded yet.
        """
        return tuple(self._permits.registry().values())

    def find_model(self, name: str) -> Model:
        """The model of that name; the default for an empty name.

        Raises:
            NotFound: There is none.
            Unavailable: The models are not loaded yet.
        """
        return self._permits.registry().find(name)

    def counts_of(self, model: Model) -> Counts:
        """What a model has done since the server started."""
        return self._metrics.counts_of(model.name)

    def check_room(self, *priorities: Priority) -> None:
        """Refuses what cannot be taken in now, before anything of it is read: see Permits."""
        self._permits.check_room(*priorities)

    @contextlib.asynccontextmanager
    async def _underway(
        self, priority: Priority, call: wire.Call
    ) -> AsyncIterator[tuple[Registry, float]]:
        """A request from its permit to its answer, all of it by the deadline."""
        arrived_s = time.monotonic()
        with self._permits.permit(priority) as registry:
            async with in_time(call):
                yield registry, arrived_s

    async def _one(
        self,
        priority: Priority,
        call: wire.Call,
        held: Held,
        read: Callable[[Registry], _Question],
        run: Callable[[_Question, float], Awaitable[Callable[[], _Returned]]],
        write: Callable[[_Returned], _Answer],
    ) -> _Answer:
        """Validates, runs and renders a request."""
        async with self._underway(priority, call) as (registry, arrived_s):
            asked = await self._jobs.read(priority, call, lambda: read(registry))
            held.add(asked.byte_count)
            made = await run(asked, arrived_s)
            return await self._jobs.finish(priority, call, made, write)

    async def _each(
        self,
        priority: Priority,
        call: wire.Call,
        held: Held,
        read: Callable[[Registry], Sequence[_Question | PellucidError]],
        run: Callable[[_Question, float], Awaitable[Callable[[], _Returned]]],
        write: Callable[[Sequence[_Returned | PellucidError]], _Answer],
    ) -> _Answer:
        """The same of all images of a request; what goes wrong with one is its outcome."""
        async with self._underway(priority, call) as (registry, arrived_s):

            async def one(asked: _Question | PellucidError) -> _Returned | PellucidError:
                if isinstance(asked, PellucidError):
                    return asked
                try:
                    with answerable():
                        return await self._jobs.work(priority, call, await run(asked, arrived_s))
                except PellucidError as error:
                    return failure_of(error)

            each = await self._jobs.read(priority, call, lambda: read(registry))
            held.add(sum(of.byte_count for of in each if not isinstance(of, PellucidError)))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(asked)) for asked in each]
            outcomes = [task.result() for task in tasks]
            return await self._jobs.work(priority, call, lambda: write(outcomes))

    async def _predicted(
        self, asked: wire.Asked, arrived_s: float
    ) -> Callable[[], inference_pb2.PredictResponse]:
        """Runs a prediction and what is attached to it; what makes the response of it."""
        spec, attached = asked.spec, asked.attached
        run = functools.partial(self._jobs.run, arrived_s=arrived_s)
        done, outcomes = await run_attached(asked, arrived_s, run, self._engine.cost_ms)

        def write(of: Done) -> inference_pb2.PredictResponse:
            for outcome in outcomes:
                if isinstance(outcome, Done):
                    outcome.timing.render_started_s = of.timing.render_started_s
            return wire.write_predict(spec, of, attached, outcomes)

        return lambda: self._jobs.write(spec, done, write)

    async def _explained(
        self, asked: wire.Asked, arrived_s: float
    ) -> Callable[[], inference_pb2.ExplainResponse]:
        """As _predicted."""
        return self._rendered(asked, await self._jobs.run(asked.spec, arrived_s=arrived_s))

    async def _likened(
        self, asked: wire.Asked, arrived_s: float
    ) -> Callable[[], index_pb2.SimilarResponse]:
        """As _predicted."""
        spec = asked.spec
        done = await self._jobs.run(spec, arrived_s=arrived_s)
        return lambda: self._jobs.write(spec, done, lambda of: wire.write_similar(spec, of))

    async def _inspected(
        self, asked: wire.AskedInspect, arrived_s: float
    ) -> Callable[[], inspect_pb2.InspectResponse]:
        """As _predicted."""
        done = await self._jobs.run(asked.spec, arrived_s=arrived_s)
        return lambda: self._jobs.write(asked.spec, done, lambda of: wire.write_inspect(asked, of))

    async def _embedded(self, asked: wire.AskedEmbed, arrived_s: float) -> Callable[[], wire.Code]:
        """As _predicted, of one image."""
        done = await self._jobs.run(asked.spec, arrived_s=arrived_s)
        return lambda: self._jobs.write(asked.spec, done, lambda of: wire.write_code(asked, of))

    def _rendered(
        self, asked: wire.Asked, done: Done
    ) -> Callable[[], inference_pb2.ExplainResponse]:
        spec, view = asked.spec, asked.view
        assert view is not None
        return lambda: self._jobs.write(spec, done, lambda of: wire.write_explain(spec, view, of))


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
    if isinstance(request, optimize_pb2.OptimizeSpec):
        return "optimize"
    if isinstance(request, stylize_pb2.StylizeSpec):
        return "stylize"
    if isinstance(request, video_pb2.StylizeVideoSpec):
        return "stylize_video"
    if isinstance(request, codes_pb2.ProjectSpec):
        return "project"
    if isinstance(request, index_pb2.TopPatchesRequest):
        return "top_patches"
    if isinstance(request, index_pb2.SimilarRequest):
        return "similar"
    if isinstance(request, inspect_pb2.InspectRequest):
        return request.WhichOneof("method") or "inspect"
    if isinstance(request, codes_pb2.EmbedRequest):
        return "embed"
    if isinstance(request, inference_pb2.ExplainBatchRequest):
        request = request.explain
    if isinstance(request, inference_pb2.ExplainRequest):
        return request.WhichOneof("method") or "explain"
    return "predict"
