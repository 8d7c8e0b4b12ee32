"""Bodies of any kind are read as json_format reads them, or refused by name."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from pellucid.v1 import attack_pb2, data_pb2, evidence_pb2, inference_pb2, optimize_pb2
from pellucid_server.api import forms
from pellucid_server.api.values import raise_any
from pellucid_server.errors import InvalidArgument, Violation

ints = st.integers(-(2**31), 2**31 - 1)
doubles = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
requests = st.builds(
    inference_pb2.ExplainRequest,
    model=texts,
    image=st.builds(data_pb2.Image, encoded=st.binary(max_size=50))
    | st.builds(
        data_pb2.Image,
        tensor=st.builds(
            data_pb2.Tensor,
            data_type=st.integers(0, 4),
            shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
            data=st.binary(max_size=20),
        ),
    ),
    target=st.none()
    | st.builds(inference_pb2.Target, label=texts)
    | st.builds(inference_pb2.Target, neuron=st.builds(inference_pb2.Neuron, layer=texts, y=ints)),
    outputs=st.lists(st.integers(0, 3), max_size=3),
    rendering=st.none()
    | st.builds(inference_pb2.Rendering, percentile=doubles, legend=st.booleans()),
    bucket_size=st.none() | ints,
    occlusion=st.none()
    | st.builds(
        inference_pb2.Occlusion, window_px=ints, fill=st.integers(0, 9), blur_sigma_px=doubles
    ),
)


@given(requests, st.booleans())
def test_every_request_is_read_as_it_was_written(
    request: inference_pb2.ExplainRequest, original_names: bool
) -> None:
    text = json_format.MessageToJson(request, preserving_proto_field_name=original_names)
    read = inference_pb2.ExplainRequest()
    assert forms.read(read, text.encode(), None, []) is None
    assert read == request


NAMES = "model image encoded tensor shape target classIndex neuron outputs rendering percentile"
names = st.sampled_from([*NAMES.split(), "legend", "format", "occlusion", "windowPx", "", "\ud800"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


@given(values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    request = inference_pb2.ExplainRequest()
    try:
        forms.read(request, json.dumps(value).encode(), None, [])
    except InvalidArgument as error:
        error.message.encode()
    else:
        assert request == json_format.ParseDict(value, inference_pb2.ExplainRequest())


@given(st.binary(max_size=300), st.lists(st.sampled_from([b"\r\n", b"--b", b"--", b":", b'"'])))
def test_any_form_is_read_or_refused(noise: bytes, more: list[bytes]) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    for body in (noise, b"".join(more) + noise, head + noise + b"".join(more) + b"\r\n--b--\r\n"):
        request = inference_pb2.PredictRequest()
        try:
            forms.read(request, body, b"b", [])
        except InvalidArgument as error:
            error.message.encode()
        else:
            assert request.image.encoded in body


@pytest.mark.parametrize("data", [b"", b"\r\n--b", b"\r" * 1000, bytes(range(256)) * 20_000])
def test_a_file_arrives_as_it_was_sent(data: bytes) -> None:
    head = b'--bound\r\ncontent-disposition: form-data; name=image; filename=""\r\n\r\n'
    request = inference_pb2.PredictRequest()
    forms.read(request, head + data + b"\r\n--bound--", b"bound", [])
    assert request.image.WhichOneof("kind") == "encoded"
    assert request.image.encoded == data


def test_form_names_are_the_contracts() -> None:
    fields = forms.form_fields(inference_pb2.ExplainRequest.DESCRIPTOR, "occlusion")
    assert {field.dotted for field in fields} == {
        *("model", "outputs", "bucket_size", "target.class_index", "target.label"),
        *("target.neuron.layer", "target.neuron.channel", "target.neuron.y", "target.neuron.x"),
        *("rendering.color_scale", "rendering.percentile", "rendering.longest_side_px"),
        *("rendering.format", "rendering.legend"),
        *("occlusion.window_px", "occlusion.stride_px", "occlusion.fill"),
        *("occlusion.blur_sigma_px", "occlusion.seed", "target.score"),
        *("target.classes.class_indices", "target.classes.labels"),
        *("target.against_class_index", "target.against_label", "occlusion.window_count"),
        *("until.tolerance", "until.row_count", "until.time_ms"),
        *("evidence.curves.step_count", "evidence.curves.deletion_fill"),
        *("evidence.curves.insertion_fill", "evidence.curves.blur_sigma_px"),
        *("evidence.curves.seed", "evidence.stability.seed", "evidence.randomization.seed"),
        *("evidence.stability.sample_count", "evidence.stability.noise_level"),
        *("evidence.cascade.stage_count", "evidence.cascade.seed", "evidence.agreement.methods"),
    }
    plain = forms.form_fields(inference_pb2.ExplainRequest.DESCRIPTOR, "gradient")
    assert {field.dotted for field in fields} - {field.dotted for field in plain} == {
        field.dotted for field in fields if field.path[0] == "occlusion"
    }


def test_evidence_is_named_in_a_form() -> None:
    request = read_form(
        ("method", "gradient"),
        ("evidence", "curves, stability"),
        ("evidence", "randomization"),
        ("evidence.curves.step_count", "7"),
        ("evidence.agreement.methods", "rise,lime"),
        ("tolerance", "0.25"),
    )
    assert request.evidence == evidence_pb2.Evidence(
        curves=evidence_pb2.Curves(step_count=7),
        stability=evidence_pb2.Stability(),
        randomization=evidence_pb2.Randomization(),
        agreement=evidence_pb2.Agreement(methods=["rise", "lime"]),
    )
    assert request.until == evidence_pb2.Until(tolerance=0.25)
    with pytest.raises(InvalidArgument, match="evidence: is 'proof'; must be among completeness"):
        read_form(("method", "gradient"), ("evidence", "proof"))


def test_a_seed_alone_is_the_methods() -> None:
    assert read_form(("method", "rise"), ("seed", "3")).rise.seed == 3
    with pytest.raises(InvalidArgument, match=r"seed: (unknown|is of)"):
        read_form(("method", "gradient"), ("seed", "3"))


def read_form(*fields: tuple[str, str]) -> inference_pb2.ExplainRequest:
    parts = [("image", 'image"; filename="a.png'), *fields]
    body = b"".join(
        b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % ((value if name == "image" else name).encode(), value.encode())
        for name, value in parts
    )
    request = inference_pb2.ExplainRequest()
    forms.read(request, body + b"--x--\r\n", b"x", [])
    return request


def read_attack(*fields: tuple[str, str]) -> optimize_pb2.OptimizeSpec:
    """A form of an optimization, but for its files."""
    texts: dict[str, list[str]] = {}
    for name, text in (("method", "attack"), *fields):
        texts.setdefault(name, []).append(text)
    found: list[Violation] = []
    request = optimize_pb2.OptimizeSpec()
    forms.read_texts(found, request, texts)
    raise_any(found)
    return request


@pytest.mark.parametrize("name", ["attack.fgsm", "fgsm"])
def test_an_empty_text_is_a_message_at_its_defaults(name: str) -> None:
    assert read_attack().attack.WhichOneof("method") is None
    fgsm = attack_pb2.Attack(fgsm=attack_pb2.Fgsm())
    assert read_attack((name, "")).attack == fgsm
    assert read_attack((name, "")).attack.WhichOneof("method") == "fgsm"
    fgsm.fgsm.epsilon = 3
    for fields in ((name, ""), ("attack.fgsm.epsilon", "3")), (("epsilon", "3"), (name, "")):
        assert read_attack(*fields).attack == fgsm


def read_either_way(*fields: tuple[str, str]) -> attack_pb2.Attack:
    """The attack of a form, which is the same from the last field to the first."""
    attack = read_attack(*fields).attack
    assert read_attack(*reversed(fields)).attack == attack
    return attack


@pytest.mark.parametrize("name", ["attack.pgd", "pgd"])
def test_short_names_are_of_the_message_that_is_chosen(name: str) -> None:
    pgd = attack_pb2.Attack(pgd=attack_pb2.Pgd(epsilon=3, step_count=7))
    assert read_either_way((name, ""), ("epsilon", "3"), ("step_count", "7")) == pgd
    bim = attack_pb2.Attack(bim=attack_pb2.Bim(step_count=7))
    assert read_either_way(("bim", ""), ("step_count", "7")) == bim
    universal = attack_pb2.Attack(universal=attack_pb2.Universal(step_count=7))
    assert read_either_way(("universal", ""), ("step_count", "7")) == universal


def test_a_field_that_is_clear_chooses_its_message() -> None:
    pgd = attack_pb2.Attack(pgd=attack_pb2.Pgd(epsilon=3, restart_count=2))
    for clear in ("attack.pgd.restart_count", "pgd.restart_count", "restart_count"):
        assert read_either_way((clear, "2"), ("epsilon", "3")) == pgd
    bim = attack_pb2.Attack(bim=attack_pb2.Bim(epsilon=3, step_size=2))
    assert read_either_way(("bim.step_size", "2"), ("epsilon", "3")) == bim
    label = attack_pb2.Attack(pgd=attack_pb2.Pgd(), label="cat")
    assert read_either_way(("pgd", ""), ("label", "cat")) == label


def test_messages_at_any_depth_and_of_lists() -> None:
    request = read_form(("method", "lime"), ("target.neuron", ""))
    assert request.target.WhichOneof("kind") == "neuron"
    texts = {"method": ["ascend"], "objectives[0].energy": [""], "objectives[0].weight": ["2"]}
    ascend = optimize_pb2.OptimizeSpec()
    forms.read_texts([], ascend, texts)
    energy = optimize_pb2.Objective(energy=optimize_pb2.Energy(), weight=2)
    assert list(ascend.ascend.objectives) == [energy]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ((("fgsm", ""), ("pgd", "")), "attack.pgd: given beside attack.fgsm; only one may be"),
        ((("fgsm", ""), ("pgd.seed", "1")), "attack.pgd: given beside attack.fgsm; only one may"),
        ((("fgsm", ""), ("fgsm", "")), "attack.fgsm: given more than once"),
        ((("fgsm", ""), ("attack.fgsm", "")), "attack.fgsm: given more than once"),
        ((("pgd", ""), ("overshoot", "1")), "attack.deep_fool: given beside attack.pgd; only"),
        (
            (("attack.fgsm", "{}"),),
            "attack.fgsm: is '{}'; must be empty, for all at defaults; its fields are: "
            "attack.fgsm.epsilon, attack.fgsm.norm",
        ),
        ((("attack.fgsn", ""),), "attack.fgsn: unknown; the fields are: "),
        ((("attack", ""),), "attack: unknown; the fields are: "),
        (
            (("ascend.objectives[0].energy", ""),),
            "ascend.objectives[0].energy: is of ascend, not of att",
        ),
    ],
)
def test_messages_that_are_none(fields: tuple[tuple[str, str], ...], told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_attack(*fields)
    assert told in "; ".join(f"{v.field}: {v.description}" for v in refused.value.violations)


@pytest.mark.parametrize(
    "name",
    ["target", "rendering", "until", "lime.baseline", "evidence.curves", "curves", "lime"],
)
def test_a_message_that_is_not_one_of_several_has_no_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{name}: unknown; the fields are: "):
        read_form(("method", "lime"), (name, ""))


def test_what_is_unknown_is_told_each_name_once() -> None:
    with pytest.raises(InvalidArgument, match="fgms: unknown; the fields are: ") as refused:
        read_attack(("fgms", ""))
    [violation] = refused.value.violations
    names = violation.description.partition("are: ")[2].split(", ")
    assert {"epsilon", "fgsm", "pgd", "label"} < set(names)
    assert len(set(names)) == len(names)
    for name in names:
        assert forms.has_field(optimize_pb2.OptimizeSpec(), name)


def test_a_short_name_is_the_methods_own_where_several_have_it() -> None:
    request = read_form(
        ("method", "grad_cam"),
        ("layer", "conv"),
        ("target.neuron.layer", "head"),
        ("channel", "3"),
    )
    assert request.grad_cam.layer == "conv"
    assert request.target.neuron == inference_pb2.Neuron(layer="head", channel=3)
    neuron = read_form(("method", "gradient"), ("layer", "head")).target.neuron
    assert neuron == inference_pb2.Neuron(layer="head")
    request = read_form(
        ("method", "lime"), ("seed", "5"), ("baseline.seed", "6"), ("fill", "noise")
    )
    assert request.lime.seed == 5
    assert request.lime.baseline == inference_pb2.Baseline(fill=data_pb2.FILL_NOISE, seed=6)


@pytest.mark.parametrize("name", ["baseline", "baseline.fill", "fill", "lime.baseline.fill"])
def test_a_baseline_is_its_fill(name: str) -> None:
    request = read_form(("method", "lime"), (name, "blur"), ("baseline.blur_sigma_px", "3"))
    assert request.lime == inference_pb2.Lime(
        baseline=inference_pb2.Baseline(fill=data_pb2.FILL_BLUR, blur_sigma_px=3)
    )


def test_a_baseline_has_one_fill_and_not_every_method_has_one() -> None:
    for other in ("fill", "baseline.fill", "lime.baseline.fill", "baseline"):
        with pytest.raises(InvalidArgument, match=r"baseline\.fill: given more than once"):
            read_form(("method", "lime"), ("baseline", "blur"), (other, "white"))
    with pytest.raises(InvalidArgument, match=r"baseline\.fill: is 'pink'; must be one of FILL_B"):
        read_form(("method", "lime"), ("baseline", "pink"))
    for method in ("gradient", "occlusion"):
        with pytest.raises(InvalidArgument, match=rf"baseline\.fill: is of \w+, not of {method}"):
            read_form(("method", method), ("baseline", "blur"))
