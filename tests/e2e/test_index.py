"""Top patches and similar photos on a real server: both protocols, both clients, the commands."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from PIL import Image
from typer.testing import CliRunner

from tests.harness import crops

LAYER = "layer1.0.conv2"


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    crops(folder, 10)
    return folder


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command."""
    out = tmp_path_factory.mktemp("index") / "of-crops"
    options = ["--model", "resnet18", "--input-px", "96", "--batch", "4", "--out", str(out)]
    (photos / "none.jpg").write_bytes(b"no photo")
    command = ["index", str(photos), "--layers", f"{LAYER},fc", "--top-k", "3", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "none.jpg: the photo's format is unknown" in result.stdout
    assert "10 photos indexed, 1 failed: 1064 units of 2 layers, version" in result.stdout
    return out


@pytest.fixture(scope="module")
def indexed(make_server: Any, folder: Path) -> Iterator[Any]:
    with make_server(models=("resnet18",), indices=(folder,)) as running:
        yield running


@pytest.fixture(scope="module")
def client(indexed: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(indexed.grpc, timeout_s=120) as client:
        yield client


def test_top_patches_on_both_clients(indexed: Any, client: pellucid.Client, folder: Path) -> None:
    found = client.top_patches(LAYER, 5, include_photos=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert found.index == pellucid.IndexSummary(
        "resnet18", manifest["model_version"], 10, manifest["version"]
    )
    assert len(found.patches) == 3
    values = [patch.activation for patch in found.patches]
    assert values == sorted(values, reverse=True)
    assert found.counts.sum() == 10
    assert found.edges[-1] > values[0] >= found.edges[-2]
    for patch in found.patches:
        assert patch.image.size == (patch.box.width_px, patch.box.height_px)
        assert patch.input is not None
        assert patch.input.size == (96, 96)
        box = (
            patch.box.x_px,
            patch.box.y_px,
            patch.box.x_px + patch.box.width_px,
            patch.box.y_px + patch.box.height_px,
        )
        assert np.array_equal(np.asarray(patch.input.crop(box)), np.asarray(patch.image))

    async def again() -> pellucid.TopPatches:
        async with pellucid.AsyncClient(indexed.grpc) as asynchronous:
            return await asynchronous.top_patches(LAYER, 5, top_k=2)

    fewer = asyncio.run(again())
    assert [one.sha256 for one in fewer.patches] == [one.sha256 for one in found.patches[:2]]
    assert fewer.patches[0].input is None
    whole = client.top_patches("fc", 3).patches[0]
    assert (whole.y, whole.x) == (0, 0)
    assert whole.image.size == (96, 96)


def test_similar_on_both_clients(indexed: Any, client: pellucid.Client, photos: Path) -> None:
    found = client.similar(photos / "004.png", top_k=4, explain_count=2)
    assert found.matches[0].photo == "004.png"
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-5)
    assert [one.query_rendering is not None for one in found.matches] == [True, True, False, False]
    for match in found.matches[:2]:
        assert match.query_attribution is not None
        assert match.query_attribution.shape == match.match_attribution.shape == (3, 96, 96)
        drawn = Image.open(io.BytesIO(match.query_rendering))
        assert drawn.size == size_of(photos / "004.png")
        assert Image.open(io.BytesIO(match.match_rendering)).size == (96, 96)
    assert np.abs(found.matches[1].query_attribution).max() > 0
    assert found.run.model == "resnet18"

    async def again() -> pellucid.SimilarResult:
        async with pellucid.AsyncClient(indexed.grpc) as asynchronous:
            return await asynchronous.similar(photos / "004.png", top_k=4, explain_count=0)

    plain = asyncio.run(again())
    assert [one.photo for one in plain.matches] == [one.photo for one in found.matches]
    assert plain.matches[0].query_attribution is None


def test_a_fixed_bucket_gives_the_same_bits(client: pellucid.Client, photos: Path) -> None:
    one, other = (client.similar(photos / "001.png", top_k=2, bucket_size=2) for _ in range(2))
    assert np.array_equal(one.matches[0].match_attribution, other.matches[0].match_attribution)
    assert one.matches[1].similarity == other.matches[1].similarity


def test_over_rest(indexed: Any, photos: Path) -> None:
    asked = {"layer": LAYER, "channel": 5, "topK": 2}
    answer = httpx.post(f"{indexed.http}/v1/patches", json=asked)
    assert answer.status_code == 200
    patches = answer.json()["patches"]
    assert len(patches) == 2
    picture = Image.open(io.BytesIO(base64.b64decode(patches[0]["image"]["data"])))
    assert picture.width == patches[0]["box"]["widthPx"]
    form = {"layer": (None, LAYER), "channel": (None, "5"), "top_k": (None, "2")}
    assert httpx.post(f"{indexed.http}/v1/patches", files=form).json() == answer.json()
    files = {"image": ("004.png", (photos / "004.png").read_bytes())}
    answer = httpx.post(f"{indexed.http}/v1/similar", files=files, data={"top_k": "1"})
    assert answer.status_code == 200
    assert answer.json()["matches"][0]["photo"] == "004.png"
    paths = httpx.get(f"{indexed.http}/openapi.json").json()["paths"]
    assert {"/v1/patches", "/v1/similar"} <= paths.keys()


def test_what_is_wrong_is_named(
    indexed: Any, client: pellucid.Client, served: Any, photos: Path
) -> None:
    with pytest.raises(pellucid.NotFound, match=r"layer: 'conv1' is not in the index.*, fc"):
        client.top_patches("conv1", 0)
    with pytest.raises(pellucid.InvalidArgument, match="channel: is 64; must be 0 to 63"):
        client.top_patches(LAYER, 64)
    with pytest.raises(pellucid.InvalidArgument, match="channel: is -1; must be 0 to 63"):
        client.top_patches(LAYER, -1)
    with pytest.raises(pellucid.InvalidArgument, match="top_k: is 4; must be 1 to 3"):
        client.top_patches(LAYER, 0, top_k=4)
    with pytest.raises(pellucid.NotFound, match="'vgg11' is not loaded"):
        client.top_patches(LAYER, 0, model="vgg11")
    with pytest.raises(pellucid.InvalidArgument) as refused:
        client.similar(photos / "001.png", top_k=101, explain_count=17, bucket_size=3)
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["top_k", "explain_count", "bucket_size"]
    answer = httpx.post(f"{indexed.http}/v1/patches", json={"topK": 1})
    assert answer.status_code == 400
    assert "channel: required; from 0" in answer.json()["error"]["message"]
    with pellucid.Client(served.grpc) as without:
        for ask in (
            lambda: without.top_patches(LAYER, 0, model="resnet18"),
            lambda: without.similar(photos / "001.png", model="resnet18"),
        ):
            with pytest.raises(pellucid.FailedPrecondition, match="`pellucid index PHOTOS --model"):
                ask()


def test_the_commands(indexed: Any, photos: Path, tmp_path: Path) -> None:
    at, sheet = ["--server", indexed.grpc], tmp_path / "sheet.png"
    run = CliRunner().invoke
    result = run(app, ["patches", LAYER, "5", "-o", str(sheet), *at])
    assert result.exit_code == 0, result.output
    assert "of 10 photos, resnet18" in result.stdout
    assert f"written  {sheet}" in result.stdout
    assert size_of(sheet)[0] > 600
    result = run(app, ["similar", str(photos / "004.png"), "-o", str(sheet), *at])
    assert result.exit_code == 0, result.output
    assert "004.png" in result.stdout
    assert size_of(sheet)[1] > 600
    result = run(app, ["similar", str(photos / "004.png"), "--json", "--top-k", "2", *at])
    assert len(json.loads(result.stdout)["matches"]) == 2
    result = run(app, ["patches", LAYER, "5", "-o", "sheet.gif", *at])
    assert result.exit_code == 2
    assert "must end with" in result.stderr
    result = run(app, ["patches", "layer9", "5", *at])
    assert result.exit_code == 1
    assert "layer: 'layer9' is not in the index" in result.stderr


def test_what_the_command_refuses(photos: Path, folder: Path, tmp_path: Path) -> None:
    def refused(*arguments: str, code: int = 2) -> str:
        result = CliRunner().invoke(app, ["index", *arguments])
        assert result.exit_code == code, result.output
        return result.stderr

    (tmp_path / "empty").mkdir()
    assert "there is no photo in" in refused(str(tmp_path / "empty"))
    assert "is not a folder" in refused(str(tmp_path / "gone"))
    assert "--top-k: is 0; must be 1 to 100" in refused(str(photos), "--top-k", "0")
    assert "--batch: is 257; must be 1 to 256" in refused(str(photos), "--batch", "257")
    assert "--device: is 'tpu'; must be auto, cpu or cuda" in refused(
        str(photos), "--device", "tpu"
    )
    assert "--model: 'nothing' is no model folder, and not on the allow-list" in refused(
        str(photos), "--model", "nothing"
    )
    of_resnet = ["--model", "resnet18", "--input-px", "96"]
    told = refused(str(photos), *of_resnet, "--layers", "conv9", "--out", str(tmp_path / "a"))
    assert "--layers: 'conv9' is not a layer of resnet18" in told
    assert not (tmp_path / "a").exists()
    told = refused(str(photos), *of_resnet, "--layers", "fc", "--out", str(folder))
    assert "name another folder with --out, or remove this one" in told


def test_a_bad_index_is_listed_and_the_server_serves(
    make_server: Any, folder: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "progress.sqlite").write_bytes(b"")
    with (
        make_server(models=("resnet18",), indices=(bad,)) as running,
        pellucid.Client(running.grpc) as client,
    ):
        with pytest.raises(pellucid.FailedPrecondition, match="bad is not served: it is half-wr"):
            client.top_patches(LAYER, 0)
        assert client.list_models()
