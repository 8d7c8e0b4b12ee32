"""Requests to Specs, naming all that is wrong with them, and results back by hand arithmetic."""

import hashlib
import math
import struct
import time
import tracemalloc
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from google.rpc import code_pb2, error_details_pb2
from pellucid import render
from pellucid.v1 import data_pb2, inference_pb2, model_pb2
from pellucid_server import wire
from pellucid_server.engine.costs import Costs
from pellucid_server.engine.job import Done, Ride, Spec, Timing
from pellucid_server.engine.rows import (
    ClassesTarget,
    ClassTarget,
    Lane,
    NeuronTarget,
    Score,
    TopTarget,
)
from pellucid_server.errors import (
    CODES,
    DeadlineTooShort,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Overloaded,
    PellucidError,
    Violation,
)
from pellucid_server.inputs import ArrayPhoto, EncodedPhoto, Loaded, PreparedInput
from pellucid_server.methods.explain.explain import Explain
from pellucid_server.methods.explain.explanation import ExplainMethod, Explanation, Falls
from pellucid_server.methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.predict import Predict, PredictResult
from pellucid_server.models.registry import FailedModel, Model, Precision, Registry
from pellucid_server.photos import read_header
from pellucid_server.wire.fields import write_parameters
from PIL import Image
from torch import nn

from tests.harness import tiny_model

SIDE_PX = 14  # a seventh of it is 2: occlusion's default window
MAX_PIXELS = 1000
LIMITS = wire.Limits(
    max_photo_pixels=MAX_PIXELS,
    buckets=(1, 2, 8),
    max_optimize_pixels=0,
    optimize_buckets=Buckets(1),
    checkpoint_key=b"",
)
CALL = wire.Call("someone", deadline_s=123.0)
MOST_ERROR_BYTES = 4096
"""An error goes out in gRPC's trailers, its message twice; clients take 8 KiB by default."""

NAN, INF = float("nan"), float("inf")


def network(activation: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1),  # 5 × 7 × 7
            activation,
            nn.Flatten(2),  # 5 × 49: neither channels nor maps
            nn.Flatten(),
            nn.Linear(245, 4),
        )


MODEL = replace(tiny_model(network(nn.ReLU()), SIDE_PX), name="rectified")
SMOOTH = replace(tiny_model(network(nn.GELU()), SIDE_PX), name="smooth")
TWINS = replace(MODEL, name="twins", labels=("crane", "Crane", "maillot", "maillot"))
BROKEN = FailedModel("broken", "its weights are missing")
REGISTRY = Registry([MODEL, BROKEN, SMOOTH, TWINS])


def tensor(data_type: int, shape: Any, data: bytes) -> data_pb2.Image:
    return data_pb2.Image(tensor=data_pb2.Tensor(data_type=data_type, shape=shape, data=data))


def tensor_of(array: np.ndarray) -> data_pb2.Image:
    kinds = {
        "uint8": data_pb2.DATA_TYPE_UINT8,
        "float32": data_pb2.DATA_TYPE_FLOAT32,
        "float64": data_pb2.DATA_TYPE_FLOAT64,
        "int64": data_pb2.DATA_TYPE_INT64,
    }
    return tensor(kinds[array.dtype.name], array.shape, array.tobytes())


def prepared_with(value: float) -> data_pb2.Image:
    array = np.zeros((3, SIDE_PX, SIDE_PX), np.float32)
    array[1, 2, 3] = array[2, 0, 0] = value
    return tensor_of(array)


def file_of(form: str, width: int = 4, height: int = 3, **options: Any) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    bodies = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"]
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in bodies
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


PHOTO = tensor_of(np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3))


def explain(**fields: Any) -> inference_pb2.ExplainRequest:
    """A good request with some fields set otherwise; None leaves a field out."""
    methods = {"gradient", "deconvnet", "guided_backprop", "occlusion"}
    if not methods & set(fields):
        fields["gradient"] = inference_pb2.Gradient()
    fields.setdefault("image", PHOTO)
    return inference_pb2.ExplainRequest(**{k: v for k, v in fields.items() if v is not None})


def read(request: inference_pb2.ExplainRequest) -> tuple[Spec, wire.View]:
    asked = wire.read_explain(request, CALL, REGISTRY, LIMITS)
    assert asked.view is not None
    return asked.spec, asked.view


def read_predict(**fields: Any) -> Spec:
    fields.setdefault("image", PHOTO)
    return wire.read_predict(inference_pb2.PredictRequest(**fields), CALL, REGISTRY, LIMITS).spec


def refused(reading: Callable[[], Any]) -> tuple[PellucidError, dict[str, str]]:
    """What was raised, and the description of each field that it names."""
    with pytest.raises(PellucidError) as caught:
        reading()
    error = caught.value
    described = {violation.field: violation.description for violation in error.violations}
    assert len(described) == len(error.violations)
    for field, description in described.items():
        assert f"{field}: {description}" in error.message
    return error, described


# Defaults.


def test_an_explanation_of_nothing_but_an_image_and_a_method() -> None:
    spec, view = read(explain())
    assert spec.model is MODEL
    assert spec.method == Explain(Gradient())
    assert spec.target == TopTarget()
    assert (spec.caller, spec.deadline_s) == ("someone", 123.0)
    assert spec.bucket_size is None
    assert view == wire.View(
        attribution=False,
        heatmap=True,
        rendering=True,
        color_scale="absolute",
        percentile=99.5,
        longest_side_px=1024,
        format="jpeg",
        legend=True,
    )


def test_a_prediction_of_nothing_but_an_image() -> None:
    spec = read_predict()
    assert spec.method == Predict(top_k=4, include_logits=False)  # of its default 5, all there are
    assert spec.model is MODEL
    assert spec.target == TopTarget()
    assert (spec.caller, spec.deadline_s, spec.bucket_size) == ("someone", 123.0, None)


def test_five_classes_are_returned_by_default() -> None:
    many = replace(tiny_model(nn.Sequential(nn.Flatten(), nn.Linear(12, 9))), labels=("x",) * 9)
    request = inference_pb2.PredictRequest(image=PHOTO)
    spec = wire.read_predict(request, CALL, Registry([many]), LIMITS).spec
    assert spec.method == Predict(top_k=5, include_logits=False)


def test_everything_set() -> None:
    spec, view = read(
        explain(
            model="smooth",
            target=inference_pb2.Target(
                neuron=inference_pb2.Neuron(layer="0", channel=4, y=6, x=0)
            ),
            outputs=[inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION],
            rendering=inference_pb2.Rendering(
                color_scale=inference_pb2.COLOR_SCALE_ABSOLUTE,
                percentile=50,
                longest_side_px=32,
                format=data_pb2.IMAGE_FORMAT_PNG,
                legend=False,
            ),
            bucket_size=8,
            occlusion=inference_pb2.Occlusion(
                window_px=14, stride_px=14, fill=data_pb2.FILL_BLUR, blur_sigma_px=100
            ),
        )
    )
    assert spec.model is SMOOTH
    assert spec.target == NeuronTarget("0", 4, 6, 0)
    assert spec.method == Explain(Occlusion(14, 14, "blur", 100.0, window_count=1))
    assert spec.bucket_size == 8
    assert view == wire.View(True, False, False, "absolute", 50.0, 32, "png", False)
    predict = read_predict(model="smooth", top_k=1, include_logits=True, bucket_size=2)
    assert predict.model is SMOOTH
    assert predict.method == Predict(1, True)
    assert predict.bucket_size == 2


@pytest.mark.parametrize(
    ("message", "window_px", "stride_px", "fill", "sigma_px"),
    [
        ({}, 2, 1, data_pb2.FILL_MEAN, None),
        ({"window_px": 7}, 7, 3, data_pb2.FILL_MEAN, None),
        ({"window_px": 1}, 1, 1, data_pb2.FILL_MEAN, None),
        ({"stride_px": 2}, 2, 2, data_pb2.FILL_MEAN, None),
        ({"fill": data_pb2.FILL_BLACK}, 2, 1, data_pb2.FILL_BLACK, None),
        ({"fill": data_pb2.FILL_WHITE}, 2, 1, data_pb2.FILL_WHITE, None),
        ({"fill": data_pb2.FILL_BLUR}, 2, 1, data_pb2.FILL_BLUR, 10.0),
        (
            {"fill": data_pb2.FILL_BLUR, "blur_sigma_px": 0.5},
            2,
            1,
            data_pb2.FILL_BLUR,
            0.5,
        ),
    ],
)
def test_occlusion_comes_back_with_its_defaults_filled_in(
    message: dict[str, Any], window_px: int, stride_px: int, fill: int, sigma_px: float | None
) -> None:
    spec, view = read(explain(occlusion=inference_pb2.Occlusion(**message)))
    assert view.color_scale == "signed"
    back = inference_pb2.Occlusion()
    asked = spec.method
    assert isinstance(asked, Explain)
    write_parameters(asked.method, back, tensors=True)
    assert back.window_count == sum(asked.row_counts(spec.model, spec.target).values()) - 1
    back.ClearField("window_count")
    assert back == inference_pb2.Occlusion(
        window_px=window_px, stride_px=stride_px, fill=fill, blur_sigma_px=sigma_px
    )
    again, _ = read(explain(occlusion=back))
    assert again.method == spec.method


@pytest.mark.parametrize("method", [Gradient(), Deconvnet(), GuidedBackprop()])
def test_gradients_are_read_by_their_names(method: Gradient) -> None:
    request = explain()
    write_parameters(method, getattr(request, method.name), tensors=True)
    spec, view = read(request)
    assert spec.method == Explain(method)
    assert view.color_scale == "absolute"


@pytest.mark.parametrize(
    ("model", "target", "expected"),
    [
        ("", {"class_index": 0}, ClassTarget(0)),
        ("", {"class_index": 3}, ClassTarget(3)),
        ("", {"label": "third"}, ClassTarget(2)),
        ("", {"label": "THIRD"}, ClassTarget(2)),
        ("twins", {"label": "crane"}, ClassTarget(0)),
        ("twins", {"label": "Crane"}, ClassTarget(1)),
        ("", {"neuron": {"layer": "0", "channel": 0}}, NeuronTarget("0", 0)),
        ("", {"neuron": {"layer": "4", "channel": 3}}, NeuronTarget("4", 3)),
        ("", {"neuron": {"layer": "0", "channel": 4, "y": 0, "x": 6}}, NeuronTarget("0", 4, 0, 6)),
    ],
)
def test_targets(model: str, target: dict[str, Any], expected: Any) -> None:
    spec, _ = read(explain(model=model, target=inference_pb2.Target(**target)))
    assert spec.target == expected


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_images_become_sources() -> None:
    outputs = [inference_pb2.EXPLAIN_OUTPUT_HEATMAP]
    encoded = file_of("PNG")
    spec, _ = read(explain(image=data_pb2.Image(encoded=encoded)))
    header = read_header(encoded, max_pixels=MAX_PIXELS)
    assert spec.source == EncodedPhoto(encoded, MAX_PIXELS, canvas_px=1024, header=header)
    spec, _ = read(explain(image=data_pb2.Image(encoded=encoded), outputs=outputs))
    assert spec.source == EncodedPhoto(encoded, MAX_PIXELS, canvas_px=None, header=header)
    assert read_predict(image=data_pb2.Image(encoded=encoded)).source.canvas_px is None
    assert spec.source.sha256 == sha256(encoded)

    spec, _ = read(explain(rendering=inference_pb2.Rendering(longest_side_px=77)))
    assert isinstance(spec.source, ArrayPhoto)
    assert spec.source.canvas_px == 77
    assert np.array_equal(spec.source.photo, np.arange(90).reshape(6, 5, 3))
    assert spec.source.sha256 == sha256(b"uint8 6 5 3\n" + PHOTO.tensor.data)

    array = np.random.default_rng(0).normal(size=(3, SIDE_PX, SIDE_PX)).astype(np.float32)
    spec, _ = read(explain(image=tensor_of(array), outputs=outputs))
    assert isinstance(spec.source, PreparedInput)
    assert spec.source.canvas_px is None
    assert np.array_equal(spec.source.array, array)
    assert spec.source.sha256 == sha256(b"float32 3 14 14\n" + array.tobytes())


# What is refused, one thing at a time.

OUTPUTS = "EXPLAIN_OUTPUT_ATTRIBUTION, EXPLAIN_OUTPUT_HEATMAP or EXPLAIN_OUTPUT_RENDERING"
BAD_REQUESTS: list[tuple[type[PellucidError], dict[str, Any], str, list[str]]] = [
    (NotFound, {"model": "resnet"}, "model", ["'resnet'", "rectified, smooth, twins"]),
    (
        NotFound,
        {"model": "broken"},
        "model",
        ["'broken' could not be loaded: its weights are missing"],
    ),
    (
        InvalidArgument,
        {"gradient": None},
        "method",
        ["required", "gradient, deconvnet, guided_backprop, occlusion"],
    ),
    (InvalidArgument, {"bucket_size": 4}, "bucket_size", ["is 4;", "1, 2, 8"]),
    (InvalidArgument, {"bucket_size": 0}, "bucket_size", ["is 0;", "1, 2, 8"]),
    (InvalidArgument, {"bucket_size": -1}, "bucket_size", ["is -1;", "1, 2, 8"]),
    (InvalidArgument, {"outputs": [0]}, "outputs", [f"has 0; each must be {OUTPUTS}"]),
    (InvalidArgument, {"outputs": [2, 9]}, "outputs", [f"has 9; each must be {OUTPUTS}"]),
]
BAD_TARGETS: list[tuple[type[PellucidError], dict[str, Any], str, list[str]]] = [
    (InvalidArgument, {"class_index": 4}, "class_index", ["is 4;", "0 to 3"]),
    (InvalidArgument, {"class_index": -1}, "class_index", ["is -1;", "0 to 3"]),
    (NotFound, {"label": "frist"}, "label", ["'frist'", "close to it: first"]),
    (NotFound, {"label": "FOURT"}, "label", ["'FOURT'", "fourth"]),
    (NotFound, {"label": ""}, "label", ["''"]),
    (
        InvalidArgument,
        {"score": 4},
        "score",
        ["is 4; must be SCORE_LOGIT, SCORE_LOG_PROBABILITY or SCORE_PROBABILITY"],
    ),
]
BAD_NEURONS: list[tuple[type[PellucidError], dict[str, Any], str, list[str]]] = [
    (NotFound, {"layer": "", "channel": 0}, "layer", ["''", "GetModel"]),
    (NotFound, {"layer": "5", "channel": 0}, "layer", ["'5'", "GetModel"]),
    (FailedPrecondition, {"layer": "2", "channel": 0}, "layer", ["2 cannot", "5 × 49"]),
    (InvalidArgument, {"layer": "0", "channel": 5}, "channel", ["is 5;", "0 to 4"]),
    (InvalidArgument, {"layer": "0", "channel": -1}, "channel", ["is -1;", "0 to 4"]),
    (InvalidArgument, {"layer": "0", "channel": 0, "y": 1}, "x", ["required"]),
    (InvalidArgument, {"layer": "0", "channel": 0, "x": 1}, "y", ["required"]),
    (InvalidArgument, {"layer": "0", "channel": 0, "y": 7, "x": 6}, "y", ["is 7;", "0 to 6"]),
    (InvalidArgument, {"layer": "0", "channel": 0, "y": 6, "x": -1}, "x", ["is -1;", "0 to 6"]),
    (InvalidArgument, {"layer": "4", "channel": 4}, "channel", ["is 4;", "0 to 3"]),
]
BAD_OCCLUSIONS: list[tuple[type[PellucidError], dict[str, Any], str, list[str]]] = [
    (InvalidArgument, {"window_px": 0}, "window_px", ["is 0;", "1 to 14"]),
    (InvalidArgument, {"window_px": -3}, "window_px", ["is -3;", "1 to 14"]),
    (InvalidArgument, {"window_px": 15}, "window_px", ["is 15;", "1 to 14"]),
    (InvalidArgument, {"stride_px": 0}, "stride_px", ["is 0;", "1 to 2"]),
    (InvalidArgument, {"stride_px": 3}, "stride_px", ["is 3;", "1 to 2"]),
    (InvalidArgument, {"window_px": 5, "stride_px": 6}, "stride_px", ["is 6;", "1 to 5"]),
    (
        InvalidArgument,
        {"fill": 6},
        "fill",
        ["is 6; must be FILL_BLACK, FILL_WHITE, FILL_MEAN, FILL_BLUR or FILL_NOISE"],
    ),
    (InvalidArgument, {"blur_sigma_px": 3}, "blur_sigma_px", ["FILL_BLUR only"]),
    (InvalidArgument, {"seed": 3}, "seed", ["FILL_NOISE only"]),
    *(
        (
            InvalidArgument,
            {"fill": data_pb2.FILL_BLUR, "blur_sigma_px": sigma},
            "blur_sigma_px",
            [f"is {sigma};", "0.1 to 100"],
        )
        for sigma in (0.0, -1.0, 100.5, NAN, INF, -INF)
    ),
]
BAD_RENDERINGS: list[tuple[type[PellucidError], dict[str, Any], str, list[str]]] = [
    *(
        (InvalidArgument, {"percentile": p}, "percentile", [f"is {p};", "50 to 100"])
        for p in (49.9, 100.1, NAN, INF, -INF)
    ),
    *(
        (InvalidArgument, {"longest_side_px": s}, "longest_side_px", [f"is {s};", "32 to 4096"])
        for s in (31, 4097, 0, -1)
    ),
    (
        InvalidArgument,
        {"color_scale": 3},
        "color_scale",
        ["is 3; must be COLOR_SCALE_SIGNED or COLOR_SCALE_ABSOLUTE"],
    ),
    (
        InvalidArgument,
        {"format": 3},
        "format",
        ["is 3; must be IMAGE_FORMAT_JPEG or IMAGE_FORMAT_PNG"],
    ),
]
BAD = [
    *BAD_REQUESTS,
    *(
        (error, {"target": inference_pb2.Target(**target)}, f"target.{field}", words)
        for error, target, field, words in BAD_TARGETS
    ),
    *(
        (error, {"target": inference_pb2.Target(neuron=neuron)}, f"target.neuron.{field}", words)
        for error, neuron, field, words in BAD_NEURONS
    ),
    *(
        (error, {"occlusion": inference_pb2.Occlusion(**message)}, f"occlusion.{field}", words)
        for error, message, field, words in BAD_OCCLUSIONS
    ),
    *(
        (error, {"rendering": inference_pb2.Rendering(**message)}, f"rendering.{field}", words)
        for error, message, field, words in BAD_RENDERINGS
    ),
]


@pytest.mark.parametrize(("error_type", "fields", "field", "words"), BAD)
def test_one_thing_wrong(
    error_type: type[PellucidError], fields: dict[str, Any], field: str, words: list[str]
) -> None:
    error, described = refused(lambda: read(explain(**fields)))
    assert type(error) is error_type
    assert set(described) == {field}
    for word in words:
        assert word in described[field]


@pytest.mark.parametrize("method", ["lrp", "deep_lift"])
def test_a_method_that_explains_logits_refuses_other_scores(method: str) -> None:
    request = inference_pb2.ExplainRequest(image=PHOTO)
    getattr(request, method).SetInParent()
    request.target.score = inference_pb2.SCORE_PROBABILITY
    error, described = refused(lambda: read(request))
    assert type(error) is InvalidArgument
    assert described["target.score"] == f"is SCORE_PROBABILITY; {method} explains SCORE_LOGIT only"


CAMS = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "guided_grad_cam", "score_cam")


def cam(method: str, tap: str | None = None, **fields: Any) -> inference_pb2.ExplainRequest:
    request = inference_pb2.ExplainRequest(image=PHOTO)
    message = getattr(request, method)
    message.SetInParent()
    for name, value in fields.items():
        setattr(message, name, value)
    if tap is not None:
        request.target.neuron.layer = tap
    return request


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize(("tap", "layer"), [(None, "1"), ("4", "1"), ("3", "1"), ("1", "0")])
def test_the_layer_of_a_cam_is_the_last_with_maps_before_the_target(
    method: str, tap: str | None, layer: str
) -> None:
    assert read(cam(method, tap))[0].method.method.layer == layer


@pytest.mark.parametrize("method", CAMS)
def test_a_cam_of_a_target_that_no_maps_come_before(method: str) -> None:
    error, described = refused(lambda: read(cam(method, "0")))
    assert type(error) is FailedPrecondition
    assert described == {f"{method}.layer": "no layer with maps or patches comes before the target"}


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize(("tap", "layer"), [("1", "1"), ("0", "0"), ("0", "1")])
def test_the_layer_of_a_cam_ends_before_the_target(method: str, tap: str, layer: str) -> None:
    error, described = refused(lambda: read(cam(method, tap, layer=layer)))
    assert type(error) is InvalidArgument
    assert described[f"{method}.layer"] == (
        f"is {layer}, which does not come before the target; must"
    )


@pytest.mark.parametrize(
    ("layer", "error_type", "words"),
    [
        ("9", NotFound, "'9' is not a layer of rectified"),
        ("2", FailedPrecondition, "2 has no maps or patches that reach the output"),
        (
            "4",
            FailedPrecondition,
            "4 has no maps or patches that reach the output: its output is 4",
        ),
    ],
)
def test_layers_that_no_cam_is_of(layer: str, error_type: type[PellucidError], words: str) -> None:
    error, described = refused(lambda: read(cam("grad_cam", layer=layer)))
    assert type(error) is error_type
    assert set(described) == {"grad_cam.layer"}
    assert described["grad_cam.layer"].startswith(words)


def test_a_neuron_of_a_layer_without_a_map() -> None:
    neuron = inference_pb2.Neuron(layer="4", channel=1, y=0, x=0)
    error, described = refused(lambda: read(explain(target=inference_pb2.Target(neuron=neuron))))
    assert type(error) is InvalidArgument
    assert set(described) == {"target.neuron.y", "target.neuron.x"}
    assert all("4 has no map" in description for description in described.values())


def test_a_label_that_classes_share_is_refused_with_their_indices() -> None:
    for label in ("maillot", "Maillot"):
        request = explain(model="twins", target=inference_pb2.Target(label=label))
        error, described = refused(lambda request=request: read(request))
        assert type(error) is InvalidArgument
        assert "2, 3" in described["target.label"]
        assert "class_index" in described["target.label"]
    # Two that differ in case only, and a third way to write it: which is meant is not known.
    request = explain(model="twins", target=inference_pb2.Target(label="CRANE"))
    assert "0, 1" in refused(lambda: read(request))[1]["target.label"]


def test_an_unknown_layer_comes_with_those_that_look_like_it() -> None:
    names = nn.Sequential(OrderedDict(features=network(nn.ReLU())))
    registry = Registry([tiny_model(names, SIDE_PX)])
    neuron = inference_pb2.Neuron(layer="Features,4", channel=0)
    request = explain(target=inference_pb2.Target(neuron=neuron))
    _, described = refused(lambda: wire.read_explain(request, CALL, registry, LIMITS))
    assert "close to it: features.4" in described["target.neuron.layer"]


@pytest.mark.parametrize(
    ("top_k", "ok"), [(0, False), (-1, False), (5, False), (2**31 - 1, False), (1, True), (4, True)]
)
def test_top_k(top_k: int, ok: bool) -> None:
    if ok:
        assert read_predict(top_k=top_k).method == Predict(top_k, False)
        return
    error, described = refused(lambda: read_predict(top_k=top_k))
    assert type(error) is InvalidArgument
    assert described == {"top_k": f"is {top_k}; must be 1 to 4"}


@pytest.mark.parametrize("name", ["deconvnet", "guided_backprop"])
def test_a_network_without_rectifiers_refuses_their_rules(name: str) -> None:
    message = {"deconvnet": inference_pb2.Deconvnet(), "guided_backprop": None}[name]
    message = message or inference_pb2.GuidedBackprop()
    error, described = refused(lambda: read(explain(model="smooth", **{name: message})))
    assert type(error) is FailedPrecondition
    assert set(described) == {name}
    assert described[name].startswith("does not apply: ")
    assert "GELU. gradient, occlusion, input_x_gradient" in described[name]
    assert described[name].endswith(" do")
    assert name not in described[name].partition(". ")[2].split(", ")


# Images that are refused.

DATA_TYPES = (
    "DATA_TYPE_UINT8, DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT64, DATA_TYPE_INT64 or DATA_TYPE_FLOAT16"
)
BAD_TENSORS: list[tuple[str, data_pb2.Image, str, list[str]]] = [
    (
        "no data type",
        tensor(0, [2, 2, 3], bytes(12)),
        ".data_type",
        [f"is 0; must be {DATA_TYPES}"],
    ),
    (
        "a new data type",
        tensor(9, [2, 2, 3], bytes(12)),
        ".data_type",
        [f"is 9; must be {DATA_TYPES}"],
    ),
    ("float64", tensor_of(np.zeros((3, 14, 14))), ".data_type", ["float64", "uint8", "float32"]),
    ("int64", tensor_of(np.zeros((2, 2, 3), np.int64)), ".data_type", ["int64", "uint8"]),
    ("no shape", tensor(1, [], b"\0"), ".shape", ["a scalar", "at least 1"]),
    ("a length of 0", tensor(1, [0, 2, 3], b""), ".shape", ["0 × 2 × 3", "at least 1"]),
    ("negative lengths", tensor(1, [-2, -2, 3], bytes(12)), ".shape", ["-2 × -2 × 3"]),
    ("no bytes", tensor(1, [2, 2, 3], b""), ".data", ["0 bytes", "2 × 2 × 3 of uint8 takes 12"]),
    ("one byte less", tensor(1, [2, 2, 3], bytes(11)), ".data", ["11 bytes", "takes 12"]),
    ("one byte more", tensor(1, [2, 2, 3], bytes(13)), ".data", ["13 bytes", "takes 12"]),
    ("a wrong item size", tensor(2, [2, 2, 3], bytes(12)), ".data", ["12 bytes", "takes 48"]),
    ("two axes", tensor_of(np.zeros((2, 3), np.uint8)), ".shape", ["2 × 3;", "height × width"]),
    ("four axes", tensor_of(np.zeros((1, 2, 2, 3), np.uint8)), ".shape", ["1 × 2 × 2 × 3"]),
    ("with alpha", tensor_of(np.zeros((2, 2, 4), np.uint8)), ".shape", ["2 × 2 × 4", "width × 3"]),
    ("too many pixels", tensor_of(np.zeros((7, 143, 3), np.uint8)), ".shape", ["1001", "1000"]),
    ("HWC floats", tensor_of(np.zeros((14, 14, 3), np.float32)), ".shape", ["3 × 14 × 14"]),
    ("another size", tensor_of(np.zeros((3, 14, 15), np.float32)), ".shape", ["3 × 14 × 14"]),
    ("NaN", prepared_with(NAN), ".data", ["2 elements", "(1, 2, 3)", "finite"]),
    ("inf", prepared_with(INF), ".data", ["2 elements", "(1, 2, 3)", "finite"]),
    ("-inf", prepared_with(-INF), ".data", ["2 elements", "(1, 2, 3)", "finite"]),
]


@pytest.mark.parametrize(
    ("image", "field", "words"), [case[1:] for case in BAD_TENSORS], ids=[c[0] for c in BAD_TENSORS]
)
def test_bad_tensors(image: data_pb2.Image, field: str, words: list[str]) -> None:
    for reading in (lambda: read(explain(image=image)), lambda: read_predict(image=image)):
        error, described = refused(reading)
        assert type(error) is InvalidArgument
        assert set(described) == {"image.tensor" + field}
        for word in words:
            assert word in described["image.tensor" + field]


@pytest.mark.parametrize(
    "shape",
    [
        [10**18, 10**18, 3],
        [10**9, 10**9, 3],
        [2**32, 2**32, 1],  # 2⁶⁴: 0 in 64 bits
        [2**62, 4, 3],
        [2**63 - 1, 2**63 - 1, 3],
        [2**61 + 1, 8, 1],  # 8 in 64 bits
        [2**62] * 300,  # a product of 5,600 digits
        [2**62] * 20_000,
    ],
    ids=lambda shape: f"{shape[0]} and {len(shape) - 1} more",
)
@pytest.mark.parametrize("data", [b"", bytes(8)])
def test_a_giant_shape_costs_nothing(shape: list[int], data: bytes) -> None:
    image = tensor(data_pb2.DATA_TYPE_UINT8, shape, data)
    tracemalloc.start()
    started_s = time.thread_time()
    try:
        error, described = refused(lambda: read(explain(image=image)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert type(error) is InvalidArgument
    assert len(described) == 1
    assert next(iter(described)) in ("image.tensor.shape", "image.tensor.data")
    assert peak_bytes < 32 << 20
    assert time.thread_time() - started_s < 0.5


@pytest.mark.parametrize("axis_count", [5, 32, 65, 100_000])
def test_many_axes(axis_count: int) -> None:
    """NumPy has 64 axes at most."""
    image = tensor(data_pb2.DATA_TYPE_UINT8, [1] * axis_count, b"\0")
    error, described = refused(lambda: read(explain(image=image)))
    assert type(error) is InvalidArgument
    assert set(described) == {"image.tensor.shape"}


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("no bytes", b"", "zero bytes"),
    ("text", b"hello, not a photo", "unknown"),
    ("a GIF", file_of("GIF"), "GIF"),
    ("a header cut off", file_of("PNG")[:20], "PNG"),
    ("a WebP cut off", file_of("WEBP", 30, 30)[:-400], "WebP"),
    ("three bytes of a JPEG", file_of("JPEG")[:3], "JPEG"),
    (
        "an animated PNG",
        file_of("PNG", save_all=True, append_images=[Image.new("RGB", (4, 3))]),
        "2 frames",
    ),
    (
        "an animated WebP",
        file_of("WEBP", save_all=True, append_images=[Image.new("RGB", (4, 3))]),
        "2 frames",
    ),
    ("a PNG one pixel too large", file_of("PNG", 143, 7), "1001"),
    ("a JPEG one pixel too large", file_of("JPEG", 143, 7), "1001"),
    ("a bomb", png_header(2**31 - 1, 2**31 - 1), "1000"),
]


@pytest.mark.parametrize(
    ("data", "word"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES]
)
def test_bad_files(data: bytes, word: str) -> None:
    image = data_pb2.Image(encoded=data)
    for reading in (lambda: read(explain(image=image)), lambda: read_predict(image=image)):
        error, described = refused(reading)
        assert type(error) is InvalidArgument
        assert set(described) == {"image.encoded"}
        assert word in described["image.encoded"]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])  # of a WebP, the header tells already
def test_a_photo_that_is_cut_off_is_refused_by_name_when_it_is_decoded(form: str) -> None:
    cut = file_of(form, 30, 30)[:-400]
    spec = read_predict(image=data_pb2.Image(encoded=cut))
    error, described = refused(lambda: spec.source.load(MODEL))
    assert type(error) is InvalidArgument
    assert "truncated" in described["image.encoded"]


def test_no_image() -> None:
    for image in (data_pb2.Image(), None):
        error, described = refused(lambda image=image: read(explain(image=image)))
        assert type(error) is InvalidArgument
        assert described == {"image": "required; either encoded or tensor"}
    assert set(refused(lambda: read_predict(image=None))[1]) == {"image"}


# Everything at once.


def test_every_violation_is_named_at_once() -> None:
    error, described = refused(
        lambda: read(
            explain(
                image=prepared_with(NAN),
                target=inference_pb2.Target(neuron=inference_pb2.Neuron(layer="0", channel=5, y=7)),
                outputs=[7],
                rendering=inference_pb2.Rendering(
                    color_scale=9, percentile=NAN, longest_side_px=5, format=9
                ),
                bucket_size=3,
                occlusion=inference_pb2.Occlusion(
                    window_px=15, stride_px=0, fill=9, blur_sigma_px=1
                ),
            )
        )
    )
    assert type(error) is InvalidArgument
    assert set(described) == {
        "image.tensor.data",
        "target.neuron.channel",
        "target.neuron.y",
        "target.neuron.x",
        "outputs",
        "rendering.color_scale",
        "rendering.percentile",
        "rendering.longest_side_px",
        "rendering.format",
        "bucket_size",
        "occlusion.window_px",
        "occlusion.stride_px",
        "occlusion.fill",
        "occlusion.blur_sigma_px",
    }
    assert wire.write_error(error).ByteSize() < MOST_ERROR_BYTES


def test_every_violation_of_a_prediction_is_named_at_once() -> None:
    error, described = refused(
        lambda: read_predict(image=data_pb2.Image(encoded=b"GIF89a"), top_k=0, bucket_size=3)
    )
    assert type(error) is InvalidArgument
    assert set(described) == {"image.encoded", "top_k", "bucket_size"}


def test_the_gravest_kind_decides_and_the_others_come_along() -> None:
    label = inference_pb2.Target(label="frist")
    deconvnet = inference_pb2.Deconvnet()
    image = data_pb2.Image()
    error, described = refused(lambda: read(explain(model="smooth", deconvnet=deconvnet)))
    assert type(error) is FailedPrecondition
    error, described = refused(
        lambda: read(explain(model="smooth", deconvnet=deconvnet, target=label))
    )
    assert type(error) is NotFound
    assert set(described) == {"deconvnet", "target.label"}
    error, described = refused(
        lambda: read(explain(model="smooth", deconvnet=deconvnet, target=label, image=image))
    )
    assert type(error) is InvalidArgument
    assert set(described) == {"deconvnet", "target.label", "image"}


def test_an_unknown_model_does_not_hide_what_else_is_wrong() -> None:
    error, described = refused(
        lambda: read(
            explain(
                model="resnet",
                image=tensor(1, [2, 2, 3], b""),
                rendering=inference_pb2.Rendering(percentile=NAN),
                bucket_size=3,
                gradient=None,
            )
        )
    )
    assert type(error) is InvalidArgument
    assert set(described) == {
        "model",
        "image.tensor.data",
        "rendering.percentile",
        "bucket_size",
        "method",
    }


def test_an_unknown_model_does_not_hide_what_is_wrong_for_any_model() -> None:
    neuron = inference_pb2.Neuron(layer="0", channel=0, y=1)
    _, described = refused(
        lambda: read(
            explain(
                model="resnet",
                target=inference_pb2.Target(neuron=neuron),
                occlusion=inference_pb2.Occlusion(fill=9, window_px=0, blur_sigma_px=1),
            )
        )
    )
    assert {"model", "target.neuron.x", "occlusion.fill", "occlusion.window_px"} <= set(described)


def test_an_unknown_layer_does_not_hide_what_is_wrong_for_any_layer() -> None:
    neuron = inference_pb2.Neuron(layer="nowhere", y=1)
    _, described = refused(lambda: read(explain(target=inference_pb2.Target(neuron=neuron))))
    assert set(described) == {"target.neuron.layer", "target.neuron.x"}


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "x" * 1_000_000},
        {"target": inference_pb2.Target(label="x" * 1_000_000)},
        {"target": inference_pb2.Target(neuron={"layer": "x" * 1_000_000, "channel": 0})},
        {"outputs": range(4, 50_000)},
        {"image": tensor(1, [1] * 60 + [10**18] * 200, b"")},
    ],
    ids=["model", "label", "layer", "outputs", "shape"],
)
def test_an_error_is_never_long(fields: dict[str, Any]) -> None:
    error, _ = refused(lambda: read(explain(**fields)))
    assert wire.write_error(error).ByteSize() < MOST_ERROR_BYTES


@pytest.mark.parametrize("reason", ["x" * 100_000, "🐈" * 100_000], ids=["x", "cats"])
def test_neither_is_that_of_a_model_that_could_not_be_loaded(reason: str) -> None:
    """A model.yaml of 64 KiB has room for many mistakes, and GetModel names them all."""
    registry = Registry([MODEL, FailedModel("broken", reason)])
    request = explain(model="broken")
    error, described = refused(lambda: wire.read_explain(request, CALL, registry, LIMITS))
    assert described["model"].startswith(f"'broken' could not be loaded: {reason[:200]}")
    assert described["model"].endswith("…; GetModel has all of it")
    assert wire.write_error(error).ByteSize() < MOST_ERROR_BYTES
    assert wire.write_model("broken", registry, costs_of).reason == reason


def test_the_name_of_an_unknown_model_is_not_echoed_at_length() -> None:
    with pytest.raises(NotFound) as caught:
        wire.write_model("x" * 1_000_000, REGISTRY, lambda _: Costs((1,), 1.0))
    assert wire.write_error(caught.value).ByteSize() < MOST_ERROR_BYTES


# Results.

TIMING = Timing(
    submitted_s=10.0,
    decode_started_s=10.5,
    ready_s=10.75,
    launched_s=11.75,
    finished_s=13.75,
    render_started_s=16.75,
)
RIDES = (Ride(8, 7, 3), Ride(2, 1, 1))


def spec_of(method: Any, target: Any = None, on: Model = MODEL) -> Spec:
    method = Explain(method) if isinstance(method, ExplainMethod) else method
    return Spec(
        on, method, ArrayPhoto(np.zeros((1, 1, 3), np.uint8), None), target or TopTarget(), 0.0
    )


def done(result: Any, loaded: Any = None) -> Done:
    return Done(result, loaded, RIDES, TIMING)


def test_predictions_by_hand() -> None:
    logits = torch.tensor([1.0, 2.0, 4.0, 3.0], dtype=torch.float64).log()
    response = wire.write_predict(spec_of(Predict(3, False)), done(PredictResult(logits.float())))
    assert [p.class_index for p in response.predictions] == [2, 3, 1]
    assert [p.label for p in response.predictions] == ["third", "fourth", "second"]
    assert [p.probability for p in response.predictions] == pytest.approx([0.4, 0.3, 0.2], rel=1e-6)
    expected = [math.log(4), math.log(3), math.log(2)]
    assert [p.logit for p in response.predictions] == pytest.approx(expected, rel=1e-6)
    assert not response.HasField("logits")


def test_logits_come_as_they_are() -> None:
    logits = torch.tensor([1e4, -1e4, 0.5, 9999.0])
    response = wire.write_predict(spec_of(Predict(1, True)), done(PredictResult(logits)))
    assert response.logits.data_type == data_pb2.DATA_TYPE_FLOAT32
    assert list(response.logits.shape) == [4]
    assert struct.unpack("<4f", response.logits.data) == (1e4, -1e4, 0.5, 9999.0)
    (best,) = response.predictions  # exp(10,000) is no number: the softmax must not overflow
    assert best.probability == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-12)


def test_a_run_says_how_it_came_about() -> None:
    on = replace(MODEL, name="exact", version="0123456789ab", precision=Precision.FLOAT64)
    logits = torch.zeros(4)
    run = wire.write_predict(spec_of(Predict(1, False), on=on), done(PredictResult(logits))).run
    assert run == inference_pb2.Run(
        model="exact",
        model_version="0123456789ab",
        preprocessing=model_pb2.Preprocessing(
            resize_shorter_side_px=16,  # 14 / 0.875
            height_px=14,
            width_px=14,
            interpolation=model_pb2.INTERPOLATION_BILINEAR,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        precision=model_pb2.PRECISION_FLOAT64,
        device="cpu",
        decode_ms=250.0,
        queue_ms=500.0 + 1000.0 + 3000.0,
        run_ms=2000.0,
        render_ms=0.0,
        batches=[
            inference_pb2.Batch(bucket_size=8, row_count=7, own_row_count=3),
            inference_pb2.Batch(bucket_size=2, row_count=1, own_row_count=1),
        ],
    )


def view(**fields: Any) -> wire.View:
    plain = wire.View(False, False, False, "absolute", 100.0, 64, "png", False)
    return replace(plain, **fields)


def loaded(canvas: np.ndarray | None = None) -> Loaded:
    return Loaded(torch.zeros(3, 2, 2), canvas, (4.0, 0.0, 8.0, 8.0), (16, 8))


CANVAS = np.full((4, 8, 3), 90, np.uint8)  # half of the photo's 16 × 8

# Three channels of 2 × 2: the sums are 127, -127, 0, 1; the magnitudes 255, 100, 51, 0.
ATTRIBUTION = torch.tensor(
    [
        [[255.0, -100.0], [51.0, 0.0]],
        [[-100.0, -27.0], [-51.0, 0.0]],
        [[-28.0, 0.0], [0.0, 0.0]],
    ]
)
SIGNED = ATTRIBUTION.clone()
SIGNED[2, 1, 1] = 1.0


def explanation(attribution: torch.Tensor = ATTRIBUTION, **fields: Any) -> Explanation:
    return Explanation(attribution, fields.pop("target", ClassTarget(1)), 2.5, **fields)


def pixels(picture: data_pb2.EncodedImage) -> np.ndarray:
    image = Image.open(BytesIO(picture.data))
    formats = {"PNG": data_pb2.IMAGE_FORMAT_PNG, "JPEG": data_pb2.IMAGE_FORMAT_JPEG}
    assert picture.format == formats[image.format]
    assert image.size == (picture.width_px, picture.height_px)
    return np.array(image)


def test_the_heatmap_of_magnitudes_by_hand() -> None:
    response = wire.write_explain(
        spec_of(Gradient()), view(heatmap=True), done(explanation(), loaded())
    )
    assert pixels(response.heatmap.image).tolist() == [[255, 100], [51, 0]]
    assert response.heatmap.color_scale == inference_pb2.COLOR_SCALE_ABSOLUTE
    assert response.heatmap.limit == 255
    assert response.heatmap.percentile == 100
    assert not response.HasField("rendering")
    assert not response.HasField("attribution")


def test_the_heatmap_of_signs_by_hand() -> None:
    chosen = view(heatmap=True, color_scale="signed")
    response = wire.write_explain(spec_of(Gradient()), chosen, done(explanation(SIGNED), loaded()))
    assert pixels(response.heatmap.image).tolist() == [[255, 1], [128, 129]]
    assert response.heatmap.color_scale == inference_pb2.COLOR_SCALE_SIGNED
    assert response.heatmap.limit == 127


def test_what_lies_above_the_percentile_is_clipped() -> None:
    attribution = torch.tensor([[[1.0, 2.0], [3.0, 10.0]]])  # its median magnitude is 2.5
    chosen = view(heatmap=True, percentile=50.0)
    response = wire.write_explain(
        spec_of(Gradient()), chosen, done(explanation(attribution), loaded())
    )
    assert (response.heatmap.limit, response.heatmap.percentile) == (2.5, 50)
    assert pixels(response.heatmap.image).tolist() == [[102, 204], [255, 255]]


def test_an_attribution_that_is_nothing_but_zeros() -> None:
    zeros = explanation(torch.zeros(3, 2, 2))
    for scale, grey in (("absolute", 0), ("signed", 128)):
        chosen = view(heatmap=True, rendering=True, color_scale=scale)
        response = wire.write_explain(spec_of(Gradient()), chosen, done(zeros, loaded(CANVAS)))
        assert (pixels(response.heatmap.image) == grey).all()
        assert response.heatmap.limit == 0


def test_the_raw_attribution_is_as_computed() -> None:
    response = wire.write_explain(
        spec_of(Gradient()), view(attribution=True), done(explanation(), loaded())
    )
    assert response.attribution.data_type == data_pb2.DATA_TYPE_FLOAT32
    assert list(response.attribution.shape) == [3, 2, 2]
    assert response.attribution.data == ATTRIBUTION.numpy().tobytes()
    assert not response.HasField("heatmap")
    assert not response.HasField("rendering")
    assert response.input_box == data_pb2.Box(x_px=4, y_px=0, width_px=8, height_px=8)


@pytest.mark.parametrize("form", ["png", "jpeg"])
@pytest.mark.parametrize("legend", [False, True])
def test_the_rendering_lies_on_the_canvas(
    monkeypatch: pytest.MonkeyPatch, form: Any, legend: bool
) -> None:
    drawn: list[dict[str, Any]] = []
    overlay = render.overlay

    def spy(canvas: Any, values: Any, **options: Any) -> Any:
        drawn.append({"values": values.tolist(), **options})
        return overlay(canvas, values, **options)

    monkeypatch.setattr(render, "overlay", spy)
    chosen = view(rendering=True, format=form, legend=legend, color_scale="signed")
    response = wire.write_explain(
        spec_of(Gradient()), chosen, done(explanation(SIGNED), loaded(CANVAS))
    )
    assert drawn == [
        {
            "values": [[127, -127], [0, 1]],
            "box": (2, 0, 4, 4),  # the input's box of 8 × 8 at (4, 0) of the photo, halved
            "limit": 127,
            "color_scale": "signed",
            "percentile": 100,
            "legend": legend,
        }
    ]
    picture = pixels(response.rendering)
    assert picture.shape[1] == 8 or legend
    assert (picture.shape[0] > 4) is legend
    assert response.heatmap.limit == 127  # the scale comes with the rendering, the heatmap does not
    assert not response.heatmap.HasField("image")
    assert response.run.render_ms > 0


def test_the_target_comes_back_resolved() -> None:
    def target(asked: Any, answered: Any) -> inference_pb2.ResolvedTarget:
        result = done(explanation(target=answered), loaded())
        return wire.write_explain(spec_of(Gradient(), asked), view(), result).target

    assert target(TopTarget(), ClassTarget(2)) == inference_pb2.ResolvedTarget(
        class_index=2,
        label="third",
        score=2.5,
        top_prediction=True,
        score_kind=inference_pb2.SCORE_LOGIT,
    )
    minus = ClassesTarget(((3, 1.0), (1, -1.0)), Score.PROBABILITY)
    assert target(TopTarget(Score.PROBABILITY, against=1), minus) == inference_pb2.ResolvedTarget(
        class_index=3,
        label="fourth",
        score=2.5,
        top_prediction=True,
        against_class_index=1,
        against_label="second",
        score_kind=inference_pb2.SCORE_PROBABILITY,
    )
    both = ClassesTarget(((3, 1.0), (0, 1.0)), Score.LOG_PROBABILITY)
    assert target(both, both) == inference_pb2.ResolvedTarget(
        classes=inference_pb2.Classes(class_indices=[3, 0], labels=["fourth", "first"]),
        score=2.5,
        score_kind=inference_pb2.SCORE_LOG_PROBABILITY,
    )
    assert target(ClassTarget(0), ClassTarget(0)) == inference_pb2.ResolvedTarget(
        class_index=0, label="first", score=2.5, score_kind=inference_pb2.SCORE_LOGIT
    )
    neuron = NeuronTarget("0", 4, 0, 6)
    assert target(neuron, neuron) == inference_pb2.ResolvedTarget(
        neuron=inference_pb2.Neuron(layer="0", channel=4, y=0, x=6), score=2.5
    )
    channel = target(NeuronTarget("0", 0), NeuronTarget("0", 0)).neuron
    assert channel.HasField("channel")
    assert not channel.HasField("y")
    assert not channel.HasField("x")


def test_occlusion_details_by_hand() -> None:
    method = Occlusion(window_px=4, stride_px=4, fill="mean", blur_sigma_px=1.0)
    falls = torch.zeros(4, 4, dtype=torch.float64)  # windows at 0, 4, 8 and 12 of 14 pixels
    falls[3, 3], falls[1, 2] = 3.0, -0.5
    windows = (slice(12, 14), slice(12, 14)), (slice(4, 8), slice(8, 12))
    result = explanation(torch.ones(1, 14, 14, dtype=torch.float64), falls=Falls(falls, *windows))
    response = wire.write_explain(spec_of(method), view(attribution=True), done(result, loaded()))
    details = response.occlusion_details
    assert details.largest_fall == data_pb2.Box(x_px=12, y_px=12, width_px=2, height_px=2)
    assert details.largest_rise == data_pb2.Box(x_px=8, y_px=4, width_px=4, height_px=4)
    assert list(details.falls.shape) == [4, 4]
    assert details.falls.data == falls.float().numpy().tobytes()
    assert list(response.attribution.shape) == [1, 14, 14]
    assert response.WhichOneof("method") == "occlusion"
    assert response.occlusion == inference_pb2.Occlusion(
        window_px=4, stride_px=4, fill=data_pb2.FILL_MEAN
    )


def test_where_no_covering_raises_the_score_there_is_no_rise() -> None:
    method = Occlusion(window_px=14, stride_px=1, fill="mean", blur_sigma_px=1.0)
    result = explanation(
        torch.ones(1, 14, 14), falls=Falls(torch.zeros(1, 1), (slice(0, 14),) * 2, None)
    )
    details = wire.write_explain(spec_of(method), view(), done(result, loaded())).occlusion_details
    assert details.HasField("largest_fall")
    assert not details.HasField("largest_rise")


@pytest.mark.parametrize("method", [Gradient(), Deconvnet(), GuidedBackprop()])
def test_the_method_comes_back(method: Gradient) -> None:
    response = wire.write_explain(spec_of(method), view(), done(explanation(), loaded()))
    assert response.WhichOneof("method") == method.name
    assert not response.HasField("occlusion_details")


def test_tensors_come_back_in_the_receipt_only() -> None:
    """As large as the image: whoever sent one has it."""
    array = np.random.default_rng(0).normal(size=(3, SIDE_PX, SIDE_PX)).astype(np.float32)
    baseline = inference_pb2.Baseline(tensor=tensor_of(array).tensor)
    asked = inference_pb2.ExplainRequest(
        image=PHOTO, integrated_gradients=inference_pb2.IntegratedGradients(baseline=baseline)
    )
    spec, shown = read(asked)
    response = wire.write_explain(spec, shown, done(explanation(), loaded(CANVAS)))
    assert response.integrated_gradients == inference_pb2.IntegratedGradients(
        step_count=50,
        quadrature=inference_pb2.QUADRATURE_GAUSS_LEGENDRE,
        baseline=inference_pb2.Baseline(),
    )
    kept = response.receipt.explain
    assert kept.integrated_gradients == inference_pb2.IntegratedGradients(
        step_count=50, quadrature=inference_pb2.QUADRATURE_GAUSS_LEGENDRE, baseline=baseline
    )
    kept.image.CopyFrom(PHOTO)
    assert torch.equal(read(kept)[0].method.method.baseline.tensor, torch.from_numpy(array))


# Warnings.


def warnings(
    target: Any, score: float, method: Any = None, attribution: torch.Tensor = ATTRIBUTION
) -> dict[str, str]:
    result = replace(explanation(attribution, target=target), score=score)
    spotted = replace(loaded(), input=torch.arange(12.0).view(3, 2, 2))
    written = wire.write_explain(
        spec_of(method or Gradient(), target), view(), done(result, spotted)
    )
    return {warning.reason: warning.description for warning in written.warnings}


SUM, CONTRAST = ((0, 1.0), (2, 1.0)), ((0, 1.0), (2, -1.0))
LOGIT, LOG_PROBABILITY, PROBABILITY = Score


@pytest.mark.parametrize(
    ("target", "score", "confidence"),
    [
        (ClassTarget(0, PROBABILITY), 0.995, "0.995"),
        (ClassTarget(0, PROBABILITY), 0.985, None),
        (ClassTarget(0, LOG_PROBABILITY), math.log(0.995), "0.995"),
        (ClassTarget(0, LOG_PROBABILITY), math.log(0.985), None),
        (ClassTarget(0, LOG_PROBABILITY), 1e-9, "1"),  # of rounding
        (ClassTarget(0, LOGIT), 30.0, None),
        (ClassesTarget(SUM, PROBABILITY), 0.995, "0.995"),
        (ClassesTarget(SUM, PROBABILITY), 0.985, None),
        (ClassesTarget(CONTRAST, PROBABILITY), 0.995, "0.995"),
        (ClassesTarget(CONTRAST, PROBABILITY), -0.995, "0.995"),
        (ClassesTarget(CONTRAST, PROBABILITY), -0.985, None),
        (ClassesTarget(SUM, LOG_PROBABILITY), -0.001, None),
        (ClassesTarget(CONTRAST, LOG_PROBABILITY), -0.001, None),
        (ClassesTarget(CONTRAST, LOG_PROBABILITY), 5.0, None),
        (ClassesTarget(CONTRAST, LOGIT), 30.0, None),
        (NeuronTarget("0", 1), 0.995, None),
    ],
)
def test_a_probability_that_saturates(target: Any, score: float, confidence: str | None) -> None:
    found = warnings(target, score)
    if confidence is None:
        assert found == {}
    else:
        assert set(found) == {"SATURATED"}
        assert f"the probability is {confidence}, " in found["SATURATED"]


def test_a_method_without_gradients_never_saturates() -> None:
    occlusion = Occlusion(window_px=7, stride_px=7, fill="mean", blur_sigma_px=1.0)
    assert warnings(ClassTarget(0, PROBABILITY), 0.999, occlusion) == {}


def test_an_attribution_of_zeros_is_warned_of() -> None:
    zeros = torch.zeros(3, 2, 2)
    assert set(warnings(ClassTarget(0), 1.0, attribution=zeros)) == {"ZERO_GRADIENT"}
    occlusion = Occlusion(window_px=7, stride_px=7, fill="mean", blur_sigma_px=1.0)
    assert set(warnings(ClassTarget(0), 1.0, occlusion, zeros)) == {"ZERO_ATTRIBUTION"}


# Models.


def test_all_models_are_listed_by_name() -> None:
    response = wire.write_models(REGISTRY)
    assert response == model_pb2.ListModelsResponse(
        models=[
            model_pb2.ModelSummary(name="broken", ready=False, reason="its weights are missing"),
            model_pb2.ModelSummary(name="rectified", ready=True, version="0"),
            model_pb2.ModelSummary(name="smooth", ready=True, version="0"),
            model_pb2.ModelSummary(name="twins", ready=True, version="0"),
        ]
    )


def costs_of(_model: Model) -> Costs:
    costs = Costs((1, 2, 8), 100.0)
    costs.record(Lane.GRADIENT, 2, 30.0)
    costs.record(Lane.FORWARD, 8, 40.0)
    costs.record(Lane.FORWARD, 1, 6.0)
    return costs


def test_one_model_in_full() -> None:
    response = wire.write_model("smooth", REGISTRY, costs_of)
    assert (response.name, response.ready, response.version) == ("smooth", True, "0")
    assert (response.architecture, response.device) == ("test", "cpu")
    assert (response.reason, response.gate_count) == ("", 0)
    assert response.precision == model_pb2.PRECISION_FLOAT32
    assert response.preprocessing.height_px == 14
    assert list(response.labels) == ["first", "second", "third", "fourth"]
    assert [layer.name for layer in response.layers] == ["0", "1", "2", "3", "4"]
    assert [layer.type for layer in response.layers] == [
        "Conv2d",
        "GELU",
        "Flatten",
        "Flatten",
        "Linear",
    ]
    assert [list(layer.shape) for layer in response.layers] == [
        [5, 7, 7],
        [5, 7, 7],
        [5, 49],
        [245],
        [4],
    ]
    assert [layer.targetable for layer in response.layers] == [True, True, False, True, True]
    supported = {m.method: m.supported for m in response.methods}
    assert set(supported) == {"predict", *wire.METHODS}
    assert supported["predict"] and supported["gradient"] and supported["occlusion"]
    assert not supported["deconvnet"] and not supported["guided_backprop"]
    assert all(bool(m.reason) is not m.supported for m in response.methods)
    assert "GELU" in response.methods[2].reason
    assert list(response.costs) == [
        model_pb2.BatchCost(lane=model_pb2.LANE_FORWARD, bucket_size=1, row_ms=6.0),
        model_pb2.BatchCost(lane=model_pb2.LANE_FORWARD, bucket_size=8, row_ms=5.0),
        model_pb2.BatchCost(lane=model_pb2.LANE_GRADIENT, bucket_size=2, row_ms=15.0),
    ]


def test_the_default_model_and_one_that_failed() -> None:
    response = wire.write_model("", REGISTRY, costs_of)
    assert response.name == "rectified"
    assert response.gate_count == 1
    unsupported = {support.method for support in response.methods if not support.supported}
    assert unsupported <= {"attention_rollout", "lrp", "deep_lift"}
    assert wire.write_model("broken", REGISTRY, costs_of) == model_pb2.GetModelResponse(
        name="broken", ready=False, reason="its weights are missing"
    )
    with pytest.raises(NotFound, match="'nothing' is not loaded"):
        wire.write_model("nothing", REGISTRY, costs_of)


def test_a_name_that_is_served_and_failed_is_the_served_one() -> None:
    """A model folder that has an embedded network's name is not served."""
    for order in (
        (MODEL, FailedModel("rectified", "why")),
        (FailedModel("rectified", "why"), MODEL),
    ):
        response = wire.write_model("rectified", Registry(order), costs_of)
        assert (response.ready, response.reason, len(response.layers)) == (True, "", 5)


# Errors.


def details_of(error: PellucidError) -> tuple[Any, list[Any]]:
    status = wire.write_error(error)
    kinds = {
        kind.DESCRIPTOR.full_name: kind
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
        )
    }
    unpacked = []
    for packed in status.details:
        unpacked.append(kinds[packed.TypeName()]())
        assert packed.Unpack(unpacked[-1])
    return status, unpacked


@pytest.mark.parametrize("error_type", list(CODES))
def test_errors_have_their_code_and_reason(error_type: type[PellucidError]) -> None:
    try:
        error = error_type("what happened")
    except TypeError:  # an internal error has a message of its own
        error = error_type()
    status, (info,) = details_of(error)
    assert status.code == code_pb2.Code.Value(CODES[error_type].grpc.name)
    assert status.message == error.message != ""
    assert info == error_details_pb2.ErrorInfo(reason=error_type.reason, domain="pellucid")


def test_violations_are_a_bad_request() -> None:
    found = [Violation("image", "required"), Violation("top_k", "is 0; must be 1 to 4")]
    _, (_, bad) = details_of(InvalidArgument("both", violations=found))
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("image", "required"),
        ("top_k", "is 0; must be 1 to 4"),
    ]


@pytest.mark.parametrize(
    ("delay_ms", "seconds", "nanos"),
    [(0.0, 0, 0), (50.0, 0, 50_000_000), (1500.2, 1, 501_000_000), (61_000.0, 61, 0)],
)
def test_a_retry_delay_is_rounded_up_to_milliseconds(
    delay_ms: float, seconds: int, nanos: int
) -> None:
    _, (_, retry) = details_of(Overloaded("full", retry_delay_ms=delay_ms))
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (seconds, nanos)


def test_no_retry_delay_where_no_retry_helps() -> None:
    assert len(details_of(DeadlineTooShort("too slow"))[1]) == 1
