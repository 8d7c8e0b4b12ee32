"""What is sent: every form of an argument as the message that it stands for."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pellucid
import pytest
from pellucid import _wire
from pellucid.v1 import data_pb2, inference_pb2
from PIL import Image

from .conftest import Call, FakeServer

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)


def explain_request(method: Any = "gradient", **arguments: Any) -> inference_pb2.ExplainRequest:
    given: dict[str, Any] = {
        "target": None,
        "against": None,
        "score": None,
        "model": "",
        "outputs": None,
        "bucket_size": None,
        "until": None,
        "evidence": None,
        "rendering": {},
        "method_parameters": {},
    }
    return _wire.explain_request(b"photo", method, **given | arguments)


def test_files_arrive_untouched(call: Call, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8 any bytes")
    for photo in (path, os.fspath(path), path.read_bytes()):
        call("predict", photo)
    for request in server.requests:
        assert request == inference_pb2.PredictRequest(
            image=data_pb2.Image(encoded=b"\xff\xd8 any bytes")
        )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_pil_images_arrive_losslessly(call: Call, server: FakeServer, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    call("predict", image)
    with Image.open(io.BytesIO(server.requests[0].image.encoded)) as arrived:
        assert arrived.format == "PNG"
        np.testing.assert_array_equal(arrived.convert("RGBA"), image.convert("RGBA"))


def test_orientation_of_a_pil_image_stays_behind() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(file, "PNG", exif=exif)
    with Image.open(file) as image:
        assert image.getexif()
        sent = _wire.predict_request(
            image, model="", top_k=None, include_logits=False, bucket_size=None
        )
    with Image.open(io.BytesIO(sent.image.encoded)) as arrived:
        assert not arrived.getexif()
        np.testing.assert_array_equal(arrived, PIXELS)


@pytest.mark.parametrize(
    ("array", "data_type", "order"),
    [
        (PIXELS, data_pb2.DATA_TYPE_UINT8, "u1"),
        (PIXELS[::-1, ::2], data_pb2.DATA_TYPE_UINT8, "u1"),
        (np.linspace(-2, 2, 60, dtype="<f4").reshape(3, 4, 5), data_pb2.DATA_TYPE_FLOAT32, "<f4"),
        (np.linspace(-2, 2, 60, dtype=">f4").reshape(3, 4, 5), data_pb2.DATA_TYPE_FLOAT32, "<f4"),
    ],
)
def test_arrays_arrive_as_tensors(
    call: Call, server: FakeServer, array: Any, data_type: int, order: str
) -> None:
    call("explain", array)
    arrived = server.requests[0].image.tensor
    assert arrived.data_type == data_type
    values = np.frombuffer(arrived.data, order).reshape(arrived.shape)
    np.testing.assert_array_equal(values, array)


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (PIXELS.astype(np.float64), r"array of float64 4 × 5 × 3; must be uint8 height × width"),
        (PIXELS.astype(np.float32), r"float32 4 × 5 × 3; .* float32 3 × height × width"),
        (PIXELS[0], r"uint8 5 × 3"),
        (np.zeros((), np.float32), r"float32 without axes"),
        (Image.new("CMYK", (2, 2)), r"PIL image that PNG cannot hold: .*CMYK"),
        (17, r"is int; must be a path, the bytes"),
        (Path(), r"cannot be read"),
    ],
)
def test_photos_that_are_refused(photo: Any, message: str) -> None:
    client = pellucid.Client()
    with client, pytest.raises(pellucid.BadArgument, match=message):
        client.predict(photo)


def test_missing_file(call: Call, server: FakeServer) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file nowhere") as caught:
        call("predict", "nowhere.jpg")
    assert isinstance(caught.value, pellucid.PhotoNotFound)
    assert not server.requests


def test_fields_of_predict(call: Call, server: FakeServer) -> None:
    call("predict", b"x", model="lite", top_k=0, include_logits=True, bucket_size=8)
    assert server.requests == [
        inference_pb2.PredictRequest(
            model="lite",
            image=data_pb2.Image(encoded=b"x"),
            top_k=0,
            include_logits=True,
            bucket_size=8,
        )
    ]


def test_fields_of_explain(call: Call, server: FakeServer) -> None:
    call(
        "explain",
        b"x",
        "occlusion",
        target=pellucid.Neuron("conv", 3, y=0, x=2),
        model="lite",
        outputs=("attribution", "heatmap"),
        color_scale="absolute",
        percentile=90,
        longest_side_px=64,
        format="png",
        legend=False,
        bucket_size=2,
        window_px=np.int64(5),
        fill="blur",
        blur_sigma_px=2,
    )
    assert server.requests == [
        inference_pb2.ExplainRequest(
            model="lite",
            image=data_pb2.Image(encoded=b"x"),
            target=inference_pb2.Target(
                neuron=inference_pb2.Neuron(layer="conv", channel=3, y=0, x=2)
            ),
            outputs=[
                inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION,
                inference_pb2.EXPLAIN_OUTPUT_HEATMAP,
            ],
            rendering=inference_pb2.Rendering(
                color_scale=inference_pb2.COLOR_SCALE_ABSOLUTE,
                percentile=90,
                longest_side_px=64,
                format=data_pb2.IMAGE_FORMAT_PNG,
                legend=False,
            ),
            bucket_size=2,
            occlusion=inference_pb2.Occlusion(
                window_px=5, fill=data_pb2.FILL_BLUR, blur_sigma_px=2
            ),
        )
    ]


def test_unset_stays_unset() -> None:
    assert not explain_request().HasField("target")
    assert not explain_request().rendering.ListFields()


@pytest.mark.parametrize("name", _wire.METHODS)
def test_every_method_is_called_by_its_name(name: str) -> None:
    assert explain_request(name).WhichOneof("method") == name


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("blur", inference_pb2.Baseline(fill=data_pb2.FILL_BLUR)),
        (
            {"fill": "noise", "seed": 4},
            inference_pb2.Baseline(fill=data_pb2.FILL_NOISE, seed=4),
        ),
        (
            np.ones((3, 1, 2)),
            inference_pb2.Baseline(
                tensor=data_pb2.Tensor(
                    data_type=data_pb2.DATA_TYPE_FLOAT32,
                    shape=[3, 1, 2],
                    data=np.ones(6, "<f4").tobytes(),
                )
            ),
        ),
    ],
)
def test_baselines(baseline: Any, expected: inference_pb2.Baseline) -> None:
    parameters = {"baseline": baseline, "step_count": 7}
    sent = explain_request("integrated_gradients", method_parameters=parameters)
    assert sent.integrated_gradients == inference_pb2.IntegratedGradients(
        step_count=7, baseline=expected
    )


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("occlusion", "window_px=32", ("window_px", 32)),
        ("occlusion", "fill=blur", ("fill", "blur")),
        ("grad_cam", "layer=a.b=c", ("layer", "a.b=c")),
        ("grad_cam", "relu=False", ("relu", False)),
        ("rise", "keep_probability=0.25", ("keep_probability", 0.25)),
        ("lime", "baseline=black", ("baseline", {"fill": "black"})),
        ("lime", "baseline.fill=black", ("baseline", {"fill": "black"})),
        ("lime", "baseline.blur_sigma_px=3", ("baseline", {"blur_sigma_px": 3.0})),
        ("lime", "nothing=3", ("nothing", "3")),  # is refused by name, with what there is
    ],
)
def test_parameters_of_the_command_line(method: str, text: str, expected: Any) -> None:
    assert _wire.parameter(method, text) == expected


@pytest.mark.parametrize(
    ("method", "text", "message"),
    [
        ("occlusion", "window_px", "must be NAME=VALUE"),
        ("occlusion", "window_px=wide", "window_px: is 'wide'; must be a number"),
        ("grad_cam", "relu=1", "relu: is '1'; must be true or false"),
        ("shap", "a=1", "method: is 'shap'; must be one of"),
    ],
)
def test_parameters_that_cannot_be_read(method: str, text: str, message: str) -> None:
    with pytest.raises(pellucid.BadArgument, match=message):
        _wire.parameter(method, text)


def test_several_classes_and_one_against_them() -> None:
    sent = explain_request(target=[3, "tabby"], against="lynx", score="probability").target
    assert sent == inference_pb2.Target(
        classes=inference_pb2.Classes(class_indices=[3], labels=["tabby"]),
        against_label="lynx",
        score=inference_pb2.SCORE_PROBABILITY,
    )
    assert explain_request(against=0).target == inference_pb2.Target(against_class_index=0)


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [(0, "class_index", 0), (np.int64(7), "class_index", 7), ("tabby", "label", "tabby")],
)
def test_targets(target: Any, field: str, value: Any) -> None:
    sent = explain_request(target=target).target
    assert (sent.WhichOneof("kind"), getattr(sent, field)) == (field, value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"method": "saliency"},
            r"method: is 'saliency'; must be one of gradient, deconv",
        ),
        (
            {"method": "occlusion", "method_parameters": {"window": 3}},
            r"window: not a parameter of occlusion, which has window_px, stride_px, fill, blur",
        ),
        ({"method_parameters": {"window_px": 3}}, r"not a parameter of gradient, which has none"),
        (
            {"method": "occlusion", "method_parameters": {"fill": "red"}},
            r"fill: is 'red'; must be 'black' or 'white' or 'mean' or 'blur'",
        ),
        (
            {"method": "occlusion", "method_parameters": {"window_px": 2**40}},
            r"window_px: is 1099511627776",
        ),
        (
            {"method": "lime", "method_parameters": {"baseline": {"colour": 3}}},
            r"colour: not a parameter of baseline, which has fill, blur_sigma_px, seed, tensor",
        ),
        (
            {"method": "lime", "method_parameters": {"baseline": 3}},
            r"baseline: is 3; must be a mapping",
        ),
        ({"outputs": ["map"]}, r"outputs: .*must be 'attribution' or 'heatmap' or 'rendering'"),
        ({"outputs": "heatmap"}, r"outputs: is 'heatmap'"),
        ({"rendering": {"format": "gif"}}, r"format: is 'gif'; must be 'jpeg' or 'png'"),
        ({"rendering": {"format": 2}}, r"format: is 2"),
        ({"rendering": {"percentile": "high"}}, r"percentile: is 'high'"),
        (
            {"target": 1.5},
            r"target: is 1.5; must be a class index, a label, several of them, or a Neuron",
        ),
        ({"bucket_size": 1.5}, r"bucket_size: is 1.5"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        explain_request(**arguments)
    assert isinstance(caught.value, pellucid.BadArgument)
