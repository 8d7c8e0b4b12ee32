"""gRPC: translation only."""

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection
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
from ..engine.job import Priority
from ..errors import InvalidArgument, Violation
from .health import HEALTH, SERVICE, SERVICES, Health
from .inference.grpc import InferenceServicer
from .locked import Lock, LockedRpcs
from .rpc import (
    AnsweredRpcs,
    Context,
    Inbox,
    Intake,
    PromptRpcs,
    caller_of,
    receive_if_any,
)
from .service import Service, check_size

_SPARE_RPCS = 64
"""Calls beyond max_requests that are answered at all: health, models, refusals with a delay."""

_HANDSHAKE_MS = 10_000
"""How long a connection may take to be one."""

_MOST_IDLE_MS = 300_000
"""How long a connection may be without a call. Channels open another one by themselves."""

_MOST_AGE_MS = 600_000
"""When a connection takes no more calls, so that its client looks up the addresses again and finds
replicas that were added. There is no end to its grace: calls and streams are never cut."""

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response")
_Sent = TypeVar("_Sent", bound=Message)
_Specified = TypeVar(
    "_Specified",
    optimize_pb2.OptimizeRequest,
    stylize_pb2.StylizeRequest,
    video_pb2.StylizeVideoRequest,
    codes_pb2.ProjectRequest,
)
_Parted = TypeVar("_Parted", optimize_pb2.OptimizeRequest, stylize_pb2.StylizeRequest)


class PellucidServicer:
    """PellucidService over grpc.aio."""

    def __init__(self, service: Service, settings: Settings, inbox: Inbox) -> None:
        self._service = service
        self._max_message_bytes = settings.max_message_bytes
        self._max_photo_set_bytes = settings.max_photo_set_bytes
        self._max_checkpoint_bytes = settings.max_checkpoint_bytes
        self._inbox = inbox

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server answers the service's calls with."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Predict": grpc.stream_unary_rpc_method_handler(
                    self.Predict,
                    inference_pb2.PredictRequest.FromString,
                    inference_pb2.PredictResponse.SerializeToString,
                ),
                "Explain": grpc.stream_unary_rpc_method_handler(
                    self.Explain,
                    inference_pb2.ExplainRequest.FromString,
                    inference_pb2.ExplainResponse.SerializeToString,
                ),
                "PredictBatch": grpc.stream_unary_rpc_method_handler(
                    self.PredictBatch,
                    inference_pb2.PredictBatchRequest.FromString,
                    inference_pb2.PredictBatchResponse.SerializeToString,
                ),
                "ExplainBatch": grpc.stream_unary_rpc_method_handler(
                    self.ExplainBatch,
                    inference_pb2.ExplainBatchRequest.FromString,
                    inference_pb2.ExplainBatchResponse.SerializeToString,
                ),
                "ExplainStream": grpc.stream_stream_rpc_method_handler(
                    self.ExplainStream,
                    inference_pb2.ExplainStreamRequest.FromString,
                    inference_pb2.ExplainStreamResponse.SerializeToString,
                ),
                "Optimize": grpc.stream_stream_rpc_method_handler(
                    self.Optimize,
                    optimize_pb2.OptimizeRequest.FromString,
                    optimize_pb2.OptimizeResponse.SerializeToString,
                ),
                "Stylize": grpc.stream_stream_rpc_method_handler(
                    self.Stylize,
                    stylize_pb2.StylizeRequest.FromString,
                    stylize_pb2.StylizeResponse.SerializeToString,
                ),
                "StylizeVideo": grpc.stream_stream_rpc_method_handler(
                    self.StylizeVideo,
                    video_pb2.StylizeVideoRequest.FromString,
                    video_pb2.StylizeVideoResponse.SerializeToString,
                ),
                "Project": grpc.stream_stream_rpc_method_handler(
                    self.Project,
                    codes_pb2.ProjectRequest.FromString,
                    codes_pb2.ProjectResponse.SerializeToString,
                ),
                "TopPatches": grpc.stream_unary_rpc_method_handler(
                    self.TopPatches,
                    index_pb2.TopPatchesRequest.FromString,
                    index_pb2.TopPatchesResponse.SerializeToString,
                ),
                "Similar": grpc.stream_unary_rpc_method_handler(
                    self.Similar,
                    index_pb2.SimilarRequest.FromString,
                    index_pb2.SimilarResponse.SerializeToString,
                ),
                "Inspect": grpc.stream_unary_rpc_method_handler(
                    self.Inspect,
                    inspect_pb2.InspectRequest.FromString,
                    inspect_pb2.InspectResponse.SerializeToString,
                ),
                "Embed": grpc.stream_unary_rpc_method_handler(
                    self.Embed,
                    codes_pb2.EmbedRequest.FromString,
                    codes_pb2.EmbedResponse.SerializeToString,
                ),
                "ListStyles": grpc.unary_unary_rpc_method_handler(
                    self.ListStyles,
                    stylize_pb2.ListStylesRequest.FromString,
                    stylize_pb2.ListStylesResponse.SerializeToString,
                ),
                "ListModels": grpc.unary_unary_rpc_method_handler(
                    self.ListModels,
                    model_pb2.ListModelsRequest.FromString,
                    model_pb2.ListModelsResponse.SerializeToString,
                ),
                "GetModel": grpc.unary_unary_rpc_method_handler(
                    self.GetModel,
                    model_pb2.GetModelRequest.FromString,
                    model_pb2.GetModelResponse.SerializeToString,
                ),
            },
        )

    async def Predict(
        self, messages: AsyncIterator[inference_pb2.PredictRequest], context: Context
    ) -> inference_pb2.PredictResponse:
        empty = inference_pb2.PredictRequest()
        return await self._serve(empty, messages, context, Priority.PREDICT, self._service.predict)

    async def Explain(
        self, messages: AsyncIterator[inference_pb2.ExplainRequest], context: Context
    ) -> inference_pb2.ExplainResponse:
        empty = inference_pb2.ExplainRequest()
        return await self._serve(empty, messages, context, Priority.EXPLAIN, self._service.explain)

    async def PredictBatch(
        self, messages: AsyncIterator[inference_pb2.PredictBatchRequest], context: Context
    ) -> inference_pb2.PredictBatchResponse:
        empty, method = inference_pb2.PredictBatchRequest(), self._service.predict_batch
        return await self._serve(empty, messages, context, Priority.PREDICT, method)

    async def ExplainBatch(
        self, messages: AsyncIterator[inference_pb2.ExplainBatchRequest], context: Context
    ) -> inference_pb2.ExplainBatchResponse:
        empty, method = inference_pb2.ExplainBatchRequest(), self._service.explain_batch
        return await self._serve(empty, messages, context, Priority.EXPLAIN, method)

    async def Inspect(
        self, messages: AsyncIterator[inspect_pb2.InspectRequest], context: Context
    ) -> inspect_pb2.InspectResponse:
        empty = inspect_pb2.InspectRequest()
        return await self._serve(empty, messages, context, Priority.EXPLAIN, self._service.inspect)

    async def Embed(
        self, messages: AsyncIterator[codes_pb2.EmbedRequest], context: Context
    ) -> codes_pb2.EmbedResponse:
        empty = codes_pb2.EmbedRequest()
        return await self._serve(empty, messages, context, Priority.EXPLAIN, self._service.embed)

    async def ExplainStream(
        self, messages: AsyncIterator[inference_pb2.ExplainStreamRequest], context: Context
    ) -> AsyncIterator[inference_pb2.ExplainStreamResponse]:
        request = inference_pb2.ExplainStreamRequest()
        with self._service.arrival(lambda: request.explain) as held:
            call = self._service.call(caller_of(context), context.time_remaining())
            self._service.check_room(Priority.EXPLAIN)
            request = await self._inbox.receive(messages, call)
            held.add(request.ByteSize())
            shown = self._service.explain_stream(request.explain, call, held, self._shown)
            async with contextlib.aclosing(shown):
                async for response, last in shown:
                    response.last = last
                    yield response

    async def Optimize(
        self, messages: AsyncIterator[optimize_pb2.OptimizeRequest], context: Context
    ) -> AsyncIterator[optimize_pb2.OptimizeResponse]:
        call = self._service.call(caller_of(context), context.time_remaining())
        empty = optimize_pb2.OptimizeRequest()
        async with self._opened(empty, messages, call, Priority.OPTIMIZE) as (request, held):
            shown = self._service.optimize(
                request.spec,
                call,
                held,
                self._fitting,
                self._max_message_bytes,
                functools.partial(self._receive_rest, request.spec, messages, call, held),
            )
            async with contextlib.aclosing(shown):
                async for response in shown:
                    yield response

    async def Stylize(
        self, messages: AsyncIterator[stylize_pb2.StylizeRequest], context: Context
    ) -> AsyncIterator[stylize_pb2.StylizeResponse]:
        call = self._service.call(caller_of(context), context.time_remaining())
        empty = stylize_pb2.StylizeRequest()
        async with self._opened(empty, messages, call, Priority.EXPLAIN, Priority.OPTIMIZE) as (
            request,
            held,
        ):
            shown = self._service.stylize(
                request.spec,
                call,
                held,
                self._fitting,
                self._max_message_bytes,
                functools.partial(self._receive_rest, request.spec, messages, call, held),
            )
            async with contextlib.aclosing(shown):
                async for response in shown:
                    yield response

    async def StylizeVideo(
        self, messages: AsyncIterator[video_pb2.StylizeVideoRequest], context: Context
    ) -> None:
        async def receive() -> video_pb2.VideoFrame | None:
            message = await anext(messages, None)
            if message is not None and not message.HasField("frame"):
                _refuse("frame", "required in all messages but the first")
            return None if message is None else message.frame

        call, empty = self._service.call(caller_of(context), None), video_pb2.StylizeVideoRequest()
        async with self._opened(empty, messages, call, Priority.EXPLAIN) as (request, _):
            await self._service.stylize_video(request.spec, call, receive, context.write)

    async def Project(
        self, messages: AsyncIterator[codes_pb2.ProjectRequest], context: Context
    ) -> AsyncIterator[codes_pb2.ProjectResponse]:
        call = self._service.call(caller_of(context), context.time_remaining())
        empty = codes_pb2.ProjectRequest()
        async with self._opened(empty, messages, call, Priority.OPTIMIZE) as (request, held):
            shown = self._service.project(
                request.spec,
                call,
                held,
                self._fitting,
                self._max_message_bytes,
                functools.partial(_receive_all, messages, call),
            )
            async with contextlib.aclosing(shown):
                async for response in shown:
                    yield response

    async def TopPatches(
        self, messages: AsyncIterator[index_pb2.TopPatchesRequest], context: Context
    ) -> index_pb2.TopPatchesResponse:
        empty, method = index_pb2.TopPatchesRequest(), self._service.top_patches
        return await self._serve(empty, messages, context, Priority.EXPLAIN, method)

    async def Similar(
        self, messages: AsyncIterator[index_pb2.SimilarRequest], context: Context
    ) -> index_pb2.SimilarResponse:
        empty = index_pb2.SimilarRequest()
        return await self._serve(empty, messages, context, Priority.EXPLAIN, self._service.similar)

    async def ListStyles(
        self, request: stylize_pb2.ListStylesRequest, context: Context
    ) -> stylize_pb2.ListStylesResponse:
        return await self._service.list_styles(request)

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        return await self._service.list_models(request)

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        return await self._service.get_model(request)

    async def _serve(
        self,
        request: _Request,
        messages: AsyncIterator[_Request],
        context: Context,
        priority: Priority,
        method: Callable[..., Awaitable[_Response]],
    ) -> _Response:
        with self._service.arrival(lambda: request) as held:
            call = self._service.call(caller_of(context), context.time_remaining())
            self._service.check_room(priority)
            request = await self._inbox.receive(messages, call)
            held.add(request.ByteSize())
            return await method(request, call, held, self._fitting)

    @contextlib.asynccontextmanager
    async def _opened(
        self,
        request: _Specified,
        messages: AsyncIterator[_Specified],
        call: wire.Call,
        *priorities: Priority,
    ) -> AsyncIterator[tuple[_Specified, Held]]:
        """A stream's first message, which has its spec, and what is counted of the call."""
        with self._service.arrival(lambda: request.spec) as held:
            self._service.check_room(*priorities)
            request = await self._inbox.receive(messages, call)
            held.add(request.ByteSize())
            if not request.HasField("spec"):
                _refuse("spec", "required in the first message")
            yield request, held

    async def _receive_rest(
        self,
        spec: optimize_pb2.OptimizeSpec | stylize_pb2.StylizeSpec,
        messages: AsyncIterator[_Parted],
        call: wire.Call,
        held: Held,
    ) -> bytearray:
        """Reads what follows a spec that has been validated: its checkpoint, and its photos."""
        assert 0 <= spec.checkpoint_bytes <= self._max_checkpoint_bytes
        async with self._inbox.intake(messages, call) as intake:
            checkpoint = await _receive_checkpoint(spec.checkpoint_bytes, intake, held)
            if isinstance(spec, optimize_pb2.OptimizeSpec):
                await self._receive_photos(spec, intake, held)
        return checkpoint

    async def _receive_photos(
        self, spec: optimize_pb2.OptimizeSpec, intake: Intake[Any], held: Held
    ) -> None:
        """Reads the photos that follow; whoever sends some then ends the messages."""
        count = spec.photo_count
        left = self._max_photo_set_bytes - sum(photo.ByteSize() for photo in spec.photos)
        for place in range(count):
            message = await intake.receive_if_any()
            if message is None or not message.HasField("photo"):
                _refuse("photo_count", f"is {count}; {place} photos came")
            byte_count = message.photo.ByteSize()
            left -= byte_count
            if left < 0:
                _refuse("photos", f"take more than {self._max_photo_set_bytes} bytes")
            held.add(byte_count)
            intake.count(byte_count)
            spec.photos.append(message.photo)
        if count and await intake.receive_if_any() is not None:
            _refuse("photo_count", f"is {count}; more messages came")
        spec.photo_count = 0

    def _fitting(self, response: _Sent) -> _Sent:
        check_size(response.ByteSize(), self._max_message_bytes)
        return response

    def _shown(
        self, explanation: inference_pb2.ExplainResponse
    ) -> inference_pb2.ExplainStreamResponse:
        response = inference_pb2.ExplainStreamResponse(explanation=explanation, last=True)
        check_size(response.ByteSize(), self._max_message_bytes)
        return response


async def _receive_all(
    messages: AsyncIterator[_Request], call: wire.Call
) -> AsyncIterator[_Request]:
    """What follows a spec, until the caller has ended its messages."""
    while (message := await receive_if_any(messages, call)) is not None:
        yield message


def build_server(
    service: Service, settings: Settings, lock: Lock | None = None
) -> tuple[grpc.aio.Server, Health]:
    """The gRPC server, without a port yet, and its health."""
    assert (lock is None) == (settings.token_file is None)
    cap = settings.max_message_bytes
    server = grpc.aio.server(
        interceptors=[AnsweredRpcs(), *([] if lock is None else [LockedRpcs(lock)]), PromptRpcs()],
        maximum_concurrent_rpcs=settings.max_requests + _SPARE_RPCS,
        options=[
            ("grpc.max_receive_message_length", cap),
            ("grpc.max_send_message_length", cap),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", _MOST_IDLE_MS),
            ("grpc.max_connection_age_ms", _MOST_AGE_MS),
        ],
    )
    inbox = Inbox(settings)
    servicers = (PellucidServicer, InferenceServicer)
    server.add_generic_rpc_handlers(
        [servicer(service, settings, inbox).handlers() for servicer in servicers]
    )
    health = Health(server)
    reflection.enable_server_reflection((*SERVICES, HEALTH, reflection.SERVICE_NAME), server)
    return server, health


async def _receive_checkpoint(byte_count: int, intake: Intake[Any], held: Held) -> bytearray:
    """Reads the checkpoint that follows, of so many bytes, to where it stays.

    It grows, and is counted, as they come: what is only announced takes nothing.
    """
    checkpoint = bytearray()
    while len(checkpoint) < byte_count:
        chunk = (await intake.receive()).checkpoint_chunk  # a copy each time that it is asked for
        if not 0 < len(chunk) <= byte_count - len(checkpoint):
            _refuse("checkpoint_chunk", "must bring what checkpoint_bytes says is missing")
        held.add(len(chunk))
        checkpoint += chunk
        intake.count(len(chunk))
    return checkpoint


def _refuse(field: str, description: str) -> NoReturn:
    found = Violation(field, description)
    raise InvalidArgument(f"{field}: {description}", violations=[found])
