"""The OpenAPI document of REST: schemas from the contract, by proto's JSON mapping."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from pellucid.v1 import (
    codes_pb2,
    index_pb2,
    inference_pb2,
    inspect_pb2,
    model_pb2,
    optimize_pb2,
    stylize_pb2,
)

from ..errors import CODES, Unauthenticated, Unavailable
from . import forms
from .service import CALLER_KEY

Schema = dict[str, Any]

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
}
_REQUIRED = {
    "Ascend": ("objectives",),
    "Code": ("layer",),
    "Direction": ("layer", "vector"),
    "Diversity": ("layer",),
    "EmbedRequest": ("images",),
    "Energy": ("layer",),
    "ExplainBatchRequest": ("explain", "images"),
    "ExplainRequest": ("image", "method"),
    "Guide": ("layer",),
    "Image": ("kind",),
    "InspectActivations": ("layer",),
    "InspectColumn": ("x_px", "y_px"),
    "InspectFilters": ("layer",),
    "InspectGradients": ("layer",),
    "InspectRequest": ("method",),
    "NamedStyle": ("name",),
    "Neuron": ("layer",),
    "Objective": ("kind",),
    "OptimizeSpec": ("method",),
    "PredictBatchRequest": ("images",),
    "PredictRequest": ("image",),
    "SimilarRequest": ("image",),
    "StylePicture": ("image",),
    "StylizeSpec": ("method", "content"),
    "Tensor": ("data_type", "shape", "data"),
    "TopPatchesRequest": ("layer", "channel"),
    "WeightedLayer": ("layer",),
}
"""Fields, and oneofs, that a request always has: the contract says so in comments, which
descriptors do not carry. A response has every field that knows no absence."""

_DESCRIPTIONS = {
    "PredictRequest": "The image as base64 of a JPEG, PNG or WebP file, or as a tensor.",
    "ExplainRequest": "The image as base64 of a JPEG, PNG or WebP file, or as a tensor.",
}


def document(max_body_bytes: int, *, max_form_bytes: int = 0, locked: bool = False) -> Schema:
    """The whole document.

    Args:
        max_body_bytes: The cap of a body, which the document states.
        max_form_bytes: The cap of a form that may bring a set of photos, or a checkpoint.
        locked: Whether calls need a token.
    """
    messages = inference_pb2.DESCRIPTOR.message_types_by_name
    predict, explain = messages["PredictRequest"], messages["ExplainRequest"]
    batches = [messages["PredictBatchRequest"], messages["ExplainBatchRequest"]]
    optimized = optimize_pb2.DESCRIPTOR.message_types_by_name
    optimize = optimized["OptimizeSpec"]
    stylized = stylize_pb2.DESCRIPTOR.message_types_by_name
    stylize = stylized["StylizeSpec"]
    projected = codes_pb2.DESCRIPTOR.message_types_by_name
    project, embed = projected["ProjectSpec"], projected["EmbedRequest"]
    indexed = index_pb2.DESCRIPTOR.message_types_by_name
    patches, similar = indexed["TopPatchesRequest"], indexed["SimilarRequest"]
    inspect = inspect_pb2.DESCRIPTOR.message_types_by_name["InspectRequest"]
    looking = [inspect, embed, project, patches, similar]
    requests = [predict, explain, *batches, optimize, stylize, *looking]
    roots = [
        *requests,
        messages["PredictResponse"],
        messages["ExplainResponse"],
        messages["PredictBatchResponse"],
        messages["ExplainBatchResponse"],
        inspect_pb2.DESCRIPTOR.message_types_by_name["InspectResponse"],
        codes_pb2.DESCRIPTOR.message_types_by_name["EmbedResponse"],
        optimized["OptimizeResponse"],
        stylized["StylizeResponse"],
        projected["ProjectResponse"],
        stylized["ListStylesResponse"],
        indexed["TopPatchesResponse"],
        indexed["SimilarResponse"],
        model_pb2.DESCRIPTOR.message_types_by_name["ListModelsResponse"],
        model_pb2.DESCRIPTOR.message_types_by_name["GetModelResponse"],
    ]
    made: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Pellucid",
            "version": version("pellucid"),
            "description": "Serves vision networks and says why they answered as they did. Bodies "
            f"have at most {max_body_bytes} bytes, forms of optimizations "
            f"{max(max_body_bytes, max_form_bytes)}. JSON names may be in lowerCamelCase, as "
            "here, or as in the proto files. In a form an empty text for a message that is one of "
            "several (fgsm, or attack.fgsm) chooses it, at its defaults. In answers a zero is "
            "said like any other value.",
        },
        "paths": {
            "/v1/predict": {
                "post": _call(predict, "Predict", "What is in an image", pictures=False)
            },
            "/v1/explain": {
                "post": _call(
                    explain,
                    "Explain",
                    "Why the network answers as it does",
                    pictures=True,
                )
            },
            "/v1/predict/batch": {
                "post": _call(batches[0], "PredictBatch", "The same of many", pictures=False)
            },
            "/v1/explain/batch": {
                "post": _call(batches[1], "ExplainBatch", "The same of many", pictures=False)
            },
            "/v1/explain/stream": {
                "post": _stream(
                    explain,
                    "ExplainStream",
                    "The same, shown while it is made",
                    "estimate, again and again, then result, each with an ExplainResponse as its "
                    "data",
                )
            },
            "/v1/optimize": {
                "post": _stream(
                    optimize,
                    "Optimize",
                    "Images made for what the network is after",
                    "queued, progress and preview, then result, each with that member of an "
                    "OptimizeResponse as its data. A form has the first of the objectives",
                )
            },
            "/v1/stylize": {
                "post": _stream(
                    stylize,
                    "Stylize",
                    "A photo in the style of paintings",
                    "queued, progress and preview, then result, each with that member of a "
                    "StylizeResponse as its data. Accept: image/png brings the picture alone. A "
                    "form has the files of styles, or the first of fast.styles by its name",
                    pictures={
                        "pellucid-model": _header("A picture's model, or its style network."),
                        "pellucid-model-version": _header("Its version."),
                        "pellucid-stop-reason": _header("Why it ended before its last step."),
                        "pellucid-notes": _header("Why bits may differ after a checkpoint."),
                    },
                )
            },
            "/v1/project": {
                "post": _stream(
                    project,
                    "Project",
                    "A map of photos or codes, on which what is alike lies close by",
                    "progress, again and again, then result, each with that member of a "
                    "ProjectResponse as its data. A form has photos, JSON photos or codes",
                )
            },
            "/v1/patches": {
                "post": _call(patches, "TopPatches", "What excites a unit most", pictures=False)
            },
            "/v1/similar": {
                "post": _call(similar, "Similar", "Photos that are alike, and why", pictures=False)
            },
            "/v1/inspect": {
                "post": _call(
                    inspect,
                    "Inspect",
                    "What is inside a network: filters, activations, gradients, every layer in "
                    "numbers",
                    pictures=True,
                )
            },
            "/v1/embed": {"post": _call(embed, "Embed", "Codes of a layer", pictures=False)},
            "/v1/styles": {"get": _get("ListStyles", "The styles that Stylize knows by name")},
            "/v1/models": {"get": _get("ListModels", "The models of the server")},
            "/v1/models/{name}": {
                "get": _get("GetModel", "One model in full: layers, methods, preprocessing, costs")
                | {"parameters": [{**_parameter("name", "path"), "required": True}]}
            },
            "/health/live": {"get": _health("live", "Whether the process runs")},
            "/health/ready": {"get": _health("ready", "Whether requests are answered")},
        },
        "components": {
            "schemas": {
                **{
                    message.name: _message(message, answered=message not in asked)
                    for asked in [set(_messages(requests))]
                    for message in _messages(roots)
                },
                **{
                    enum.name: _enum(enum, answered=enum not in asked)
                    for asked in [set(_enums(requests))]
                    for enum in _enums(roots)
                },
                "Error": _ERROR,
            },
            "responses": {str(code): response for code, response in _errors().items()},
        },
    }
    if locked:
        made["security"] = [{"token": []}]
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return made


# Operations.

_PICTURES = ("image/png", "image/jpeg")


def _call(request: Descriptor, name: str, summary: str, *, pictures: bool) -> Schema:
    content = {"application/json": {"schema": _ref(f"{name}Response")}}
    answer: Schema = {"description": "The answer.", "content": content}
    if pictures:
        answer["description"] = "The answer, or its rendering alone where Accept names its type."
        content |= {media: {"schema": {}} for media in _PICTURES}
        answer["headers"] = {
            "pellucid-model": _header("A picture's model."),
            "pellucid-model-version": _header("Its version."),
            "pellucid-target": _header("The class, index and label, or the neuron explained."),
            "pellucid-score": _header("The target's score."),
        }
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            _parameter(forms.TIMEOUT, "query", _TIMEOUT),
            _parameter(CALLER_KEY, "header", {"type": "string", "description": _CALLER}),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _ref(request.name)},
                "multipart/form-data": {"schema": _form(request)},
            },
        },
        "responses": {"200": answer, **_error_refs(*_errors())},
    }


def _stream(
    request: Descriptor,
    name: str,
    summary: str,
    events: str,
    *,
    pictures: Mapping[str, Schema] | None = None,
) -> Schema:
    """Of events; pictures: the headers of a picture alone, where Accept may name its type."""
    made = _call(request, name, summary, pictures=False)
    content: Schema = {"text/event-stream": {"schema": {"type": "string"}}}
    made["responses"]["200"] = {
        "description": f"Server-sent events: {events}; or error, with an Error.",
        "content": content,
    }
    if pictures is not None:
        content |= {media: {"schema": {}} for media in _PICTURES}
        made["responses"]["200"]["headers"] = pictures
    return made


def _get(name: str, summary: str) -> Schema:
    content = {"application/json": {"schema": _ref(f"{name}Response")}}
    errors = _error_refs(CODES[Unauthenticated].http, 404, 406, 500, 503)
    responses = {"200": {"description": "The answer.", "content": content}, **errors}
    return {"operationId": name, "summary": summary, "responses": responses}


def _health(name: str, summary: str) -> Schema:
    schema = {"type": "object", "properties": {name: {"const": True}}, "required": [name]}
    content = {"application/json": {"schema": schema}}
    responses = {"200": {"description": "It is.", "content": content}}
    if name == "ready":
        responses |= _error_refs(CODES[Unavailable].http)
    return {"operationId": name, "summary": summary, "responses": responses, "security": []}


_TIMEOUT: Schema = {
    "type": "number",
    "exclusiveMinimum": 0,
    "description": "The deadline, in milliseconds from the request's arrival. In a form it may "
    "be a field instead.",
}
_CALLER = "Who calls: callers take turns. The client's address by default."


def _parameter(name: str, place: str, schema: Schema | None = None) -> Schema:
    return {"name": name, "in": place, "schema": schema or {"type": "string"}}


def _header(description: str) -> Schema:
    return {"description": description, "schema": {"type": "string"}}


# Errors.

_ERROR: Schema = {
    "type": "object",
    "description": "A google.rpc.Status.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The name of the gRPC status."},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "description": "google.rpc.ErrorInfo with a stable reason; BadRequest with "
                    "every violation; RetryInfo where a later call can succeed.",
                    "items": {
                        "type": "object",
                        "properties": {
                            "@type": {"type": "string"},
                            "reason": {"type": "string"},
                            "domain": {"type": "string"},
                            "fieldViolations": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {
                                        "field": {"type": "string"},
                                        "description": {"type": "string"},
                                    },
                                },
                            },
                            "retryDelay": {"type": "string"},
                        },
                        "required": ["@type"],
                    },
                },
            },
            "required": ["code", "status", "message", "details"],
        }
    },
    "required": ["error"],
}


def _errors() -> dict[int, Schema]:
    """HTTP statuses to their responses."""
    reasons = defaultdict(list)
    for error, codes in CODES.items():
        reasons[codes.http].append(error.reason)
    return {
        http: {
            "description": f"{' or '.join(names)}.",
            "content": {"application/json": {"schema": _ref("Error")}},
            "headers": {"Retry-After": _header("Seconds, where a later call can succeed.")},
        }
        for http, names in sorted(reasons.items())
    }


def _error_refs(*codes: int) -> Schema:
    return {str(code): {"$ref": f"#/components/responses/{code}"} for code in codes}


# Schemas.


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _messages(roots: Sequence[Descriptor]) -> Iterator[Descriptor]:
    """The messages and all that they refer to, each once."""
    waiting, seen = list(roots), set()
    while waiting:
        message = waiting.pop()
        if message.full_name not in seen:
            seen.add(message.full_name)
            yield message
            waiting += [f.message_type for f in message.fields if f.message_type is not None]


def _enums(roots: Sequence[Descriptor]) -> Iterator[EnumDescriptor]:
    enums = [f.enum_type for message in _messages(roots) for f in message.fields]
    yield from {enum.full_name: enum for enum in enums if enum is not None}.values()


def _message(message: Descriptor, *, answered: bool) -> Schema:
    """A message's schema; answered: it is only ever in responses, which say zeros, too."""
    schema: Schema = {
        "type": "object",
        "properties": {field.json_name: _field(field) for field in message.fields},
        "additionalProperties": False,
    }
    if message.name in _DESCRIPTIONS:
        schema["description"] = _DESCRIPTIONS[message.name]
    always = _REQUIRED.get(message.name, ())
    required = [
        field.json_name
        for field in message.fields
        if field.name in always or (answered and not field.has_presence)
    ]
    if required:
        schema["required"] = required
    choices = []
    for oneof in message.oneofs:
        alone = [{"required": [field.json_name]} for field in oneof.fields]
        if len(alone) > 1:  # an optional scalar is a oneof of one
            none = [] if oneof.name in always else [{"not": {"anyOf": alone}}]
            choices.append({"oneOf": [*alone, *none]})
    return schema | ({"allOf": choices} if choices else {})


def _field(field: FieldDescriptor) -> Schema:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _field(value)}
    if field.message_type is not None and field.message_type.name.endswith("Request"):
        # In a receipt, which leaves out what a request must have.
        one = {"type": "object", "description": f"A {field.message_type.name} without its image."}
    elif field.message_type is not None:
        one = _ref(field.message_type.name)
    elif field.enum_type is not None:
        one = _ref(field.enum_type.name)
    else:
        one = _SCALARS[field.type]
    return {"type": "array", "items": one} if field.is_repeated else one


def _enum(enum: EnumDescriptor, *, answered: bool) -> Schema:
    names = [value.name for value in enum.values if value.number or answered]
    return {"type": "string", "enum": names}


def _form(request: Descriptor) -> Schema:
    files, batch = forms.file_fields(request), forms.asked_of_each(request)
    properties: dict[str, Schema] = {}
    for name in files:
        described = request.fields_by_name[name]
        what = f"{name}." if described.message_type is None else "A JPEG, PNG or WebP file."
        file = {"type": "string", "format": "binary", "description": what}
        properties[name] = {"type": "array", "items": file} if described.is_repeated else file
    if batch is not None:
        assert batch.message_type is not None
        request = batch.message_type
    methods = forms.methods(request)
    if attachable := forms.attachable(request):
        one = {"type": "string", "enum": list(attachable)}
        properties[forms.EXPLAIN] = {"type": "array", "items": one}
    if measures := forms.measures(request):
        one = {"type": "string", "enum": list(measures)}
        properties[forms.EVIDENCE] = {"type": "array", "items": one}
    if methods:
        properties[forms.METHOD] = {"type": "string", "enum": list(methods)}
    for field in forms.form_fields(request):
        enum = [*field.enum_names, *field.enum_names.values()]
        one = {"type": "string", "enum": enum} if enum else _SCALARS[field.descriptor.type]
        schema = {"type": "array", "items": one} if field.descriptor.is_repeated else one
        name = field.dotted if field.path[0] == forms.EVIDENCE else field.name
        properties.setdefault(name, schema | {"description": f"{field.dotted}."})
    for message in forms.form_messages(request):
        empty = f"{message.dotted}, at its defaults: an empty text."
        name = forms.named_in(request, message)
        properties[name] = {"type": "string", "maxLength": 0, "description": empty}
    properties[forms.TIMEOUT] = _TIMEOUT
    return {
        "type": "object",
        "properties": properties,
        "required": [
            *([] if forms.files_are_optional(request) else files),
            *([forms.METHOD] if methods and not forms.method_is_optional(request) else []),
        ],
        "additionalProperties": False,
    }
