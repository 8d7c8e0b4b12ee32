"""What is inside a network, and codes, as callers ask for them: both protocols, both clients."""

import asyncio
import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from PIL import Image
from typer.testing import CliRunner

from tests.harness import photo

LAYER = "blocks.1.0"


@pytest.fixture
def rest(served: Any) -> Any:
    with httpx.Client(base_url=served.http, timeout=60) as client:
        yield client


def test_both_clients_see_the_same(served: Any, cat_jpg: Path) -> None:
    async def ask() -> tuple[Any, ...]:
        async with pellucid.AsyncClient(served.grpc) as client:
            return (
                await client.filters("conv_stem", include_tensor=True),
                await client.activations(cat_jpg, LAYER, include_tensor=True, bucket_size=1),
                await client.gradients(cat_jpg, LAYER, target=285, against=3, bucket_size=1),
                await client.walk(cat_jpg, top_k=2, bucket_size=1),
                await client.column(cat_jpg, 40, 50, bucket_size=1),
                await client.embed([cat_jpg, photo("coffee")], bucket_size=1),
            )

    filters, activations, gradients, walk, column, codes = asyncio.run(ask())
    with pellucid.Client(served.grpc) as client:
        again = client.filters("conv_stem", include_tensor=True)
        assert np.array_equal(again.tensor, filters.tensor)
        assert filters.tensor.shape == (32, 3, 3, 3)
        assert filters.image.mode == "RGB"
        again = client.activations(cat_jpg, LAYER, include_tensor=True, bucket_size=1)
        assert np.array_equal(again.tensor, activations.tensor)
        assert activations.image.mode == "L"
        again = client.gradients(cat_jpg, LAYER, target=285, against=3, bucket_size=1)
        assert again.picture == gradients.picture
        assert gradients.target.against_class_index == 3
        assert client.walk(cat_jpg, top_k=2, bucket_size=1).rows == walk.rows
        assert [one.class_index for one in walk.predictions] == [
            one.class_index for one in client.predict(cat_jpg, top_k=2).predictions
        ]
        row = next(row for row in walk.rows if row.layer == LAYER)
        assert row.statistics == activations.statistics
        place = next(one for one in column.places if one.layer == LAYER)
        assert np.array_equal(place.activation, activations.tensor[:, place.y, place.x])
        assert place.box.x_px <= 40 < place.box.x_px + place.box.width_px
        assert place.box.y_px <= 50 < place.box.y_px + place.box.height_px
        again = client.embed([photo("coffee")], bucket_size=1)
        assert np.array_equal(again.codes[0], codes.codes[1])
        assert codes.outcomes == (0, 1)
        assert codes.codes.shape == (2, 1280)


def test_a_photo_without_a_code_does_not_stop_the_others(served: Any, cat_jpg: Path) -> None:
    with pellucid.Client(served.grpc) as client:
        codes = client.embed([cat_jpg] * 8 + [b"no photo"], data_type="float16", layer=LAYER)
        assert codes.codes.shape == (8, 24)
        assert codes.codes.dtype == np.float16
        *rows, failure = codes.outcomes
        assert rows == list(range(8))
        assert isinstance(failure, pellucid.InvalidArgument)
        assert sum(batch.own_row_count for batch in codes.run.batches) == 8


def test_what_is_wrong_is_named(served: Any, cat_jpg: Path) -> None:
    with pellucid.Client(served.grpc) as client:
        with pytest.raises(pellucid.InvalidArgument) as caught:
            client.column(cat_jpg, 96, -1)
        assert {v.field for v in caught.value.violations} == {"column.x_px", "column.y_px"}
        with pytest.raises(pellucid.NotFound, match="GetModel lists them"):
            client.filters("conv_stern")
        with pytest.raises(pellucid.BadArgument, match="scale"):
            client.filters("conv_stem", scale="own")


def test_over_rest(rest: httpx.Client, cat_jpg: Path) -> None:
    data = cat_jpg.read_bytes()
    encoded = {"encoded": base64.b64encode(data).decode()}
    body = {"image": encoded, "walk": {"topK": 1}}
    walk = rest.post("/v1/inspect", json=body).raise_for_status().json()["walk"]
    assert walk["rows"][0]["layer"] == "conv_stem"
    assert len(walk["predictions"]) == 1
    form = {"method": "activations", "layer": LAYER, "tile_count": "4"}
    files = {"image": data}
    answer = rest.post("/v1/inspect", data=form, files=files).raise_for_status().json()
    assert len(answer["layer"]["sheet"]["channels"]) == 4
    picture = rest.post(
        "/v1/inspect", data=form, files=files, headers={"accept": "image/jpeg"}
    ).raise_for_status()
    assert Image.open(BytesIO(picture.content)).format == "JPEG"
    assert picture.headers["pellucid-model"] == "efficientnet_lite0"
    assert "pellucid-target" not in picture.headers
    form = {"method": "gradients", "layer": LAYER, "class_index": "285"}
    picture = rest.post(
        "/v1/inspect", data=form, files=files, headers={"accept": "image/png"}
    ).raise_for_status()
    assert picture.headers["pellucid-target"].startswith("285 ")
    filters = rest.post(
        "/v1/inspect",
        json={"filters": {"layer": "conv_stem"}},
        headers={"accept": "image/png"},
    ).raise_for_status()
    assert Image.open(BytesIO(filters.content)).size == (203, 203)
    codes = rest.post(
        "/v1/embed", data={"layer": LAYER, "pooling": "max"}, files=[("images", data)] * 2
    ).raise_for_status()
    assert codes.json()["codes"]["shape"] == ["2", "24"]


def test_over_rest_filters_need_no_file_and_a_walk_has_no_picture(
    rest: httpx.Client, cat_jpg: Path
) -> None:
    made = rest.post("/v1/inspect", files={"method": (None, "filters"), "layer": (None, "nope")})
    assert made.status_code == 404
    walk = {"data": {"method": "walk"}, "files": {"image": cat_jpg.read_bytes()}}
    made = rest.post("/v1/inspect", **walk, headers={"accept": "image/png"})
    assert made.status_code == 406
    assert "walk has no picture" in made.json()["error"]["message"]
    made = rest.post("/v1/inspect", files={"method": (None, "walk")})
    assert made.status_code == 400
    assert made.json()["error"]["message"] == "image: required; either encoded or tensor"


def test_the_command_line(
    served: Any, cat_jpg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        result = CliRunner(env={"PELLUCID_SERVER": served.grpc}).invoke(app, args)
        assert result.exit_code == 0, result.output
        return result.stdout

    def picture(path: str) -> Image.Image:
        return Image.open(BytesIO(Path(path).read_bytes()))

    out = run("inspect", "filters", "conv_stem", "-o", "f.png", "--raw", "f.npy")
    assert picture("f.png").size == (203, 203)
    assert np.load("f.npy").shape == (32, 3, 3, 3)
    assert "32 of 3 × 3, the strongest first" in out
    run("inspect", "activations", str(cat_jpg), LAYER)
    assert picture(f"{cat_jpg.stem}-{LAYER}-activations.png").mode == "L"
    out = run("inspect", "gradients", str(cat_jpg), LAYER, "--target=285", "-o", "g.jpg")
    assert "class 285" in out
    assert picture("g.jpg").format == "JPEG"
    out = run("inspect", "walk", str(cat_jpg), "--top-k=1")
    assert "blocks.1.0.conv_dw" in out
    assert "%" in out
    walk = json.loads(run("inspect", "walk", str(cat_jpg), "--json"))
    assert walk["walk"]["rows"][0]["receptiveField"]["heightPx"] == 3
    out = run("inspect", "column", str(cat_jpg), "10", "20", "--raw", "c.npz")
    assert "3 × 3 at" in out
    with np.load("c.npz") as arrays:
        assert arrays["conv_stem"].shape == (32,)
    run("embed", str(cat_jpg), str(cat_jpg), "-o", "codes.npy")
    assert np.load("codes.npy").shape == (2, 1280)
