"""What is told of an attacked photo, and what cannot be asked: by hand, on a tiny network."""

import time
from dataclasses import replace
from io import BytesIO
from typing import Any, cast

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PellucidError,
)
from pellucid_server.inputs import PhotoSet
from pellucid_server.methods.attack.attack import Attack
from pellucid_server.methods.attack.universal import Universal, UniversalAttack
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.registry import Registry
from pellucid_server.wire.adversarial import most_told_bytes, write_perturbation
from PIL import Image
from torch import nn

from tests.harness import Runner, tiny_model

SIDE_PX = 14


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(2),  # 5 × 49: neither channels nor maps
            nn.Flatten(),
            nn.Linear(245, 4),
        )


ONE = replace(tiny_model(network(0), SIDE_PX), name="one")
OTHER = replace(
    tiny_model(network(1), SIDE_PX), name="other", labels=("fourth", "second", "third", "fifth")
)
REGISTRY = Registry([ONE, OTHER])
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)


def read(most_bytes: int = 32 << 20, **fields: Any) -> wire.AskedOptimize:
    """An attack by one step of 16 grey levels."""
    asked = attack_pb2.Attack(fgsm=attack_pb2.Fgsm(epsilon=16), **fields)
    image = data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_UINT8, shape=PIXELS.shape, data=PIXELS.tobytes()
    )
    request = optimize_pb2.OptimizeSpec(attack=asked, image=data_pb2.Image(tensor=image))
    limits = wire.Limits(10**6, (1,), 10**6, Buckets(4), b"", max_response_bytes=most_bytes)
    return wire.read_optimize(request, wire.Call("", time.monotonic() + 120), REGISTRY, limits)


def run(runner: Runner, asked: wire.AskedOptimize) -> optimize_pb2.OptimizeResult:
    done = runner.engine.submit(asked.spec).future.result(timeout=120)
    return wire.write_optimize(asked, done).result


@pytest.mark.parametrize(
    ("layers", "kind", "field", "words"),
    [
        (["0", "none"], NotFound, "attack.linear_layers[1]", "is not a layer of one"),
        (["1", "0", "1"], InvalidArgument, "attack.linear_layers[2]", "is there already"),
        (["2"], FailedPrecondition, "attack.linear_layers[0]", "2 cannot be a target: its output"),
        (["0"] * 65, InvalidArgument, "attack.linear_layers", "has 65; must have at most 64"),
    ],
)
def test_layers_that_cannot_be_looked_at(
    layers: list[str], kind: type[PellucidError], field: str, words: str
) -> None:
    with pytest.raises(kind) as caught:
        read(linear_layers=layers)
    [violation] = caught.value.violations
    assert violation.field == field
    assert words in violation.description


def test_what_was_asked_is_told(runner: Runner) -> None:
    told = run(runner, read(linear_layers=["0", "4"], transfer=True)).attack.attack
    assert list(told.linear_layers) == ["0", "4"]
    assert told.transfer
    plain = run(runner, read())
    assert not plain.attack.attack.transfer
    [image] = plain.images
    assert not image.adversarial.transfer
    assert [[e.layer for e in view.effects] for view in image.adversarial.linear] == [[""], [""]]


def test_a_request_pays_for_what_it_adds() -> None:
    plain, asked = read().spec, read(linear_layers=["0", "4"], transfer=True).spec
    assert plain.elsewhere == ()
    assert [(of.model.name, of.row_count, of.bucket_size) for of in asked.elsewhere] == [
        ("one", 2, 4),
        ("other", 2, 4),
    ]
    assert isinstance(asked.method, Attack)
    before, after = (s.method.row_counts(ONE, s.target) for s in (plain, asked))
    # Both layers: the photo and one image forward; back they ride in the rows of the pixels.
    assert {lane.value: after[lane] - before[lane] for lane in after} == {
        "forward": 2,
        "gradient": 0,
    }


def test_what_is_told_takes_no_more_than_is_counted(runner: Runner) -> None:
    """As JSON, which is longest; pictures are counted apart."""
    asked = read(linear_layers=["0", "1", "4"], transfer=True, goal_class_index=1)
    method = asked.spec.method
    assert isinstance(method, Attack)
    [image] = run(runner, asked).images
    for name in ("perturbation", "success", "linf", "l2"):
        image.adversarial.ClearField(name)
    told = len(json_format.MessageToJson(image.adversarial, indent=None).encode())
    assert told <= most_told_bytes(method, ONE) <= 3 * told
    photos = PhotoSet((cast(Any, None),) * 5, (SIDE_PX, SIDE_PX))
    universal = UniversalAttack(
        Universal(epsilon=1, candidate_count=2), method.shows, photos, method.buckets
    )
    outcome = attack_pb2.PhotoOutcome(
        before=image.adversarial.prediction, after=image.adversarial.prediction
    )
    told = 5 * len(json_format.MessageToJson(outcome, indent=None))
    assert told <= most_told_bytes(universal, ONE) <= 3 * told


def test_what_cannot_be_sent_is_refused_before(runner: Runner) -> None:
    """Layers and models are told of: so large a response is one for those that ask for none."""
    most_bytes = next(n for n in range(10_000, 100_000, 100) if fits_in(n))
    assert not fits_in(most_bytes, linear_layers=["0", "1", "4"])
    assert not fits_in(most_bytes, transfer=True)


def fits_in(most_bytes: int, **fields: Any) -> bool:
    try:
        read(most_bytes, **fields)
    except InvalidArgument as error:
        [violation] = error.violations
        assert "bytes; at most" in violation.description
        return False
    return True


def test_the_linear_view_of_a_result(runner: Runner) -> None:
    """By float64 arithmetic of NumPy: the classifier, then the rectified convolution."""
    result = run(runner, read(linear_layers=["1", "4"], class_index=2))
    [image] = result.images
    how = image.adversarial
    taken = how.prediction.class_index
    assert [(v.class_index, v.label) for v in how.linear] == [
        (2, "third"),
        (taken, ONE.labels[taken]),
    ]
    weight = network(0)[4].weight.detach().double().numpy()
    [before, after] = (
        rectified(np.asarray(Image.open(BytesIO(data)), np.float64))
        for data in (result.attack.original.data, image.image.data)
    )
    for view in how.linear:
        change = weight[view.class_index] @ (after - before)
        assert abs(change) > 1e-2
        assert view.happened == pytest.approx(change, rel=1e-3)
        _, at_maps, at_logits = view.effects
        assert at_logits.predicted == pytest.approx(change, rel=1e-3)
        assert at_maps.predicted == pytest.approx(change, rel=1e-3)
        relative = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert at_maps.relative_change == pytest.approx(relative, rel=1e-4)


def rectified(photo: np.ndarray) -> np.ndarray:
    """What the classifier gets of a photo, height × width × 3."""
    steps, made = ONE.preprocessing, network(0)[0]
    weight, bias = (p.detach().double().numpy() for p in (made.weight, made.bias))
    image = np.pad(
        ((photo / 255 - steps.mean) / steps.std).transpose(2, 0, 1), ((0, 0), (1, 1), (1, 1))
    )
    maps = np.array(
        [
            [
                [(image[:, y : y + 3, x : x + 3] * kernel).sum() + b for x in range(0, SIDE_PX, 2)]
                for y in range(0, SIDE_PX, 2)
            ]
            for kernel, b in zip(weight, bias, strict=True)
        ]
    )
    return np.maximum(maps, 0).ravel()


def test_the_transfer_of_a_result(runner: Runner) -> None:
    result = run(runner, read(transfer=True, class_index=0))
    [image] = result.images
    own, other = image.adversarial.transfer
    assert (own.model, other.model) == ("one", "other")
    # On the attacked model it is what the attack itself is told.
    assert own.before.logit == pytest.approx(result.attack.prediction.logit, rel=1e-5)
    assert own.after.logit == pytest.approx(image.adversarial.prediction.logit, rel=1e-5)
    assert own.source_before == pytest.approx(result.attack.source_probability, rel=1e-5)
    assert own.source_after == pytest.approx(image.adversarial.source_probability, rel=1e-5)
    assert own.fooled == (own.before.class_index != own.after.class_index)
    # The other one has no class that is labelled "first".
    assert not other.HasField("source_before")
    assert not other.HasField("source_after")
    assert other.before.label == OTHER.labels[other.before.class_index]


def test_the_picture_of_a_change() -> None:
    change = torch.zeros(3, 2, 2)
    change[0, 0, 0], change[1, 0, 1], change[2, 1, 1] = 4, -8, 3
    picture, gain = write_perturbation(change)
    assert gain == 127 / 8
    shown = np.asarray(Image.open(BytesIO(picture.data)))
    expected = np.full((2, 2, 3), 128)
    expected[0, 0, 0], expected[0, 1, 1], expected[1, 1, 2] = 192, 1, 176  # 191.5, 1, 175.6
    assert shown.tolist() == expected.tolist()
    still, gain = write_perturbation(torch.zeros(3, 2, 2))
    assert gain == 1
    assert set(np.asarray(Image.open(BytesIO(still.data))).ravel()) == {128}
