"""The chart of deletion and insertion curves: ink where it belongs."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pellucid.charts import ChartCurve, _area, _scores_axis, curves_chart

SHARES = [0.0, 0.5, 1.0]


def curve(order: str, level: float, *, insertion: float | None = None) -> ChartCurve:
    rising = level if insertion is None else insertion
    return ChartCurve(order, [level] * 3, np.full(3, rising).tolist(), level, rising)


def red(pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (pixels[..., 0] > 150) & (pixels[..., 1] < 120)


def drawn(*curves: ChartCurve) -> NDArray[np.int64]:
    return np.asarray(curves_chart(SHARES, curves)).astype(np.int64)


def test_the_map_is_where_its_scores_are() -> None:
    pixels = drawn(curve("map", 0.75, insertion=0.5), curve("random", 0.25))
    assert pixels.shape == (240, 512, 3)
    # The plots begin at 36 and 292, are 204 wide, and go from 30 (the score 1) to 182 (0).
    rows = np.arange(30, 182)[red(pixels)[30:182, 100]]
    assert rows.min() <= 30 + 0.25 * 152 <= rows.max() + 1
    rows = np.arange(30, 182)[red(pixels)[30:182, 400]]
    assert rows.min() <= 30 + 0.5 * 152 <= rows.max() + 1
    assert red(pixels)[68, 40:236].all()
    assert not red(pixels)[30:182, 245:288].any()


def test_yardsticks_are_grey_and_the_centre_is_dashed() -> None:
    plain = drawn(curve("map", 0.9), curve("random", 0.4))
    dashed = drawn(curve("map", 0.9), curve("center", 0.4))
    row = round(30 + 0.6 * 152)
    on_line = {
        name: p[row - 1 : row + 2, 45:85].min(axis=(0, 2))
        for name, p in {"random": plain, "center": dashed}.items()
    }
    assert (on_line["random"] < 200).all()
    assert 0.2 < (on_line["center"] < 215).mean() < 0.8
    assert not red(plain)[row - 3 : row + 4, 40:236].any()


def test_the_map_is_drawn_over_the_others() -> None:
    same = drawn(curve("map", 0.5), curve("random", 0.5), curve("center", 0.5))
    assert red(same)[106, 40:236].all()


def test_the_legend_names_every_curve() -> None:
    words = drawn(curve("map", 0.5), curve("random", 0.5), curve("center", 0.5))[218:238]
    for left, right in ((0, 256), (256, 512)):
        dark = (words[:, left:right].min(axis=2) < 140).any(axis=0)
        assert dark.sum() > 90
        assert not dark[-3:].any()


@pytest.mark.parametrize(
    ("scores", "axis"),
    [
        ([0.3, 1.0], (0, 1)),
        ([0.1, 0.2], (0, 0.2)),
        ([0.0012], (0, 0.002)),
        ([17.0, 3.0], (0, 20)),
        ([-3.0, 0.5], (-5, 1)),
        ([-3.0], (-5, 0)),
        ([0.0], (0, 1)),
        ([], (0, 1)),
    ],
)
def test_the_axis_of_scores(scores: list[float], axis: tuple[float, float]) -> None:
    assert _scores_axis(scores) == axis


@pytest.mark.parametrize(
    ("area", "text"), [(0, "0"), (0.1234, "0.12"), (0.00038, "3.8e-4"), (-31.6, "-32")]
)
def test_areas_in_the_legend(area: float, text: str) -> None:
    assert _area(area) == text
