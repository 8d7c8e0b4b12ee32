"""ONNX model folders on a real server: what GetModel says, what is answered, what is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from onnx import helper

from tests.exports import exported, graph, tiny_nodes, tiny_weights, write, write_network

LITE0 = "efficientnet_lite0"
BLACK = {"occlusion": {"window_px": 32}, "rise": {"mask_count": 24}, "lime": {"sample_count": 60}}
BLACK_BOX = ("occlusion", "rise", "lime", "kernel_shap")


@pytest.fixture(scope="module")
def client(
    make_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[pellucid.Client]:
    folders = tmp_path_factory.mktemp("models")
    write_network(folders / "lite", LITE0, exported(LITE0))
    odd = tiny_nodes(helper.make_node("Shrink", ["a"], ["b"], "/odd/Shrink", lambd=0.1))
    write(folders / "odd", graph(odd, tiny_weights()))
    fixed = write(folders / "fixed", graph(odd, tiny_weights(), shape=(4, 3, 8, 8)))
    assert fixed.is_dir()
    strange = tiny_nodes(helper.make_node("Fancy", ["a"], ["b"], domain="acme.vision"))
    imports = [helper.make_opsetid("acme.vision", 1)]
    write(folders / "strange", graph(strange, tiny_weights(), imports=imports))
    with (
        make_server(models=(LITE0,), model_folders=folders, buckets=(1, 4)) as running,
        pellucid.Client(running.grpc, timeout_s=60) as opened,
    ):
        opened.http = running.http
        yield opened


def test_black_box_maps_are_the_torch_models(client: pellucid.Client, cat_jpg: Path) -> None:
    for method, parameters in BLACK.items():
        maps = [
            client.explain(
                cat_jpg, method, target=285, model=model, outputs=["attribution"], **parameters
            ).attribution
            for model in ("lite", LITE0)
        ]
        assert np.abs(maps[0] - maps[1]).max() <= 1e-3 * np.abs(maps[1]).max()


def test_get_model_says_how_it_is_run(client: pellucid.Client) -> None:
    lite, odd, fixed = (client.get_model(name) for name in ("lite", "odd", "fixed"))
    assert client.get_model(LITE0).platform == "torch"
    assert client.get_model(LITE0).onnx is None
    assert lite.platform == "onnx"
    assert lite.onnx is not None
    assert (lite.onnx.opset, lite.onnx.provider) == (17, "CPUExecutionProvider")
    assert (lite.onnx.fixed_batch_size, lite.onnx.white_box_refusal) == (0, "")
    assert lite.onnx.parity is not None
    assert 0 < lite.onnx.parity < 1e-4
    assert lite.gate_count == 33
    assert "blocks.1.0.conv_dw" in {layer.name for layer in lite.layers}
    assert odd.onnx is not None
    assert odd.onnx.parity is None
    assert "operator Shrink (/odd/Shrink) is not converted" in odd.onnx.white_box_refusal
    assert odd.layers == ()
    assert fixed.onnx is not None
    assert fixed.onnx.fixed_batch_size == 4
    supported = {support.method: support for support in odd.methods if support.supported}
    assert set(supported) == {"predict", *BLACK_BOX}
    assert all("Shrink" in s.reason for s in odd.methods if not s.supported)
    assert set(supported["occlusion"].evidence) == {"curves", "stability", "agreement"}
    failed = client.get_model("strange")
    assert "nor ONNX Runtime's: acme.vision.Fancy" in failed.reason


def test_what_looks_inside_a_black_box_is_refused(client: pellucid.Client, cat_jpg: Path) -> None:
    for asked in (
        {"method": "gradient"},
        {"method": "grad_cam"},
        {"method": "lrp"},
        {"method": "occlusion", "target": pellucid.Neuron("conv", 1)},
        {"method": "occlusion", "evidence": ["randomization"]},
        {"method": "occlusion", "evidence": ["cascade"]},
    ):
        with pytest.raises(pellucid.FailedPrecondition, match="operator Shrink"):
            client.explain(cat_jpg, model="odd", **asked)


def test_a_black_box_is_explained_with_evidence(client: pellucid.Client, cat_jpg: Path) -> None:
    for name in ("odd", "fixed"):
        assert client.predict(cat_jpg, model=name, top_k=2).top.label in {"0", "1", "2", "3"}
        result = client.explain(
            cat_jpg,
            "occlusion",
            model=name,
            window_px=3,
            evidence=["curves", "stability"],
            outputs=["attribution"],
        )
        assert result.attribution.any()
        assert result.evidence.curves is not None


def test_white_box_maps_and_evidence_of_a_conversion(
    client: pellucid.Client, cat_jpg: Path
) -> None:
    result = client.explain(
        cat_jpg,
        "guided_backprop",
        model="lite",
        target=285,
        evidence=["randomization", "cascade"],
        outputs=["attribution"],
    )
    torchs = client.explain(cat_jpg, "guided_backprop", target=285, outputs=["attribution"])
    difference = np.linalg.norm(result.attribution - torchs.attribution)
    assert difference < 0.05 * np.linalg.norm(torchs.attribution)
    assert result.evidence.cascade is not None


def test_images_are_made_by_a_conversion_and_by_no_black_box(
    client: pellucid.Client, cat_jpg: Path
) -> None:
    with pytest.raises(pellucid.FailedPrecondition, match="operator Shrink"):
        client.optimize(1, model="odd", step_count=2).result()
    options: dict[str, Any] = {"height_px": 96, "width_px": 96, "step_count": 2}
    asked = [(285, {}), (pellucid.Energy("conv_stem"), {"photo": cat_jpg})]
    for objective, photo in asked:
        scores = [
            client.optimize(objective, model=model, **photo, **options).result().best.score
            for model in ("lite", LITE0)
        ]
        assert scores[0] == pytest.approx(scores[1], rel=0.02, abs=0.05)


def test_rest_says_the_same(client: pellucid.Client) -> None:
    model = httpx.get(f"{client.http}/v1/models/odd").json()
    assert model["platform"] == "PLATFORM_ONNX"
    assert model["onnx"]["provider"] == "CPUExecutionProvider"
    assert "Shrink" in model["onnx"]["whiteBoxRefusal"]


@pytest.mark.parametrize("method", ["gradient", "rise", "lrp"])
def test_a_prediction_has_the_same_bits_with_an_explanation_attached(
    client: pellucid.Client, cat_jpg: Path, method: str
) -> None:
    # What goes back comes of the conversion, whose logits have other bits than ONNX Runtime's.
    asked: dict[str, Any] = {"model": "lite", "include_logits": True, "bucket_size": 4}
    options = BLACK.get(method, {})
    alone = client.predict(cat_jpg, **asked)
    together = client.predict(cat_jpg, explain=[pellucid.Explain(method, **options)], **asked)
    assert np.array_equal(together.logits, alone.logits)
    assert not isinstance(together.explanations[0], pellucid.PellucidError)
    assert client.replay(together.receipt, cat_jpg).equal
