"""The Open Inference Protocol and KServe's V1 over HTTP: translation only."""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from google.protobuf import json_format
from pellucid.v1 import model_pb2
from starlette.responses import JSONResponse

from ... import wire
from ...config import Settings
from ...engine.admission import Held
from ...errors import DeadlineExpired, FailedPrecondition, PellucidError, Unavailable
from ...models.registry import Model
from .. import http
from ..service import Service, check_size
from . import bodies, models
from .bundles import Answered, Asker, Bundle, Bundles, Plan
from .bundles import Response as OneResponse
from .infer import Inferred, plan_infer
from .requests import check_version

_MOST_INDEX_BYTES = 1024
"""Of a body that has one flag."""

_INDEX_S = 10.0
"""How long that may take to come."""

_V2, _V1 = "/v2", "/v1/models/{name}"
_MODEL = f"{_V2}/models/{{name}}"
_VERSION = f"{_MODEL}/versions/{{version}}"


def is_here(path: str) -> bool:
    """Whether a path is of these protocols, whose errors are a text."""
    return path == _V2 or path.startswith(f"{_V2}/") or path.endswith((":predict", ":explain"))


def write_error(error: PellucidError, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a text, under its HTTP status."""
    return http.write_error(error, {"error": error.message}, headers)


def add_routes(app: FastAPI, service: Service, settings: Settings) -> None:
    """Adds the protocols' routes to the application."""
    routes = _Routes(service, settings)
    app.add_route(_V2, routes.server_metadata, methods=["GET"])
    app.add_route(f"{_V2}/health/live", routes.live, methods=["GET"])
    app.add_route(f"{_V2}/health/ready", routes.ready, methods=["GET"])
    app.add_route(f"{_V2}/models/stats", routes.all_statistics, methods=["GET"])
    app.add_route(f"{_V2}/repository/index", routes.index, methods=["POST"])
    for path in (_MODEL, _VERSION):
        app.add_route(path, routes.metadata, methods=["GET"])
        app.add_route(f"{path}/ready", routes.model_ready, methods=["GET"])
        app.add_route(f"{path}/config", routes.config, methods=["GET"])
        app.add_route(f"{path}/stats", routes.statistics, methods=["GET"])
        app.add_route(f"{path}/infer", routes.infer, methods=["POST"])
    for verb in ("load", "unload"):
        app.add_route(
            f"{_V2}/repository/models/{{name}}/{verb}", routes.refuse_loading, methods=["POST"]
        )
    app.add_route(f"{_V1}:predict", routes.v1_predict, methods=["POST"])
    app.add_route(f"{_V1}:explain", routes.v1_explain, methods=["POST"])


class _Routes:
    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._bundles = Bundles(service, settings)
        self._most_bytes = settings.max_message_bytes

    async def server_metadata(self, _: Request) -> Response:
        return JSONResponse(models.server_metadata())

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        if not self._service.ready:
            raise Unavailable("the server is starting or stopping")
        return JSONResponse({"ready": True})

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(models.model_metadata(self._model(request)))

    async def model_ready(self, request: Request) -> Response:
        model = self._model(request)
        if not self._service.ready:
            raise Unavailable("the server is starting or stopping")
        return JSONResponse({"name": model.name, "ready": True})

    async def config(self, request: Request) -> Response:
        return JSONResponse(models.model_config(self._model(request)))

    async def statistics(self, request: Request) -> Response:
        return self._write_statistics([self._model(request)])

    async def all_statistics(self, _: Request) -> Response:
        return self._write_statistics(self._service.models())

    def _write_statistics(self, asked: Sequence[Model]) -> Response:
        stats = [models.model_statistics(m, self._service.counts_of(m)) for m in asked]
        return JSONResponse({"model_stats": stats})

    async def index(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(_INDEX_S):
                body = await http.read_body(request, None, _MOST_INDEX_BYTES)
        except TimeoutError:
            raise DeadlineExpired("the body did not arrive in time") from None
        ready = bodies.read_index_body(body, _query(request))
        listed = await self._service.list_models(model_pb2.ListModelsRequest())
        return JSONResponse(models.index(listed.models, ready=ready))

    async def refuse_loading(self, _: Request) -> Response:
        raise FailedPrecondition(models.NO_LOADING)

    async def infer(self, request: Request) -> Response:
        http.refuse_coding(request)

        async def read(held: Held, call: wire.Call) -> Plan[Any, Response]:
            model = self._model(request)
            data = await http.read_body(request, held, self._most_bytes)
            plan = functools.partial(self._plan_infer, request, model, data, held)
            return await self._service.read(plan, call.deadline_s)

        return await self._answer(request, read)

    def _plan_infer(
        self, request: Request, model: Model, data: bytes, held: Held
    ) -> Plan[Any, Response]:
        lengths = request.headers.getlist(bodies.HEADER_LENGTH)
        body = bodies.read_infer_body(data, lengths, _query(request), held)

        def write(inferred: Inferred) -> Response:
            content, length = bodies.write_infer_body(inferred, body, self._most_bytes)
            if length == len(content):
                return Response(content, media_type="application/json")
            headers = {bodies.HEADER_LENGTH: str(length)}
            return Response(content, 200, headers, "application/octet-stream")

        return plan_infer(body.request, model, self._most_bytes, write)

    async def v1_predict(self, request: Request) -> Response:
        return await self._answer_v1(request, bodies.read_v1_predict, "predictions")

    async def v1_explain(self, request: Request) -> Response:
        return await self._answer_v1(request, bodies.read_v1_explain, "explanations")

    async def _answer_v1(
        self, request: Request, read_body: Callable[..., Bundle], name: str
    ) -> Response:
        http.refuse_coding(request)

        async def read(held: Held, call: wire.Call) -> Plan[bytes, Response]:
            model = self._model(request)
            data = await http.read_body(request, held, self._most_bytes)
            reading = functools.partial(read_body, data, model.name, _query(request), held)
            bundle = await self._service.read(reading, call.deadline_s)
            return Plan(bundle, _write_one, functools.partial(self._write_v1, name))

        return await self._answer(request, read)

    def _write_v1(self, name: str, answered: Sequence[Answered[bytes]]) -> Response:
        parts = [one.prediction or one.explanation or b"" for one in answered]
        check_size(sum(map(len, parts)), self._most_bytes)
        content = b'{"%b": [%b]}' % (name.encode(), b", ".join(parts))
        return Response(content, media_type="application/json")

    async def _answer(
        self, request: Request, read: Callable[[Held, wire.Call], Awaitable[Plan[Any, Response]]]
    ) -> Response:
        watched = functools.partial(http.unless_gone, request)
        return await self._bundles.answer(Asker(http.caller_of(request)), read, watched)

    def _model(self, request: Request) -> Model:
        """The model that the path names."""
        model = self._service.find_model(request.path_params["name"])
        check_version(model, request.path_params.get("version", ""))
        return model


def _query(request: Request) -> list[str]:
    """The names in a query, where none is known."""
    return [name for name, _ in request.query_params.multi_items()]


def _write_one(response: OneResponse) -> bytes:
    """What came of one image, as PellucidService's own routes write it."""
    mapping = json_format.MessageToDict(response, always_print_fields_with_no_presence=True)
    return json.dumps(mapping, ensure_ascii=False).encode()
