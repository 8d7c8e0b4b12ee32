"""A receipt makes its result again: equal to the bit where that was promised."""

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from typer.testing import CliRunner

from tests.harness import photo

from .conftest import Running

PARAMETERS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "deconvnet": {},
    "guided_backprop": {},
    "occlusion": {"window_px": 48, "fill": "blur"},
    "input_x_gradient": {},
    "integrated_gradients": {"step_count": 6, "baseline": {"fill": "noise", "seed": 3}},
    "smooth_grad": {"sample_count": 5, "seed": 4},
    "expected_gradients": {"sample_count": 5, "seed": 5},
    "grad_cam": {"relu": False},
    "score_cam": {"map_count": 6},
    "rise": {"mask_count": 9, "seed": 6},
    "lime": {"sample_count": 20, "segment_count": 12, "seed": 7},
    "kernel_shap": {"sample_count": 20, "segment_count": 12, "baseline": "white"},
}
TARGETS: tuple[dict[str, Any], ...] = (
    {},
    {"target": "Egyptian cat", "against": "espresso"},
    {"target": [281, 282], "score": "log_probability"},
    {"target": 967, "score": "probability"},
)


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    targets = itertools.cycle(TARGETS)
    for method, parameters in itertools.islice(itertools.cycle(PARAMETERS.items()), 19):
        yield method, {**parameters, **next(targets)}


def test_twenty_receipts_are_replayed_to_the_bit(client: pellucid.Client, tmp_path: Path) -> None:
    cat = photo("cat")
    made = [client.explain(cat, name, bucket_size=4, **rest) for name, rest in calls()]
    receipts = [result.receipt for result in made] + [client.predict(cat, bucket_size=4).receipt]
    assert len(receipts) == 20
    kept = []
    for place, receipt in enumerate(receipts):
        receipt.save(tmp_path / f"{place}.json")
        kept.append(pellucid.Receipt.load(tmp_path / f"{place}.json"))
    with ThreadPoolExecutor(8) as pool:  # among neighbours that they did not have before
        replayed = list(pool.map(lambda receipt: client.replay(receipt, cat), kept))
    assert [replay.equal for replay in replayed] == [True] * 20
    assert [replay.difference for replay in replayed] == [0.0] * 20
    assert all(replay.notes == () for replay in replayed)


def test_a_receipt_has_every_parameter(client: pellucid.Client) -> None:
    result = client.explain(photo("cat"), "integrated_gradients", target=285, bucket_size=2)
    fields = result.receipt.fields
    assert fields["explain"]["integratedGradients"] == {
        "stepCount": 50,
        "quadrature": "QUADRATURE_GAUSS_LEGENDRE",
        "baseline": {"fill": "FILL_BLACK"},
    }
    assert fields["explain"]["target"] == {"classIndex": 285, "score": "SCORE_LOGIT"}
    assert fields["explain"]["bucketSize"] == 2
    assert len(fields["weightsSha256"]) == 64
    assert fields["weightsSha256"].startswith(result.run.model_version)
    assert {"pellucid", "torch", "torchvision", "timm", "numpy"} <= fields["versions"].keys()
    json.dumps(fields)


def test_what_was_sent_as_a_tensor_is_replayed_from_the_receipt_alone(
    client: pellucid.Client,
) -> None:
    """Of an image its hash is kept; a baseline is a parameter, and kept as it was."""
    image, baseline = np.random.default_rng(0).normal(size=(2, 3, 96, 96)).astype(np.float32)
    parameters = {"step_count": 3, "baseline": baseline}
    result = client.explain(image, "integrated_gradients", bucket_size=2, **parameters)
    assert result.parameters["baseline"] == {}
    kept = result.receipt.fields["explain"]["integratedGradients"]["baseline"]["tensor"]
    assert kept["shape"] == ["3", "96", "96"]
    assert client.replay(result.receipt, image).equal
    with pytest.raises(pellucid.BadArgument, match="not the one that the receipt is of"):
        client.replay(result.receipt, baseline)
    other = client.explain(image, "integrated_gradients", bucket_size=2, step_count=3)
    fields = json.loads(json.dumps(result.receipt.fields))
    fields["explain"]["integratedGradients"]["baseline"] = {"fill": "FILL_BLACK"}
    assert other.receipt.fields["explain"] == fields["explain"]
    assert not client.replay(pellucid.Receipt(fields), image).equal


def test_one_made_without_a_bucket_says_so(client: pellucid.Client) -> None:
    cat = photo("cat")
    receipt = client.explain(cat, "gradient").receipt
    replayed = client.replay(receipt, cat)
    assert replayed.notes == ("made without bucket_size: equal bits were not promised",)
    assert replayed.equal == (replayed.difference == 0)


def test_a_difference_is_measured(client: pellucid.Client) -> None:
    cat = photo("cat")
    first = client.explain(cat, "rise", mask_count=8, bucket_size=4, outputs=("attribution",))
    other = client.explain(
        cat, "rise", mask_count=8, seed=1, bucket_size=4, outputs=("attribution",)
    )
    fields = json.loads(json.dumps(first.receipt.fields))
    fields["explain"]["rise"]["seed"] = "1"  # as if the server drew other masks by now
    fields["versions"]["torch"] = "1.0"
    replayed = client.replay(pellucid.Receipt(fields), cat)
    assert not replayed.equal
    assert any(note.startswith("torch was 1.0, is ") for note in replayed.notes)
    cells = [
        np.asarray(r.attribution, np.float64).reshape(1, 16, 6, 16, 6).mean((2, 4))
        for r in (first, other)
    ]
    expected = np.linalg.norm(cells[1] - cells[0]) / np.linalg.norm(cells[0])
    assert replayed.difference == pytest.approx(expected, rel=1e-5)


def test_another_photo_is_refused(client: pellucid.Client) -> None:
    receipt = client.predict(photo("cat")).receipt
    with pytest.raises(pellucid.BadArgument, match="not the one that the receipt is of"):
        client.replay(receipt, photo("coffee"))
    with pytest.raises(pellucid.BadArgument, match="holds no request"):
        client.replay(pellucid.Receipt({"imageSha256": "0"}), photo("cat"))


def test_replay_from_the_command_line(
    served: Running, cat_jpg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_SERVER", served.grpc)
    run, receipt = CliRunner().invoke, tmp_path / "receipt.json"
    asked = ["explain", str(cat_jpg), "--method", "smooth_grad", "-p", "sample_count=3"]
    asked += ["--bucket-size", "2", "--receipt", str(receipt), "-o", str(tmp_path / "why.png")]
    result = run(app, asked)
    assert result.exit_code == 0, result.output
    replayed = run(app, ["replay", str(receipt), str(cat_jpg)])
    assert replayed.exit_code == 0, replayed.output
    assert "equal to the bit  yes" in replayed.output
    fields = json.loads(receipt.read_text())
    fields["explain"]["smoothGrad"]["seed"] = "9"
    receipt.write_text(json.dumps(fields))
    replayed = run(app, ["replay", str(receipt), str(cat_jpg)])
    assert replayed.exit_code == 1
    assert "equal to the bit  no" in replayed.output
    fields["explain"]["model"] = "no_such_network"
    receipt.write_text(json.dumps(fields))
    replayed = run(app, ["replay", str(receipt), str(cat_jpg)])
    assert replayed.exit_code == 2  # and not as if it had been another result
    assert "NOT_FOUND" in replayed.output
    receipt.write_text("[]")
    assert run(app, ["replay", str(receipt), str(cat_jpg)]).exit_code == 2
