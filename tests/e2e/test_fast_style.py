"""Fast style on a real server: both protocols, both clients, the command line."""

import asyncio
import base64
import io
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnxruntime
import pellucid
import pytest
from pellucid.cli import app
from pellucid.v1 import service_pb2_grpc, stylize_pb2
from PIL import Image
from typer.testing import CliRunner

from tests.harness import photo

SIDE_PX = 96
STYLE = photo("coffee")[::4, ::4].copy()
FAST: dict[str, Any] = {"method": "fast", "side_px": SIDE_PX}
FEW = 4
"""Of a style network's buckets that are measured at the start."""


@pytest.fixture(scope="module")
def server(make_server: Any, styles: Path) -> Iterator[Any]:
    with make_server(models=("efficientnet_lite0",), styles=styles, buckets=(1, FEW)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(server.grpc, timeout_s=120) as client:
        yield client


def by_the_wheel(runtime: onnxruntime.InferenceSession, image: Any, code: Any) -> Any:
    """Its own pipeline: sides filled up to fours by reflecting, painted, cut, to 8 bits."""
    height, width = image.shape[:2]
    fill = ((0, -height % 4), (0, -width % 4), (0, 0))
    filled = np.pad(image.astype(np.float32) / 255, fill, mode="reflect").transpose(2, 0, 1)
    names = [one.name for one in runtime.get_inputs()]
    [painted] = runtime.run(None, dict(zip(names, (filled[None], code), strict=True)))
    made = painted[0].transpose(1, 2, 0)[:height, :width]
    return (np.clip(made, 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 64), (45, 96), (96, 96)])
def test_as_the_published_pipeline_paints(
    client: pellucid.Client, styles: Path, size: tuple[int, int]
) -> None:
    """To within one step of 8 bits, from the caller's photo to the caller's file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(
        (styles / "multistyle26.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    image = np.asarray(Image.fromarray(photo("cat")).resize(size))
    paintings = []
    for which in ({"1": 1.0}, {"6": 1.0}, {"19": 1.0}, {"3": 1.0, "12": 3.0}):
        code = np.zeros(26, np.float32)
        for name, weight in which.items():
            code[int(name)] = weight / sum(which.values())
        made = np.asarray(client.stylize(image, list(which.items()), **FAST).result().image)
        expected = by_the_wheel(runtime, image, code)
        assert made.shape == expected.shape
        assert np.abs(made.astype(int) - expected).max() <= 1
        paintings.append(made.astype(int))
    assert min(np.abs(a - b).mean() for a, b in itertools.pairwise(paintings)) > 5


def test_on_both_clients(server: Any, client: pellucid.Client, cat_jpg: Path) -> None:
    options = FAST | {"include_pixels": True, "strength": 0.8, "bucket_size": FEW}
    with client.stylize(cat_jpg, [(STYLE, 2.0), cat_jpg], **options) as stylization:
        events = list(stylization)
        result = stylization.result()
    [queued] = events
    assert isinstance(queued, pellucid.Queued)
    assert queued.cost_ms > 0
    assert result.image.size == (96, 64)
    assert result.pixels is not None
    rounded = np.rint(result.pixels * 255).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(result.image), rounded)
    assert result.parameters["strength"] == 0.8
    assert result.progress is None
    assert result.run.model == "styles/arbitrary"
    assert result.run.batches[-1].bucket_size == FEW

    async def again() -> tuple[pellucid.Stylized, tuple[pellucid.StyleNetwork, ...]]:
        async with pellucid.AsyncClient(server.grpc) as asynchronous:
            which: Any = [(STYLE, 2.0), cat_jpg]
            made = asynchronous.stylize(cat_jpg, which, **options)
            return await made.result(), await asynchronous.list_styles()

    other, networks = asyncio.run(again())
    assert np.array_equal(other.pixels, result.pixels)
    assert networks == client.list_styles()
    assert [one.name for one in networks] == ["styles/multistyle26", "styles/arbitrary"]
    assert networks[0].styles == tuple(str(i) for i in range(26))
    assert [one.takes_pictures for one in networks] == [False, True]


def test_over_rest(server: Any, client: pellucid.Client, cat_jpg: Path) -> None:
    """Events, or the picture alone: the same file as over gRPC."""
    body = {
        "content": {"encoded": base64.b64encode(cat_jpg.read_bytes()).decode()},
        "fast": {"styles": [{"name": "19"}, {"name": "7", "weight": 0.5}], "sidePx": SIDE_PX},
    }
    url = f"{server.http}/v1/stylize"
    picture = httpx.post(url, json=body, headers={"accept": "image/png"}, timeout=120)
    assert picture.status_code == 200, picture.text
    assert picture.headers["content-type"] == "image/png"
    events = httpx.post(url, json=body, timeout=120)
    assert events.headers["content-type"].startswith("text/event-stream")
    lines = events.text.splitlines()
    assert [line for line in lines if line.startswith("event:")] == [
        "event: queued",
        "event: result",
    ]
    data = json.loads(lines[lines.index("event: result") + 1].removeprefix("data: "))
    assert base64.b64decode(data["image"]["data"]) == picture.content
    assert data["fast"]["styles"][1] == {"name": "7", "weight": 0.5}
    made = client.stylize(cat_jpg, ["19", ("7", 0.5)], **FAST).result()
    assert made.encoded == picture.content
    assert made.styles == {"19": 1.0, "7": 0.5}
    with cat_jpg.open("rb") as content, io.BytesIO() as style:
        Image.fromarray(STYLE).save(style, "PNG")
        form = httpx.post(
            url,
            data={"method": "fast", "side_px": str(SIDE_PX)},
            files={"content": content, "styles": ("style.png", style.getvalue())},
            headers={"accept": "image/png"},
            timeout=120,
        )
    assert form.status_code == 200, form.text
    assert form.content == client.stylize(cat_jpg, STYLE, **FAST).result().encoded
    with cat_jpg.open("rb") as content:
        named = httpx.post(
            url,
            data={"method": "fast", "side_px": str(SIDE_PX), "name": "19"},
            files={"content": content},
            headers={"accept": "image/png"},
            timeout=120,
        )
    assert named.content == client.stylize(cat_jpg, "19", **FAST).result().encoded
    listed = httpx.get(f"{server.http}/v1/styles").json()["networks"]
    assert [one["name"] for one in listed] == ["styles/multistyle26", "styles/arbitrary"]


def test_bad_input_over_both(server: Any, client: pellucid.Client, cat_jpg: Path) -> None:
    with pytest.raises(pellucid.NotFound, match="is 'mosaic'; styles are: 0, 1"):
        client.stylize(cat_jpg, "mosaic", **FAST).result()
    with pytest.raises(pellucid.PhotoNotFound):
        client.stylize(cat_jpg, "mosaic.jpg", **FAST).result()
    with pytest.raises(pellucid.BadArgument, match="step_count: not a parameter of fast"):
        client.stylize(cat_jpg, "1", step_count=3, **FAST)
    with pytest.raises(pellucid.BadArgument, match="method: is 'slow'; must be neural or fast"):
        client.stylize(cat_jpg, "1", method="slow")
    with pytest.raises(pellucid.BadArgument, match="style_layers: is for method='neural'"):
        client.stylize(cat_jpg, "1", style_layers=["blocks.1"], **FAST)
    with pytest.raises(pellucid.BadArgument, match="resume_from: is for method='neural'"):
        client.stylize(cat_jpg, "1", resume_from=b"abc", **FAST)
    damaged = cat_jpg.read_bytes()[:-5000]
    with pytest.raises(pellucid.InvalidArgument, match=r"styles\[0\]\.image"):
        client.stylize(cat_jpg, damaged, **FAST).result()
    content = {"encoded": base64.b64encode(cat_jpg.read_bytes()).decode()}
    answer = httpx.post(
        f"{server.http}/v1/stylize",
        json={"content": content, "fast": {"styles": [{"name": "99"}]}},
        timeout=120,
    )
    assert answer.status_code == 404
    assert "fast.styles[0].name" in answer.text


@pytest.mark.parametrize("byte_count", [1 << 40, -5])
def test_nothing_is_received_after_a_spec(server: Any, cat_jpg: Path, byte_count: int) -> None:
    """It has no checkpoint; what it says is to follow is refused while the caller still sends."""
    spec = stylize_pb2.StylizeSpec(
        content={"encoded": cat_jpg.read_bytes()},
        fast={"styles": [{"name": "3"}]},
        checkpoint_bytes=byte_count,
    )
    sent, answered = itertools.count(), threading.Event()

    def messages() -> Iterator[stylize_pb2.StylizeRequest]:
        yield stylize_pb2.StylizeRequest(spec=spec)
        while not answered.is_set() and next(sent) < 100:
            yield stylize_pb2.StylizeRequest(checkpoint_chunk=bytes(1 << 20))

    with grpc.insecure_channel(server.grpc) as channel:
        stream = service_pb2_grpc.PellucidServiceStub(channel).Stylize(messages(), timeout=60)
        with pytest.raises(grpc.RpcError) as raised:
            list(stream)
        answered.set()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "checkpoint_bytes: is for neural"


def test_without_styles(served: Any, cat_jpg: Path) -> None:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        assert client.list_styles() == ()
        for which in ("3", STYLE):
            with pytest.raises(pellucid.FailedPrecondition, match="pellucid models pull styles"):
                client.stylize(cat_jpg, which, **FAST).result()
    shown = CliRunner().invoke(app, ["styles", "--server", served.grpc])
    assert "pellucid models pull styles" in shown.output


def test_on_the_command_line(server: Any, cat_jpg: Path, tmp_path: Path) -> None:
    runner = CliRunner(env={"PELLUCID_SERVER": server.grpc})
    out, sheet, style = tmp_path / "out.png", tmp_path / "sheet.png", tmp_path / "style.png"
    Image.fromarray(STYLE).save(style)
    for which in (["19", "7=0.5"], [str(style)]):
        arguments = [
            "stylize",
            str(cat_jpg),
            "--fast",
            "--side=80",
            "--strength=0.9",
            "-o",
            str(out),
        ]
        arguments += [part for one in which for part in ("--style", one)]
        made = runner.invoke(app, arguments)
        assert made.exit_code == 0, made.output
        with Image.open(out) as picture:
            assert picture.size == (80, 53)
        out.unlink()
    listed = runner.invoke(app, ["styles"])
    assert listed.exit_code == 0
    assert "styles/multistyle26" in listed.output
    assert "any picture" in listed.output
    drawn = runner.invoke(app, ["styles", str(cat_jpg), "-o", str(sheet)])
    assert drawn.exit_code == 0, drawn.output
    with Image.open(sheet) as picture:
        assert picture.width > picture.height > 500
    wrong = runner.invoke(app, ["styles", str(cat_jpg)])
    assert wrong.exit_code == 2
    assert "--output: goes with a photo" in wrong.output
