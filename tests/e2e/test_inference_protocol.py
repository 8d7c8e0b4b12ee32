"""The Open Inference Protocol and KServe's V1, by the clients that people have."""

import base64
import itertools
import json
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pellucid
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pellucid_server.api import values
from pellucid_server.api.inference import grpc_service_pb2 as pb2
from pellucid_server.engine.job import Priority
from PIL import Image

from tests.harness import photo

MODEL = "efficientnet_lite0"
V2 = f"/v2/models/{MODEL}"
PROTOCOLS = ("grpc", "http")
INPUT = np.random.default_rng(0).standard_normal((1, 3, 96, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    for name in ("cat", "coffee"):
        Image.fromarray(photo(name)).save(folder / f"{name}.jpg", quality=95)
    np.save(folder / "input.npy", INPUT)
    return folder


@pytest.fixture(scope="module")
def told(served: Any, folder: Path) -> dict[str, dict[str, Any]]:
    """What tritonclient was told, by protocol and case."""
    script = Path(__file__).with_name("triton_client.py")
    addresses = (served.grpc, served.http.removeprefix("http://"))
    done = subprocess.run(
        [sys.executable, script, *addresses, folder], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def arrays(told: Any, folder: Path) -> dict[str, Any]:
    return {protocol: dict(np.load(folder / f"{protocol}.npz")) for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def expected(served: Any, folder: Path) -> dict[str, Any]:
    """The same, by our own client."""
    kept: dict[str, Any] = {}
    with pellucid.Client(served.grpc) as client:
        for name, image in (
            ("input", INPUT[0]),
            ("cat", folder / "cat.jpg"),
            ("coffee", folder / "coffee.jpg"),
        ):
            kept[name] = client.predict(image, include_logits=True, bucket_size=4)
        coarse = {"window_px": 48, "stride_px": 48}
        for name, image, method, options in (
            ("gradient", INPUT[0], "gradient", {}),
            ("cat gradient", folder / "cat.jpg", "gradient", {}),
            ("coffee gradient", folder / "coffee.jpg", "gradient", {}),
            ("occlusion", INPUT[0], "occlusion", {"target": 7, **coarse}),
            ("label", INPUT[0], "guided_backprop", {"target": "espresso"}),
        ):
            result = client.explain(
                image, method, outputs=("attribution",), bucket_size=4, **options
            )
            kept[name] = result.attribution
    return kept


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tritonclient_gets_what_ours_gets_to_the_bit(
    told: Any, arrays: Any, expected: Any, protocol: str
) -> None:
    got = arrays[protocol]
    version = expected["input"].run.model_version
    assert told[protocol]["default"] == [MODEL, version, "seven"]
    for case in ("photo", "column of files", "waiting"):
        assert told[protocol][case][:2] == [MODEL, version]
        assert got[f"{case}/logits"].shape == (1, 1000)
    both = np.stack([expected[name].logits for name in ("cat", "coffee")])
    gradients = np.stack([expected[f"{name} gradient"] for name in ("cat", "coffee")])
    for name, array in {
        "default/logits": expected["input"].logits[None],
        "files/logits": both,
        "explained/explanation": gradients,
        "everything/logits": both,
        "everything/explanation": gradients,
        "occlusion/explanation": expected["occlusion"][None],
        "of a label/explanation": expected["label"][None],
    }.items():
        assert got[name].dtype == np.float32
        assert np.array_equal(got[name], array), name
    powers = np.exp(both.astype(np.float64))
    softmax = powers / powers.sum(1, keepdims=True)
    assert np.allclose(got["everything/probabilities"], softmax, atol=1e-7)
    for name in ("heatmap", "rendering"):
        files = got[f"everything/{name}"]
        assert files.shape == (2,)
        assert all(file.startswith(b"\x89PNG") for file in files)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_classes_come_as_text(told: Any, arrays: Any, expected: Any, protocol: str) -> None:
    for row, name in zip(told[protocol]["classes"], ("cat", "coffee"), strict=True):
        tops = expected[name].predictions[:2]
        for word, top in zip(row, tops, strict=True):
            value, index, label = word.split(":", 2)
            assert (int(index), label) == (top.class_index, top.label)
            assert float(value) == pytest.approx(top.probability, abs=1e-3)
    logits = arrays[protocol]["classes/logits"]
    assert re.fullmatch(rb"\d+\.\d{6}:285:Egyptian cat", logits[0, 0])


def test_http_answers_in_json_too(told: Any, arrays: Any, expected: Any) -> None:
    got = arrays["http"]
    assert np.array_equal(got["in JSON/logits"], expected["input"].logits[None])
    assert np.allclose(got["in JSON/probabilities"].sum(), 1)
    assert told["http"]["in JSON"] == [["data", "datatype", "name", "shape"]] * 2


def test_a_stream_answers_in_order_and_survives_errors(
    told: Any, arrays: Any, expected: Any
) -> None:
    stream = told["grpc"]["stream"]
    assert len(stream) == 40
    for index, answer in enumerate(stream):
        if index % 8 == 5:
            assert answer.startswith("image.encoded: the photo's format is unknown")
        else:
            assert answer == [str(index), True]
    got = arrays["grpc"]
    assert np.array_equal(got["stream 0/logits"], expected["input"].logits[None])
    assert np.array_equal(got["stream 1/explanation"], expected["gradient"][None])
    assert told["grpc"]["callback"] == [[1, 1000], None]


WRONG = ("INVALID_ARGUMENT", 400)
MISSING = ("NOT_FOUND", 404)
LATE = ("DEADLINE_EXCEEDED", 504)
ONE_INPUT = "exactly one of input, image, photo"
ERRORS: dict[str, tuple[tuple[str, int], str]] = {
    "an unknown model": (MISSING, "'lite1' is not loaded; loaded are: efficientnet_lite0"),
    "a model that could not be loaded": (MISSING, "could not be loaded: not on the allow-list"),
    "another version": (MISSING, f"version '7' of {MODEL} is not served; [0-9a-f]{{12}} is"),
    "no input": (WRONG, f"inputs: required; {ONE_INPUT}"),
    "an unknown input": (WRONG, "inputs.pixels: unknown; the inputs are input, image, photo"),
    "two inputs": (WRONG, f"inputs: 'input', 'image' are given; {ONE_INPUT}"),
    "an input twice": (WRONG, f"inputs: 'input', 'input' are given; {ONE_INPUT}"),
    "an unknown output": (WRONG, "outputs.softmax: unknown; the outputs are logits, prob"),
    "an output twice": (WRONG, "outputs.logits: asked for more than once"),
    "half precision": (WRONG, "inputs.input.datatype: is 'FP16'; must be FP32"),
    "double precision": (WRONG, "inputs.input.datatype: is 'FP64'; must be FP32"),
    "integers": (WRONG, "inputs.image.datatype: is 'INT64'; must be BYTES"),
    "another rank": (WRONG, "inputs.input.shape: is 3 × 96 × 96; must be n × 3 × height"),
    "one channel": (WRONG, "inputs.input.shape: is 1 × 1 × 96 × 96; must be n × 3 × height"),
    "another size": (WRONG, "shape: is 3 × 95 × 96; .* for efficientnet_lite0 is 3 × 96 × 96"),
    "a shape that lies": (WRONG, "has 110592 bytes; FP32 of 2 × 3 × 96 × 96 takes 221184"),
    "a negative axis": (WRONG, "inputs.input.shape: is -1 × 3 × 96 × 96"),
    "an empty batch": (WRONG, "inputs.input.shape: is 0 × 3 × 96 × 96"),
    "too many images": (WRONG, "inputs.photo.shape: has 65 images; at most 64 in a request"),
    "not finite": (WRONG, "has 27648 elements that are not finite, the first at"),
    "more lengths than files": (WRONG, "inputs.image.contents: ends before element 2 of 3"),
    "fewer lengths than files": (WRONG, "inputs.image.contents: has .* after the last of 1"),
    "not a photo": (WRONG, r"image\[1\].encoded: the photo's format is unknown"),
    "an unknown parameter": (WRONG, "sharpness: unknown; the fields are: target, timeout, pri"),
    "a parameter of no one": (WRONG, "method: is of explanations, and none is asked for"),
    "an unknown method": (WRONG, "method: is 'magic'; must be one of gradient, deconvnet"),
    "an unknown label": (MISSING, "target.label: 'unicorn' is not a label of efficientnet_lite0"),
    "a target that is not there": (WRONG, "target.class_index: is 5000; must be 0 to 999"),
    "a wrong number": (WRONG, "bucket_size: is 'many'; must be an integer"),
    "another's parameter": (WRONG, "occlusion.window_px: is of occlusion, not of gradient"),
    "a timeout that lies": (WRONG, "timeout: must be an integer of microseconds, at least 0"),
    "too little time": (LATE, "deadline"),
    "a sequence": (WRONG, "sequence_id: unknown"),
    "in shared memory": (WRONG, "inputs.input.shared_memory_region: shared memory is not read"),
    "classes of a map": (WRONG, "outputs.explanation.classification: is for logits and prob"),
    "metadata of another version": (MISSING, "version '7'"),
    "load": (("FAILED_PRECONDITION", 400), "models are loaded when the server starts"),
    "unload": (("FAILED_PRECONDITION", 400), "models are loaded when the server starts"),
    "shared memory": (("UNIMPLEMENTED", 404), ""),
    "logging": (("UNIMPLEMENTED", 404), ""),
}


@pytest.mark.parametrize("case", ERRORS)
def test_tritonclient_is_told_what_is_wrong(told: Any, case: str) -> None:
    (code, status), said = ERRORS[case]
    for protocol, expected_status in (("grpc", f"StatusCode.{code}"), ("http", str(status))):
        error = told[protocol][case]
        assert error["status"] == expected_status, error
        assert re.search(said, error["message"]), error


def test_what_only_one_protocol_can_do_wrong(told: Any) -> None:
    assert told["grpc"]["a deadline"]["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert told["http"]["compressed"]["status"] == "415"
    in_json = told["http"]["files in JSON"]
    assert in_json["status"] == "400"
    assert "rendering is files, not JSON" in in_json["message"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tritonclient_is_told_of_the_server(told: Any, protocol: str) -> None:
    of = told[protocol]
    names = ("live", "ready", "model ready", "unknown model ready", "failed model ready")
    assert [of[name] for name in names] == [True, True, True, False, False]
    assert of["server"]["name"] == "pellucid"
    assert "binary_tensor_data" in of["server"]["extensions"]
    assert of["metadata"]["name"] == MODEL
    tensors = {
        one["name"]: (one["datatype"], [int(length) for length in one["shape"]])
        for one in (*of["metadata"]["inputs"], *of["metadata"]["outputs"])
    }
    assert tensors == {
        "input": ("FP32", [-1, 3, 96, 96]),
        "image": ("BYTES", [-1]),
        "photo": ("UINT8", [-1, -1, -1, 3]),
        "logits": ("FP32", [-1, 1000]),
        "probabilities": ("FP32", [-1, 1000]),
        "explanation": ("FP32", [-1, -1, 96, 96]),
        "heatmap": ("BYTES", [-1]),
        "rendering": ("BYTES", [-1]),
    }
    config = of["config"].get("config", of["config"])
    assert config["max_batch_size"] == 64
    assert [one["data_type"] for one in config["input"]] == [
        "TYPE_FP32",
        "TYPE_STRING",
        "TYPE_UINT8",
    ]
    (statistics,) = of["statistics"]["model_stats"]
    assert int(statistics["inference_count"]) > 40
    assert {one["name"] for one in of["all statistics"]["model_stats"]} == {MODEL, "resnet18"}
    index = of["index"]["models"] if protocol == "grpc" else of["index"]
    assert [(one["name"], one["state"]) for one in index] == [
        (MODEL, "READY"),
        ("no_such_network", "UNAVAILABLE"),
        ("resnet18", "READY"),
    ]


# Without tritonclient.


def statistics(served: Any) -> dict[str, Any]:
    (stats,) = httpx.get(f"{served.http}{V2}/stats").json()["model_stats"]
    return dict(stats)


def infer(served: Any, image_count: int, **members: Any) -> httpx.Response:
    raw = INPUT.tobytes() * image_count
    shape = [image_count, *INPUT.shape[1:]]
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "input", "shape": shape, "datatype": "FP32", "parameters": parameters}
    header = json.dumps({"inputs": [tensor], **members}).encode()
    return httpx.post(
        f"{served.http}{V2}/infer",
        content=header + raw,
        headers={"inference-header-content-length": str(len(header))},
        timeout=60,
    )


def until(condition: Any) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_the_images_of_a_request_ride_together_and_are_counted(served: Any) -> None:
    before = statistics(served)
    loaded = served.server.engine._inbox
    with ThreadPoolExecutor(1) as callers:
        with served.held():
            answer = callers.submit(infer, served, 8, parameters={"bucket_size": 8})
            until(lambda: loaded.qsize() == 8)
        assert answer.result().json()["outputs"][0]["shape"] == [8, 1000]
    after = statistics(served)
    assert after["inference_count"] - before["inference_count"] == 8
    assert after["execution_count"] - before["execution_count"] == 1
    for name in ("success", "queue", "compute_input", "compute_infer"):
        was, is_now = before["inference_stats"][name], after["inference_stats"][name]
        assert is_now["count"] - was["count"] == 8
        assert is_now["ns"] > was["ns"]
    assert (
        sum(one["compute_infer"]["count"] for one in after["batch_stats"])
        == (after["execution_count"])
    )
    assert abs(after["last_inference"] / 1e3 - time.time()) < 3600


def test_bodies_are_parsed_one_at_a_time(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing holds the interpreter's lock; health answers meanwhile."""
    go_on, parsing, most = threading.Event(), [], []
    reader = served.server.service._reader
    parse = values.parse_json

    def noting(*args: Any) -> Any:
        parsing.append(args)
        most.append(len(parsing))
        go_on.wait(30)
        parsing.remove(args)
        return parse(*args)

    monkeypatch.setattr(values, "parse_json", noting)
    posts = [(f"{V2}/infer", {}), (f"/v1/models/{MODEL}:explain", {}), ("/v1/predict", {})]
    with ThreadPoolExecutor(3) as callers:
        answers = [
            callers.submit(httpx.post, f"{served.http}{path}", json=body, timeout=60)
            for path, body in posts
        ]
        until(lambda: len(reader._waiting[Priority.PREDICT]) == 2 and len(parsing) == 1)
        assert httpx.get(f"{served.http}/health/live").status_code == 200
        go_on.set()
        assert [answer.result().status_code for answer in answers] == [400] * 3
    assert most == [1, 1, 1]


@contextmanager
def calling(served: Any, method: str, kind: str = "unary_unary") -> Iterator[Any]:
    answer = {"ModelInfer": pb2.ModelInferResponse}.get(method, pb2.ModelStreamInferResponse)
    with grpc.insecure_channel(served.grpc) as channel:
        yield getattr(channel, kind)(
            f"/inference.GRPCInferenceService/{method}",
            pb2.ModelInferRequest.SerializeToString,
            answer.FromString,
        )


def request(image_count: int = 1, **options: Any) -> pb2.ModelInferRequest:
    tensor = pb2.ModelInferRequest.InferInputTensor(
        name="input", datatype="FP32", shape=(image_count, *INPUT.shape[1:])
    )
    raw = [INPUT.tobytes() * image_count]
    return pb2.ModelInferRequest(
        model_name=MODEL, inputs=[tensor], raw_input_contents=raw, **options
    )


def test_a_call_that_is_cancelled_takes_its_images_along(served: Any) -> None:
    before = statistics(served)
    admission = served.server.engine.admission
    with calling(served, "ModelInfer") as invoke, served.held():
        call = invoke.future(request(4))
        until(lambda: admission.depth == 4)
        call.cancel()
        until(lambda: admission.byte_count == 0)
    until(lambda: admission.depth == 0)
    after = statistics(served)
    assert after["inference_count"] == before["inference_count"]
    fails = [one["inference_stats"]["fail"]["count"] for one in (before, after)]
    assert fails[1] - fails[0] == 4


def test_a_stream_that_is_cancelled_takes_its_requests_along(served: Any) -> None:
    admission = served.server.engine.admission
    with calling(served, "ModelStreamInfer", "stream_stream") as invoke, served.held():
        call = invoke(iter([request(id=str(index)) for index in range(30)]))
        until(lambda: admission.depth == 16)  # as many as are under way at once
        call.cancel()
        until(lambda: admission.byte_count == 0)
    until(lambda: admission.depth == 0)


def test_many_violations_fit_a_status(served: Any) -> None:
    outputs = [
        pb2.ModelInferRequest.InferRequestedOutputTensor(name=f"{index} {'x' * 50}")
        for index in range(32)
    ]
    with calling(served, "ModelInfer") as invoke, pytest.raises(grpc.RpcError) as refusal:
        invoke(request(outputs=outputs))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(r"; and \d+ more$", refusal.value.details())


@pytest.mark.parametrize(
    ("method", "path", "headers", "options", "status", "said"),
    [
        ("POST", f"{V2}/infer", {"length": "9"}, {"content": b"x"}, 400, "is 9; the"),
        ("POST", f"{V2}/infer", {"length": "x"}, {"content": b"x"}, 400, "is 'x'; must"),
        ("POST", f"{V2}/infer", {}, {"content": b"hello"}, 400, "the body is not JSON"),
        ("POST", f"{V2}/infer", {"length": "0"}, {"content": b"text"}, 400, "format"),
        (
            "POST",
            f"{V2}/infer",
            {},
            {"content": bytes(33 << 20)},
            413,
            "larger than 33554432 bytes",
        ),
        ("GET", f"{V2}/infer", {}, {}, 405, "GET is not answered here"),
        ("GET", f"{V2}/weights", {}, {}, 404, "nothing is at this path"),
        ("GET", "/v2/models/lite%31", {}, {}, 404, "'lite1' is not loaded"),
        (
            "POST",
            "/v2/repository/index",
            {},
            {"content": b'{"ready": 1}'},
            400,
            "ready: is 1; must",
        ),
        (
            "POST",
            "/v2/repository/index",
            {},
            {"content": b" " * 2000},
            413,
            "larger than 1024 bytes",
        ),
        ("POST", "/v1/models/lite1:predict", {}, {"json": {"instances": []}}, 404, "is not loaded"),
        ("POST", f"{V2}/infer?timeout_ms=5", {}, {"json": {}}, 400, "timeout_ms: unknown; the"),
        ("POST", f"/v1/models/{MODEL}:predict?a=5", {}, {"json": {}}, 400, "a: unknown; the query"),
        ("POST", "/v2/repository/index?a=5", {}, {}, 400, "a: unknown; the query"),
    ],
)
def test_errors_over_http_are_a_text(
    served: Any,
    method: str,
    path: str,
    headers: dict[str, str],
    options: dict[str, Any],
    status: int,
    said: str,
) -> None:
    given = {f"inference-header-content-{name}": text for name, text in headers.items()}
    response = httpx.request(method, f"{served.http}{path}", headers=given, **options)
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert said in response.json()["error"]


def test_a_photo_is_a_body(served: Any, folder: Path) -> None:
    response = httpx.post(
        f"{served.http}{V2}/infer",
        content=(folder / "cat.jpg").read_bytes(),
        headers={"inference-header-content-length": "0"},
    )
    length = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert json.loads(response.content[:length])["outputs"][0]["shape"] == [1, 1000]
    assert int(np.frombuffer(response.content[length:], "<f4").argmax()) == 285


def test_the_index_has_what_is_ready(served: Any) -> None:
    response = httpx.post(f"{served.http}/v2/repository/index", json={"ready": True})
    assert [one["name"] for one in response.json()] == [MODEL, "resnet18"]


# KServe's V1.


def curl(served: Any, path: str, body: Any = None) -> tuple[int, Any]:
    program = shutil.which("curl")
    assert program is not None
    given = [] if body is None else ["--data-binary", "@-"]
    done = subprocess.run(
        [program, "-sS", "-w", "\n%{http_code}", *given, f"{served.http}{path}"],
        input=body if isinstance(body, bytes) else json.dumps(body).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    answer, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(answer)


def test_v1_predicts_and_explains(served: Any, folder: Path, expected: Any) -> None:
    instances = [
        {"b64": base64.b64encode((folder / f"{name}.jpg").read_bytes()).decode()}
        for name in ("cat", "coffee")
    ]
    body = {"instances": instances, "parameters": {"top_k": 2, "bucket_size": 4}}
    status, answer = curl(served, f"/v1/models/{MODEL}:predict", body)
    assert status == 200
    for one, name in zip(answer["predictions"], ("cat", "coffee"), strict=True):
        told = [(top["classIndex"], top["label"], top["logit"]) for top in one["predictions"]]
        tops = expected[name].predictions[:2]
        assert told == [(top.class_index, top.label, top.logit) for top in tops]
    body = {"instances": instances[:1], "parameters": {"outputs": "attribution", "bucket_size": 4}}
    status, answer = curl(served, f"/v1/models/{MODEL}:explain", body)
    assert status == 200
    (explanation,) = answer["explanations"]
    data = base64.b64decode(explanation["attribution"]["data"])
    assert data == expected["cat gradient"].tobytes()
    assert explanation["target"]["classIndex"] == 285


def test_v1_tells_of_a_model(served: Any) -> None:
    status, answer = curl(served, f"/v1/models/{MODEL}")
    assert status == 200
    assert (answer["name"], answer["ready"]) == (MODEL, True)
    status, answer = curl(served, "/v1/models/no_such_network")
    assert (answer["name"], answer["ready"]) == ("no_such_network", False)


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"hello", "the body is not JSON: see line 1, column 1"),
        (b"[" * 100_000, "the body is nested too deeply"),
        ({}, "instances: required; a list of at least one image"),
        ({"instances": "cat.jpg"}, "instances: required; a list of at least one image"),
        ({"instances": [{"b64": "eA=="}] * 2}, r"image\[[01]\].encoded: the photo's format"),
    ],
)
def test_v1_says_what_is_wrong(served: Any, verb: str, body: Any, said: str) -> None:
    status, answer = curl(served, f"/v1/models/{MODEL}:{verb}", body)
    assert status == 400
    assert answer.keys() == {"error"}
    assert re.search(said, answer["error"])


# Reflection and health.


def test_a_client_finds_the_services_by_reflection(served: Any, folder: Path) -> None:
    script = Path(__file__).with_name("reflecting_client.py")
    done = subprocess.run(
        [sys.executable, script, served.grpc],
        input=(folder / "cat.jpg").read_bytes(),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    services = told["services"]
    assert services.keys() == {"pellucid.v1.PellucidService", "inference.GRPCInferenceService"}
    assert "ModelStreamInfer" in services["inference.GRPCInferenceService"]
    assert told["ready"] == {"ready": True}
    assert told["models"]["models"][0]["name"] == MODEL
    raw = base64.b64decode(told["inferred"]["rawOutputContents"][0])
    assert raw.endswith(b":285:Egyptian cat")


def test_health_is_watched(make_server: Any) -> None:
    names = ("", "pellucid.v1.PellucidService", "inference.GRPCInferenceService")
    with make_server(start=False) as running:
        running.do(running.server._open_grpc(None))
        with grpc.insecure_channel(running.grpc) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in names]

            def seen() -> list[str]:
                status = health_pb2.HealthCheckResponse.ServingStatus
                return [status.Name(next(watch).status) for watch in watches]

            assert seen() == ["NOT_SERVING"] * 3
            running.do(running.server._health.set(True))
            assert seen() == ["SERVING"] * 3
            running.do(running.server._health.set(False))
            assert seen() == ["NOT_SERVING"] * 3
            for watch in watches:
                watch.cancel()


def test_streams_are_few_and_end_when_idle(make_server: Any) -> None:
    caps = {"max_message_bytes": 1 << 20, "queue_bytes": 1 << 20, "max_timeout_ms": 2000}
    caps["max_requests"] = 2
    with make_server(start=False, **caps) as running:
        running.do(running.server._open_grpc(None))
        with calling(running, "ModelStreamInfer", "stream_stream") as invoke:
            asked: queue.Queue[Any] = queue.Queue()
            asked.put(request(id="one"))
            first = invoke(iter(asked.get, None))
            answer = next(first)
            assert answer.error_message == "the server is still loading its models"
            assert answer.infer_response.id == "one"
            # It is idle, and takes no message's place: there is one, and it is the next call's.
            second = invoke(itertools.chain([request(id="two")], iter(asked.get, None)))
            assert next(second).infer_response.id == "two"
            with pytest.raises(grpc.RpcError) as refusal:
                next(invoke(iter([])))
            assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refusal.value.details() == "2 streams are open"
            with pytest.raises(grpc.RpcError) as idle:
                next(first)
            assert idle.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "no message came" in idle.value.details()
            asked.put(None)
            asked.put(None)


def test_responses_leave_without_delay(make_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listening: list[socket.socket] = []
    create = socket.create_server

    def created(*args: Any, **options: Any) -> socket.socket:
        listening.append(create(*args, **options))
        return listening[-1]

    monkeypatch.setattr(socket, "create_server", created)
    with make_server(start=False) as running:
        running.do(running.server._open_http(None))
        (one,) = listening
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
