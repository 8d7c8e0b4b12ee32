"""REST: translation only."""

import asyncio
import contextlib
import functools
import json
import math
import re
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import code_pb2
from pellucid.v1 import (
    codes_pb2,
    data_pb2,
    index_pb2,
    inference_pb2,
    inspect_pb2,
    model_pb2,
    optimize_pb2,
    stylize_pb2,
)
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.staticfiles import StaticFiles

from .. import wire
from ..config import Settings
from ..engine.admission import Held
from ..engine.job import Priority
from ..errors import (
    CODES,
    DeadlineExpired,
    Internal,
    InvalidArgument,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    PellucidError,
    Unavailable,
    UnsupportedMedia,
    failure_of,
)
from . import forms, http, openapi
from .inference import rest as inference
from .locked import Lock, LockedApp
from .service import Service, check_size
from .websocket import VideoSocket

JSON = "application/json"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
_LIVE = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""What keeps proxies from holding events back."""

PICTURES: dict[str, data_pb2.ImageFormat] = {
    "image/png": data_pb2.IMAGE_FORMAT_PNG,
    "image/jpeg": data_pb2.IMAGE_FORMAT_JPEG,
}

_Shown = TypeVar("_Shown")


def build_app(service: Service, settings: Settings, lock: Lock | None = None) -> FastAPI:
    """The application that uvicorn runs, on the server's loop."""
    assert (lock is None) == (settings.token_file is None)
    app = FastAPI(openapi_url=None, redirect_slashes=False)  # the document is made by openapi.py
    rest = _Rest(service, settings)
    app.add_route("/v1/predict", rest.predict, methods=["POST"])
    app.add_route("/v1/predict/batch", rest.predict_batch, methods=["POST"])
    app.add_route("/v1/explain", rest.explain, methods=["POST"])
    app.add_route("/v1/explain/batch", rest.explain_batch, methods=["POST"])
    app.add_route("/v1/explain/stream", rest.explain_stream, methods=["POST"])
    app.add_route("/v1/inspect", rest.inspect, methods=["POST"])
    app.add_route("/v1/embed", rest.embed, methods=["POST"])
    app.add_route("/v1/optimize", rest.optimize, methods=["POST"])
    app.add_route("/v1/stylize", rest.stylize, methods=["POST"])
    video = VideoSocket(service, settings, _error_content)
    app.router.add_websocket_route("/v1/stylize/video", video.stylize)
    app.add_route("/v1/project", rest.project, methods=["POST"])
    app.add_route("/v1/patches", rest.top_patches, methods=["POST"])
    app.add_route("/v1/similar", rest.similar, methods=["POST"])
    app.add_route("/v1/styles", rest.list_styles, methods=["GET"])
    app.add_route("/v1/models", rest.list_models, methods=["GET"])
    app.add_route("/v1/models/{name}", rest.get_model, methods=["GET"])
    app.add_route("/health/live", rest.live, methods=["GET"])
    app.add_route("/health/ready", rest.ready, methods=["GET"])
    app.add_route("/openapi.json", rest.openapi, methods=["GET"])
    app.add_route("/docs", rest.docs, methods=["GET"])
    inference.add_routes(app, service, settings)
    app.mount("/docs/static", StaticFiles(packages=[("fastapi_offline", "static")]))
    for kind in (PellucidError, HTTPException, Exception):
        app.add_exception_handler(kind, _write_exception)
    if lock is not None:
        app.add_middleware(LockedApp, lock=lock, write_error=_write_error_at)
    return app


class _Rest:
    """PellucidService over HTTP."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._document = openapi.document(
            settings.max_message_bytes,
            max_form_bytes=settings.max_form_bytes,
            locked=settings.token_file is not None,
        )

    async def predict(self, request: Request) -> Response:
        message = inference_pb2.PredictRequest()
        with self._service.arrival(lambda: message) as held:
            _accepted(request, [JSON])
            call = await self._read(request, message, Priority.PREDICT, held)
            return await http.unless_gone(
                request, self._service.predict(message, call, held, self._write_json)
            )

    async def predict_batch(self, request: Request) -> Response:
        message = inference_pb2.PredictBatchRequest()
        with self._service.arrival(lambda: message) as held:
            _accepted(request, [JSON])
            call = await self._read(request, message, Priority.PREDICT, held)
            return await http.unless_gone(
                request, self._service.predict_batch(message, call, held, self._write_json)
            )

    async def explain_batch(self, request: Request) -> Response:
        message = inference_pb2.ExplainBatchRequest()
        with self._service.arrival(lambda: message) as held:
            _accepted(request, [JSON])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            return await http.unless_gone(
                request, self._service.explain_batch(message, call, held, self._write_json)
            )

    async def explain(self, request: Request) -> Response:
        message = inference_pb2.ExplainRequest()
        with self._service.arrival(lambda: message) as held:
            media = _accepted(request, [JSON, *PICTURES])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            write: Callable[[inference_pb2.ExplainResponse], Response] = self._write_json
            if media in PICTURES:
                message.outputs[:] = [inference_pb2.EXPLAIN_OUTPUT_RENDERING]
                message.rendering.format = PICTURES[media]
                write = functools.partial(self._write_picture, media=media)
            answer = await http.unless_gone(
                request, self._service.explain(message, call, held, write)
            )
            answer.headers["vary"] = "accept"
            return answer

    async def inspect(self, request: Request) -> Response:
        """As explain; or the sheet alone."""
        message = inspect_pb2.InspectRequest()
        with self._service.arrival(lambda: message) as held:
            media = _accepted(request, [JSON, *PICTURES])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            write: Callable[[inspect_pb2.InspectResponse], Response] = self._write_json
            if media in PICTURES:
                name = message.WhichOneof("method") or ""
                if name not in _WITH_SHEETS:
                    raise NotAcceptable(f"{name or 'this'} has no picture; answers are {JSON}")
                sheet = getattr(message, name).sheet
                sheet.format, sheet.include_tensor = PICTURES[media], False
                write = functools.partial(self._write_sheet, media=media)
            answer = await http.unless_gone(
                request, self._service.inspect(message, call, held, write)
            )
            answer.headers["vary"] = "accept"
            return answer

    async def embed(self, request: Request) -> Response:
        message = codes_pb2.EmbedRequest()
        with self._service.arrival(lambda: message) as held:
            _accepted(request, [JSON])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            return await http.unless_gone(
                request, self._service.embed(message, call, held, self._write_json)
            )

    async def explain_stream(self, request: Request) -> Response:
        """Server-sent events: what is wrong before the first one is an error like any other."""
        message = inference_pb2.ExplainRequest()
        async with contextlib.AsyncExitStack() as open_parts:
            held = open_parts.enter_context(self._service.arrival(lambda: message))
            _accepted(request, [EVENTS])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            shown = self._service.explain_stream(message, call, held, self._write_data)
            await open_parts.enter_async_context(contextlib.aclosing(shown))
            first = await http.unless_gone(request, anext(shown))
            parts = open_parts.pop_all()
        events = _events(first, shown, parts, lambda of: _event(_NAMES[of[1]], of[0]))
        return StreamingResponse(events, headers=_LIVE, media_type=EVENTS)

    async def optimize(self, request: Request) -> Response:
        """As explain_stream."""
        message = optimize_pb2.OptimizeSpec()
        async with contextlib.AsyncExitStack() as open_parts:
            held = open_parts.enter_context(self._service.arrival(lambda: message))
            _accepted(request, [EVENTS])
            settings = self._settings
            most_bytes = settings.max_message_bytes
            if _boundary(request) is not None:  # a form may bring a set of photos, or a checkpoint
                most_bytes = settings.max_form_bytes
            call = await self._read(request, message, Priority.OPTIMIZE, held, most_bytes)
            in_base64 = settings.max_message_bytes * 3 // 4
            shown = self._service.optimize(message, call, held, self._write_event, in_base64)
            await open_parts.enter_async_context(contextlib.aclosing(shown))
            first = await http.unless_gone(request, anext(shown))
            parts = open_parts.pop_all()
        events = _events(first, shown, parts, str)
        return StreamingResponse(events, headers=_LIVE, media_type=EVENTS)

    async def stylize(self, request: Request) -> Response:
        """As optimize; or the final picture alone."""
        message = stylize_pb2.StylizeSpec()
        async with contextlib.AsyncExitStack() as open_parts:
            held = open_parts.enter_context(self._service.arrival(lambda: message))
            media = _accepted(request, [EVENTS, *PICTURES])
            settings = self._settings
            most_bytes = settings.max_message_bytes
            if _boundary(request) is not None:  # a form may bring a checkpoint
                most_bytes = settings.max_form_bytes
            either = (Priority.EXPLAIN, Priority.OPTIMIZE)
            call = await self._read(request, message, either, held, most_bytes)
            if media != EVENTS:
                message.format = PICTURES[media]
                last = functools.partial(self._last_picture, message, call, held, media)
                return await http.unless_gone(request, last())
            in_base64 = settings.max_message_bytes * 3 // 4
            shown = self._service.stylize(message, call, held, self._write_event, in_base64)
            await open_parts.enter_async_context(contextlib.aclosing(shown))
            first = await http.unless_gone(request, anext(shown))
            parts = open_parts.pop_all()
        events = _events(first, shown, parts, str)
        return StreamingResponse(events, headers=_LIVE, media_type=EVENTS)

    async def project(self, request: Request) -> Response:
        """As optimize."""
        message = codes_pb2.ProjectSpec()
        async with contextlib.AsyncExitStack() as open_parts:
            held = open_parts.enter_context(self._service.arrival(lambda: message))
            _accepted(request, [EVENTS])
            settings = self._settings
            most_bytes = settings.max_message_bytes
            if _boundary(request) is not None:  # a form may bring a set of photos
                most_bytes = settings.max_form_bytes
            call = await self._read(request, message, Priority.OPTIMIZE, held, most_bytes)
            in_base64 = settings.max_message_bytes * 3 // 4
            shown = self._service.project(message, call, held, self._write_event, in_base64)
            await open_parts.enter_async_context(contextlib.aclosing(shown))
            first = await http.unless_gone(request, anext(shown))
            parts = open_parts.pop_all()
        events = _events(first, shown, parts, str)
        return StreamingResponse(events, headers=_LIVE, media_type=EVENTS)

    async def _last_picture(
        self, message: stylize_pb2.StylizeSpec, call: wire.Call, held: Held, media: str
    ) -> Response:
        """The picture that a stylization ends with."""
        most_bytes = self._settings.max_message_bytes
        write = functools.partial(self._write_stylized, media=media)
        shown = self._service.stylize(message, call, held, write, most_bytes)
        async with contextlib.aclosing(shown):
            *_, found = [response async for response in shown]
        found.headers["vary"] = "accept"
        return found

    def _write_stylized(self, event: stylize_pb2.StylizeResponse, media: str) -> Response:
        """In a worker: the picture of a result; of other events nothing."""
        result = event.result
        check_size(len(result.image.data), self._settings.max_message_bytes)
        headers = {
            "pellucid-model": result.run.model,
            "pellucid-model-version": result.run.model_version,
            "pellucid-stop-reason": result.stop_reason,
            "pellucid-notes": "; ".join(result.notes),
        }
        given = {name: value for name, value in headers.items() if value}
        return Response(result.image.data, 200, _quoted(given), media)

    async def top_patches(self, request: Request) -> Response:
        message = index_pb2.TopPatchesRequest()
        with self._service.arrival(lambda: message) as held:
            _accepted(request, [JSON])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            return await http.unless_gone(
                request, self._service.top_patches(message, call, held, self._write_json)
            )

    async def similar(self, request: Request) -> Response:
        message = index_pb2.SimilarRequest()
        with self._service.arrival(lambda: message) as held:
            _accepted(request, [JSON])
            call = await self._read(request, message, Priority.EXPLAIN, held)
            return await http.unless_gone(
                request, self._service.similar(message, call, held, self._write_json)
            )

    async def list_styles(self, request: Request) -> Response:
        _accepted(request, [JSON])
        response = await self._service.list_styles(stylize_pb2.ListStylesRequest())
        return JSONResponse(_mapping(response))

    async def list_models(self, request: Request) -> Response:
        _accepted(request, [JSON])
        response = await self._service.list_models(model_pb2.ListModelsRequest())
        return JSONResponse(_mapping(response))

    async def get_model(self, request: Request) -> Response:
        _accepted(request, [JSON])
        name = request.path_params["name"]
        response = await self._service.get_model(model_pb2.GetModelRequest(model=name))
        return JSONResponse(_mapping(response))

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        if not self._service.ready:
            raise Unavailable("the server is starting or stopping")
        return JSONResponse({"ready": True})

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(self._document)

    async def docs(self, _: Request) -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Pellucid",
            swagger_js_url="docs/static/swagger-ui-bundle.js",
            swagger_css_url="docs/static/swagger-ui.css",
            swagger_favicon_url="docs/static/favicon.png",
        )

    async def _read(
        self,
        request: Request,
        message: Message,
        priority: Priority | tuple[Priority, ...],
        held: Held,
        most_bytes: int | None = None,
    ) -> wire.Call:
        """Fills in a request's message; returns who calls, and until when.

        Its class, or those that it may turn out to be of, are told by priority.
        """
        most_bytes = most_bytes or self._settings.max_message_bytes
        arrived_s = time.monotonic()
        boundary = _boundary(request)
        self._service.check_room(*(priority if isinstance(priority, tuple) else (priority,)))
        query = request.query_params.multi_items()
        most_ms = min(forms.query_timeout_ms(query) or math.inf, self._settings.max_timeout_ms)
        try:
            async with asyncio.timeout(most_ms / 1e3):
                body = await http.read_body(request, held, most_bytes)
                read = functools.partial(forms.read, message, body, boundary, query)
                timeout_ms = await self._service.read(read, arrived_s + most_ms / 1e3)
        except TimeoutError:
            raise DeadlineExpired("the body did not arrive in time") from None
        timeout_s = None
        if timeout_ms is not None:
            timeout_s = timeout_ms / 1e3 - (time.monotonic() - arrived_s)
        return self._service.call(http.caller_of(request), timeout_s)

    def _write_json(self, message: Message) -> Response:
        """In a worker: the message as JSON, no larger than what is sent."""
        content = json.dumps(_mapping(message), ensure_ascii=False).encode()
        check_size(len(content), self._settings.max_message_bytes)
        return Response(content, media_type=JSON)

    def _write_data(self, message: Message) -> str:
        """In a worker: the message as the data of an event, which has no line breaks."""
        data = json.dumps(_mapping(message), ensure_ascii=False)
        check_size(len(data.encode()), self._settings.max_message_bytes)
        return data

    def _write_event(
        self,
        response: optimize_pb2.OptimizeResponse
        | stylize_pb2.StylizeResponse
        | codes_pb2.ProjectResponse,
    ) -> str:
        """In a worker: an event, named as the member that is set."""
        name = response.WhichOneof("event") or ""
        return _event(name, self._write_data(getattr(response, name)))

    def _write_picture(self, response: inference_pb2.ExplainResponse, media: str) -> Response:
        """In a worker: the rendering alone."""
        return self._picture(response.rendering, response.run, response.target, media)

    def _write_sheet(self, response: inspect_pb2.InspectResponse, media: str) -> Response:
        """In a worker: the sheet alone."""
        layer = response.layer
        target = layer.target if layer.HasField("target") else None
        return self._picture(layer.sheet.image, response.run, target, media)

    def _picture(
        self,
        picture: data_pb2.EncodedImage,
        run: inference_pb2.Run,
        target: inference_pb2.ResolvedTarget | None,
        media: str,
    ) -> Response:
        headers = {"pellucid-model": run.model, "pellucid-model-version": run.model_version}
        if target is not None:
            headers |= {
                "pellucid-target": _name_of(target),
                "pellucid-score": repr(target.score),
            }
        check_size(len(picture.data), self._settings.max_message_bytes)
        return Response(picture.data, 200, _quoted(headers), media)


def _quoted(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: urllib.parse.quote(headers[name], safe=_HEADER_SAFE) for name in headers}


async def _events(
    first: _Shown,
    shown: AsyncIterator[_Shown],
    parts: contextlib.AsyncExitStack,
    write: Callable[[_Shown], str],
) -> AsyncIterator[str]:
    """A stream as server-sent events, at last the result, or the error that it ends in."""
    try:
        async with parts:
            yield write(first)
            async for one in shown:
                yield write(one)
    except Exception as error:
        yield _event("error", json.dumps(_error_content(failure_of(error))))


_WITH_SHEETS = ("filters", "activations", "gradients")
"""What of Inspect is a picture."""

_NAMES = {False: "estimate", True: "result"}
"""Of an explanation's events, by whether they are the last."""


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"


# Requests.


def _boundary(request: Request) -> bytes | None:
    """The boundary of a form; None for JSON.

    Raises:
        UnsupportedMedia: The body is neither.
        InvalidArgument: It is a form without a boundary.
    """
    http.refuse_coding(request)
    media, options = parse_options_header(request.headers.get("content-type"))
    match media.decode("latin-1"):
        case "application/json":
            return None
        case "multipart/form-data":
            if not options.get(b"boundary"):
                raise InvalidArgument("the content type has no boundary")
            return options[b"boundary"]
        case other:
            raise UnsupportedMedia(f"the body is {other or 'of no type'}; {JSON} or {FORM} is read")


_QUALITY = re.compile(r"\s*q\s*=\s*(0(\.[0-9]{0,3})?|1(\.0{0,3})?)\s*", re.IGNORECASE)


def _accepted(request: Request, offered: Sequence[str]) -> str:
    """The media type to answer with: by quality, then by how exactly and how early it is named.

    Wildcards mean the first that is offered: a picture is answered only to who names its type.

    Raises:
        NotAcceptable: None of the offered is accepted.
    """
    header = ",".join(request.headers.getlist("accept"))
    ranges = _read_ranges(header if header.strip() else "*/*")
    usual = offered[0]
    names: dict[str, tuple[str, ...]] = {media: (media,) for media in offered}
    names[usual] = (usual, f"{usual.partition('/')[0]}/*", "*/*")
    candidates = []
    for media in offered:
        named = [(-n, ranges[name]) for n, name in enumerate(names[media]) if name in ranges]
        if named:
            exactness, (quality, place) = named[0]
            candidates.append((quality, exactness, -place, media))
    quality, _, _, best = max(candidates, default=(0.0, 0, 0, ""))
    if not quality:
        raise NotAcceptable(f"answers here are {', '.join(offered)}; name one of them in Accept")
    return best


def _read_ranges(header: str) -> dict[str, tuple[float, int]]:
    """Media ranges of an Accept header to their quality, 0 to 1, and their place in it."""
    ranges: dict[str, tuple[float, int]] = {}
    for place, item in enumerate(header.split(",")):
        name, *parameters = item.split(";")
        quality = 1.0
        for parameter in parameters:
            if parameter.strip().lower().startswith("q"):
                match = _QUALITY.fullmatch(parameter)
                quality = float(match[1]) if match else 0.0
        ranges.setdefault(name.strip().lower(), (quality, place))
    return ranges


# Responses.


def _mapping(message: Message) -> dict[str, Any]:
    """A response by proto's JSON mapping; a zero is said like any other value."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _name_of(target: inference_pb2.ResolvedTarget) -> str:
    """A target in a line: indices and labels of its classes, or its neuron."""
    match target.WhichOneof("kind"):
        case "neuron":
            neuron = target.neuron
            places = [name for name in ("channel", "y", "x") if neuron.HasField(name)]
            return " ".join([neuron.layer, *(f"{name} {getattr(neuron, name)}" for name in places)])
        case "classes":
            several = zip(target.classes.class_indices, target.classes.labels, strict=True)
            name = " + ".join(f"{index} {label}".strip() for index, label in several)
        case _:
            name = f"{target.class_index} {target.label}".strip()
    if target.HasField("against_class_index"):
        name += f" - {target.against_class_index} {target.against_label}".rstrip()
    return name


_HEADER_SAFE = " ,.;:'()/#+-_"
"""What headers show as it is, beside letters and digits; the rest is percent-encoded UTF-8."""


def _write_error(error: PellucidError, headers: Mapping[str, str] | None = None) -> Response:
    """An error's google.rpc.Status as JSON, under the error's HTTP status."""
    return http.write_error(error, _error_content(error), headers)


def _write_error_at(
    path: str, error: PellucidError, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as the clients of a path read it."""
    write = inference.write_error if inference.is_here(path) else _write_error
    return write(error, headers)


def _error_content(error: PellucidError) -> dict[str, Any]:
    status = wire.write_error(error)
    content = {
        "code": CODES[type(error)].http,
        "status": code_pb2.Code.Name(status.code),
        "message": status.message,
        "details": [json_format.MessageToDict(detail) for detail in status.details],
    }
    return {"error": content}


async def _write_exception(request: Request, error: Exception) -> Response:
    """Any error as a response. Starlette raises those that are bugs once more, to be logged."""
    write = functools.partial(_write_error_at, request.url.path)
    match error:
        case PellucidError():
            return write(failure_of(error))
        case HTTPException(status_code=405, headers=headers):
            return write(MethodNotAllowed(f"{request.method} is not answered here"), headers)
        case HTTPException():
            return write(NotFound("nothing is at this path; /docs shows what is"))
        case _:
            return write(Internal())
