"""What steadies frames, by hand."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pellucid_server.methods.stylize.video import Smoother


def grey(*values: float) -> NDArray[np.float32]:
    """3×1×n: a row of grey pixels."""
    return np.tile(np.array(values, np.float32), (3, 1, 1))


def smoothed(smoother: Smoother, frame: NDArray[np.float32], made: Any) -> list[Any]:
    """What comes of results for one frame, again and again."""
    results = []
    for one in made:
        result, smoother = smoother.smooth(frame, one)
        results.append(result)
    return results


def test_without_strength_nothing_changes() -> None:
    smoother = Smoother(0.0)
    for value in (0.1, 0.9):
        made = grey(value)
        result, smoother = smoother.smooth(grey(0.5), made)
        assert result is made


def test_what_stands_still_is_an_exponential_mean() -> None:
    """Each result is 3/4 of the one before and 1/4 of what was made."""
    made = [grey(v) for v in (0.8, 0.4, 0.4)]
    results = smoothed(Smoother(0.75), grey(0.5), made)
    assert np.allclose([one[0, 0, 0] for one in results], [0.8, 0.7, 0.625], atol=1e-6)


def test_what_moves_is_not_held_back() -> None:
    """Weights fall from s, where nothing changed, to 0 at a change of 0.1: here by quarters."""
    _, smoother = Smoother(0.8).smooth(grey(0.2, 0.2, 0.2, 0.2, 0.2, 0.2), grey(1, 1, 1, 1, 1, 1))
    frame = grey(0.2, 0.225, 0.25, 0.125, 0.3, 0.9)
    made, _ = smoother.smooth(frame, grey(0, 0, 0, 0, 0, 0))
    assert np.allclose(made[:, 0], [0.8, 0.6, 0.4, 0.2, 0, 0], atol=1e-6)


def test_the_largest_change_of_a_colour_counts() -> None:
    _, smoother = Smoother(0.8).smooth(grey(0.2), grey(1))
    frame = grey(0.2)
    frame[1] += 0.05
    made, _ = smoother.smooth(frame, grey(0))
    assert np.allclose(made, 0.4, atol=1e-6)


def test_it_steadies_what_flickers() -> None:
    """On a still frame the spread of noisy results falls as that of an exponential mean."""
    draws = np.random.default_rng(0).normal(0.5, 0.1, (400, 3, 8, 8)).astype(np.float32)
    results = np.stack(smoothed(Smoother(0.9), np.full((3, 8, 8), 0.5, np.float32), draws))
    # Var = σ²·(1 - s)/(1 + s).
    assert np.isclose(results[50:].std(), 0.1 * np.sqrt(0.1 / 1.9), rtol=0.1)
