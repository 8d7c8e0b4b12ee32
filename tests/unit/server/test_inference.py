"""The Open Inference Protocol's requests, malformed in every way; no server, no network."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pellucid.v1 import data_pb2, inference_pb2
from pellucid_server.api.inference import bodies, grpc_service_pb2, requests, tensors
from pellucid_server.api.inference import grpc as inference_grpc
from pellucid_server.api.inference.infer import Inferred
from pellucid_server.api.inference.requests import InferInput, InferOutput, InferRequest
from pellucid_server.api.inference.tensors import Malformed, Tensor
from pellucid_server.engine.admission import Admission, QueueLimits
from pellucid_server.errors import InvalidArgument, Overloaded

ZEROS = bytes(3 * 4 * 5 * 4)
PREPARED = InferInput("input", "FP32", (1, 3, 4, 5), ZEROS)


def read(request: InferRequest) -> Any:
    return requests.read_infer(request, "net", 10)


def refused(work: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refusal:
        work()
    told = refusal.value
    assert all(f"{v.field}: {v.description}" in told.message for v in told.violations)
    return {v.field: v.description for v in told.violations}


def wrong(*inputs: InferInput, **options: Any) -> dict[str, str]:
    return refused(lambda: read(InferRequest(inputs=inputs or (PREPARED,), **options)))


# Tensors.


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_elements_come_back_from_their_bytes(elements: list[bytes]) -> None:
    tensor = Tensor("image", "BYTES", (len(elements),), elements)
    assert len(tensor.raw) == tensor.byte_count
    assert tensors.read("BYTES", tensor.shape, tensor.raw) == elements


@given(st.binary(max_size=200), st.integers(1, 64))
def test_any_bytes_are_elements_or_malformed(data: bytes, count: int) -> None:
    try:
        elements = tensors.read("BYTES", (count,), data)
    except Malformed:
        return
    assert isinstance(elements, list)
    assert len(elements) == count
    assert tensors.join(elements) == data


@given(
    st.sampled_from(["FP32", "UINT8"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.binary(max_size=64),
)
def test_raw_bytes_are_as_many_as_the_shape_says(
    datatype: str, shape: list[int], data: bytes
) -> None:
    needed = int(np.prod(shape)) * {"FP32": 4, "UINT8": 1}[datatype]
    if len(data) == needed:
        assert tensors.read(datatype, shape, data) == data
    else:
        with pytest.raises(Malformed, match=f"has {len(data)} bytes; .* takes {needed}"):
            tensors.read(datatype, shape, data)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=24, max_size=24))
def test_values_are_read_flat_and_nested(flat: list[float]) -> None:
    array = np.array(flat, "<f4").reshape(2, 3, 4)
    for given_values in (flat, array.tolist()):
        assert tensors.read("FP32", (2, 3, 4), given_values) == array.tobytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
)


@given(
    st.sampled_from(["FP32", "UINT8", "BYTES"]),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(JSON, max_size=8),
)
def test_any_values_are_elements_or_malformed(
    datatype: str, shape: list[int], values: list[Any]
) -> None:
    try:
        elements = tensors.read(datatype, shape, values)
    except Malformed:
        return
    assert len(elements) == int(np.prod(shape)) * (4 if datatype == "FP32" else 1)


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "said"),
    [
        ("BYTES", (1,), b"\1\0\0", "ends before element 0 of 1: after 3 bytes"),
        (
            "BYTES",
            (1,),
            b"\xff\xff\xff\xff",
            "says that element 0 has 4294967295 bytes; 0 are left",
        ),
        ("BYTES", (1,), b"\0\0\0\0x", "has 1 bytes after the last of 1 elements"),
        ("BYTES", (1,), ["no base64"], "has 'no base64', which is not base64"),
        ("BYTES", (1,), [7], "has 7, which is not base64"),
        ("UINT8", (2,), [1, 256], "has an element that is not an integer from 0 to 255"),
        ("UINT8", (2,), [1, True], "has an element that is not an integer from 0 to 255"),
        ("FP32", (2,), [1, "2"], "has an element that is not a number"),
        ("FP32", (2,), [1, 10**400], "has a number that is too large"),
        ("FP32", (2,), [1], "has 1 elements; 2 takes 2"),
        ("FP32", (2, 2), [[1, 2], [3]], "is neither flat nor nested as 2 × 2"),
        ("FP32", (2, 2), [[1, 2], 3], "is neither flat nor nested as 2 × 2"),
        ("FP32", (1, 1), [[[1]]], "has an element that is not a number"),
    ],
)
def test_what_is_malformed_says_how(
    datatype: str, shape: tuple[int, ...], contents: Any, said: str
) -> None:
    with pytest.raises(Malformed) as malformed:
        tensors.read(datatype, shape, contents)
    assert str(malformed.value) == said


# Requests.


def test_a_tensor_is_an_image_for_each_of_its_rows() -> None:
    data = np.arange(2 * 3 * 4 * 5, dtype="<f4").reshape(2, 3, 4, 5)
    asked, wanted = read(
        InferRequest(inputs=[InferInput("input", "FP32", data.shape, data.tobytes())])
    )
    assert [one.name for one in wanted] == ["logits"]
    assert [image.tensor.data for image in asked.images] == [row.tobytes() for row in data]
    assert all(list(image.tensor.shape) == [3, 4, 5] for image in asked.images)
    assert asked.explain is None
    assert asked.predict == inference_pb2.PredictRequest(model="net", include_logits=True, top_k=1)


def test_photos_come_as_files_and_as_pixels() -> None:
    for shape in ((2,), (2, 1)):
        asked, _ = read(
            InferRequest(inputs=[InferInput("image", "BYTES", shape, tensors.join([b"a", b""]))])
        )
        assert asked.images == [data_pb2.Image(encoded=b"a"), data_pb2.Image(encoded=b"")]
    pixels = bytes(range(12))
    asked, _ = read(InferRequest(inputs=[InferInput("photo", "UINT8", (1, 2, 2, 3), pixels)]))
    assert asked.images[0].tensor == data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_UINT8, shape=(2, 2, 3), data=pixels
    )


def test_parameters_are_the_fields_of_a_form() -> None:
    outputs = [InferOutput("probabilities", {"classification": 99}), InferOutput("rendering")]
    parameters = {
        "method": "occlusion",
        "window_px": 8,
        "fill": "black",
        "target": "285",
        "score": "probability",
        "legend": False,
        "percentile": 99.0,
        "bucket_size": 4,
        "timeout": 2_500_000,
        "priority": 3,
    }
    asked, wanted = read(InferRequest(inputs=[PREPARED], outputs=outputs, parameters=parameters))
    assert [(one.name, one.class_count) for one in wanted] == [
        ("probabilities", 10),  # no more than there are
        ("rendering", 0),
    ]
    assert asked.timeout_s == 2.5
    assert asked.predict == inference_pb2.PredictRequest(
        model="net", include_logits=True, top_k=10, bucket_size=4
    )
    explain = inference_pb2.ExplainRequest(
        model="net", outputs=[inference_pb2.EXPLAIN_OUTPUT_RENDERING], bucket_size=4
    )
    explain.occlusion.window_px = 8
    explain.occlusion.fill = data_pb2.FILL_BLACK
    explain.target.class_index = 285
    explain.target.score = inference_pb2.SCORE_PROBABILITY
    explain.rendering.legend = False
    explain.rendering.percentile = 99
    assert asked.explain == explain


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        (7, "class_index", 7),
        ("7", "class_index", 7),
        ("-7", "class_index", -7),
        ("7 up", "label", "7 up"),
        (285.0, "class_index", 285),
    ],
)
def test_a_target_is_an_index_or_a_label(target: Any, field: str, value: Any) -> None:
    request = InferRequest(
        inputs=[PREPARED], outputs=[InferOutput("explanation")], parameters={"target": target}
    )
    asked, _ = read(request)
    assert asked.explain.WhichOneof("method") == "gradient"
    assert getattr(asked.explain.target, field) == value


@pytest.mark.parametrize("target", [285.5, True, float("inf"), float("nan")])
def test_a_target_is_not_any_number(target: Any) -> None:
    found = wrong(outputs=[InferOutput("explanation")], parameters={"target": target})
    assert found == {
        "target": f"is {json.dumps(target)}; must be the index of a class, or its label"
    }


def test_every_violation_is_named_at_once() -> None:
    found = wrong(
        InferInput("input", "FP16", (1, 2, 3), b"", {"shared_memory_region": "mine"}),
        InferInput("image", "BYTES", (65,), b""),
        InferInput("mask", "FP32", (1,), b""),
        outputs=[
            InferOutput("logits"),
            InferOutput("logits"),
            InferOutput("softmax"),
            InferOutput("heatmap", {"classification": 3}),
            InferOutput("probabilities", {"classification": True, "binary": 1}),
        ],
        parameters={
            "method": "occlusion",
            "step_count": 8,
            "target": "cat",
            "label": "cat",
            "outputs": "heatmap",
            "evidence": "completeness",
            "evidence.completeness.seed": 1,
            "model": "net",
            "sharpness": "x" * 20_000,
            "timeout": 1.5,
            "priority": -1,
        },
    )
    unknown = {
        name
        for name in ("outputs", "evidence", "evidence.completeness.seed", "model")
        if found.pop(name).startswith("unknown; the fields are: target, timeout, priority, method,")
    }
    assert len(unknown) == 4
    assert found == {
        "inputs": "'input', 'image' are given; exactly one of input, image, photo",
        "inputs.input.shared_memory_region": (
            "shared memory is not read or written; send the tensor itself"
        ),
        "inputs.input.datatype": "is 'FP16'; must be FP32",
        "inputs.input.shape": "is 1 × 2 × 3; must be n × 3 × height × width",
        "inputs.image.shape": "has 65 images; at most 64 in a request",
        "inputs.mask": "unknown; the inputs are input, image, photo",
        "outputs.logits": "asked for more than once",
        "outputs.softmax": (
            "unknown; the outputs are logits, probabilities, explanation, heatmap, rendering"
        ),
        "outputs.heatmap.classification": "is for logits and probabilities",
        "outputs.probabilities.classification": "must be an integer, at least 0",
        "outputs.probabilities.binary": "unknown",
        "integrated_gradients.step_count": "is of integrated_gradients, not of occlusion",
        "target.label": "given more than once",
        "sharpness": "has 20000 characters; at most 16384",
        "timeout": "must be an integer of microseconds, at least 0",
        "priority": "must be an integer, at least 0",
    }


def test_parameters_of_explanations_need_one() -> None:
    assert wrong(parameters={"method": "lrp", "target": 3, "window_px": 8}) == dict.fromkeys(
        ("method", "target", "window_px"),
        "is of explanations, and none is asked for: explanation, heatmap, rendering",
    )
    assert wrong(parameters={"sequence_id": 3})["sequence_id"].startswith("unknown; ")


@pytest.mark.parametrize("name", ["inputs", "outputs", "parameters"])
def test_what_is_named_is_counted_first(name: str) -> None:
    many: dict[str, Any] = {
        "inputs": [PREPARED] * 33,
        "outputs": [InferOutput("logits")] * 33,
        "parameters": {str(index): index for index in range(33)},
    }
    request = InferRequest(**({"inputs": [PREPARED]} | {name: many[name]}))
    assert refused(lambda: read(request)) == {name: "are more than 32"}


@pytest.mark.parametrize(
    "shape", [(), (1,), (0, 3, 4, 5), (-1, 3, 4, 5), (1, 4, 4, 5), (1, 3, 4, 5, 1)]
)
def test_shapes_are_those_of_the_input(shape: tuple[int, ...]) -> None:
    found = wrong(InferInput("input", "FP32", shape, ZEROS))
    assert found.keys() == {"inputs.input.shape"}


# Messages.


def message(**options: Any) -> grpc_service_pb2.ModelInferRequest:
    pb2 = grpc_service_pb2
    tensor = pb2.ModelInferRequest.InferInputTensor(
        name="input", datatype="FP32", shape=(1, 3, 4, 5)
    )
    return pb2.ModelInferRequest(inputs=[tensor], **options)


def test_contents_are_typed_or_raw() -> None:
    typed = message()
    typed.inputs[0].contents.fp32_contents.extend(range(60))
    expected = np.arange(60, dtype="<f4").tobytes()
    for one in (typed, message(raw_input_contents=[expected])):
        asked, _ = read(inference_grpc.read_request(one))
        assert asked.images[0].tensor.data == expected


def test_contents_are_not_both_nor_in_a_wrong_field() -> None:
    def found_in(one: grpc_service_pb2.ModelInferRequest) -> dict[str, str]:
        return refused(lambda: read(inference_grpc.read_request(one)))

    both = message(raw_input_contents=[ZEROS])
    both.inputs[0].contents.fp32_contents.append(1)
    assert found_in(both) == {"inputs.input.contents": "given beside raw_input_contents"}
    assert found_in(message(raw_input_contents=[ZEROS] * 2)) == {
        "raw_input_contents": "are 2, for 1 inputs; as many, or none"
    }
    assert found_in(message()) == {
        "inputs.input.contents": "has 0 elements; 1 × 3 × 4 × 5 takes 60"
    }
    other = message()
    other.inputs[0].contents.fp64_contents.extend([0.0] * 60)
    assert "elements of FP32 are fp32_contents" in found_in(other)["inputs.input.contents"]


# Bodies.


def body(mapping: Any, *raw: bytes) -> tuple[bytes, list[str]]:
    header = json.dumps(mapping).encode()
    return b"".join((header, *raw)), [str(len(header))]


def an_input(**members: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": [1, 3, 4, 5], **members}


def raw_input(byte_count: Any, **members: Any) -> dict[str, Any]:
    return an_input(parameters={"binary_data_size": byte_count}, **members)


def test_a_body_has_tensors_in_it_or_after_it() -> None:
    data = np.arange(60, dtype="<f4")
    in_json = json.dumps({"id": "7", "inputs": [an_input(data=data.tolist())]}).encode()
    after = body({"id": "7", "inputs": [raw_input(240)]}, data.tobytes())
    for one in (bodies.read_infer_body(in_json, []), bodies.read_infer_body(*after)):
        asked, _ = read(one.request)
        assert one.request.id == "7"
        assert asked.images[0].tensor.data == data.tobytes()


def test_a_raw_body_is_a_photo() -> None:
    one = bodies.read_infer_body(b"\xff\xd8 a photo", ["0"])
    asked, wanted = read(one.request)
    assert asked.images == [data_pb2.Image(encoded=b"\xff\xd8 a photo")]
    assert [out.name for out in wanted] == ["logits"]
    assert one.is_binary("logits")


def test_outputs_are_binary_as_they_are_asked_for() -> None:
    outputs = [{"name": "logits"}, {"name": "heatmap", "parameters": {"binary_data": True}}]
    for rest in (True, False):
        one = bodies.read_infer_body(
            *body(
                {
                    "inputs": [raw_input(240)],
                    "outputs": outputs,
                    "parameters": {"binary_data_output": rest},
                },
                ZEROS,
            )
        )
        assert [one.is_binary(name) for name in ("logits", "heatmap")] == [rest, True]
        inferred = Inferred(
            "net",
            "1",
            "seven",
            [
                Tensor("logits", "FP32", (1, 2), struct.pack("<2f", 0.5, -1)),
                Tensor("heatmap", "BYTES", (1,), [b"\x89PNG"]),
            ],
        )
        content, length = bodies.write_infer_body(inferred, one, 1000)
        told = json.loads(content[:length])
        assert told["id"] == "seven"
        scores, heatmap = told["outputs"]
        assert heatmap["parameters"] == {"binary_data_size": 8}
        assert content.endswith(b"\4\0\0\0\x89PNG")
        assert (scores.get("data") == [0.5, -1.0]) is not rest
        with pytest.raises(InvalidArgument, match="at most 100 are sent"):
            bodies.write_infer_body(inferred, one, 100)


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (["1", "2"], "given more than once"),
        (["lots"], "is 'lots'; must be a number of bytes"),
        (["-1"], "is '-1'; must be a number of bytes"),
        (["٣"], "is '٣'; must be a number of bytes"),
        ([""], "is ''; must be a number of bytes"),
        (["9" * 400], f"is {'9' * 20}; the body has 12 bytes"),
        (["13"], "is 13; the body has 12 bytes"),
    ],
)
def test_a_header_that_lies(lengths: list[str], said: str) -> None:
    found = refused(lambda: bodies.read_infer_body(b'{"inputs":1}', lengths))
    assert found == {"inference-header-content-length": said}


BAD_BODIES: list[tuple[Any, bytes, dict[str, str]]] = [
    ([], b"", {"body": "is a list; must be an object"}),
    ({"inputs": {}}, b"", {"inputs": "is an object; must be a list"}),
    ({"inputs": [3]}, b"", {"inputs[0]": "is 3; must be an object"}),
    ({"inputs": [an_input()]}, b"", {"inputs[0].data": "must be a list, or binary_data_size"}),
    ({"inputs": [raw_input(240)]}, ZEROS[:-1], {"inputs[0].binary_data_size": "is 240; 239"}),
    ({"inputs": [raw_input(-1)]}, b"", {"inputs[0].binary_data_size": "is -1; 0 bytes are left"}),
    ({"inputs": [raw_input(True)]}, b"", {"inputs[0].binary_data_size": "is true; must be an int"}),
    ({"inputs": [raw_input(240)]}, ZEROS + b"x", {"body": "has 1 bytes that no binary_data_size"}),
    ({"inputs": [raw_input(0, data=[])]}, b"", {"inputs[0].data": "given beside binary_data_size"}),
    (
        {"inputs": [an_input(data=[0] * 60, shape=[1.0])]},
        b"",
        {"inputs[0].shape": "must be a list"},
    ),
    ({"inputs": [an_input(data=[], shape=[1 << 40])]}, b"", {"inputs[0].shape": "must be a list"}),
    ({"inputs": [], "id": 7}, b"", {"id": "is 7; must be a text"}),
    ({"inputs": [], "id": "\ud800"}, b"", {"id": "is '\\ud800'; must be a text"}),
    ({"inputs": [], "batch": 7}, b"", {"batch": "unknown; the fields here are id, parameters"}),
    ({"inputs": [], "parameters": {"x": [1]}}, b"", {"parameters.x": "is a list; must be a text"}),
    ({"inputs": [], "parameters": 7}, b"", {"parameters": "is 7; must be an object"}),
    ({"inputs": [], "outputs": [{"name": "heatmap"}]}, b"", {"outputs[0]": "heatmap is files"}),
    ({"inputs": [3] * 33}, b"", {"inputs": "are more than 32"}),
]


@pytest.mark.parametrize(("mapping", "raw", "expected"), BAD_BODIES)
def test_a_body_that_is_wrong(mapping: Any, raw: bytes, expected: dict[str, str]) -> None:
    data, lengths = body(mapping, raw)
    found = refused(lambda: read(bodies.read_infer_body(data, lengths).request))
    for field, said in expected.items():
        assert said in found[field]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the body is not JSON: see line 1, column 1"),
        (b'{"inputs": [NaN]}', 'NaN must be written "NaN"'),
        (b"[" * 200_000, "nested too deeply"),
        (b"[" + b"0," * 200_000 + b"0]", "more than 200000 values"),
        (b"[" + b"{}," * 10_000 + b"{}]", "more than 10000 objects and quotes"),
        (b"[" + b'"",' * 5_000 + b'""]', "more than 10000 objects and quotes"),
        (b"[" + b"9" * 401 + b"]", "a number that is too long"),
        (b"\xff", "not UTF-8"),
    ],
)
@pytest.mark.parametrize(
    "read_body",
    [
        lambda data: bodies.read_infer_body(data, []),
        lambda data: bodies.read_v1_predict(data, "net"),
        lambda data: bodies.read_v1_explain(data, "net"),
    ],
)
def test_what_is_no_json(read_body: Callable[[bytes], Any], data: bytes, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        read_body(data)


@pytest.mark.parametrize(
    "read_body",
    [
        lambda data, query: read(bodies.read_infer_body(data, [], query).request),
        lambda data, query: bodies.read_v1_predict(data, "net", query),
        lambda data, query: bodies.read_v1_explain(data, "net", query),
    ],
)
def test_a_query_has_no_parameters(read_body: Callable[..., Any]) -> None:
    found = refused(lambda: read_body(b"{}", ["timeout_ms"]))
    assert found.pop("timeout_ms") == "unknown; the query has no parameters"
    assert found.keys() <= {"inputs", "instances"} and found
    (photo,) = bodies.read_infer_body(b"a photo", ["0"], ["more"]).request.found
    assert photo.field == "more"


def test_what_is_parsed_is_held() -> None:
    data, lengths = body({"inputs": [an_input(data=[1.5] * 60)]}, b"raw")
    with Admission(QueueLimits()).holding() as held:
        bodies.read_infer_body(data, lengths, (), held)
        assert held.byte_count >= int(lengths[0]) + 60 * 64
    with Admission(QueueLimits(byte_count=4000)).holding() as others:
        others.add(1)
        with others._admission.holding() as held, pytest.raises(Overloaded):
            bodies.read_infer_body(data, lengths, (), held)


@given(st.binary(max_size=100), st.lists(st.integers(-5, 120).map(str), max_size=2))
def test_any_body_is_read_or_refused(data: bytes, lengths: list[str]) -> None:
    try:
        read(bodies.read_infer_body(data, lengths).request)
    except InvalidArgument as error:
        assert error.message


MEMBERS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["input", "image", "FP32", "BYTES", "logits", "heatmap"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "name",
                    "shape",
                    "datatype",
                    "data",
                    "parameters",
                    "inputs",
                    "outputs",
                    "binary_data_size",
                    "binary_data",
                    "classification",
                    "instances",
                    "b64",
                    "image",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(MEMBERS, st.binary(max_size=20))
def test_any_json_is_read_or_refused(value: Any, raw: bytes) -> None:
    data, lengths = body(value, raw)
    for work in (
        lambda: read(bodies.read_infer_body(data, lengths).request),
        lambda: bodies.read_v1_predict(data[: int(lengths[0])], "net"),
        lambda: bodies.read_v1_explain(data[: int(lengths[0])], "net"),
    ):
        try:
            work()
        except InvalidArgument as error:
            assert error.message


# KServe's V1.

ENCODED = base64.b64encode(b"a photo").decode()


def v1(mapping: Any, explained: bool = False) -> Any:
    read_body = bodies.read_v1_explain if explained else bodies.read_v1_predict
    return read_body(json.dumps(mapping).encode(), "net")


def test_instances_are_photos_or_inputs() -> None:
    nested = np.arange(12, dtype="<f4").reshape(3, 2, 2)
    instances = [{"b64": ENCODED}, {"image": {"b64": ENCODED}}, nested.tolist()]
    asked = v1({"instances": instances, "parameters": {"top_k": 3, "timeout_ms": 500}})
    photo = data_pb2.Image(encoded=b"a photo")
    prepared = data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_FLOAT32, shape=(3, 2, 2), data=nested.tobytes()
    )
    assert asked.images == [photo, photo, data_pb2.Image(tensor=prepared)]
    assert asked.predict == inference_pb2.PredictRequest(model="net", top_k=3)
    assert asked.timeout_s == 0.5
    parameters = {"method": "occlusion", "window_px": 8, "target": "cat", "outputs": "heatmap"}
    asked = v1({"instances": instances, "parameters": parameters}, explained=True)
    explain = inference_pb2.ExplainRequest(
        model="net", outputs=[inference_pb2.EXPLAIN_OUTPUT_HEATMAP]
    )
    explain.occlusion.window_px = 8
    explain.target.label = "cat"
    assert asked.explain == explain


@pytest.mark.parametrize(
    ("mapping", "field", "said"),
    [
        ({}, "instances", "required; a list of at least one image"),
        ({"instances": []}, "instances", "required; a list of at least one image"),
        ({"instances": {"b64": ENCODED}}, "instances", "required; a list of at least one image"),
        ({"instances": [[]] * 65}, "instances", "are 65; at most 64 in a request"),
        ({"instances": ["cat.jpg"]}, "instances[0]", "is 'cat.jpg'; must be {\"b64\": a photo"),
        ({"instances": [{"b64": "!"}]}, "instances[0]", "has '!', which is not base64"),
        ({"instances": [{"url": "x"}]}, "instances[0]", "is an object; must be"),
        ({"instances": [{"image": {"image": {}}}]}, "instances[0]", "is an object; must be"),
        ({"instances": [[1, 2]]}, "instances[0]", "is not nested 3 deep"),
        ({"instances": [[[["1"]]]]}, "instances[0]", "has an element that is not a number"),
        ({"instances": [[[[[1]]]]]}, "instances[0]", "is not nested 3 deep"),
        ({"instances": [[[[1], [2]], [[3]]]]}, "instances[0]", "is neither flat nor nested"),
        ({"instances": [], "inputs": []}, "inputs", "unknown; the fields here are instances"),
        ({"instances": [], "parameters": {"target": 3}}, "target.class_index", "unknown; the"),
        ({"instances": [], "parameters": {"model": "x"}}, "model", "unknown; the"),
        ({"instances": [], "parameters": {"timeout_ms": 0}}, "timeout_ms", "must be a positive"),
        ({"instances": [], "parameters": {"timeout_ms": True}}, "timeout_ms", "must be a positive"),
    ],
)
def test_a_v1_body_that_is_wrong(mapping: Any, field: str, said: str) -> None:
    assert said in refused(lambda: v1(mapping))[field]
