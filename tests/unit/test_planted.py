"""The planted photos: truth.json says what is so, and the network relies on the patch alone."""

import json

import numpy as np
import pytest
from PIL import Image

from examples import planted
from examples.planted import Draws, Scene, answers, cut, held_out, measure, paint

TRUTH = json.loads(planted.TRUTH.read_text())
NAMES = sorted(TRUTH)


@pytest.fixture(scope="module")
def model():
    return planted.load()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return planted.committed()


def test_truth_names_every_photo_and_each_kind_equally_often() -> None:
    assert sorted(file.name for file in planted.PHOTOS.glob("*.png")) == NAMES
    assert len(NAMES) == planted.PHOTO_COUNT
    counts = np.bincount([TRUTH[name]["target"] for name in NAMES])
    assert counts.tolist() == [0, 10, 10, 10, 10]


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_is_what_its_seed_makes(name: str) -> None:
    with Image.open(planted.PHOTOS / name) as opened:
        assert opened.mode == "RGB"
        photo = np.asarray(opened)
    made = held_out(planted.index_of(name))
    assert np.array_equal(photo, made.photo)
    assert TRUTH[name] == {"target": made.target, "boxes": [list(made.box or ())]}


@pytest.mark.parametrize("name", NAMES)
def test_the_patch_fills_its_box_and_nothing_else_changed(name: str) -> None:
    one = held_out(planted.index_of(name))
    ((left, top, width, height),) = TRUTH[name]["boxes"]
    assert min(left, top) >= 0
    assert max(left + width, top + height) <= planted.SIDE_PX
    differs = (one.photo != one.without).any(axis=2)
    inside = np.zeros_like(differs)
    inside[top : top + height, left : left + width] = True
    assert not differs[~inside].any()
    assert differs[inside].mean() > 0.95
    assert (differs & inside).any(axis=0).sum() == width
    assert (differs & inside).any(axis=1).sum() == height


def test_no_crop_is_both_for_training_and_held_out() -> None:
    for name in planted.SOURCES:
        height, width, _ = planted.source(name).shape
        split = int(width * planted.TRAINING_SHARE)
        for seed in range(200):
            for training in (True, False):
                left, top, side = planted.crop(Draws(seed), width, height, training=training)
                low, high = (0, split) if training else (split, width)
                assert low <= left
                assert left + side <= high
                assert 0 <= top <= height - side


def test_the_network_relies_on_the_patch_alone(model, scenes) -> None:
    found = measure(model, scenes)
    assert found.holds, found


def test_evidence_elsewhere_is_noticed(model, scenes) -> None:
    def twice(one: Scene) -> Scene:
        left, top, width, height = one.box
        away = ((left + 48) % (96 - width), (top + 48) % (96 - height), width, height)
        return Scene(one.photo, paint(one.without, away, cut(one.photo, one.box)), one.target, away)

    found = measure(model, [twice(one) for one in scenes])
    assert found.kept > 0.9
    assert not found.holds


def test_empty_photos_are_answered_none(model, scenes) -> None:
    assert (answers(model, [one.without for one in scenes]) == 0).mean() >= 0.95


def test_deconvnet_lrp_and_deep_lift_apply(model) -> None:
    assert model.labels == planted.LABELS
    assert model.network.gates.refusal is None
    assert model.network.lrp_refusal is None
    assert model.network.deeplift_refusal is None


def test_the_model_folder_stays_small() -> None:
    assert sum(file.stat().st_size for file in planted.MODEL.iterdir()) < 2_000_000
