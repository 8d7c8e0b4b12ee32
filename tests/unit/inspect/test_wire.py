"""Requests to look inside: what is wrong with them, and what comes of them."""

import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from google.rpc import code_pb2
from pellucid.v1 import codes_pb2, data_pb2, inference_pb2, inspect_pb2
from pellucid_server import wire
from pellucid_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PellucidError,
    Violation,
)
from pellucid_server.methods.inspect.embed import Embed
from pellucid_server.methods.inspect.layer import Activations, Filters
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.registry import Registry
from PIL import Image
from torch import nn

from tests.harness import Runner, tiny_model

SIDE_PX = 8


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1),  # 5 × 4 × 4
            nn.ReLU(),
            nn.Conv2d(5, 6, 3, padding=1),
            nn.Flatten(2),  # 6 × 16: neither channels nor maps
            nn.Flatten(),
            nn.Linear(96, 4),
        )


MODEL = replace(tiny_model(network(), SIDE_PX), name="net")
OPAQUE = replace(MODEL, name="opaque", network=tiny_model(network(), SIDE_PX).network)
OPAQUE.network.white_box_refusal = "it stays as it is"
REGISTRY = Registry([MODEL, OPAQUE])
LIMITS = wire.Limits(10**6, (1, 2), 0, Buckets(1), b"", max_response_bytes=1 << 20)
PHOTO = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
IMAGE = data_pb2.Image(
    tensor=data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_UINT8, shape=PHOTO.shape, data=PHOTO.tobytes()
    )
)
Sheet = inspect_pb2.Sheet


def inspecting(
    name: str, limits: wire.Limits = LIMITS, **fields: Any
) -> Callable[[], wire.AskedInspect]:
    beside = {k: fields.pop(k) for k in ("model", "image", "bucket_size") if k in fields}
    if name != "filters":
        beside.setdefault("image", IMAGE)
    request = inspect_pb2.InspectRequest(**beside)
    getattr(request, name).SetInParent()
    kind = type(getattr(request, name))
    getattr(request, name).CopyFrom(kind(**fields))
    call = wire.Call("", time.monotonic() + 60)
    return lambda: wire.read_inspect(request, call, REGISTRY, limits)


def refused(kind: type[PellucidError], ask: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        ask()
    return {violation.field: violation.description for violation in caught.value.violations}


def run(runner: Runner, ask: Callable[[], wire.AskedInspect]) -> inspect_pb2.InspectResponse:
    asked = ask()
    return wire.write_inspect(asked, runner.engine.submit(asked.spec).future.result(60))


def test_all_that_is_wrong_is_said_at_once() -> None:
    sheet = Sheet(tile_count=0, tile_px=513, scale=7)
    found = refused(
        InvalidArgument,
        inspecting(
            "gradients",
            layer="",
            model="nothing",
            image=data_pb2.Image(),
            bucket_size=3,
            sheet=sheet,
            target=inference_pb2.Target(class_index=-1),
        ),
    )
    assert found == {
        "model": found["model"],
        "bucket_size": "is 3; must be one of 1, 2",
        "image": "required; either encoded or tensor",
        "gradients.target.class_index": "is -1; must be at least 0",
        "gradients.layer": "required; the name of a layer, as GetModel lists it",
        "gradients.sheet.tile_count": "is 0; must be 1 to 4096",
        "gradients.sheet.tile_px": "is 513; must be 4 to 512",
        "gradients.sheet.scale": "is 7; must be SHEET_SCALE_EACH or SHEET_SCALE_SHARED",
    }


def test_something_must_be_looked_at() -> None:
    request = inspect_pb2.InspectRequest()
    call = wire.Call("", time.monotonic() + 60)
    found = refused(InvalidArgument, lambda: wire.read_inspect(request, call, REGISTRY, LIMITS))
    assert found["method"] == "required; one of filters, activations, gradients, walk, column"


@pytest.mark.parametrize("name", ["filters", "activations", "gradients"])
def test_unknown_layers(name: str) -> None:
    found = refused(NotFound, inspecting(name, layer="22"))
    assert "'22' is not a layer of net; close to it: 2" in found[f"{name}.layer"]


@pytest.mark.parametrize("name", ["activations", "gradients"])
def test_layers_without_channels(name: str) -> None:
    found = refused(FailedPrecondition, inspecting(name, layer="3"))
    assert found == {
        f"{name}.layer": "3 cannot be looked at: its output of 6 × 16 is neither channels nor maps"
    }


def test_layers_without_filters() -> None:
    found = refused(FailedPrecondition, inspecting("filters", layer="1"))
    assert found == {
        "filters.layer": "1 is a ReLU, which has no filters; convolutions and dense layers have, "
        "for example 0, 2, 5"
    }


def test_filters_are_of_no_image_and_have_so_many_inputs() -> None:
    found = refused(InvalidArgument, inspecting("filters", layer="2", input_channel=5, image=IMAGE))
    assert found == {
        "image": "must be unset: filters are the network's own",
        "filters.input_channel": "is 5; must be 0 to 4",
    }
    found = refused(InvalidArgument, inspecting("filters", layer="5", input_channel=0))
    assert found == {"filters.input_channel": "is for filters with places; 5 has none"}


def test_a_layer_behind_the_target() -> None:
    target = inference_pb2.Target(neuron=inference_pb2.Neuron(layer="0", channel=1))
    found = refused(InvalidArgument, inspecting("gradients", layer="2", target=target))
    assert found == {"gradients.layer": "is 2, which lies behind the target 0"}


def test_pixels_are_the_networks() -> None:
    found = refused(InvalidArgument, inspecting("column", x_px=8))
    assert found == {
        "column.x_px": "is 8; must be 0 to 7",
        "column.y_px": "required: a pixel of the network's input; 0 to 7",
    }
    assert refused(InvalidArgument, inspecting("walk", top_k=5)) == {
        "walk.top_k": "is 5; must be 1 to 4"
    }


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("filters", {"layer": "0"}),
        ("activations", {"layer": "0"}),
        ("gradients", {"layer": "0"}),
        ("walk", {}),
        ("column", {"x_px": 1, "y_px": 1}),
    ],
)
def test_what_is_opaque_is_not_looked_into(name: str, fields: dict[str, Any]) -> None:
    found = refused(FailedPrecondition, inspecting(name, model="opaque", **fields))
    assert found == {name: "it stays as it is"}


def test_sheets_have_a_size() -> None:
    """The layer has 96 numbers a unit: 4 rows of 512 pixels' length are no large sheet."""
    inspecting("filters", layer="5", sheet=Sheet(tile_px=512))()
    small = replace(LIMITS, max_response_bytes=6000)
    found = refused(InvalidArgument, inspecting("filters", small, layer="0"))
    # Five filters in colour, 33 pixels: 2 × 3 of them, with the gaps 67 × 101.
    assert found == {
        "filters.sheet.tile_px": f"the response may take {2048 + 20640} bytes; at most 6000 are "
        "sent: ask for fewer tiles or smaller ones"
    }
    kept = Sheet(include_tensor=True, tile_px=4)
    smaller = replace(LIMITS, max_response_bytes=1000)  # 384 of them for the 96 numbers
    found = refused(InvalidArgument, inspecting("activations", smaller, layer="2", sheet=kept))
    assert "2 has 96 numbers, of 4 bytes each" in found["activations.sheet.include_tensor"]
    inspecting("activations", smaller, layer="2", sheet=Sheet(tile_px=4))()


def test_what_is_usual_is_filled_in() -> None:
    asked = inspecting("filters", layer="0")()
    assert asked.spec.method == Filters("0", 256, False, None)
    assert asked.sheet is not None
    assert (asked.sheet.tile_px, asked.sheet.shared, asked.sheet.format) == (33, False, "png")
    asked = inspecting("activations", layer="5")()
    assert asked.spec.method == Activations("5", 256, False)
    assert asked.sheet is not None
    assert asked.sheet.shared  # tiles of one number
    gradients = inspecting("gradients", layer="0")().sheet
    assert gradients is not None
    assert gradients.shared
    each = inspecting("gradients", layer="0", sheet=Sheet(scale=inspect_pb2.SHEET_SCALE_EACH))()
    assert each.sheet is not None
    assert not each.sheet.shared


def test_a_sheet_is_what_it_says(runner: Runner) -> None:
    sheet = Sheet(tile_count=3, tile_px=4, include_tensor=True)
    response = run(runner, inspecting("activations", layer="0", sheet=sheet))
    layer = response.layer
    numbers = np.frombuffer(layer.tensor.data, "<f4").reshape(layer.tensor.shape)
    assert numbers.shape == (5, 4, 4)
    means = numbers.mean((1, 2))
    assert list(layer.sheet.channels) == np.argsort(-means)[:3].tolist()
    np.testing.assert_allclose(layer.sheet.strengths, np.sort(means)[:-4:-1], rtol=1e-6)
    picture = np.asarray(Image.open(BytesIO(layer.sheet.image.data)))
    assert picture.shape == (layer.sheet.image.height_px, layer.sheet.image.width_px)
    first = numbers[layer.sheet.channels[0]].astype(float)
    low, high = layer.sheet.lows[0], layer.sheet.highs[0]
    assert (low, high) == (first.min(), first.max())
    np.testing.assert_allclose(picture[:4, :4], 255 * (first - low) / (high - low), atol=0.51)
    assert layer.statistics.max == numbers.max()
    assert list(layer.sheet.tile_shape) == [4, 4]
    assert not layer.HasField("target")


def test_gradients_name_their_target(runner: Runner) -> None:
    response = run(runner, inspecting("gradients", layer="0"))
    target = response.layer.target
    assert target.top_prediction
    assert target.label == MODEL.labels[target.class_index]
    assert list(response.layer.sheet.lows) == [-one for one in response.layer.sheet.highs]
    assert len(set(response.layer.sheet.highs)) == 1


def test_a_walk(runner: Runner) -> None:
    response = run(runner, inspecting("walk", top_k=2))
    rows = {row.layer: row for row in response.walk.rows}
    assert list(rows) == ["0", "1", "2", "4", "5"]
    assert [len(response.walk.predictions)] == [2]
    assert list(rows["2"].shape) == [6, 4, 4]
    field = rows["2"].receptive_field
    assert (field.height_px, field.stride_y_px, field.whole) == (7, 2, False)  # 3 + 2 · (3 - 1)
    assert rows["5"].receptive_field.whole
    assert rows["5"].channel_count == 4
    assert response.run.model == "net"


def test_a_column(runner: Runner) -> None:
    response = run(runner, inspecting("column", x_px=0, y_px=7))
    places = {place.layer: place for place in response.column.places}
    assert list(places) == ["0", "1", "2"]
    assert [(place.y, place.x) for place in places.values()] == [(3, 0)] * 3
    box = places["0"].box  # rows 5 to 7, columns -1 to 1
    assert (box.x_px, box.y_px, box.width_px, box.height_px) == (0, 5, 2, 3)
    assert list(places["2"].activation.shape) == [6]


# Codes.


def embedding(limits: wire.Limits = LIMITS, **fields: Any) -> Any:
    fields.setdefault("images", [IMAGE])
    request = codes_pb2.EmbedRequest(**fields)
    return wire.read_embed(request, wire.Call("", time.monotonic() + 60), REGISTRY, limits)


def codes_of(runner: Runner, **fields: Any) -> codes_pb2.EmbedResponse:
    outcomes: list[wire.Code | PellucidError] = []
    for asked in embedding(**fields):
        if isinstance(asked, PellucidError):
            outcomes.append(asked)
            continue
        try:
            done = runner.engine.submit(asked.spec).future.result(60)
            outcomes.append(wire.write_code(asked, done))
        except PellucidError as error:
            outcomes.append(error)
    return wire.write_embed(outcomes)


def test_all_that_is_wrong_with_codes_is_said_at_once() -> None:
    found = refused(
        InvalidArgument,
        lambda: embedding(
            images=[],
            layer="22",
            pooling=9,
            data_type=data_pb2.DATA_TYPE_INT64,
            bucket_size=5,
        ),
    )
    assert found["images"] == "has 0; must have 1 to 64"
    assert found["pooling"].startswith("is 9; must be CODE_POOLING_MEAN, ")
    assert found["data_type"] == "is 4; must be DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT16"
    assert found["bucket_size"] == "is 5; must be one of 1, 2"
    assert "'22' is not a layer" in found["layer"]
    assert refused(InvalidArgument, lambda: embedding(images=[IMAGE] * 65))["images"]


def test_layers_that_have_no_code() -> None:
    assert (
        "neither channels nor maps"
        in refused(FailedPrecondition, lambda: embedding(layer="3"))["layer"]
    )
    assert refused(FailedPrecondition, lambda: embedding(model="opaque")) == {
        "layer": "it stays as it is"
    }


def test_codes_that_are_too_many_to_be_sent() -> None:
    limits = replace(LIMITS, max_response_bytes=700)
    flat = codes_pb2.CODE_POOLING_FLATTEN
    embedding(limits, layer="2", pooling=flat)
    embedding(limits, images=[IMAGE] * 3, layer="2", pooling=flat, data_type=5)
    found = refused(
        InvalidArgument, lambda: embedding(limits, images=[IMAGE] * 2, layer="2", pooling=flat)
    )
    assert found == {
        "images": "2 codes of 96 numbers take 768 bytes; at most 700 are sent: ask for fewer at "
        "once, or for their mean"
    }


@pytest.mark.parametrize(("data_type", "dtype"), [(0, "<f4"), (2, "<f4"), (5, "<f2")])
def test_codes_and_what_failed(runner: Runner, data_type: int, dtype: str) -> None:
    bad = data_pb2.Image(encoded=b"no photo")
    response = codes_of(runner, images=[IMAGE, bad, IMAGE], data_type=data_type, layer="2")
    codes = np.frombuffer(response.codes.data, dtype).reshape(response.codes.shape)
    assert codes.shape == (2, 6)
    with torch.no_grad():
        x = torch.from_numpy(MODEL.preprocessing.apply(PHOTO)).float()
        expected = network()[:3](x[None]).mean((2, 3))[0]
    tolerance = 1e-5 if dtype == "<f4" else 2e-3
    np.testing.assert_allclose(codes[0], expected, rtol=tolerance, atol=tolerance)
    assert np.array_equal(codes[0], codes[1])
    first, failed, last = response.results
    assert (first.row, last.row) == (0, 1)
    assert failed.failure.code == code_pb2.INVALID_ARGUMENT
    assert failed.failure.violations[0].field == "image.encoded"
    assert response.layer == "2"
    assert len(response.run.batches) == 2


def test_what_half_precision_cannot_hold(runner: Runner) -> None:
    module = network()
    with torch.no_grad():
        module[0].bias.fill_(1e5)
    on = replace(tiny_model(module, SIDE_PX), name="large")
    asked = wire.AskedEmbed(
        replace(embedding()[0].spec, model=on, method=Embed("0")), torch.float16
    )
    done = runner.engine.submit(asked.spec).future.result(60)
    with pytest.raises(InvalidArgument, match="65504 is the most of DATA_TYPE_FLOAT16") as caught:
        wire.write_code(asked, done)
    assert isinstance(caught.value.violations[0], Violation)
    assert caught.value.violations[0].field == "data_type"


def test_nothing_came(runner: Runner) -> None:
    response = codes_of(runner, images=[data_pb2.Image()])
    assert not response.HasField("codes")
    assert not response.HasField("run")
    assert response.results[0].failure.reason == "INVALID_ARGUMENT"
    assert codes_of(runner).layer == "(penultimate)"
    assert codes_of(runner, layer="(penultimate)").codes.shape == [1, 96]
