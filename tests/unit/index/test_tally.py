"""The running top-k and histogram of channels, against sorting and counting all at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pellucid_server.index.tally import Tally


def tallied(values: np.ndarray, places: np.ndarray, top_k: int, cuts: list[int]) -> Tally:
    tally = Tally.empty(values.shape[1], top_k)
    for part in np.split(np.arange(len(values)), cuts):
        if len(part):
            tally.add(values[part], places[part], part)
    return tally


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**31), st.lists(st.integers(0, 30)))
def test_of_any_batches_it_is_the_sort_of_all(
    photo_count: int, top_k: int, seed: int, cuts: list[int]
) -> None:
    """Few different values, so that there are ties: the earlier photo comes first."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-4, 5, (photo_count, 7)).astype(np.float32)
    values *= np.float32(10.0) ** rng.integers(-5, 4, 7)
    places = rng.integers(0, 100, values.shape).astype(np.int32)
    tally = tallied(values, places, top_k, sorted(c for c in cuts if c < photo_count))
    kept = min(top_k, photo_count)
    for channel in range(7):
        expected = sorted(range(photo_count), key=lambda p: (-values[p, channel], p))[:kept]
        assert tally.photos[channel, :kept].tolist() == expected
        assert tally.values[channel, :kept].tolist() == values[expected, channel].tolist()
        assert tally.places[channel, :kept].tolist() == places[expected, channel].tolist()
        assert (tally.photos[channel, kept:] == -1).all()
        edges, counts = tally.histogram(channel)
        assert len(edges) == len(counts) + 1
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            assert count == ((low <= values[:, channel]) & (values[:, channel] < high)).sum()
        assert counts.sum() == photo_count
        assert len(counts) == 1 or np.abs(edges).max() > np.abs(values[:, channel]).max() / 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 19), max_size=4))
def test_batches_do_not_matter(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((20, 5)) * 10.0 ** rng.integers(-6, 6, (20, 5))).astype("f4")
    places = rng.integers(0, 9, values.shape).astype(np.int32)
    one, other = tallied(values, places, 3, []), tallied(values, places, 3, sorted(cuts))
    assert one.to_bytes() == other.to_bytes()
    again = Tally.from_bytes(3, other.to_bytes().__getitem__)
    again.add(values, places, np.arange(20, 40))
    other.add(values, places, np.arange(20, 40))
    assert again.to_bytes() == other.to_bytes()


def test_a_histogram_by_hand() -> None:
    """Bins are 2^e wide, 32 of them reach beyond the largest magnitude, and not 16."""
    tally = Tally.empty(1, 1)
    for place, value in enumerate([0.0, 1.0, 1.5, -3.0, 7.9, 31.9]):
        tally.add(np.full((1, 1), value, "f4"), np.zeros((1, 1), "i4"), np.array([place]))
    edges, counts = tally.histogram(0)
    assert edges.tolist() == list(range(-3, 33))
    assert {e: c for e, c in zip(edges, counts, strict=False) if c} == {
        -3: 1,
        0: 1,
        1: 2,
        7: 1,
        31: 1,
    }
    tally.add(np.full((1, 1), 32.0, "f4"), np.zeros((1, 1), "i4"), np.array([6]))
    edges, counts = tally.histogram(0)
    assert edges[0] == -4  # twice as wide: -3 is from -4 to -2
    assert (np.diff(edges) == 2).all()
    assert counts.sum() == 7


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_a_channel_that_is_dead(value: float) -> None:
    tally = Tally.empty(1, 2)
    tally.add(np.full((5, 1), value, "f4"), np.zeros((5, 1), "i4"), np.arange(5))
    edges, counts = tally.histogram(0)
    assert counts.tolist() == [5]
    assert edges[0] == 0
    assert tally.photos.tolist() == [[0, 1]]
