"""gRPC: translation only."""

import logging
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from pellucid.v1 import inference_pb2, model_pb2, service_pb2_grpc

from .. import wire
from ..config import Settings
from ..errors import Internal, PellucidError
from .health import HEALTH, SERVICE, Health
from .service import Service, check_size

log = logging.getLogger(__name__)

CALLER_KEY = "pellucid-caller"
"""Metadata by which a caller names itself; its address stands in for it."""

_SPARE_RPCS = 64
"""Calls beyond max_requests that are answered at all: health, models, refusals with a delay."""

_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]


class PellucidServicer(service_pb2_grpc.PellucidServiceServicer):
    """PellucidService over grpc.aio."""

    def __init__(self, service: Service, max_message_bytes: int) -> None:
        self._service = service
        self._max_message_bytes = max_message_bytes

    async def Predict(
        self, request: inference_pb2.PredictRequest, context: _Context
    ) -> inference_pb2.PredictResponse:
        return await _answer(context, self._serve(request, context, self._service.predict))

    async def Explain(
        self, request: inference_pb2.ExplainRequest, context: _Context
    ) -> inference_pb2.ExplainResponse:
        return await _answer(context, self._serve(request, context, self._service.explain))

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
        request: Message,
        context: _Context,
        method: Callable[..., Awaitable[_Response]],
    ) -> _Response:
        with self._service.arrival(request) as held:
            held.add(request.ByteSize())
            return await method(request, self._call(context), held, self._fitting)

    def _fitting(self, response: Message) -> Message:
        check_size(response.ByteSize(), self._max_message_bytes)
        return response

    def _call(self, context: _Context) -> wire.Call:
        metadata = dict(context.invocation_metadata() or ())
        peer = urllib.parse.unquote(context.peer())  # ipv4:127.0.0.1:5, ipv6:[::1]:5
        address = peer.partition(":")[2].rpartition(":")[0].strip("[]")
        return self._service.call(str(metadata.get(CALLER_KEY, address)), context.time_remaining())


def build_server(service: Service, settings: Settings) -> tuple[grpc.aio.Server, Health]:
    """The gRPC server, without a port yet, and its health."""
    cap = settings.max_message_bytes
    server = grpc.aio.server(
        maximum_concurrent_rpcs=settings.max_requests + _SPARE_RPCS,
        options=[
            ("grpc.max_receive_message_length", cap),
            ("grpc.max_send_message_length", cap),
            ("grpc.so_reuseport", 0),
        ],
    )
    service_pb2_grpc.add_PellucidServiceServicer_to_server(PellucidServicer(service, cap), server)
    health = Health(server)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    return server, health


async def _answer(context: _Context, response: Awaitable[_Response]) -> _Response:
    try:
        return await response
    except PellucidError as error:
        await _abort(context, error)
    except Exception:
        log.exception("a request failed")
        await _abort(context, Internal())


async def _abort(context: _Context, error: PellucidError) -> NoReturn:
    status = rpc_status.to_status(wire.write_error(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
