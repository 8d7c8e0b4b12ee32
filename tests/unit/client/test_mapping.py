"""Pictures of maps: what is drawn where, and in which colour; maps in files."""

from pathlib import Path

import numpy as np
import pytest
from pellucid import BadArgument, SavedMap, load_map, mapping
from pellucid.maps import load_codes, load_numbers
from PIL import Image

CORNERS = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)


def places_of(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of a colour, but for the legend."""
    return np.argwhere((np.asarray(picture)[:, :900] == color).all(2))


def test_up_is_up_and_both_axes_have_one_scale() -> None:
    points = np.array([[0, 0], [40, 10]], np.float32)
    picture = mapping.scatter(points, values=["low", "high"])
    (low_y, low_x), (high_y, high_x) = (
        places_of(picture, color).mean(0) for color in mapping._CLASSES[:2]
    )
    assert high_y < low_y
    assert high_x > low_x
    assert (high_x - low_x) / (low_y - high_y) == pytest.approx(4, rel=0.02)


def test_numbers_have_a_bar_from_the_least_to_the_most() -> None:
    picture = mapping.scatter(CORNERS, values=np.array([1.0, 2, np.nan, 5]))
    for color in (mapping._NUMBERS[0], mapping._NUMBERS[-1], mapping._OTHERS):
        assert len(places_of(picture, color))
    bar = np.asarray(picture)[:, 926]
    top, bottom = (
        np.argwhere((bar == c).all(1)) for c in (mapping._NUMBERS[-1], mapping._NUMBERS[0])
    )
    assert top.min() < bottom.max()


def test_equal_numbers_and_a_single_point_can_be_drawn() -> None:
    for points, values in ((CORNERS, np.ones(4)), (CORNERS[:1], ["one"]), (CORNERS[:1], None)):
        assert mapping.scatter(points, values=values).size == (1120, 800)


def test_rare_words_are_grey() -> None:
    points = np.random.default_rng(0).normal(size=(44, 2))
    words = [f"class {k % 22}" for k in range(40)] + ["class 0"] * 4
    assert len(places_of(mapping.scatter(points, values=words), mapping._OTHERS))
    assert not len(
        places_of(mapping.scatter(points, values=words[:20] * 2 + words[:4]), mapping._OTHERS)
    )


def test_an_old_map_lies_behind() -> None:
    picture = mapping.scatter(CORNERS[:1], old=CORNERS)
    assert len(places_of(picture, mapping._PLAIN))
    assert len(places_of(picture, mapping._OLD))


def test_insets_are_above_and_below() -> None:
    red, green = (Image.new("RGB", (50, 40), color) for color in ("red", "lime"))
    picture = mapping.scatter(CORNERS, insets={2: red, 1: green})
    assert picture.size == (1120, 800 + 2 * 60)
    rows = [places_of(picture, color)[:, 0] for color in ((255, 0, 0), (0, 255, 0))]
    assert rows[0].max() < 120
    assert rows[1].min() > 800
    assert [len(one) for one in rows] == [2000, 2000]


def test_the_grid_has_each_photo_at_its_place() -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    photos = [Image.new("RGB", (30, 20), color) for color in colors]
    places = np.array([[0, 1], [1, 0], [0, 0]])
    picture = mapping.picture_grid(photos, places, (2, 2), tile_px=16)
    assert picture.size == (32, 32)
    found = [picture.getpixel((16 * column + 8, 16 * row + 8)) for row, column in places.tolist()]
    assert found == colors
    assert picture.getpixel((24, 24)) == (255, 255, 255)
    large = mapping.picture_grid(photos, places, (2, 512), tile_px=64)
    assert large.size == (4096, 16)


def test_spread_points_are_far_apart() -> None:
    points = np.concatenate([CORNERS, CORNERS * 0.01 + 5])
    assert sorted(mapping.spread(points, 4)) == [0, 1, 2, 3]
    assert len(mapping.spread(points, 100)) == 8


def test_a_map_is_saved_and_loaded(tmp_path: Path) -> None:
    codes = np.arange(12, dtype=np.float32).reshape(4, 3)
    saved = SavedMap(codes, CORNERS, ("a", "b", "c", "d é"), {"method": "pca"}, "abc")
    saved.save(tmp_path / "map.npz")
    found = load_map(tmp_path / "map.npz")
    assert np.array_equal(found.codes, codes)
    assert np.array_equal(found.points, CORNERS)
    assert (found.names, found.parameters) == (saved.names, saved.parameters)
    assert found.model_version == "abc"
    with pytest.raises(BadArgument, match=r"must end with \.npz"):
        saved.save(tmp_path / "map.npy")


def test_what_no_map_is_saved_in(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", codes=CORNERS)
    (tmp_path / "text.npz").write_text("none")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("other.npz", "text.npz"):
        with pytest.raises(BadArgument, match="is no map that was saved here"):
            load_map(tmp_path / name)
    for name in ("text.npz", "objects.npy"):
        with pytest.raises(BadArgument, match="has no array"):
            load_codes(tmp_path / name)


def test_damaged_maps_are_refused(tmp_path: Path) -> None:
    """Cut anywhere, or with a byte turned; never another error, nor another map."""
    codes = np.random.default_rng(0).normal(size=(4, 30)).astype(np.float32)
    SavedMap(codes, CORNERS, ("a",) * 4, {"method": "pca"}, "").save(tmp_path / "map.npz")
    whole = (tmp_path / "map.npz").read_bytes()
    for place in range(0, len(whole), 13):
        turned = whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]
        for name, data in (("cut.npz", whole[:place]), ("turned.npz", turned)):
            (tmp_path / name).write_bytes(data)
            for load in (load_map, load_codes):
                try:
                    load(tmp_path / name)
                except BadArgument:
                    continue
                assert name == "turned.npz"  # where it says nothing: a date


@pytest.mark.parametrize("field", ["codes", "points", "names"])
def test_a_map_has_a_point_and_a_name_for_each_code(tmp_path: Path, field: str) -> None:
    SavedMap(CORNERS, CORNERS, ("a",) * 4, {}, "").save(tmp_path / "map.npz")
    with np.load(tmp_path / "map.npz") as file:
        arrays = dict(file)
    for bad in (arrays[field][:3], arrays[field][:, None], arrays[field][0]):
        np.savez(tmp_path / "bad.npz", **{**arrays, field: bad})
        with pytest.raises(BadArgument, match="codes, points and names are"):
            load_map(tmp_path / "bad.npz")


def test_numbers_and_words_of_points(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(4))
    (tmp_path / "numbers.txt").write_text("1\n2.5\n3\n4\n")
    (tmp_path / "words.txt").write_text("a\nb b\n\nd")
    assert load_numbers(tmp_path / "one.npy", 4).tolist() == [0, 1, 2, 3]
    assert load_numbers(tmp_path / "numbers.txt", 4).tolist() == [1, 2.5, 3, 4]
    assert load_numbers(tmp_path / "words.txt", 4).tolist() == ["a", "b b", "", "d"]
    with pytest.raises(BadArgument, match="has 4; must be one for each of 5 points"):
        load_numbers(tmp_path / "numbers.txt", 5)
