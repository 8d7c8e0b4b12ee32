"""gRPC: translation only."""

import asyncio
import contextlib
import logging
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from pellucid.v1 import inference_pb2, model_pb2, optimize_pb2

from .. import wire
from ..config import Settings
from ..engine.admission import Held
from ..engine.job import Priority
from ..errors import DeadlineExpired, Internal, InvalidArgument, PellucidError, Violation
from .health import HEALTH, SERVICE, Health
from .locked import Lock, LockedRpcs
from .service import Service, check_size

log = logging.getLogger(__name__)

CALLER_KEY = "pellucid-caller"
"""Metadata by which a caller names itself; its address stands in for it."""

_SPARE_RPCS = 64
"""Calls beyond max_requests that are answered at all: health, models, refusals with a delay."""

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response")
_Sent = TypeVar("_Sent", bound=Message)
_Context = grpc.aio.ServicerContext[Any, Any]


class PellucidServicer:
    """PellucidService over grpc.aio.

    Calls that bring images are taken as streams of their one message, which look the same on
    the wire: so a message is read after a look at the queue, and few are read at once.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._max_message_bytes = settings.max_message_bytes
        self._max_checkpoint_bytes = settings.queue_bytes
        at_once = max(1, settings.queue_bytes // settings.max_message_bytes)
        self._receiving = asyncio.Semaphore(at_once)

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
        self, messages: AsyncIterator[inference_pb2.PredictRequest], context: _Context
    ) -> inference_pb2.PredictResponse:
        empty = inference_pb2.PredictRequest()
        answer = self._serve(empty, messages, context, Priority.PREDICT, self._service.predict)
        return await _answer(context, answer)

    async def Explain(
        self, messages: AsyncIterator[inference_pb2.ExplainRequest], context: _Context
    ) -> inference_pb2.ExplainResponse:
        empty = inference_pb2.ExplainRequest()
        answer = self._serve(empty, messages, context, Priority.EXPLAIN, self._service.explain)
        return await _answer(context, answer)

    async def PredictBatch(
        self, messages: AsyncIterator[inference_pb2.PredictBatchRequest], context: _Context
    ) -> inference_pb2.PredictBatchResponse:
        empty, method = inference_pb2.PredictBatchRequest(), self._service.predict_batch
        answer = self._serve(empty, messages, context, Priority.PREDICT, method)
        return await _answer(context, answer)

    async def ExplainBatch(
        self, messages: AsyncIterator[inference_pb2.ExplainBatchRequest], context: _Context
    ) -> inference_pb2.ExplainBatchResponse:
        empty, method = inference_pb2.ExplainBatchRequest(), self._service.explain_batch
        answer = self._serve(empty, messages, context, Priority.EXPLAIN, method)
        return await _answer(context, answer)

    async def ExplainStream(
        self, messages: AsyncIterator[inference_pb2.ExplainStreamRequest], context: _Context
    ) -> AsyncIterator[inference_pb2.ExplainStreamResponse]:
        request = inference_pb2.ExplainStreamRequest()
        async with _answering(context):
            with self._service.arrival(lambda: request.explain) as held:
                call = self._call(context)
                self._service.check_room(Priority.EXPLAIN)
                request = await self._receive(messages, call)
                held.add(request.ByteSize())
                shown = self._service.explain_stream(request.explain, call, held, self._shown)
                async with contextlib.aclosing(shown):
                    async for response, last in shown:
                        response.last = last
                        yield response

    async def Optimize(
        self, messages: AsyncIterator[optimize_pb2.OptimizeRequest], context: _Context
    ) -> AsyncIterator[optimize_pb2.OptimizeResponse]:
        request = optimize_pb2.OptimizeRequest()
        async with _answering(context):
            with self._service.arrival(lambda: request.spec) as held:
                call = self._call(context)
                self._service.check_room(Priority.OPTIMIZE)
                request = await self._receive(messages, call)
                held.add(request.ByteSize())
                if not request.HasField("spec"):
                    _refuse("spec", "required in the first message")
                await self._receive_checkpoint(request.spec, messages, call, held)
                shown = self._service.optimize(request.spec, call, held, self._fitting)
                async with contextlib.aclosing(shown):
                    async for response in shown:
                        yield response

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: _Context
    ) -> model_pb2.ListModelsResponse:
        return await _answer(context, self._service.list_models(request))

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: _Context
    ) -> model_pb2.GetModelResponse:
        return await _answer(context, self._service.get_model(request))

    async def _serve(
        self,
        request: _Request,
        messages: AsyncIterator[_Request],
        context: _Context,
        priority: Priority,
        method: Callable[..., Awaitable[_Response]],
    ) -> _Response:
        with self._service.arrival(lambda: request) as held:
            call = self._call(context)
            self._service.check_room(priority)
            request = await self._receive(messages, call)
            held.add(request.ByteSize())
            return await method(request, call, held, self._fitting)

    async def _receive(self, messages: AsyncIterator[_Request], call: wire.Call) -> _Request:
        try:
            async with asyncio.timeout(call.deadline_s - time.monotonic()), self._receiving:
                return await anext(messages)
        except TimeoutError:
            raise DeadlineExpired("the message did not arrive in time") from None
        except StopAsyncIteration:
            raise InvalidArgument("the call has no message") from None

    async def _receive_checkpoint(
        self,
        spec: optimize_pb2.OptimizeSpec,
        messages: AsyncIterator[optimize_pb2.OptimizeRequest],
        call: wire.Call,
        held: Held,
    ) -> None:
        """Reads the parts of a checkpoint that follow its spec."""
        missing, parts = spec.checkpoint_bytes, [spec.checkpoint]
        most = self._max_checkpoint_bytes
        if not 0 <= missing <= most:
            _refuse("checkpoint_bytes", f"is {missing}; must be 0 to {most}")
        while missing > 0:
            message = await self._receive(messages, call)
            held.add(len(message.checkpoint_chunk))
            parts.append(message.checkpoint_chunk)
            missing -= len(message.checkpoint_chunk)
            if not message.checkpoint_chunk or missing < 0:
                _refuse("checkpoint_chunk", "must bring what checkpoint_bytes says is missing")
        spec.checkpoint = b"".join(parts)

    def _fitting(self, response: _Sent) -> _Sent:
        check_size(response.ByteSize(), self._max_message_bytes)
        return response

    def _shown(
        self, explanation: inference_pb2.ExplainResponse
    ) -> inference_pb2.ExplainStreamResponse:
        response = inference_pb2.ExplainStreamResponse(explanation=explanation, last=True)
        check_size(response.ByteSize(), self._max_message_bytes)
        return response

    def _call(self, context: _Context) -> wire.Call:
        metadata = dict(context.invocation_metadata() or ())
        peer = urllib.parse.unquote(context.peer())  # ipv4:127.0.0.1:5, ipv6:[::1]:5
        address = peer.partition(":")[2].rpartition(":")[0].strip("[]")
        return self._service.call(str(metadata.get(CALLER_KEY, address)), context.time_remaining())


def build_server(
    service: Service, settings: Settings, lock: Lock | None = None
) -> tuple[grpc.aio.Server, Health]:
    """The gRPC server, without a port yet, and its health."""
    assert (lock is None) == (settings.token_file is None)
    cap = settings.max_message_bytes
    server = grpc.aio.server(
        interceptors=[] if lock is None else [LockedRpcs(lock)],
        maximum_concurrent_rpcs=settings.max_requests + _SPARE_RPCS,
        options=[
            ("grpc.max_receive_message_length", cap),
            ("grpc.max_send_message_length", cap),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers((PellucidServicer(service, settings).handlers(),))
    health = Health(server)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    return server, health


async def _answer(context: _Context, response: Awaitable[_Response]) -> _Response:
    async with _answering(context):
        return await response


@contextlib.asynccontextmanager
async def _answering(context: _Context) -> AsyncIterator[None]:
    """What goes wrong in answering a call is told to its caller."""
    try:
        yield
    except PellucidError as error:
        await _abort(context, error)
    except Exception:
        log.exception("a request failed")
        await _abort(context, Internal())


def _refuse(field: str, description: str) -> NoReturn:
    found = Violation(field, description)
    raise InvalidArgument(f"{field}: {description}", violations=[found])


async def _abort(context: _Context, error: PellucidError) -> NoReturn:
    status = rpc_status.to_status(wire.write_error(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
