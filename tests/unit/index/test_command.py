"""`pellucid index` as it is typed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pellucid.cli import app
from pellucid_server.index.folder import Index
from pellucid_server.index.mounted import mount
from pellucid_server.models.registry import Precision
from PIL import Image
from typer.testing import CliRunner

from tests.harness import crops, model, untouched


@pytest.mark.parametrize("precision", list(Precision))
def test_an_index_of_a_precision_is_for_a_server_of_it(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are as exact as the precision is; a server of another one says why it refuses."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ending = "" if precision is Precision.FLOAT32 else f"-{precision.value}"
    version = model("resnet18", precision).version
    paths, out = (
        crops(tmp_path / "photos", 4),
        tmp_path / f"pellucid/indices/resnet18/{version}{ending}",
    )
    options = ["--model", "resnet18", "--layers", "fc", "--input-px", "96", "--batch", "4"]
    command = ["index", str(tmp_path / "photos"), *options]
    done = CliRunner().invoke(app, [*command, "--precision", precision.value])
    assert done.exit_code == 0, done.output

    kept: list[torch.Tensor] = []
    network, steps = untouched("resnet18"), model("resnet18").preprocessing
    hook = network.fc.register_forward_pre_hook(lambda _m, given: kept.append(given[0]))
    images = np.stack([steps.apply(np.asarray(Image.open(path))) for path in paths])
    with torch.no_grad():
        network(torch.from_numpy(images))
    hook.remove()
    codes = np.stack([Index(out).code(photo) for photo in range(4)])
    error = np.linalg.norm(codes - kept[0].numpy()) / np.linalg.norm(kept[0].numpy())
    least, most = {"float64": (0, 1e-7), "bfloat16": (1e-3, 0.1)}.get(precision.value, (0, 1e-3))
    assert least <= error < most

    assert mount([out], {"resnet18": model("resnet18", precision)}).mounted
    other = Precision.FLOAT64 if precision is not Precision.FLOAT64 else Precision.FLOAT32
    refused = mount([out], {"resnet18": model("resnet18", other)}).refused
    assert [one.reason for one in refused] == [
        f"it was made with precision {precision.value} of resnet18; {other.value} is loaded"
    ]


def test_precisions_that_are_none(tmp_path: Path) -> None:
    crops(tmp_path / "photos", 1)
    command = ["index", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--precision"]
    done = CliRunner().invoke(app, [*command, "float16"])
    assert done.exit_code == 2
    assert done.stderr == (
        "pellucid: --precision: is 'float16'; must be float32, tf32, bfloat16 or float64\n"
    )
    done = CliRunner().invoke(app, [*command, "float64", "--model", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr == (
        "pellucid: --precision: is for embedded models; a model folder says its own\n"
    )
    assert not (tmp_path / "out").exists()
