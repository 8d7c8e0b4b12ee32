"""Losses of content and style, and their gradients, against the papers' formulas in NumPy."""

import numpy as np
import pytest
import torch
from pellucid_server.engine.goals import gram_matrix
from pellucid_server.engine.rows import CodeTarget, EnergyTarget, Goal, GramTarget, SumTarget
from pellucid_server.engine.seeds import score

RNG = np.random.default_rng(0)
MAPS, HEIGHT, WIDTH = 5, 4, 6
PLACES = HEIGHT * WIDTH
IMAGES = RNG.normal(0.5, 1, (3, MAPS, HEIGHT, WIDTH))
CONTENT = RNG.normal(0.5, 1, (MAPS, HEIGHT, WIDTH))
STYLES = [RNG.normal(0, 1, (MAPS, *size)) for size in ((4, 6), (3, 9), (7, 2))]
"""Of other sizes than the image's, too."""
WEIGHTS = np.array([0.5, 0.2, 0.3])
MASK = RNG.uniform(0, 1, PLACES)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def style_loss(
    features: np.ndarray, normalization: str, styles: list[int], places: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """Of N×H×W, by loops: Σ_s w_s·E_s, and its gradient."""
    flat = features.reshape(MAPS, -1)
    shares = np.full(PLACES, 1 / PLACES) if places is None else places / places.sum()
    loss, gradient = 0.0, np.zeros_like(flat)
    weights = WEIGHTS[styles] / WEIGHTS[styles].sum()
    for which, weight in zip(styles, weights, strict=True):
        style = STYLES[which].reshape(MAPS, -1)
        for i in range(MAPS):
            for j in range(MAPS):
                ours = sum(shares[k] * flat[i, k] * flat[j, k] for k in range(PLACES))
                theirs = sum(a * b for a, b in zip(style[i], style[j], strict=True))
                theirs /= style.shape[1]
                if normalization == "gatys":
                    factor, off = 1 / (4 * MAPS**2), ours - theirs
                    slope = 2 * factor * off
                else:  # the mean over N² of the squared difference of G/N
                    factor, off = 1 / MAPS**2, (ours - theirs) / MAPS
                    slope = 2 * factor * off / MAPS
                loss += weight * factor * off**2
                gradient[i] += weight * slope * shares * flat[j]
                gradient[j] += weight * slope * shares * flat[i]
    return loss, gradient.reshape(features.shape)


def gram_target(normalization: str, styles: list[int], places: np.ndarray | None) -> GramTarget:
    weights = WEIGHTS[styles] / WEIGHTS[styles].sum()
    grams = [gram_matrix(tensor(STYLES[which])) for which in styles]
    mean = sum(float(w) * gram for w, gram in zip(weights, grams, strict=True))
    spread = sum(
        float(w) * float((gram - mean).square().sum())
        for w, gram in zip(weights, grams, strict=True)
    )
    scale = 1 / (4 * MAPS**2) if normalization == "gatys" else 1 / MAPS**4
    shares = None if places is None else tensor(places / places.sum())
    return GramTarget("maps", mean, spread, scale, shares)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("styles", [[0], [1], [0, 1, 2]])
@pytest.mark.parametrize("normalization", ["gatys", "johnson"])
def test_style(normalization: str, styles: list[int], masked: bool) -> None:
    places = MASK if masked else None
    goal = gram_target(normalization, styles, places)
    scores = score({"maps": tensor(IMAGES)}, [SumTarget(((goal, 3.0),)), None, None])
    loss, gradient = style_loss(IMAGES[0], normalization, styles, places)
    assert float(scores.terms[0, 0]) == pytest.approx(-loss, rel=1e-12)
    assert float(scores.values[0]) == pytest.approx(-3 * loss, rel=1e-12)
    assert np.allclose(scores.seeds["maps"][0], -3 * gradient, rtol=1e-11, atol=1e-14)
    assert not scores.seeds["maps"][1:].any()


def test_normalizations_differ_by_a_quarter_of_the_squared_maps() -> None:
    loss = {n: style_loss(IMAGES[0], n, [0], None)[0] for n in ("gatys", "johnson")}
    assert loss["gatys"] / loss["johnson"] == pytest.approx(MAPS**2 / 4, rel=1e-12)


@pytest.mark.parametrize(("energy", "factor"), [(2.0, 0.5), (CONTENT.size, 1 / CONTENT.size)])
def test_content(energy: float, factor: float) -> None:
    """Half of the sum of squares, and their mean."""
    goal = CodeTarget("maps", tensor(CONTENT), energy)
    scores = score({"maps": tensor(IMAGES)}, [None, SumTarget(((goal, 2.0),)), None])
    loss = factor * ((IMAGES[1] - CONTENT) ** 2).sum()
    assert float(scores.values[1]) == pytest.approx(-2 * loss, rel=1e-12)
    expected = -2 * 2 * factor * (IMAGES[1] - CONTENT)
    assert np.allclose(scores.seeds["maps"][1], expected, rtol=1e-12)


def test_bits_are_the_same_beside_other_styles() -> None:
    images = torch.randn(4, 64, 30, 30, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    codes = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(1))

    def goal(which: int) -> Goal:
        return GramTarget("maps", codes[which] @ codes[which].T, 0.0, 1e-4)

    mine = SumTarget(((goal(0), 1.0), (CodeTarget("maps", images[3], 2.0), 1e-3)))
    other = SumTarget(((goal(1), 2.0), (EnergyTarget("maps"), 1.0), (goal(0), 1.0)))
    for place in range(4):
        alone = [None] * 4
        beside = [other] * 4
        alone[place] = beside[place] = mine
        rows = images.roll(place, 0)
        one, all_of_them = score({"maps": rows}, alone), score({"maps": rows}, beside)
        assert torch.equal(one.seeds["maps"][place], all_of_them.seeds["maps"][place])
        assert one.values[place] == all_of_them.values[place]
