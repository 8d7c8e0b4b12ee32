"""Model folders on a real server: listed, served, limited; and the flags that name them."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pellucid
import pytest
import timm
import torch
import yaml
from pellucid_server import cli
from pellucid_server.config import Settings
from pellucid_server.serve import NoModels, serve
from safetensors.torch import save


def write(folder: Path, **settings: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = save(timm.create_model("test_resnet", num_classes=3).state_dict())
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(data)
    (folder / "labels.txt").write_text("cat\ndog\nfox\n")
    stated = {
        "architecture": "timm/test_resnet",
        "weights": "weights.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocessing": {
            "stretch": True,
            "height_px": 64,
            "width_px": 96,
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "labels": "labels.txt",
    } | settings
    (folder / "model.yaml").write_text(yaml.safe_dump(stated))


def test_folders_beside_the_embedded_model(
    make_server: Callable[..., Any], tmp_path: Path, cat_jpg: Path
) -> None:
    write(tmp_path / "animals", limits={"max_bucket_size": 4})
    write(tmp_path / "broken", sha256="0" * 64)
    with (
        make_server(models=("resnet18",), model_folders=tmp_path, buckets=(1, 4, 8)) as running,
        pellucid.Client(running.grpc) as client,
    ):
        listed = {model.name: model for model in client.list_models()}
        assert {name: model.ready for name, model in listed.items()} == {
            "resnet18": True,
            "animals": True,
            "broken": False,
        }
        assert "0000 is stated" in listed["broken"].reason
        on = client.get_model("animals")
        assert on.labels == ("cat", "dog", "fox")
        assert (on.preprocessing.height_px, on.preprocessing.width_px) == (64, 96)
        assert client.predict(cat_jpg, model="animals").top.label in on.labels
        assert client.explain(cat_jpg, model="animals", target="fox").target.class_index == 2
        done = client.explain(cat_jpg, "occlusion", model="animals", outputs=["heatmap"])
        assert {batch.bucket_size for batch in done.run.batches} <= {1, 4}
        whole = client.explain(cat_jpg, "occlusion", model="animals", bucket_size=8)
        assert {batch.bucket_size for batch in whole.run.batches} == {8}
        assert client.predict(cat_jpg).run.model == "resnet18"


def test_folders_instead_of_it(make_server: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "animals")
    with (
        make_server(models=(), model_folders=tmp_path) as running,
        pellucid.Client(running.grpc) as client,
    ):
        assert [model.name for model in client.list_models()] == ["animals"]
        assert client.get_model().name == "animals"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--models", "nowhere"], "model_folders: Path does not point to a directory"),
        (["--no-embedded"], "neither models nor model_folders are set"),
        (["--no-embedded", "--model", "vgg11"], "--no-embedded: contradicts --model"),
        (["--precision", "float16"], "precision: Input should be 'float32', 'tf32', 'bfloat16'"),
    ],
)
def test_flags_that_make_no_sense(
    arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert told in " ".join(capfd.readouterr().err.split())


def test_a_server_without_any_model_ends(tmp_path: Path) -> None:
    settings = Settings(
        models=(), model_folders=tmp_path, styles=None, http_port=0, grpc_port=0, metrics_port=0
    )
    with pytest.raises(NoModels, match="there is no model folder in "):
        asyncio.run(serve(settings))
