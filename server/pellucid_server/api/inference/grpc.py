"""The Open Inference Protocol over gRPC: translation only."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from pellucid.v1 import model_pb2

from ... import wire
from ...config import Settings
from ...engine.admission import Held
from ...errors import (
    DeadlineExpired,
    FailedPrecondition,
    NotFound,
    Overloaded,
    Unavailable,
    Violation,
    failure_of,
)
from ...models.registry import Model
from .. import values
from ..health import INFERENCE
from ..rpc import Context, Inbox, caller_of
from ..service import Service
from . import grpc_service_pb2 as pb2
from . import models
from .bundles import Asker, Bundles, Plan
from .infer import Inferred, plan_infer
from .requests import MOST_NAMED, InferInput, InferOutput, InferRequest, Parameter, check_version

_MOST_IN_FLIGHT = 16
"""Requests of one stream under way; the next message is read when one is answered."""

_RETRY_DELAY_MS = 1000.0
"""When to come back if all streams are taken."""

_CONTENTS = {"FP32": "fp32_contents", "UINT8": "uint_contents", "BYTES": "bytes_contents"}

_Message = TypeVar("_Message", bound=Message)


class InferenceServicer:
    """GRPCInferenceService over grpc.aio."""

    def __init__(self, service: Service, settings: Settings, inbox: Inbox) -> None:
        self._service = service
        self._bundles = Bundles(service, settings)
        self._inbox = inbox
        self._most_bytes = settings.max_message_bytes
        self._most_idle_s = settings.max_timeout_ms / 1e3
        self._most_streams = self._streams_left = settings.max_requests

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server answers the service's calls with."""
        unary: dict[str, tuple[Callable[[Any], Awaitable[Message]], type[Message]]] = {
            "ServerLive": (self.ServerLive, pb2.ServerLiveRequest),
            "ServerReady": (self.ServerReady, pb2.ServerReadyRequest),
            "ModelReady": (self.ModelReady, pb2.ModelReadyRequest),
            "ServerMetadata": (self.ServerMetadata, pb2.ServerMetadataRequest),
            "ModelMetadata": (self.ModelMetadata, pb2.ModelMetadataRequest),
            "ModelConfig": (self.ModelConfig, pb2.ModelConfigRequest),
            "ModelStatistics": (self.ModelStatistics, pb2.ModelStatisticsRequest),
            "RepositoryIndex": (self.RepositoryIndex, pb2.RepositoryIndexRequest),
            "RepositoryModelLoad": (self.RefuseLoading, pb2.RepositoryModelLoadRequest),
            "RepositoryModelUnload": (self.RefuseLoading, pb2.RepositoryModelUnloadRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(handler), request.FromString, _serialize
            )
            for name, (handler, request) in unary.items()
        }
        handlers["ModelInfer"] = grpc.stream_unary_rpc_method_handler(
            self.ModelInfer,
            pb2.ModelInferRequest.FromString,
            pb2.ModelInferResponse.SerializeToString,
        )
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self.ModelStreamInfer,
            pb2.ModelInferRequest.FromString,
            pb2.ModelStreamInferResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(INFERENCE, handlers)

    async def ServerLive(self, _: pb2.ServerLiveRequest) -> pb2.ServerLiveResponse:
        return pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _: pb2.ServerReadyRequest) -> pb2.ServerReadyResponse:
        return pb2.ServerReadyResponse(ready=self._service.ready)

    async def ModelReady(self, request: pb2.ModelReadyRequest) -> pb2.ModelReadyResponse:
        try:
            self._model(request.name, request.version)
        except (NotFound, Unavailable):
            return pb2.ModelReadyResponse(ready=False)
        return pb2.ModelReadyResponse(ready=self._service.ready)

    async def ServerMetadata(self, _: pb2.ServerMetadataRequest) -> pb2.ServerMetadataResponse:
        return _filled(pb2.ServerMetadataResponse(), models.server_metadata())

    async def ModelMetadata(self, request: pb2.ModelMetadataRequest) -> pb2.ModelMetadataResponse:
        model = self._model(request.name, request.version)
        return _filled(pb2.ModelMetadataResponse(), models.model_metadata(model))

    async def ModelConfig(self, request: pb2.ModelConfigRequest) -> pb2.ModelConfigResponse:
        model = self._model(request.name, request.version)
        return _filled(pb2.ModelConfigResponse(), {"config": models.model_config(model)})

    async def ModelStatistics(
        self, request: pb2.ModelStatisticsRequest
    ) -> pb2.ModelStatisticsResponse:
        asked: Sequence[Model] = self._service.models()
        if request.name:
            asked = [self._model(request.name, request.version)]
        stats = [models.model_statistics(m, self._service.counts_of(m)) for m in asked]
        return _filled(pb2.ModelStatisticsResponse(), {"model_stats": stats})

    async def RepositoryIndex(
        self, request: pb2.RepositoryIndexRequest
    ) -> pb2.RepositoryIndexResponse:
        listed = await self._service.list_models(model_pb2.ListModelsRequest())
        index = models.index(listed.models, ready=request.ready)
        return _filled(pb2.RepositoryIndexResponse(), {"models": index})

    async def RefuseLoading(self, _: Message) -> Message:
        raise FailedPrecondition(models.NO_LOADING)

    async def ModelInfer(
        self, messages: AsyncIterator[pb2.ModelInferRequest], context: Context
    ) -> pb2.ModelInferResponse:
        asker = Asker(caller_of(context), context.time_remaining())

        async def read(held: Held, call: wire.Call) -> Plan[Any, pb2.ModelInferResponse]:
            return await self._read(await self._inbox.receive(messages, call), held, call)

        return await self._bundles.answer(asker, read)

    async def ModelStreamInfer(
        self, messages: AsyncIterator[pb2.ModelInferRequest], context: Context
    ) -> None:
        """Answers in the order of the messages; later ones are worked on meanwhile."""
        if self._streams_left == 0:
            many = f"{self._most_streams} streams are open"
            raise Overloaded(many, retry_delay_ms=_RETRY_DELAY_MS)
        self._streams_left -= 1
        caller, ended = caller_of(context), False
        reading: asyncio.Future[pb2.ModelInferRequest | None] | None = None
        answers: deque[asyncio.Future[pb2.ModelStreamInferResponse]] = deque()
        try:
            while answers or not ended:
                if reading is None and not ended and len(answers) < _MOST_IN_FLIGHT:
                    reading = asyncio.ensure_future(anext(messages, None))
                waiting = [one for one in (reading, *list(answers)[:1]) if one is not None]
                async with asyncio.timeout(self._most_idle_s):
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if reading is not None and reading.done():
                    message, reading = reading.result(), None
                    ended = message is None
                    if message is not None:
                        asker = Asker(caller, context.time_remaining())
                        answering = self._answer_in_stream(message, asker)
                        answers.append(asyncio.ensure_future(answering))
                while answers and answers[0].done():
                    async with asyncio.timeout(self._most_idle_s):
                        await context.write(answers.popleft().result())
        except TimeoutError:
            idle = "no message came, or no answer was taken, for long; open another stream"
            raise DeadlineExpired(idle) from None
        finally:
            self._streams_left += 1
            under_way = [one for one in (reading, *answers) if one is not None]
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _answer_in_stream(
        self, message: pb2.ModelInferRequest, asker: Asker
    ) -> pb2.ModelStreamInferResponse:
        """The answer, or the error in its place."""

        async def read(held: Held, call: wire.Call) -> Plan[Any, pb2.ModelInferResponse]:
            return await self._read(message, held, call)

        try:
            response = await self._bundles.answer(asker, read)
        except Exception as error:
            failed = pb2.ModelInferResponse(id=message.id)
            words = failure_of(error).message
            return pb2.ModelStreamInferResponse(error_message=words, infer_response=failed)
        response.parameters["triton_final_response"].bool_param = True
        return pb2.ModelStreamInferResponse(infer_response=response)

    async def _read(
        self, message: pb2.ModelInferRequest, held: Held, call: wire.Call
    ) -> Plan[Any, pb2.ModelInferResponse]:
        held.add(message.ByteSize())
        model = self._model(message.model_name, message.model_version)
        return await self._service.read(
            lambda: plan_infer(read_request(message), model, self._most_bytes, write_response),
            call.deadline_s,
        )

    def _model(self, name: str, version: str) -> Model:
        if not name:
            raise NotFound("the name of a model is required")
        model = self._service.find_model(name)
        check_version(model, version)
        return model


def read_request(message: pb2.ModelInferRequest) -> InferRequest:
    """A message as a request; what is wrong with its form is noted in it."""
    found: list[Violation] = []
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        many = f"are {len(raw)}, for {len(message.inputs)} inputs; as many, or none"
        found.append(Violation("raw_input_contents", many))
    inputs = []
    for at, tensor in enumerate(message.inputs[: MOST_NAMED + 1]):
        where = f"inputs.{values.plain(tensor.name)}.contents"
        contents: bytes | Sequence[Any] | None = ()
        if raw:
            contents = raw[at] if at < len(raw) else None
        field = _CONTENTS.get(tensor.datatype)
        given = [one.name for one, _ in tensor.contents.ListFields()]
        if given and raw:
            found.append(Violation(where, "given beside raw_input_contents"))
        elif given and field is not None:
            contents = getattr(tensor.contents, field) if given == [field] else None
            if contents is None:
                are = f"has {', '.join(given)}; elements of {tensor.datatype} are {field}"
                found.append(Violation(where, are))
        parameters = _read_parameters(tensor.parameters)
        inputs.append(
            InferInput(tensor.name, tensor.datatype, tuple(tensor.shape), contents, parameters)
        )
    outputs = [
        InferOutput(one.name, _read_parameters(one.parameters))
        for one in message.outputs[: MOST_NAMED + 1]
    ]
    # Clients say by it whether an empty response is to end a request's responses; none does here.
    parameters = _read_parameters(message.parameters)
    parameters.pop("triton_enable_empty_final_response", None)
    return InferRequest(message.id, parameters, inputs, outputs, found)


def write_response(inferred: Inferred) -> pb2.ModelInferResponse:
    """An answer as a message; its tensors are raw, which is what clients read."""
    return pb2.ModelInferResponse(
        model_name=inferred.model,
        model_version=inferred.version,
        id=inferred.id,
        outputs=[
            pb2.ModelInferResponse.InferOutputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
            )
            for tensor in inferred.outputs
        ],
        raw_output_contents=[tensor.raw for tensor in inferred.outputs],
    )


def _read_parameters(given: Mapping[str, pb2.InferParameter]) -> dict[str, Parameter]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in itertools.islice(given.items(), MOST_NAMED + 1)
    }


def _answering(
    handler: Callable[[Any], Awaitable[Message]],
) -> Callable[[Any, Context], Awaitable[Message]]:
    """A method as grpc.aio calls it."""

    async def answer(request: Any, context: Context) -> Message:
        return await handler(request)

    return answer


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _filled(message: _Message, mapping: Mapping[str, Any]) -> _Message:
    json_format.ParseDict(dict(mapping), message)
    return message
