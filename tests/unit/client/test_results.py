"""What comes back: the numbers of messages that were made by hand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pellucid
import pytest
from pellucid import _wire
from pellucid.v1 import inference_pb2

from .conftest import (
    ATTRIBUTION,
    EXPLAINED,
    FALLS,
    LOGITS,
    PREDICTED,
    RENDERING,
    Call,
)


def test_predict(call: Call) -> None:
    result = call("predict", b"x")
    assert result.top == pellucid.Prediction(2, "tabby [cat]", 0.75, 2.25)
    assert [p.class_index for p in result.predictions] == [2, 0]
    assert result.logits.dtype == np.dtype("<f4")
    assert not result.logits.flags.writeable
    np.testing.assert_array_equal(result.logits, LOGITS)
    assert result.run == pellucid.Run(
        model="lite",
        model_version="0123456789ab",
        preprocessing=pellucid.Preprocessing(8, 2, 3, "bicubic", (0.5, 0.25, 0.125), (1, 2, 4)),
        precision="float32",
        device="cpu",
        decode_ms=1,
        queue_ms=2,
        run_ms=3,
        render_ms=4,
        batches=(pellucid.Batch(4, 3, 1),),
    )


def test_explain(call: Call) -> None:
    result = call("explain", b"x", "occlusion")
    assert result.method == "occlusion"
    assert result.parameters == {"window_px": 2, "stride_px": 1, "fill": "mean"}
    assert result.target == pellucid.ResolvedTarget(0, None, "tabby [cat]", 2.25, True)
    assert result.attribution.dtype == np.dtype("<f4")
    assert not result.attribution.flags.writeable
    np.testing.assert_array_equal(result.attribution, ATTRIBUTION)
    assert (result.color_scale, result.limit, result.percentile) == ("signed", 2.0, 99.5)
    assert (result.rendering, result.rendering_format) == (RENDERING, "jpeg")
    assert result.input_box == pellucid.Box(1, 2, 3.5, 4)
    np.testing.assert_array_equal(result.occlusion_details.falls, FALLS)
    assert result.occlusion_details.largest_fall == pellucid.Box(0, 0, 2, 2)
    assert result.occlusion_details.largest_rise is None


def test_heatmap_by_hand() -> None:
    response = inference_pb2.ExplainResponse()
    response.CopyFrom(EXPLAINED)
    signed = _wire.explain_result(response).heatmap
    # grey 0, 1, 64 / 128, 129, 255 and limit 2: (v - 128) / 127 · 2
    expected = [[-256 / 127, -2, -128 / 127], [0, 2 / 127, 2]]
    np.testing.assert_array_equal(signed, np.array(expected, np.float32))
    assert signed.dtype == np.float32
    assert not signed.flags.writeable

    response.heatmap.color_scale = inference_pb2.COLOR_SCALE_ABSOLUTE
    absolute = _wire.explain_result(response).heatmap
    expected = [[0, 2 / 255, 128 / 255], [256 / 255, 258 / 255, 2]]
    np.testing.assert_array_equal(absolute, np.array(expected, np.float32))


@pytest.fixture
def result() -> Iterator[pellucid.ExplainResult]:
    yield _wire.explain_result(EXPLAINED)


def test_decoding_happens_once(result: pellucid.ExplainResult) -> None:
    assert result.heatmap is result.heatmap
    assert result.image is result.image
    assert result.image.size == (5, 4)


def test_save(result: pellucid.ExplainResult, tmp_path: Path) -> None:
    for name in ("why.jpg", "why.JPEG"):
        result.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == RENDERING
    with pytest.raises(pellucid.BadArgument, match="pass format='png'"):
        result.save(tmp_path / "why.png")
    with pytest.raises(pellucid.BadArgument, match=r"must end with .jpg, .jpeg, .png"):
        result.save(tmp_path / "why.gif")


def test_what_was_not_asked_for() -> None:
    response = inference_pb2.ExplainResponse(
        gradient=inference_pb2.Gradient(),
        target=inference_pb2.ResolvedTarget(neuron=inference_pb2.Neuron(layer="conv", y=0, x=1)),
    )
    result = _wire.explain_result(response)
    assert (result.method, result.parameters) == ("gradient", {})
    assert result.target.class_index is None
    assert result.target.neuron == pellucid.Neuron("conv", None, 0, 1)
    assert result.attribution is None
    assert result.occlusion_details is None
    with pytest.raises(pellucid.NotRequested, match="heatmap"):
        _ = result.heatmap
    with pytest.raises(pellucid.NotRequested, match="rendering"):
        _ = result.image
    with pytest.raises(pellucid.NotRequested):
        result.save("why.jpg")
    without_logits = inference_pb2.PredictResponse(predictions=PREDICTED.predictions)
    assert _wire.predict_result(without_logits).logits is None


def test_models(call: Call) -> None:
    assert call("list_models") == (
        pellucid.ModelSummary("lite", True, "0123456789ab", ""),
        pellucid.ModelSummary("vit", False, "", "warming up"),
    )
    model = call("get_model")
    assert model == pellucid.Model(
        name="lite",
        ready=True,
        version="0123456789ab",
        reason="",
        architecture="efficientnet_lite0",
        preprocessing=pellucid.Preprocessing(8, 2, 3, "bicubic", (0.5, 0.25, 0.125), (1, 2, 4)),
        precision="float64",
        device="cpu",
        layers=(
            pellucid.Layer(
                "conv_stem", "Conv2d", (32, 112, 112), True, "folded", "maps", (112, 112)
            ),
        ),
        methods=model.methods,
        labels=("lynx", "dog", "tabby"),
        costs=(pellucid.BatchCost("gradient", 4, 1.5),),
        gate_count=33,
        platform="onnx",
        onnx=pellucid.Onnx(17, "CPUExecutionProvider", 8, 2e-6, "", ("its softmax is cut off",)),
    )
    both = ("curves", "stability", "randomization", "agreement")
    assert model.methods == (
        pellucid.MethodSupport("predict", True, "", 1, False, ()),
        pellucid.MethodSupport("deconvnet", False, "it has no ReLU"),
        pellucid.MethodSupport("gradient", True, "", 1, False, both),
        pellucid.MethodSupport("rise", True, "", 1001, True, both),
        pellucid.MethodSupport("attention_rollout", True, "", 1, False, ("curves",)),
    )
