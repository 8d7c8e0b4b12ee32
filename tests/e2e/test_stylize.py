"""Stylized images on a real server: both protocols, both clients, the command line."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from PIL import Image
from typer.testing import CliRunner

from tests.harness import photo

OPTIONS: dict[str, Any] = {"side_px": 64, "step_count": 6, "progress_every": 1}
STYLE = photo("coffee")[::4, ::4].copy()


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


def test_on_both_clients(served: Any, client: pellucid.Client, cat_jpg: Path) -> None:
    """The same bits, events on the way, and going on from a checkpoint to them."""
    options = OPTIONS | {"include_pixels": True, "checkpoint_every": 3, "preview_every": 2}
    with client.stylize(cat_jpg, [(STYLE, 2.0), cat_jpg], **options) as stylization:
        events = list(stylization)
        result = stylization.result()
    assert isinstance(events[0], pellucid.Queued)
    shown = [event for event in events if isinstance(event, pellucid.StyleProgress)]
    assert shown[-1].loss < shown[0].loss
    assert any(isinstance(event, pellucid.Preview) for event in events)
    [checkpoint, _] = [event for event in events if isinstance(event, pellucid.Checkpoint)]
    assert result.image.size == (64, 43)
    assert result.pixels is not None
    rounded = np.rint(result.pixels * 255).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(result.image), rounded)
    assert result.parameters["style_weight"] > 0
    assert result.progress.step == result.progress.step_count == 6
    losses = zip(result.style_layers.values(), result.progress.style_losses, strict=True)
    weighted = sum(weight * loss for weight, loss in losses)
    content = sum(result.progress.content_losses)
    expected = content + result.parameters["style_weight"] * weighted
    assert result.progress.loss == pytest.approx(expected)

    async def resumed() -> pellucid.Stylized:
        async with pellucid.AsyncClient(served.grpc) as asynchronous:
            styles: Any = [(STYLE, 2.0), cat_jpg]
            going = asynchronous.stylize(cat_jpg, styles, resume_from=checkpoint, **options)
            return await going.result()

    assert np.array_equal(asyncio.run(resumed()).pixels, result.pixels)


def test_over_rest(served: Any, client: pellucid.Client, cat_jpg: Path) -> None:
    """Events, or the picture alone: the same file."""
    style = io.BytesIO()
    Image.fromarray(STYLE).save(style, "PNG")
    body = {
        "content": {"encoded": base64.b64encode(cat_jpg.read_bytes()).decode()},
        "styles": [{"image": {"encoded": base64.b64encode(style.getvalue()).decode()}}],
        "neural": {"sidePx": 64, "stepCount": 3},
    }
    url = f"{served.http}/v1/stylize"
    picture = httpx.post(url, json=body, headers={"accept": "image/png"}, timeout=120)
    assert picture.status_code == 200
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["pellucid-model"] == "efficientnet_lite0"
    assert "pellucid-stop-reason" not in picture.headers
    with Image.open(io.BytesIO(picture.content)) as shown:
        assert shown.size == (64, 43)
    events = httpx.post(url, json=body, timeout=120)
    assert events.headers["content-type"].startswith("text/event-stream")
    lines = events.text.splitlines()
    data = json.loads(lines[lines.index("event: result") + 1].removeprefix("data: "))
    assert base64.b64decode(data["image"]["data"]) == picture.content
    made = client.stylize(cat_jpg, STYLE, side_px=64, step_count=3).result()
    assert made.encoded == picture.content
    options: Any = {"side_px": 64, "step_count": 3, "update": "lbfgs", "checkpoint_every": 2}
    shown = list(client.stylize(cat_jpg, style.getvalue(), **options))
    [kept] = [event for event in shown if isinstance(event, pellucid.Checkpoint)]
    resumed = body | {"checkpoint": base64.b64encode(kept.data).decode()}
    resumed["neural"] = {"sidePx": 64, "stepCount": 3, "update": "STYLE_UPDATE_LBFGS"}
    picture = httpx.post(url, json=resumed, headers={"accept": "image/png"}, timeout=120)
    assert picture.status_code == 200, picture.text
    assert unquote(picture.headers["pellucid-notes"]).startswith("bits differ: the history of L-B")
    body["styles"] = []
    refused = httpx.post(url, json=body, timeout=120)
    assert refused.status_code == 400
    assert "styles: has 0; must have 1 to 8" in refused.text


def test_on_the_command_line(served: Any, cat_jpg: Path, tmp_path: Path) -> None:
    style, out, video = tmp_path / "style.png", tmp_path / "out.png", tmp_path / "out.gif"
    Image.fromarray(STYLE).save(style)
    arguments = ["stylize", str(cat_jpg), "--style", f"{style}=2", "-o", str(out), "--side=64"]
    arguments += ["--steps=4", "--original-colors=luminance", f"--video={video}"]
    arguments += ["--content-layer=blocks.2", "--style-layer=blocks.0", "--style-layer=blocks.1=2"]
    arguments += [f"--start={style}"]
    arguments += ["--frame-every=2", "-p", "tv_weight=1", "--server", served.grpc]
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0, made.output
    losses = [line.split() for line in made.output.splitlines() if "blocks." in line]
    assert [line[:2] for line in losses] == [["content", "blocks.2"], ["style", "blocks.0"]]
    assert losses[1][3] == "blocks.1"
    assert float(losses[0][2]) > 0  # as it did not start from the photo
    assert "4 of 4" in made.output
    assert "of the values" in made.output
    with Image.open(out) as picture, Image.open(video) as film:
        assert picture.size == (64, 43)
        assert getattr(film, "n_frames", 1) >= 2
    wrong = CliRunner().invoke(app, [*arguments[:-2], "-p", "tv=1", "--server", served.grpc])
    assert wrong.exit_code != 0
    assert "must be NAME=VALUE" in wrong.output
