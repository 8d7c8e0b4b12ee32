"""The command line: what it asks, prints and writes, and how it fails."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from pellucid.cli import app
from pellucid.v1 import data_pb2, evidence_pb2, inference_pb2, model_pb2
from PIL import Image
from typer.testing import CliRunner, Result

from .conftest import (
    ATTRIBUTION,
    CHART,
    EXPLAINED,
    LOGITS,
    RENDERING,
    FakeServer,
    estimates,
    explained,
    measured,
)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cat.jpg").write_bytes(b"a photo")


def run(server: FakeServer, *args: str) -> Result:
    return CliRunner(env={"PELLUCID_SERVER": server.address}).invoke(app, args)


def test_predict(server: FakeServer) -> None:
    result = run(
        server,
        "predict",
        "cat.jpg",
        "--model=lite",
        "--bucket-size=4",
        "--timeout-s=5",
        "--top-k=2",
    )
    assert result.exit_code == 0
    assert "tabby [cat]" in result.stdout
    assert "75.00%" in result.stdout
    assert "decode 1.0 ms, queue 2.0 ms, run 3.0 ms" in result.stdout
    assert result.stderr == ""
    assert server.requests == [
        inference_pb2.PredictRequest(
            model="lite", image=data_pb2.Image(encoded=b"a photo"), bucket_size=4, top_k=2
        )
    ]
    assert server.remaining_s[0] < 6


def test_predict_json(server: FakeServer) -> None:
    printed = json.loads(run(server, "predict", "cat.jpg", "--json").stdout)
    assert printed["predictions"][1] == {
        "classIndex": 0,
        "label": "lynx",
        "probability": 0.25,
        "logit": 0.5,
    }
    assert printed["logits"] == {"dataType": "DATA_TYPE_FLOAT32", "shape": ["3"]}


def test_all_bytes_of_responses_are_called_data() -> None:
    for message in data_pb2.DESCRIPTOR.message_types_by_name.values():
        if message.name != "Image":  # which only requests have
            assert all(f.name == "data" for f in message.fields if f.type == f.TYPE_BYTES)
    for contract in (evidence_pb2, inference_pb2, model_pb2):
        for message in contract.DESCRIPTOR.message_types_by_name.values():
            assert not any(field.type == field.TYPE_BYTES for field in message.fields)


def test_explain_writes_beside_the_current_directory(server: FakeServer) -> None:
    result = run(server, "explain", "cat.jpg", "--method", "deconvnet")
    assert result.exit_code == 0, result.stderr
    assert Path("cat-deconvnet.jpg").read_bytes() == RENDERING
    assert "cat-deconvnet.jpg" in result.stdout
    assert "tabby [cat] (class 0), the top prediction" in result.stdout
    assert "2.2500" in result.stdout
    (request,) = server.requests
    assert request.WhichOneof("method") == "deconvnet"
    assert request.rendering.format == data_pb2.IMAGE_FORMAT_JPEG
    assert not request.HasField("target")


def test_explain_options(server: FakeServer) -> None:
    arguments = (
        "explain cat.jpg --method occlusion --layer conv --channel 3 --y 0 --x 1 -p window_px=8 "
        "-p stride_px=4 --parameter fill=blur -p blur_sigma_px=1.5 --percentile 90 "
        "--color-scale signed --longest-side-px 64 --raw why.npy --json"
    )
    result = run(server, *arguments.split())
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.load("why.npy"), ATTRIBUTION)
    assert np.load("why.npy").dtype == np.float32
    assert sorted(path.name for path in Path().iterdir()) == ["cat.jpg", "why.npy"]
    printed = json.loads(result.stdout)
    assert printed["heatmap"]["image"] == {
        "format": "IMAGE_FORMAT_PNG",
        "widthPx": 0,
        "heightPx": 0,
    }
    assert printed["occlusionDetails"]["falls"]["shape"] == ["1", "2"]
    assert server.requests == [
        inference_pb2.ExplainRequest(
            image=data_pb2.Image(encoded=b"a photo"),
            target=inference_pb2.Target(
                neuron=inference_pb2.Neuron(layer="conv", channel=3, y=0, x=1)
            ),
            outputs=[
                inference_pb2.EXPLAIN_OUTPUT_HEATMAP,
                inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION,
            ],
            rendering=inference_pb2.Rendering(
                color_scale=inference_pb2.COLOR_SCALE_SIGNED, percentile=90, longest_side_px=64
            ),
            occlusion=inference_pb2.Occlusion(
                window_px=8, stride_px=4, fill=data_pb2.FILL_BLUR, blur_sigma_px=1.5
            ),
        )
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        ["baseline=blur", "baseline.blur_sigma_px=3"],
        ["baseline.blur_sigma_px=3", "baseline=blur"],
        ["baseline.fill=blur", "baseline.blur_sigma_px=3"],
    ],
)
def test_fields_of_a_baseline_come_together(server: FakeServer, parameters: list[str]) -> None:
    options = [word for text in parameters for word in ("-p", text)]
    result = run(server, "explain", "cat.jpg", "--method", "integrated_gradients", *options)
    assert result.exit_code == 0, result.stderr
    assert server.requests[0].integrated_gradients.baseline == inference_pb2.Baseline(
        fill=data_pb2.FILL_BLUR, blur_sigma_px=3
    )


def test_explain_png(server: FakeServer) -> None:
    server.explained = inference_pb2.ExplainResponse()
    server.explained.CopyFrom(EXPLAINED)
    server.explained.rendering.format = data_pb2.IMAGE_FORMAT_PNG
    assert run(server, "explain", "cat.jpg", "-o", "why.PNG", "--target", "7").exit_code == 0
    assert Path("why.PNG").read_bytes() == RENDERING
    (request,) = server.requests
    assert request.rendering.format == data_pb2.IMAGE_FORMAT_PNG
    assert request.target.class_index == 7
    run(server, "explain", "cat.jpg", "--json", "--target", "tabby")
    assert server.requests[1].target.label == "tabby"


def test_explanation_of_a_neuron(server: FakeServer) -> None:
    server.explained = inference_pb2.ExplainResponse()
    server.explained.CopyFrom(EXPLAINED)
    server.explained.target.neuron.layer = "conv"
    server.explained.target.neuron.channel = 0
    result = run(server, "explain", "cat.jpg", "--layer", "conv")
    assert "conv, channel 0" in result.stdout


def test_models(server: FakeServer) -> None:
    listed = run(server, "models").stdout
    assert "lite" in listed
    assert "no: warming up" in listed
    full = run(server, "models", "lite").stdout
    for text in ("efficientnet_lite0", "it has no ReLU", "32 × 112 × 112", "float64 on cpu"):
        assert text in full
    for text in ("opset 17, CPUExecutionProvider", "of 8 images", "differ by 2.0e-06", "cut off"):
        assert text in full
    assert json.loads(run(server, "models", "--json").stdout)["models"][1]["ready"] is False
    assert json.loads(run(server, "models", "lite", "--json").stdout)["gateCount"] == 33
    assert server.requests[1].model == "lite"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("predict", 2, "Missing argument"),
        ("predict cat.jpg --top-k many", 2, "--top-k"),
        ("predict nowhere.jpg", 1, "pellucid: photo: there is no file nowhere.jpg\n"),
        ("explain cat.jpg -o why.gif", 2, "pellucid: why.gif: must end with .jpg, .jpeg, .png\n"),
        ("explain cat.jpg --method shap", 2, "must be one of gradient, deconvnet"),
        ("explain cat.jpg -p window_px=3", 2, "window_px: not a parameter of gradient"),
        (
            "explain cat.jpg --method lime -p baseline=black -p baseline.fill=white",
            2,
            "pellucid: --parameter: baseline is given more than once\n",
        ),
        (
            "explain cat.jpg --method lime -p baseline.seed=1 -p baseline.seed=1",
            2,
            "baseline is given more than once",
        ),
        ("explain cat.jpg --method rise -p seed=1 -p seed=2", 2, "seed is given more than once"),
        ("explain cat.jpg --y 3", 2, "need --layer"),
        ("explain cat.jpg --layer conv --target 3", 2, "give one of them"),
        ("explain cat.jpg -o no/where.jpg", 1, "No such file or directory: 'no/where.jpg'\n"),
    ],
)
def test_mistakes(server: FakeServer, arguments: str, code: int, message: str) -> None:
    result = run(server, *arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_errors_of_the_server(server: FakeServer) -> None:
    violations = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field="top_k", description="is 0"),
            error_details_pb2.BadRequest.FieldViolation(field="image", description="is text"),
        ]
    )
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "top_k: is 0; image: is text", violations)
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "two\nthings", violations)
    server.fail(grpc.StatusCode.INTERNAL, "a bug")
    printed = [run(server, "predict", "cat.jpg") for _ in range(3)]
    assert [result.exit_code for result in printed] == [1, 1, 1]
    lines = "  top_k: is 0\n  image: is text\n"
    assert [result.stderr for result in printed] == [
        f"pellucid: INVALID_ARGUMENT: the server refuses the request\n{lines}",
        f"pellucid: INVALID_ARGUMENT: two things\n{lines}",
        "pellucid: INTERNAL: a bug\n",
    ]


def test_serve_hands_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def main(argv: list[str]) -> int:
        seen.append(argv)
        return 3

    monkeypatch.setitem(sys.modules, "pellucid_server.cli", SimpleNamespace(main=main))
    arguments = ["--port", "1", "photo", "-x", "--help", "--model", "a=b"]
    assert CliRunner().invoke(app, ["serve", *arguments]).exit_code == 3
    assert seen == [arguments]


NOT_INSTALLED = "The server is not installed: pip install 'pellucid[server]'.\n"


WITHOUT = """
import sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacking())
from pellucid.cli import app
app(sys.argv[2:])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        "serve --model nobody",
        "models pull timm/resnet18",
        "optimize landscape",
        "styles train p.jpg --images d --steps 1 --name n",
    ],
)
@pytest.mark.parametrize("missing", ["pellucid_server", "pydantic_settings", "torch"])
def test_commands_of_the_server_without_it(missing: str, arguments: str) -> None:
    """A client alone has no pellucid_server; the bare install has it, and lacks what it needs."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The server is not installed: pip install 'pellucid[server]'.\n"


@pytest.mark.parametrize("name", ["pellucid.nothing", "pellucid_server.wire.nothing"])
def test_a_module_of_ours_that_is_missing_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def main(argv: list[str]) -> int:
        import_module(name)
        raise AssertionError

    monkeypatch.setitem(sys.modules, "pellucid_server.cli", SimpleNamespace(main=main))
    result = CliRunner().invoke(app, ["serve"])
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == name
    assert result.stderr == ""


# Receipts.


def receipt_of_a_prediction() -> dict[str, object]:
    """Of PREDICTED on the photo, as it is saved."""
    return {
        "predict": {"bucketSize": 4},
        "imageSha256": hashlib.sha256(b"a photo").hexdigest(),
        "resultSha256": hashlib.sha256(LOGITS.tobytes()).hexdigest(),
        "sketch": {
            "dataType": "DATA_TYPE_FLOAT32",
            "shape": ["3"],
            "data": base64.b64encode(LOGITS.tobytes()).decode(),
        },
    }


@pytest.mark.parametrize(("result_sha256", "code"), [(None, 0), ("0" * 64, 1)])
def test_replay_says_whether_it_is_equal(
    server: FakeServer, result_sha256: str | None, code: int
) -> None:
    receipt = receipt_of_a_prediction()
    receipt["resultSha256"] = result_sha256 or receipt["resultSha256"]
    Path("why.json").write_text(json.dumps(receipt))
    result = run(server, "replay", "why.json", "cat.jpg")
    assert (result.exit_code, result.stderr) == (code, "")
    assert f"equal to the bit  {'no' if code else 'yes'}" in result.stdout
    (request,) = server.requests
    assert request.include_logits
    assert request.bucket_size == 4


@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        ("why.json nowhere.jpg", {}, "there is no file nowhere.jpg"),
        ("nowhere.json cat.jpg", {}, "No such file or directory: 'nowhere.json'"),
        ("cat.jpg cat.jpg", {}, "cat.jpg: is not JSON"),
        ("why.json cat.jpg", {"imageSha256": "0" * 64}, "not the one that the receipt is of"),
        ("why.json cat.jpg", {"colour": "red"}, 'receipt: cannot be read: .* field named "colour"'),
    ],
)
def test_a_replay_that_cannot_be_made(
    server: FakeServer, arguments: str, change: dict[str, str], message: str
) -> None:
    Path("why.json").write_text(json.dumps(receipt_of_a_prediction() | change))
    result = run(server, "replay", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(message, result.stderr)
    assert not server.requests


@pytest.mark.parametrize("status", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE])
def test_a_replay_that_the_server_refuses(server: FakeServer, status: grpc.StatusCode) -> None:
    server.fail(status, "not now", times=4)
    Path("why.json").write_text(json.dumps(receipt_of_a_prediction()))
    result = run(server, "replay", "why.json", "cat.jpg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"pellucid: {status.name}: not now\n"


# Evidence.


def asked_of(server: FakeServer) -> inference_pb2.ExplainRequest:
    (request,) = server.requests
    assert isinstance(request, inference_pb2.ExplainRequest)
    return request


def test_explain_with_evidence(server: FakeServer) -> None:
    sent = measured()
    sent.cascade.stages.add(layer="fc", layer_count=1, absolute_correlation=0.5)
    sent.agreement.methods.add(method="lime", correlation=0.25, top_overlap=0.125)
    made = evidence_pb2.Convergence(
        stop=evidence_pb2.STOP_REASON_ROW_COUNT, row_count=96, error=0.125, residual=0.5
    )
    server.explained = explained("rise", evidence=sent, convergence=made)
    arguments = (
        "explain cat.jpg --method rise -e stability -e curves.step_count=32 -e cascade "
        "-e agreement.methods=lime --tolerance 0.25 --max-rows 96 --max-ms 1500 --chart why.png"
    )
    result = run(server, *arguments.split())
    assert result.exit_code == 0, result.stderr
    for line in (
        "convergence   row count, 96 rows, error 0.125, residual 0.5",
        "completeness  the sum is 3, of 4: relative error 0.25",
        "curves        insertion 0.750, deletion 0.250, gain 0.250 over random and centre",
        "stability     rank correlation 0.88 on average, 0.75 at least, 2 noisy images",
        "randomization rank correlation -0.50, of magnitudes 0.12, with a permuted classifier",
        "cascade       rank correlation of magnitudes, redrawn: 0.50 from fc on",
        "agreement     rank correlation with lime 0.25 (top twentieth 12%)",
    ):
        assert " ".join(line.split()) in " ".join(result.stdout.split())
    assert Path("why.png").read_bytes() == CHART
    request = asked_of(server)
    assert request.until == evidence_pb2.Until(tolerance=0.25, row_count=96, time_ms=1500)
    assert request.evidence == evidence_pb2.Evidence(
        stability=evidence_pb2.Stability(),
        curves=evidence_pb2.Curves(step_count=32),
        cascade=evidence_pb2.Cascade(),
        agreement=evidence_pb2.Agreement(methods=["lime"]),
    )
    assert inference_pb2.EXPLAIN_OUTPUT_RENDERING not in request.outputs


def test_a_chart_needs_curves(server: FakeServer) -> None:
    server.explained = explained(evidence=measured())
    assert run(server, "explain", "cat.jpg", "--chart", "why.png").exit_code == 0
    assert asked_of(server).evidence == evidence_pb2.Evidence(curves=evidence_pb2.Curves())
    assert not asked_of(server).HasField("until")


def test_explain_live(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [b"first", b"second", b"last"]
    for event, picture in zip(estimates(), pictures, strict=True):
        event.explanation.rendering.data = picture
        server.events.append(event)
    del server.events[:3]
    written: list[tuple[str, bytes]] = []
    replace = Path.replace

    def watched(part: Path, target: Path) -> Path:
        written.append((str(target), part.read_bytes()))
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", watched)
    arguments = "explain cat.jpg --method rise --live why.jpg --tolerance 0.25 -o end.jpg"
    result = run(server, *arguments.split())
    assert result.exit_code == 0, result.stderr
    assert written == [("why.jpg", picture) for picture in pictures]
    assert Path("end.jpg").read_bytes() == Path("why.jpg").read_bytes() == b"last"
    assert sorted(path.name for path in Path().iterdir()) == ["cat.jpg", "end.jpg", "why.jpg"]
    assert "tolerance, 32 rows, error 0.125" in result.stdout
    (request,) = server.requests
    assert request.explain.until.tolerance == 0.25
    assert request.explain.rendering.format == data_pb2.IMAGE_FORMAT_JPEG


def test_compare(server: FakeServer) -> None:
    image = Image.new("RGB", (8, 6), (10, 20, 30))
    image.save("dog.png")
    server.by_method["gradient"] = explained("gradient", evidence=measured(randomization=0.875))
    server.by_method["rise"] = explained("rise", evidence=measured(insertion_area=0.625))
    server.by_method["attention_rollout"] = "a bug"
    result = run(server, "compare", "dog.png", "--max-rows", "64", "-o", "sheet.png")
    assert result.exit_code == 0, result.stderr
    assert " ".join(result.stdout.split()).count("believe first rise") == 1
    assert "does not depend on the class" in result.stdout
    assert "failed: a bug" in result.stdout
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG"
    asked = {one.WhichOneof("method"): one for one in server.requests[1:]}
    assert asked["rise"].until.row_count == 64
    assert asked["gradient"].evidence == evidence_pb2.Evidence(
        curves=evidence_pb2.Curves(),
        stability=evidence_pb2.Stability(),
        randomization=evidence_pb2.Randomization(),
    )

    printed = json.loads(run(server, "compare", "dog.png", "--json", "--method", "rise").stdout)
    assert (printed["best"], printed["ranking"]) == ("rise", ["rise"])
    assert printed["methods"]["rise"]["gain"] == 0.125
    assert sorted(path.name for path in Path().iterdir()) == ["cat.jpg", "dog.png", "sheet.png"]


def test_compare_where_all_fail(server: FakeServer) -> None:
    server.by_method["gradient"] = "a bug"
    result = run(server, "compare", "cat.jpg", "--method", "gradient")
    assert result.exit_code == 1
    assert "failed: a bug" in result.stdout
    assert [path.name for path in Path().iterdir()] == ["cat.jpg"]


def test_evidence(server: FakeServer) -> None:
    Path("photos").mkdir()
    Image.new("RGB", (8, 6), (10, 20, 30)).save("photos/a.png")
    server.explained = explained("gradient", evidence=measured())
    result = run(server, "evidence", "photos", "--method", "gradient")
    assert result.exit_code == 0, result.stderr
    assert "gain" in result.stdout
    assert "1 photos, lite 0123456789ab" in result.stdout
    report = json.loads(Path("photos-evidence/results.json").read_text())
    assert report["methods"]["gradient"]["gain"]["mean"] == 0.25
    assert Path("photos-evidence/report.html").read_text().startswith("<!doctype html>")
    assert run(server, "evidence", "photos", "-o", "there/it").exit_code == 0
    assert Path("there/it/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("explain cat.jpg --chart why.jpg", 2, "why.jpg: must end with .png"),
        ("explain cat.jpg --live why.gif", 2, "why.gif: must end with .jpg, .jpeg, .png"),
        ("explain cat.jpg --live a.png -o b.jpg", 2, "must be of the same format"),
        ("explain cat.jpg -e trust", 2, "--evidence: is 'trust'; must be one of completeness"),
        ("explain cat.jpg -e agreement", 2, "evidence: agreement needs methods"),
        ("compare cat.jpg -o sheet.gif", 2, "sheet.gif: must end with"),
        ("compare cat.jpg --method a --method a", 2, "methods: names 'a' more than once"),
        ("compare nowhere.jpg", 1, "there is no file nowhere.jpg"),
        ("evidence nowhere", 2, "is not a folder"),
    ],
)
def test_mistakes_about_evidence(
    server: FakeServer, arguments: str, code: int, message: str
) -> None:
    result = run(server, *arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
