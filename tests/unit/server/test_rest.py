"""REST against a service that only notes what it is asked."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import code_pb2
from pellucid.v1 import data_pb2, inference_pb2, model_pb2, stylize_pb2
from pellucid_server import wire
from pellucid_server.api import forms
from pellucid_server.api.rest import build_app
from pellucid_server.config import Settings
from pellucid_server.engine.admission import Admission, Held, QueueLimits
from pellucid_server.engine.job import Priority
from pellucid_server.errors import CODES, Internal, Overloaded, PellucidError, Violation

PHOTO = b"\xff\xd8 not really a photo \r\n--x\r\n"
ENCODED = base64.b64encode(PHOTO).decode()
EXPLAINED = inference_pb2.ExplainResponse(
    run=inference_pb2.Run(model="net", model_version="0123456789ab"),
    target=inference_pb2.ResolvedTarget(class_index=0, label="tench,\n π", score=0.5),
    rendering=data_pb2.EncodedImage(data=b"a picture"),
)
STYLIZED = (
    stylize_pb2.StylizeResponse(queued={"cost_ms": 1}),
    stylize_pb2.StylizeResponse(
        result=stylize_pb2.StylizeResult(
            run=inference_pb2.Run(model="net", model_version="0123456789ab"),
            image=data_pb2.EncodedImage(data=b"a picture"),
            stop_reason="its loss was not finite",
            notes=["bits differ", "it went on"],
        )
    ),
)
PREDICTED = inference_pb2.PredictResponse(
    predictions=[inference_pb2.Prediction(class_index=0, label="Kätzchen", logit=1.0)]
)


class FakeService:
    ready = True

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.callers: list[str] = []
        self.timeouts_s: list[float | None] = []
        self.answer: Callable[[], Awaitable[None]] | None = None
        self.full: PellucidError | None = None
        self.admission = Admission(QueueLimits())
        self.counted: list[str] = []
        self.models = model_pb2.ListModelsResponse(
            models=[
                model_pb2.ModelSummary(name="broken", ready=False, reason="no weights"),
                model_pb2.ModelSummary(name="net", ready=True, version="0123456789ab"),
            ]
        )

    @contextmanager
    def arrival(self, request: Callable[[], Message]) -> Iterator[Held]:
        reason = "OK"
        try:
            with self.admission.holding() as held:
                yield held
        except PellucidError as error:
            reason = error.reason
            raise
        finally:
            self.counted.append(reason)

    def check_room(self, *_: Priority) -> None:
        if self.full is not None:
            raise self.full

    def call(self, caller: str, timeout_s: float | None) -> wire.Call:
        self.callers.append(caller)
        self.timeouts_s.append(timeout_s)
        return wire.Call(caller, time.monotonic() + (timeout_s or 60))

    async def read(self, function: Callable[[], Any], deadline_s: float) -> Any:
        assert deadline_s > time.monotonic()
        return await asyncio.to_thread(function)

    async def _answer(self, request: Message, response: Any) -> Any:
        self.requests.append(request)
        if self.answer is not None:
            await self.answer()
        return response

    async def predict(self, request: Any, call: wire.Call, held: Held, write: Any) -> Any:
        return write(await self._answer(request, PREDICTED))

    async def explain(self, request: Any, call: wire.Call, held: Held, write: Any) -> Any:
        return write(await self._answer(request, EXPLAINED))

    async def stylize(
        self, request: Any, call: wire.Call, held: Held, write: Any, most_bytes: int
    ) -> AsyncIterator[Any]:
        await self._answer(request, None)
        for event in STYLIZED:
            yield write(event)

    async def list_models(self, request: Any) -> Any:
        return await self._answer(request, self.models)

    async def get_model(self, request: Any) -> Any:
        return await self._answer(request, model_pb2.GetModelResponse())


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def ask(
    service: FakeService,
    method: str,
    path: str,
    settings: Settings | None = None,
    **options: Any,
) -> httpx.Response:
    async def asking() -> httpx.Response:
        app = build_app(service, settings or Settings())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("10.1.2.3", 99))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asking())


def explain(service: FakeService, body: Any, **options: Any) -> httpx.Response:
    return ask(service, "POST", "/v1/explain", json=body, **options)


def explain_form(service: FakeService, *fields: tuple[str, str], **options: Any) -> httpx.Response:
    parts = [("image", ("cat.jpg", PHOTO))]
    return ask(
        service,
        "POST",
        "/v1/explain",
        files=[*parts, *((name, (None, text.encode())) for name, text in fields)],
        **options,
    )


def violations(response: httpx.Response, code: int = 400) -> dict[str, str]:
    assert response.status_code == code, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    found: dict[str, str] = {}
    for detail in error["details"]:
        for violation in detail.get("fieldViolations", []):
            assert violation["field"] not in found
            found[violation["field"]] = violation["description"]
    return found


# Requests.

FULL = {
    "model": "net",
    "image": {"encoded": ENCODED},
    "target": {"neuron": {"layer": "stem", "channel": 3, "y": 1, "x": 0}},
    "outputs": ["EXPLAIN_OUTPUT_HEATMAP", "EXPLAIN_OUTPUT_RENDERING"],
    "rendering": {
        "colorScale": "COLOR_SCALE_SIGNED",
        "percentile": 98.5,
        "longestSidePx": 512,
        "format": "IMAGE_FORMAT_PNG",
        "legend": False,
    },
    "bucketSize": 4,
    "occlusion": {"windowPx": 32, "stridePx": 16, "fill": "FILL_BLUR", "blurSigmaPx": 2.5},
}
FULL_MESSAGE = json_format.ParseDict(FULL, inference_pb2.ExplainRequest())
FULL_FORM = (
    ("model", "net"),
    ("layer", "stem"),
    ("channel", "3"),
    ("y", "1"),
    ("x", "0"),
    ("outputs", "heatmap,EXPLAIN_OUTPUT_RENDERING"),
    ("color_scale", "signed"),
    ("percentile", "98.5"),
    ("longest_side_px", "512"),
    ("format", "png"),
    ("legend", "false"),
    ("bucket_size", "4"),
    ("method", "occlusion"),
    ("window_px", "32"),
    ("occlusion.stride_px", "16"),
    ("fill", "FILL_BLUR"),
    ("blur_sigma_px", "2.5"),
)


def test_json_in_either_case_and_a_form_are_one_request(service: FakeService) -> None:
    original = json_format.MessageToDict(FULL_MESSAGE, preserving_proto_field_name=True)
    assert "bucket_size" in original
    for response in (
        explain(service, FULL),
        explain(service, original),
        explain_form(service, *FULL_FORM),
    ):
        assert response.status_code == 200, response.text
    assert service.requests == [FULL_MESSAGE] * 3


@pytest.mark.parametrize("method", ["gradient", "deconvnet", "guided_backprop", "occlusion"])
def test_a_photo_and_a_method_are_enough(service: FakeService, method: str) -> None:
    assert explain_form(service, ("method", method)).status_code == 200
    (request,) = service.requests
    assert request.WhichOneof("method") == method
    assert request.image.encoded == PHOTO
    assert not request.HasField("target") and not request.HasField("rendering")


def test_outputs_may_repeat(service: FakeService) -> None:
    explain_form(
        service, ("method", "gradient"), ("outputs", "attribution"), ("outputs", "heatmap")
    )
    assert list(service.requests[0].outputs) == [1, 2]


def test_numbers_and_outputs_may_be_listed_with_commas_and_labels_have_their_own(
    service: FakeService,
) -> None:
    explain_form(
        service,
        ("method", "gradient"),
        ("class_indices", "3, 5"),
        ("class_indices", "8"),
        ("labels", "crane, the bird"),
        ("labels", " tench "),
        ("outputs", "heatmap, attribution"),
    )
    (request,) = service.requests
    assert request.target == inference_pb2.Target(
        classes=inference_pb2.Classes(class_indices=[3, 5, 8], labels=["crane, the bird", "tench"])
    )
    assert list(request.outputs) == [
        inference_pb2.EXPLAIN_OUTPUT_HEATMAP,
        inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION,
    ]


def test_predict_takes_both(service: FakeService) -> None:
    ask(service, "POST", "/v1/predict", json={"image": {"encoded": ENCODED}, "topK": 3})
    ask(service, "POST", "/v1/predict", files={"image": PHOTO}, data={"top_k": "3"})
    expected = inference_pb2.PredictRequest(image=data_pb2.Image(encoded=PHOTO), top_k=3)
    assert service.requests == [expected] * 2


def test_base64_of_either_alphabet_with_or_without_padding(service: FakeService) -> None:
    data = bytes(range(256)) + b"\xff"
    for text in (
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    ):
        explain(service, {"image": {"encoded": text}, "gradient": {}})
    assert [request.image.encoded for request in service.requests] == [data] * 3


def test_a_form_names_every_violation(service: FakeService) -> None:
    response = ask(
        service,
        "POST",
        "/v1/explain?deadline=3",
        files=[
            ("image", (None, b"text")),
            ("model", ("model.txt", b"net")),
            ("method", (None, b"occlusion")),
            ("window_px", (None, b"wide")),
            ("stride_px", (None, b"1.5")),
            ("fill", (None, b"pink")),
            ("occlusion.blur_sigma_px", (None, b"1_0")),
            ("legend", (None, b"maybe")),
            ("outputs", (None, b"heatmap,smell")),
            ("class_index", (None, b"3")),
            ("label", (None, b"cat")),
            ("top_k", (None, b"3")),
            ("bucket_size", (None, b"1")),
            ("bucket_size", (None, b"2")),
            ("percentile", (None, b"\xff")),
            ("color_scale", (None, b"x" * 20_000)),
            ("timeout_ms", (None, b"-1")),
        ],
    )
    found = violations(response)
    assert found.pop("top_k").startswith(
        "unknown; the fields are: image, timeout_ms, method, model,"
    )
    assert found.pop("color_scale") == "has 20000 bytes; a text has at most 16384"
    assert found == {
        "deadline": "unknown; the query may have timeout_ms",
        "image": "is a text; must be a file (curl's -F image=@photo.jpg)",
        "model": "is a file; must be a text",
        "occlusion.window_px": "is 'wide'; must be an integer of 32 bits",
        "occlusion.stride_px": "is '1.5'; must be an integer of 32 bits",
        "occlusion.fill": "is 'pink'; must be one of FILL_BLACK, FILL_WHITE, FILL_MEAN, FILL_BLUR, "
        "FILL_NOISE",
        "occlusion.blur_sigma_px": "is '1_0'; must be a number",
        "rendering.legend": "is 'maybe'; must be true or false",
        "outputs": "is 'smell'; must be one of EXPLAIN_OUTPUT_ATTRIBUTION, "
        "EXPLAIN_OUTPUT_HEATMAP, EXPLAIN_OUTPUT_RENDERING",
        "target.label": "given beside target.class_index; only one may be",
        "bucket_size": "given more than once",
        "percentile": "is not UTF-8",
        "timeout_ms": "is '-1'; must be a positive number",
    }
    assert not service.requests


METHODS = ", ".join(wire.METHODS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], {"method": f"required; one of {METHODS}"}),
        ([("method", "shap")], {"method": f"is 'shap'; must be one of {METHODS}"}),
        ([("method", "gradient")] * 2, {"method": "given more than once"}),
        (
            [("method", "gradient"), ("window_px", "3")],
            {"occlusion.window_px": "is of occlusion, not of gradient"},
        ),
    ],
)
def test_a_form_names_its_method(
    service: FakeService, fields: list[tuple[str, str]], expected: dict[str, str]
) -> None:
    assert violations(explain_form(service, *fields)) == expected


def test_a_form_has_exactly_one_image(service: FakeService) -> None:
    two = ask(service, "POST", "/v1/predict", files=[("image", PHOTO), ("image", PHOTO)])
    none = ask(service, "POST", "/v1/predict", files={"top_k": (None, b"1")})
    assert violations(two) == {"image": "given 2 times; exactly one file"}
    assert violations(none) == {"image": "required; a file"}


def test_json_names_every_violation(service: FakeService) -> None:
    body = (
        '{"model": 1, "model": "net", "colour": 1, "\\ud800": 2, "image": {"encoded": "ab cd"},'
        '"target": {"classIndex": 3, "label": "cat", "neuron": null}, "outputs": ["HEATMAP"],'
        '"rendering": [], "bucketSize": 1e10, "bucket_size": 1,'
        '"occlusion": {"windowPx": true, "stridePx": "x", "fill": {}, "blurSigmaPx": "nan"},'
        '"gradient": {"depth": 1}}'
    )
    response = ask(
        service,
        "POST",
        "/v1/explain",
        content=body,
        headers={"content-type": "Application/JSON; charset=utf-8"},
    )
    names = [field.json_name for field in inference_pb2.ExplainRequest.DESCRIPTOR.fields]
    known = f"unknown; the fields here are: {', '.join(names)}"
    error = response.json()["error"]
    listed = [v for d in error["details"] for v in d.get("fieldViolations", [])]
    assert [(v["field"], v["description"]) for v in listed] == [
        ("model", "is 1; must be a text"),
        ("model", "given more than once"),
        ("colour", known),
        ("\\ud800", known),
        ("image.encoded", "is 'ab cd'; must be base64"),
        ("target.label", "given beside target.class_index; only one may be"),
        (
            "outputs",
            "is 'HEATMAP'; must be one of EXPLAIN_OUTPUT_ATTRIBUTION, EXPLAIN_OUTPUT_HEATMAP, "
            "EXPLAIN_OUTPUT_RENDERING",
        ),
        ("rendering", "is a list; must be an object"),
        ("bucket_size", "is 10000000000.0; must be an integer of 32 bits"),
        ("bucket_size", "given more than once"),
        ("occlusion.window_px", "is true; must be an integer of 32 bits"),
        ("occlusion.stride_px", "is 'x'; must be an integer of 32 bits"),
        (
            "occlusion.fill",
            "is an object; must be one of FILL_BLACK, FILL_WHITE, FILL_MEAN, FILL_BLUR, FILL_NOISE",
        ),
        ("occlusion.blur_sigma_px", "is 'nan'; must be a number"),
        ("gradient", "given beside occlusion; only one may be"),
    ]
    assert all(v["description"] in error["message"] for v in listed)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON: see line 1, column 1"),
        (b'{"model": \n oops}', "not JSON: see line 2, column 2"),
        (b'{"bucketSize": NaN}', 'not JSON: NaN must be written "NaN"'),
        (b'{"model": "\xff"}', "not UTF-8: see byte 11"),
        (b'{"bucketSize": ' + b"9" * 5000 + b"}", "a number that is too long"),
        (b"[" * 900 + b"]" * 900, "body: is a list; must be an object"),
        (b"[" * 100_000, "more than 1000 values"),
        (b'{"a":{' * 100_000, "more than 1000 values"),
        (b'{"outputs": [' + b"0," * 1000 + b"0]}", "more than 1000 values"),
        (b"null", "body: is null; must be an object"),
        (b'{"model": "\\ud800"}', r"model: is '\ud800'; must be a text"),
    ],
)
def test_what_is_not_json(service: FakeService, body: bytes, said: str) -> None:
    headers = {"content-type": "application/json"}
    response = ask(service, "POST", "/v1/explain", content=body, headers=headers)
    violations(response)
    assert said in response.json()["error"]["message"]


DISPOSITION = b'Content-Disposition: form-data; name="image"; filename="a"\r\n'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a well-formed form|ends before"),
        (b"--b\r\n" + DISPOSITION + b"\r\ndata", "ends before its last boundary"),
        (b"--b\r\n" + DISPOSITION + b"\r\ndata\r\n--c--\r\n", "ends before its last boundary"),
        (b"--b\r\nNo-Colon\r\n\r\ndata\r\n--b--\r\n", "not a well-formed form"),
        (b"--b\r\nX: y\r\n\r\ndata\r\n--b--\r\n", "a part of the form has no name"),
        ((b"--b\r\n" + DISPOSITION + b"\r\n\r\n") * 129 + b"--b--", "more than 128 fields"),
    ],
)
def test_what_is_not_a_form(service: FakeService, body: bytes, said: str) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = ask(service, "POST", "/v1/explain", content=body, headers=headers)
    violations(response)
    message = response.json()["error"]["message"]
    assert any(words in message for words in said.split("|")), message


def test_a_form_needs_a_boundary(service: FakeService) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=" + "b" * 300):
        headers = {"content-type": content_type}
        violations(ask(service, "POST", "/v1/explain", content=b"--b", headers=headers))


def test_timeouts_come_from_the_query_or_the_form(service: FakeService) -> None:
    body = {"image": {"encoded": ENCODED}, "gradient": {}}
    explain(service, body, params={"timeout_ms": "2500"})
    explain_form(service, ("method", "gradient"), ("timeout_ms", "2.5e3"))
    explain(service, body)
    *given, default = service.timeouts_s
    assert all(timeout_s is not None and 1.5 < timeout_s < 2.5 for timeout_s in given)
    assert default is None


@pytest.mark.parametrize("text", ["0", "-1", "soon", "", "NaN", "Infinity", "1e999", "1_0", "٣"])
def test_timeouts_are_positive(service: FakeService, text: str) -> None:
    expected = {"timeout_ms": f"is {text!r}; must be a positive number"}
    body = {"image": {"encoded": ENCODED}, "gradient": {}}
    assert violations(explain(service, body, params={"timeout_ms": text})) == expected
    form = explain_form(service, ("method", "gradient"), ("timeout_ms", text))
    assert violations(form) == expected


def test_one_timeout_is_enough(service: FakeService) -> None:
    fields = (("method", "gradient"), ("timeout_ms", "10000"))
    response = explain_form(service, *fields, params={"timeout_ms": "10000"})
    assert violations(response) == {"timeout_ms": "given more than once"}


def test_callers_name_themselves(service: FakeService) -> None:
    body = {"image": {"encoded": ENCODED}, "gradient": {}}
    explain(service, body, headers={"pellucid-caller": "team-a"})
    explain(service, body)
    assert service.callers == ["team-a", "10.1.2.3"]


def test_bodies_are_parsed_off_the_loop(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    read = forms.read

    def noting(*args: Any) -> float | None:
        threads.append(threading.get_ident())
        return read(*args)

    monkeypatch.setattr(forms, "read", noting)
    explain(service, FULL)
    assert threads and threads[0] != threading.get_ident()


# Answers.


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/JPEG", "image/jpeg"),
        ("image/webp, image/jpeg;q=0.2, image/png;q=0.3", "image/png"),
        ("image/jpeg, image/png", "image/jpeg"),
        ("image/png, */*", "image/png"),
        ("image/png;q=0.5, */*", "application/json"),
        ("image/png;q=0.5, */*;q=0.1", "image/png"),
        ("application/json;q=0, */*", None),
        ("application/json;q=0.1, */*;q=0.9, image/png;q=0.5", "image/png"),
        ("image/avif,image/webp,image/*,*/*;q=0.8", "application/json"),
        ("image/*", None),
        ("image/png;q=0", None),
        ("image/png;q=lots", None),
        ("text/html", None),
    ],
)
def test_accept_decides(service: FakeService, accept: str | None, media: str | None) -> None:
    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(service, Settings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            client.headers.pop("accept")
            headers = {} if accept is None else {"accept": accept}
            return await client.post("/v1/explain", json=FULL, headers=headers)

    response = asyncio.run(asking())
    if media is None:
        assert violations(response, 406) == {}
        assert not service.requests
    else:
        assert response.status_code == 200
        assert response.headers["content-type"] == media


def test_a_picture_overrides_outputs(service: FakeService) -> None:
    response = explain(service, FULL, headers={"accept": "image/jpeg"})
    assert response.content == b"a picture"
    assert response.headers["pellucid-target"] == "0 tench,%0A %CF%80"
    assert response.headers["pellucid-score"] == "0.5"
    assert response.headers["pellucid-model"] == "net"
    assert response.headers["pellucid-model-version"] == "0123456789ab"
    assert response.headers["vary"] == "accept"
    expected = inference_pb2.ExplainRequest()
    expected.CopyFrom(FULL_MESSAGE)
    expected.outputs[:] = [inference_pb2.EXPLAIN_OUTPUT_RENDERING]
    expected.rendering.format = data_pb2.IMAGE_FORMAT_JPEG
    assert service.requests == [expected]


def of_classes(*indices: int) -> dict[str, Any]:
    labels = [f"label {index}" for index in indices]
    return {"classes": inference_pb2.Classes(class_indices=indices, labels=labels)}


def of_neuron(**place: int) -> dict[str, Any]:
    return {"neuron": inference_pb2.Neuron(layer="stem.conv", **place)}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"class_index": 285, "label": "Egyptian cat"}, "285 Egyptian cat"),
        ({"class_index": 3}, "3"),
        (
            {"class_index": 1, "label": "a, b", "against_class_index": 0, "against_label": "c"},
            "1 a, b - 0 c",
        ),
        ({"class_index": 1, "label": "a", "against_class_index": 0}, "1 a - 0"),
        (of_classes(1, 0), "1 label 1 + 0 label 0"),
        (
            of_classes(1, 2) | {"against_class_index": 3, "against_label": "c"},
            "1 label 1 + 2 label 2 - 3 c",
        ),
        (of_neuron(), "stem.conv"),
        (of_neuron(channel=0), "stem.conv channel 0"),
        (of_neuron(channel=3, y=0, x=2), "stem.conv channel 3 y 0 x 2"),
        (of_neuron(y=1, x=0), "stem.conv y 1 x 0"),
    ],
)
def test_a_picture_names_its_target(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any], told: str
) -> None:
    explained = inference_pb2.ExplainResponse(
        target=inference_pb2.ResolvedTarget(**target), rendering=EXPLAINED.rendering
    )

    async def answer(request: Any, call: wire.Call, held: Held, write: Any) -> Any:
        return write(explained)

    monkeypatch.setattr(service, "explain", answer)
    response = explain(service, FULL, headers={"accept": "image/png"})
    assert response.headers["pellucid-target"] == told


def test_only_explanations_are_pictures(service: FakeService) -> None:
    headers = {"accept": "image/png"}
    for method, path in (("POST", "/v1/predict"), ("GET", "/v1/models"), ("GET", "/v1/models/a")):
        violations(ask(service, method, path, headers=headers), 406)


def test_answers_are_the_proto_json_mapping(service: FakeService) -> None:
    response = ask(service, "POST", "/v1/predict", json={"image": {"encoded": ENCODED}})
    assert response.headers["content-type"] == "application/json"
    # What is zero is said, too.
    assert response.json() == {
        "predictions": [{"classIndex": 0, "label": "Kätzchen", "probability": 0.0, "logit": 1.0}],
        "explanations": [],
    }


def test_an_answer_above_the_cap_is_refused_as_it_would_be_sent(service: FakeService) -> None:
    """JSON is larger than the message; a picture is as large as it is."""
    size = EXPLAINED.ByteSize()
    settings = Settings(max_message_bytes=1024)
    assert size < 200
    picture = inference_pb2.ExplainResponse()
    picture.CopyFrom(EXPLAINED)
    picture.rendering.data = b"p" * 800
    assert picture.ByteSize() < 1024 < len(json_format.MessageToJson(picture))

    async def explain(request: Any, call: wire.Call, held: Held, write: Any) -> Any:
        return write(picture)

    service.explain = explain  # type: ignore[method-assign]
    body = json.dumps({"image": {"encoded": ENCODED}, "gradient": {}}).encode()
    answers = {
        media: ask(
            service,
            "POST",
            "/v1/explain",
            settings,
            content=body,
            headers={"content-type": "application/json", "accept": media},
        )
        for media in ("application/json", "image/png")
    }
    assert "at most 1024 are sent" in violations(answers["application/json"])["outputs"]
    assert answers["image/png"].status_code == 200


def test_what_fails_before_the_service_is_counted(service: FakeService) -> None:
    json_type = {"content-type": "application/json"}
    for content, headers in (
        (b"{}", {"content-type": "text/plain"}),
        (b"{}", json_type | {"accept": "text/html"}),
        (b" " * 3000, json_type),
        (b"{", json_type),
    ):
        for path in ("/v1/predict", "/v1/explain"):
            ask(service, "POST", path, SMALL, content=content, headers=headers)
    service.full = Overloaded("full")
    explain(service, FULL)
    assert service.counted == [
        *["UNSUPPORTED_MEDIA_TYPE"] * 2,
        *["NOT_ACCEPTABLE"] * 2,
        *["BODY_TOO_LARGE"] * 2,
        *["INVALID_ARGUMENT"] * 2,
        "QUEUE_FULL",
    ]


def test_models_always_say_whether_they_are_ready(service: FakeService) -> None:
    assert ask(service, "GET", "/v1/models").json() == {
        "models": [
            {"name": "broken", "ready": False, "version": "", "reason": "no weights"},
            {"name": "net", "ready": True, "version": "0123456789ab", "reason": ""},
        ]
    }
    model = ask(service, "GET", "/v1/models/a%20b").json()
    assert (model["name"], model["ready"], model["layers"]) == ("", False, [])
    assert service.requests[-1].model == "a b"
    service.models = model_pb2.ListModelsResponse()
    assert ask(service, "GET", "/v1/models").json() == {"models": []}


def test_health(service: FakeService) -> None:
    assert ask(service, "GET", "/health/ready").json() == {"ready": True}
    service.ready = False
    violations(ask(service, "GET", "/health/ready"), 503)
    assert ask(service, "GET", "/health/live").json() == {"live": True}
    assert ask(service, "HEAD", "/health/live").status_code == 200


# Errors.


def fail(service: FakeService, error: Exception) -> httpx.Response:
    async def failing() -> None:
        raise error

    service.answer = failing
    return explain(service, FULL)


@pytest.mark.parametrize("kind", [kind for kind in CODES if kind is not Internal])
def test_errors_are_their_status(service: FakeService, kind: type[PellucidError]) -> None:
    error = kind("said", violations=[Violation("a.b", "is wrong")], retry_delay_ms=1001.0)
    response = fail(service, error)
    assert response.status_code == CODES[kind].http
    assert response.headers["retry-after"] == "2"
    assert response.json() == {
        "error": {
            "code": CODES[kind].http,
            "status": CODES[kind].grpc.name,
            "message": "said",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": kind.reason,
                    "domain": "pellucid",
                },
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "a.b", "description": "is wrong"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.001s"},
            ],
        }
    }
    assert code_pb2.Code.Value(response.json()["error"]["status"])


def test_no_delay_no_retry_after(service: FakeService) -> None:
    assert "retry-after" not in fail(service, Overloaded("full")).headers


def test_bugs_tell_nothing(service: FakeService) -> None:
    response = fail(service, RuntimeError("secret"))
    violations(response, 500)
    assert response.json()["error"]["status"] == "INTERNAL"
    assert "secret" not in response.text


def test_bugs_reach_the_log_of_the_server(service: FakeService) -> None:
    async def failing() -> None:
        raise RuntimeError("secret")

    service.answer = failing
    with pytest.raises(RuntimeError, match="secret"):
        asyncio.run(run_app(service, Settings(), sending(FULL), []))


def test_a_full_queue_refuses_before_the_body_is_read(service: FakeService) -> None:
    service.full = Overloaded("the queue is full", retry_delay_ms=1500.0)
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"{}"

    response = ask(
        service, "POST", "/v1/predict", content=body(), headers={"content-type": "application/json"}
    )
    violations(response, 429)
    assert response.headers["retry-after"] == "2"
    assert not read


def test_paths_and_methods_that_are_not_there(service: FakeService) -> None:
    for path in ("/", "/v1/nothing", "/v1/models/", "/v1/models/a/b"):
        violations(ask(service, "GET", path), 404)
    response = ask(service, "GET", "/v1/explain")
    violations(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_media_that_is_not_read(service: FakeService, headers: dict[str, str]) -> None:
    response = ask(service, "POST", "/v1/explain", content=b"{}", headers=headers)
    violations(response, 415)


SMALL = Settings(max_message_bytes=2048)


def test_a_body_above_the_cap_is_refused_before_it_is_read(service: FakeService) -> None:
    async def asking() -> tuple[int, bool]:
        read = False

        async def receive() -> dict[str, Any]:
            nonlocal read
            read = True
            return {"type": "http.request", "body": b"", "more_body": False}

        status = await run_app(service, SMALL, receive, [(b"content-length", b"2049")])
        return status, read

    assert asyncio.run(asking()) == (413, False)


def test_a_chunked_body_above_the_cap_is_refused_while_it_comes(service: FakeService) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1024
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    response = ask(service, "POST", "/v1/explain", SMALL, content=chunks(), headers=headers)
    violations(response, 413)
    assert sent == 3 * 1024


def test_bodies_share_one_bound(service: FakeService) -> None:
    """Two that fit alone do not fit together, and each gives back what it took."""
    body = json.dumps(FULL | {"model": "m" * 1100}).encode()
    assert 1500 < len(body) < 2048
    service.admission = Admission(QueueLimits(byte_count=3000))

    async def asking() -> list[int]:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            entered.set()
            await go_on.wait()

        service.answer = hold
        transport = httpx.ASGITransport(build_app(service, SMALL))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"content-type": "application/json"}

            async def post() -> httpx.Response:
                return await client.post("/v1/explain", content=body, headers=headers)

            first = asyncio.create_task(post())
            await entered.wait()
            refused = await post()
            assert refused.headers["retry-after"] == "1"
            go_on.set()
            return [(await first).status_code, refused.status_code, (await post()).status_code]

    assert asyncio.run(asking()) == [200, 429, 200]


def sending(body: Any, then_leaving: asyncio.Event | None = None) -> Any:
    """A caller who sends a body, and leaves at the event."""
    chunks = iter([json.dumps(body).encode()])

    async def receive() -> dict[str, Any]:
        for chunk in chunks:
            return {"type": "http.request", "body": chunk, "more_body": False}
        await (then_leaving or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return receive


async def run_app(
    service: FakeService,
    settings: Settings,
    receive: Any,
    headers: list[tuple[bytes, bytes]],
    query: bytes = b"",
) -> int:
    """Runs the application without a client between; returns the status that it sent."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/explain",
        "query_string": query,
        "headers": [(b"content-type", b"application/json"), *headers],
        "client": None,
    }
    await build_app(service, settings)(scope, receive, send)
    return statuses[0]


def test_a_caller_who_leaves_cancels_the_request(service: FakeService) -> None:
    async def asking() -> tuple[int, list[str]]:
        entered, events = asyncio.Event(), []

        async def wait() -> None:
            entered.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        service.answer = wait
        async with asyncio.timeout(10):
            return await run_app(service, Settings(), sending(FULL, entered), []), events

    assert asyncio.run(asking()) == (499, ["cancelled"])


def test_a_caller_who_leaves_while_sending_is_let_go(service: FakeService) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert asyncio.run(run_app(service, Settings(), receive, [])) == 499
    assert not service.requests


def test_a_body_that_does_not_come_ends_the_wait(service: FakeService) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    settings = Settings(max_timeout_ms=20)
    assert asyncio.run(run_app(service, settings, receive, [])) == 504
    running = run_app(service, Settings(), receive, [], query=b"timeout_ms=20")
    assert asyncio.run(asyncio.wait_for(running, 10)) == 504


def test_a_stylized_picture_alone_says_what_became_of_it(service: FakeService) -> None:
    response = ask(service, "POST", "/v1/stylize", json={}, headers={"accept": "image/png"})
    assert response.status_code == 200
    assert response.content == b"a picture"
    assert response.headers["content-type"] == "image/png"
    assert response.headers["vary"] == "accept"
    told = {k: unquote(v) for k, v in response.headers.items() if k.startswith("pellucid-")}
    assert told == {
        "pellucid-model": "net",
        "pellucid-model-version": "0123456789ab",
        "pellucid-stop-reason": "its loss was not finite",
        "pellucid-notes": "bits differ; it went on",
    }
