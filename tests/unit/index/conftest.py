"""A folder of small crops, and an index of it."""

from pathlib import Path

import pytest
from pellucid_server.index.build import Built, Options, build, choose_layers
from pellucid_server.models.registry import Model, Precision

from tests.harness import crops, model

LAYERS = ("conv1", "layer1.0.conv2", "layer2.0", "layer3.1.conv2", "fc")


def resnet() -> Model:
    return model("resnet18", Precision.FLOAT64)


def options(on: Model, **given: object) -> Options:
    made = {"top_k": 4, "bucket_size": 4, "lossless": True, **given}
    layers = choose_layers(on, made.pop("layers", LAYERS))
    return Options(layers, **made)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen, and two files that are none."""
    folder = tmp_path_factory.mktemp("crops")
    paths = crops(folder, 12)
    (folder / "005b.jpg").write_bytes(b"no photo")
    (folder / "011b.png").write_bytes(paths[0].read_bytes()[:-3000])
    return folder


@pytest.fixture(scope="session")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("index") / "made"
    return build(resnet(), options(resnet()), photos, sorted(photos.iterdir()), folder)
