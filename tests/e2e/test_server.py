"""The server as its callers meet it: both protocols, the SDK, health, metrics, drain."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pellucid
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pellucid.v1 import data_pb2, inference_pb2, service_pb2_grpc
from PIL import Image

from tests.harness import PHOTOS, photo

METHODS = ("gradient", "deconvnet", "guided_backprop")
TARGETS = (None, 285, "espresso", pellucid.Neuron("blocks.2.0", 3))
COARSE = {"window_px": 48, "stride_px": 48}  # 5 rows


def test_a_photo_is_predicted_and_explained(served: Any, cat_jpg: Path) -> None:
    with pellucid.Client(served.grpc) as client:
        prediction = client.predict(cat_jpg, top_k=3, include_logits=True)
        assert len(prediction.predictions) == 3
        assert prediction.logits is not None
        assert prediction.top.class_index == int(prediction.logits.argmax())
        for method in (*METHODS, "occlusion"):
            result = client.explain(
                cat_jpg, method, outputs=("attribution", "heatmap", "rendering"), percentile=99
            )
            assert result.target.class_index == prediction.top.class_index
            assert result.target.top_prediction
            assert result.attribution is not None
            assert result.attribution.dtype == np.float32
            assert result.attribution.shape[1:] == result.heatmap.shape == (96, 96)
            assert np.abs(result.attribution).max() > 0
            assert result.image.width == photo("cat").shape[1]
            assert result.run.model == "efficientnet_lite0"
            assert re.fullmatch("[0-9a-f]{12}", result.run.model_version)
            rows = sum(batch.own_row_count for batch in result.run.batches)
            # Windows of 13, a seventh of 96, every 6: 1 + 15 × 15.
            assert rows == (226 if method == "occlusion" else 1)


def test_the_async_client_does_the_same(served: Any, cat_jpg: Path) -> None:
    async def call() -> Any:
        async with pellucid.AsyncClient(served.grpc) as client:
            return await asyncio.gather(
                client.predict(cat_jpg), client.explain(cat_jpg, bucket_size=4)
            )

    prediction, explanation = asyncio.run(call())
    with pellucid.Client(served.grpc) as client:
        assert client.predict(cat_jpg).top.label == prediction.top.label
        again = client.explain(cat_jpg, bucket_size=4)
        assert np.array_equal(again.heatmap, explanation.heatmap)


def test_64_concurrent_calls_equal_solo_calls_to_the_bit(served: Any) -> None:
    calls = list(
        itertools.islice(
            zip(
                itertools.cycle((*METHODS * 5, "occlusion")),
                itertools.cycle(PHOTOS),
                itertools.cycle(TARGETS[:3]),
            ),
            64,
        )
    )

    def explain(client: pellucid.Client, call: Any) -> pellucid.ExplainResult:
        method, name, target = call
        return client.explain(
            photo(name),
            method,
            target=target,
            outputs=("attribution",),
            bucket_size=8,
            **(COARSE if method == "occlusion" else {}),
        )

    with pellucid.Client(served.grpc, timeout_s=120) as client:
        with ThreadPoolExecutor(64) as callers:
            with served.held():
                futures = [callers.submit(explain, client, call) for call in calls]
                until_s = time.monotonic() + 60
                while served.server.engine.admission.depth < 64 and time.monotonic() < until_s:
                    time.sleep(0.01)
            together = [future.result() for future in futures]
        alone = {call: explain(client, call).attribution for call in set(calls)}
    for call, result in zip(calls, together, strict=True):
        assert np.array_equal(alone[call], result.attribution)
    batches = [batch for result in together for batch in result.run.batches]
    rows = sum(batch.own_row_count for batch in batches)
    assert rows / sum(batch.own_row_count / batch.row_count for batch in batches) > 4


def encoded(mode: str = "RGB", **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(photo("cat")).convert(mode).save(file, "PNG", **options)
    return file.getvalue()


def animation() -> bytes:
    file = BytesIO()
    frames = [Image.fromarray(photo("cat")).resize((40, 40)), Image.new("RGB", (40, 40))]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


def bomb() -> bytes:
    header = bytearray(encoded())
    header[16:24] = (50_000).to_bytes(4, "big") * 2  # the width and height of IHDR
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    return bytes(header)


def tensor(array: np.ndarray) -> data_pb2.Tensor:
    kinds = {"uint8": data_pb2.DATA_TYPE_UINT8, "float32": data_pb2.DATA_TYPE_FLOAT32}
    return data_pb2.Tensor(
        data_type=kinds[array.dtype.name], shape=array.shape, data=array.tobytes()
    )


NAN = np.zeros((3, 96, 96), np.float32)
NAN[1, 2, 3] = np.nan
FINE = {"image": {"encoded": base64.b64encode(encoded()).decode()}}


def image(**kind: Any) -> dict[str, Any]:
    message = json_format.MessageToDict(data_pb2.Image(**kind))
    return {"image": message}


BAD_INPUT: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "INVALID_ARGUMENT", r"method: required; one of gradient.*image: required"),
    "zero bytes": (image(encoded=b"") | {"gradient": {}}, "INVALID_ARGUMENT", "image.encoded"),
    "truncated": (
        image(encoded=encoded()[:5000]) | {"gradient": {}},
        "INVALID_ARGUMENT",
        r"image\.encoded: .*(truncated|incomplete|ends|cut)",
    ),
    "not an image": (
        image(encoded=b"hello, this is text") | {"gradient": {}},
        "INVALID_ARGUMENT",
        r"image\.encoded: .*JPEG, PNG",
    ),
    "a bomb": (
        image(encoded=bomb()) | {"gradient": {}},
        "INVALID_ARGUMENT",
        r"image\.encoded: .*2,?500,?000,?000|50000",
    ),
    "an animation": (
        image(encoded=animation()) | {"gradient": {}},
        "INVALID_ARGUMENT",
        r"image\.encoded: .*2 frames",
    ),
    "NaN": (
        image(tensor=tensor(NAN)) | {"gradient": {}},
        "INVALID_ARGUMENT",
        r"image\.tensor\.data: has 1 elements that are not finite, the first at \(1, 2, 3\)",
    ),
    "a wrong shape": (
        image(tensor=tensor(np.zeros((3, 95, 96), np.float32))) | {"gradient": {}},
        "INVALID_ARGUMENT",
        r"image\.tensor\.shape: is 3 × 95 × 96; .* 3 × 96 × 96",
    ),
    "an unknown model": (
        FINE | {"model": "lite1", "gradient": {}},
        "NOT_FOUND",
        "model: 'lite1' is not loaded; loaded are: efficientnet_lite0",
    ),
    "a model that could not be loaded": (
        FINE | {"model": "no_such_network", "gradient": {}},
        "NOT_FOUND",
        "model: 'no_such_network' could not be loaded: not on the allow-list",
    ),
    "a layer that ends with the target": (
        FINE | {"target": {"neuron": {"layer": "blocks.2.0"}}, "gradCam": {"layer": "blocks.2.0"}},
        "INVALID_ARGUMENT",
        r"grad_cam\.layer: is blocks\.2\.0, which does not come before the target; must",
    ),
    "an unknown label": (
        FINE | {"target": {"label": "Egyptian cta"}, "gradient": {}},
        "NOT_FOUND",
        r"target\.label: 'Egyptian cta' is not a label of .*Egyptian cat",
    ),
    "an unknown layer": (
        FINE | {"target": {"neuron": {"layer": "blocks.9", "channel": 0}}, "gradient": {}},
        "NOT_FOUND",
        r"target\.neuron\.layer: 'blocks\.9' is not a layer of .*GetModel lists them",
    ),
    "a window larger than the image": (
        FINE | {"occlusion": {"windowPx": 97}},
        "INVALID_ARGUMENT",
        r"occlusion\.window_px: is 97; must be 1 to 96",
    ),
    "a value that is not finite": (
        FINE | {"gradient": {}, "rendering": {"percentile": "NaN"}},
        "INVALID_ARGUMENT",
        r"rendering\.percentile: is nan; must be 50 to 100",
    ),
    "an input that overflows": (
        image(tensor=tensor(np.full((3, 96, 96), 3e38, np.float32)))
        | {"model": "resnet18", "gradient": {}},
        "INVALID_ARGUMENT",
        "image: the network's output for it is not finite",
    ),
    "everything at once": (
        {
            "model": "lite1",
            "image": {"encoded": ""},
            "bucketSize": 3,
            "rendering": {"percentile": 20, "longestSidePx": 5},
            "gradient": {},
        },
        "INVALID_ARGUMENT",
        r"percentile.*longest_side_px.*bucket_size.*image\.encoded.*model",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_in_the_same_words_over_both_protocols(served: Any, case: str) -> None:
    body, status, words = BAD_INPUT[case]
    request = json_format.ParseDict(body, inference_pb2.ExplainRequest())
    with grpc.insecure_channel(served.grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            service_pb2_grpc.PellucidServiceStub(channel).Explain(request, timeout=60)
        told = rpc_status.from_call(caught.value)
    assert caught.value.code().name == status
    assert re.search(words, told.message), told.message
    answer = httpx.post(f"{served.http}/v1/explain", json=body, timeout=60)
    error = answer.json()["error"]
    assert (error["status"], error["message"]) == (status, told.message)
    assert answer.status_code == {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404}[status]
    details = [json_format.MessageToDict(detail) for detail in told.details]
    assert error["details"] == details
    assert any("fieldViolations" in detail for detail in details)


def test_a_deadline_too_short_for_the_request_is_refused_with_its_cost(
    served: Any, cat_jpg: Path
) -> None:
    with (
        pellucid.Client(served.grpc) as client,
        pytest.raises(pellucid.DeadlineExceeded, match=r"needs about \d+ ms of device time"),
    ):
        client.explain(cat_jpg, "occlusion", window_px=4, stride_px=2, timeout_s=0.3)
    answer = httpx.post(
        f"{served.http}/v1/explain",
        files={"image": cat_jpg.read_bytes()},
        data={"method": "occlusion", "window_px": "4", "stride_px": "2", "timeout_ms": "300"},
    )
    assert answer.status_code == 504
    assert re.search(r"needs about \d+ ms of device time", answer.json()["error"]["message"])


def test_curl_gets_a_picture(served: Any, cat_jpg: Path, tmp_path: Path) -> None:
    command = ["curl", "-sS", "-F", f"image=@{cat_jpg}", "-F", "method=guided_backprop"]
    command += ["-H", "Accept: image/png", f"{served.http}/v1/explain", "-o", "why.png"]
    subprocess.run(command, check=True, cwd=tmp_path)
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == photo("cat").shape[1]


def test_a_picture_says_what_it_is_of(served: Any, cat_jpg: Path) -> None:
    answer = httpx.post(
        f"{served.http}/v1/explain",
        files={"image": cat_jpg.read_bytes()},
        data={
            "method": "integrated_gradients",
            "labels": ["Egyptian cat", "espresso"],
            "against_label": "cup",
            "score": "probability",
            "step_count": "2",
            "baseline": "blur",
            "blur_sigma_px": "3",
        },
        headers={"accept": "image/png"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["pellucid-target"] == "285 Egyptian cat + 967 espresso - 968 cup"


def test_a_cancelled_call_leaves_no_work_behind(served: Any, cat_jpg: Path) -> None:
    request = inference_pb2.ExplainRequest(
        image=data_pb2.Image(encoded=cat_jpg.read_bytes()), occlusion=inference_pb2.Occlusion()
    )
    admission = served.server.engine.admission
    with grpc.insecure_channel(served.grpc) as channel:
        with served.held():
            future = service_pb2_grpc.PellucidServiceStub(channel).Explain.future(request)
            wait_for(lambda: admission.depth == 1)
            future.cancel()
        wait_for(lambda: admission.depth == 0)
    assert "CANCELLED" in metric_lines(served, "pellucid_request_errors_total")


def test_a_full_queue_is_refused_with_a_delay(make_server: Callable[..., Any]) -> None:
    with (
        make_server(queue_budget_ms=1.0) as running,
        pellucid.Client(running.grpc, max_retries=0) as client,
        ThreadPoolExecutor(4) as others,
    ):
        with running.held():
            # Each counts for a quarter of the limit at most.
            first = [others.submit(client.predict, photo("cat")) for _ in range(4)]
            wait_for(lambda: running.server.engine.admission.depth == 4)
            with pytest.raises(pellucid.ResourceExhausted, match="queue is full") as caught:
                client.predict(photo("cat"))
            assert caught.value.retry_delay_s >= 0.05
            answer = httpx.post(f"{running.http}/v1/predict", json=FINE)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
        assert all(future.result(60).top for future in first)


def test_messages_above_the_cap_are_refused(served: Any) -> None:
    huge = b"\xff" * (33 << 20)
    request = inference_pb2.PredictRequest(image=data_pb2.Image(encoded=huge))
    unlimited = [("grpc.max_send_message_length", -1)]
    with (
        grpc.insecure_channel(served.grpc, options=unlimited) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        service_pb2_grpc.PellucidServiceStub(channel).Predict(request, timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pellucid.Client(served.grpc, max_retries=0) as client:
        assert client.predict(photo("cat")).top
    answer = httpx.post(f"{served.http}/v1/predict", files={"image": huge}, timeout=60)
    assert answer.status_code == 413


def test_models_are_listed_with_their_reasons(served: Any) -> None:
    with pellucid.Client(served.grpc) as client:
        ready = {summary.name: summary.ready for summary in client.list_models()}
        lite0 = client.get_model("efficientnet_lite0")
    assert ready == {"efficientnet_lite0": True, "resnet18": True, "no_such_network": False}
    assert lite0.labels[285] == "Egyptian cat"
    refused = {support.method: support.reason for support in lite0.methods if not support.supported}
    assert refused == {"attention_rollout": "the network has no attention that can be seen"}
    listed = httpx.get(f"{served.http}/v1/models").json()["models"]
    assert [(model["name"], model["ready"]) for model in listed] == sorted(ready.items())
    failed = httpx.get(f"{served.http}/v1/models/no_such_network").json()
    assert failed["ready"] is False
    assert "allow-list" in failed["reason"]


def test_metrics_count_what_happened(served: Any, cat_jpg: Path) -> None:
    with pellucid.Client(served.grpc) as client:
        client.explain(cat_jpg)
        with pytest.raises(pellucid.NotFound):
            client.explain(cat_jpg, model="nobody")
    for line in (
        r'pellucid_requests_total\{method="gradient"\} [1-9]',
        r'pellucid_request_errors_total\{method="gradient",reason="NOT_FOUND"\} [1-9]',
        r'pellucid_queue_seconds_count\{method="gradient"\} [1-9]',
        r'pellucid_compute_seconds_sum\{method="gradient"\} [0-9.e-]+',
        r'pellucid_batch_rows_count\{lane="gradient",model="efficientnet_lite0"\} [1-9]',
        r"pellucid_queue_depth 0",
    ):
        assert re.search(line, metric_lines(served, "pellucid_")), line


def test_it_does_not_serve_until_warm_up_ends(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_server(start=False) as running:
        warm = threading.Event()
        load = running.server._load
        monkeypatch.setattr(running.server, "_load", lambda: (warm.wait(60), load())[1])
        start = asyncio.run_coroutine_threadsafe(running.server.start(), running.loop)
        wait_for(lambda: running.server.metrics_port > 0)
        with grpc.insecure_channel(running.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def status(name: str) -> int:
                return health.Check(health_pb2.HealthCheckRequest(service=name)).status

            names = ("", "pellucid.v1.PellucidService")
            serving = health_pb2.HealthCheckResponse.SERVING
            assert [status(name) for name in names] == [
                health_pb2.HealthCheckResponse.NOT_SERVING
            ] * 2
            assert status("liveness") == serving
            assert httpx.get(f"{running.http}/health/ready").status_code == 503
            assert httpx.get(f"{running.http}/health/live").status_code == 200
            assert httpx.get(f"{running.http}/v1/models").status_code == 503
            warm.set()
            start.result(120)
            assert [status(name) for name in names] == [serving] * 2
            assert httpx.get(f"{running.http}/health/ready").status_code == 200


def test_sigterm_finishes_what_was_admitted(cat_jpg: Path) -> None:
    command = [sys.executable, "-m", "pellucid", "serve", "--input-px", "96"]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    with (
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,  # where there are no styles
            env=os.environ | {"COLUMNS": "200", "PELLUCID_BUCKETS": "[1, 2]"},
        ) as process,
        contextlib.ExitStack() as ending,
        ThreadPoolExecutor(4) as callers,
    ):
        ending.callback(process.kill)
        assert process.stderr is not None
        ports = None
        for line in process.stderr:
            if ports := re.search(r"gRPC (\d+)", line):
                break
        assert ports is not None
        with pellucid.Client(f"127.0.0.1:{ports[1]}", timeout_s=60, max_retries=0) as client:
            client.predict(cat_jpg)
            futures = [
                callers.submit(client.explain, cat_jpg, "occlusion", window_px=16, stride_px=10)
                for _ in range(4)
            ]
            time.sleep(0.5)
            assert not any(future.done() for future in futures)
            process.send_signal(signal.SIGTERM)
            for future in futures:
                assert future.result(60).occlusion_details is not None
            with pytest.raises(pellucid.Unavailable):
                client.predict(cat_jpg)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest


def test_the_command_line_writes_pictures_and_arrays(
    served: Any, cat_jpg: Path, tmp_path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pellucid", *arguments, "--server", served.grpc],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    assert "Egyptian cat" in run("predict", str(cat_jpg)).stdout
    done = run(
        *("explain", str(cat_jpg), "--method", "occlusion", "-p", "window_px=32"),
        *("-o", "why.png", "--raw", "why.npy"),
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.format == "PNG"
    raw = np.load(tmp_path / "why.npy", allow_pickle=False)
    assert (raw.dtype, raw.shape) == (np.float32, (1, 96, 96))
    told = json.loads(run("explain", str(cat_jpg), "--json").stdout)
    assert told["target"]["label"]
    refused = run("explain", str(cat_jpg), "--method", "occlusion", "-p", "window_px=200")
    assert refused.returncode == 1
    assert "occlusion.window_px: is 200; must be 1 to 96" in refused.stderr
    assert "Traceback" not in refused.stderr


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def metric_lines(served: Any, prefix: str) -> str:
    text = httpx.get(served.metrics).text
    return "\n".join(line for line in text.splitlines() if line.startswith(prefix))
