"""The OpenAPI document against the contract, and against what the mapping really writes."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any, cast

import httpx
import jsonschema_rs
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from pellucid.v1 import data_pb2, inference_pb2, model_pb2
from pellucid_server.api import openapi
from pellucid_server.api.rest import build_app
from pellucid_server.api.service import Service
from pellucid_server.config import Settings
from pellucid_server.wire import METHODS

DOCUMENT = openapi.document(1 << 20)


def get(path: str) -> httpx.Response:
    async def getting() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(cast(Service, None), Settings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(getting())


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from nodes(inner)


def is_valid(name: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return bool(jsonschema_rs.validator_for(schema).is_valid(value))


def test_it_is_served_with_all_that_it_refers_to() -> None:
    document = get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    references = {node["$ref"] for node in nodes(document) if "$ref" in node}
    assert references
    for reference in references:
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_the_docs_need_no_internet() -> None:
    page = get("/docs").text
    assert "//" not in re.sub(r"^\s*//.*$", "", page, flags=re.MULTILINE)
    files = set(re.findall(r"docs/static/[a-z.-]+", page))
    assert len(files) == 3
    for file in files:
        assert get(f"/{file}").status_code == 200
    assert get("/docs/static/nothing.js").json()["error"]["status"] == "NOT_FOUND"


TENSOR = data_pb2.Tensor(data_type=2, shape=[1, 2**40], data=b"1234")
PICTURE = data_pb2.EncodedImage(format=2, data=b"\xff", width_px=1, height_px=2)
BOX = data_pb2.Box(x_px=1.5, width_px=2)


@pytest.mark.parametrize(
    "message",
    [
        inference_pb2.PredictRequest(image=data_pb2.Image(encoded=b"\xff\xfe"), top_k=1),
        inference_pb2.ExplainRequest(
            image=data_pb2.Image(tensor=TENSOR),
            target=inference_pb2.Target(neuron=inference_pb2.Neuron(layer="a", channel=0)),
            outputs=[1, 2, 3],
            rendering=inference_pb2.Rendering(legend=False, format=1),
            occlusion=inference_pb2.Occlusion(fill=4, blur_sigma_px=0.5),
        ),
        inference_pb2.ExplainResponse(
            run=inference_pb2.Run(batches=[inference_pb2.Batch(row_count=1)], precision=1),
            target=inference_pb2.ResolvedTarget(class_index=0, score=-1e-9),
            gradient=inference_pb2.Gradient(),
            attribution=TENSOR,
            heatmap=inference_pb2.Heatmap(image=PICTURE, color_scale=1),
            rendering=PICTURE,
            input_box=BOX,
            occlusion_details=inference_pb2.OcclusionDetails(falls=TENSOR, largest_fall=BOX),
        ),
        inference_pb2.PredictResponse(
            predictions=[inference_pb2.Prediction(probability=0.5)], logits=TENSOR
        ),
        model_pb2.GetModelResponse(name="failed", reason="no weights"),
        model_pb2.GetModelResponse(
            name="a",
            ready=True,
            layers=[model_pb2.Layer(shape=[3])],
            costs=[model_pb2.BatchCost(lane=2)],
        ),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_what_the_mapping_writes_fits(message: Message) -> None:
    name = message.DESCRIPTOR.name
    value = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=name.endswith("Response")
    )
    assert is_valid(name, value)
    for key, item in value.items():  # and nothing fits by accident
        assert not is_valid(name, value | {key: [None]}), key
        assert not is_valid(name, value | {key + "s_": item})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PredictRequest", {}),
        ("PredictRequest", {"image": {}}),
        ("PredictRequest", {"image": {"encoded": "AA==", "tensor": {}}}),
        ("ExplainRequest", {"image": {"encoded": "AA=="}}),
        ("ExplainRequest", {"image": {"encoded": "AA=="}, "gradient": {}, "deconvnet": {}}),
        ("Target", {"classIndex": 1, "label": "cat"}),
        ("Occlusion", {"fill": "mean"}),
        ("Occlusion", {"windowPx": "wide"}),
        ("ModelSummary", {"name": "a"}),
        ("Prediction", {"label": "tench", "probability": 0.5, "logit": 1.0}),
        ("Box", {"widthPx": 1.0, "heightPx": 1.0}),
    ],
)
def test_what_the_contract_refuses_does_not_fit(name: str, value: Any) -> None:
    assert not is_valid(name, value)


def test_a_target_may_be_left_out() -> None:
    assert is_valid("Target", {})
    assert is_valid("Target", {"classIndex": 0})


def test_forms_have_every_field() -> None:
    content = DOCUMENT["paths"]["/v1/explain"]["post"]["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    assert form["required"] == ["image", "method"]
    assert form["properties"]["method"]["enum"] == list(METHODS)
    assert {"window_px", "fill", "class_index", "layer", "percentile", "outputs", "timeout_ms"} <= (
        form["properties"].keys()
    )
    assert "FILL_MEAN" in form["properties"]["fill"]["enum"]
    assert "mean" in form["properties"]["fill"]["enum"]
    content = DOCUMENT["paths"]["/v1/optimize"]["post"]["requestBody"]["content"]
    attack = content["multipart/form-data"]["schema"]["properties"]["fgsm"]
    assert attack["maxLength"] == 0
    assert attack["description"].startswith("attack.fgsm, ")
