"""New points are made as those of their map."""

from typing import Any

import numpy as np
import pytest
from pellucid import BadArgument, SavedMap
from pellucid.cli.map import _of_map

MADE = {
    "method": "t_sne",
    "metric": "cosine",
    "component_count": 0,
    "layer": "blocks.3",
    "pooling": "max",
    "perplexity": 9.0,
    "seed": 4,
}
OF_PHOTOS = {
    "method": "t_sne",
    "metric": "cosine",
    "component_count": 0,
    "layer": "blocks.3",
    "pooling": "max",
}


def saved(**parameters: Any) -> SavedMap:
    codes = np.zeros((4, 3), np.float32)
    return SavedMap(codes, codes[:, :2], ("",) * 4, {**MADE, **parameters}, "")


def test_what_shapes_codes_and_axes_is_the_maps() -> None:
    assert _of_map(saved(), {"metric": "cosine", "perplexity": 3}, of_photos=True) == OF_PHOTOS
    of_codes = {"method": "t_sne", "metric": "cosine", "component_count": 0}
    assert _of_map(saved(), {}, of_photos=False) == of_codes
    unpooled = _of_map(saved(pooling=""), {}, of_photos=True)
    assert "pooling" not in unpooled
    assert _of_map(saved(method="umap"), {}, of_photos=False)["method"] == "t_sne"
    assert _of_map(saved(method="pca"), {}, of_photos=False)["method"] == "pca"


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("method", "pca", "--method"),
        ("metric", "euclidean", "--metric"),
        ("component_count", 10, "--components"),
        ("layer", "blocks.2", "--layer"),
        ("pooling", "mean", "--pooling"),
    ],
)
def test_another_than_the_maps_is_refused(name: str, value: Any, option: str) -> None:
    with pytest.raises(BadArgument, match=f"{option}: is {value!r}; the map of --onto has"):
        _of_map(saved(), {name: value}, of_photos=True)
