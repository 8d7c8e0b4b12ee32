"""Original colours, against the definitions in NumPy."""

import numpy as np
import pytest
import torch
from pellucid_server.methods.stylize import colors

RNG = np.random.default_rng(0)
PHOTO = RNG.uniform(0, 1, (3, 9, 7)) * np.array([0.9, 0.5, 0.3])[:, None, None]
STYLE = RNG.uniform(0, 1, (3, 5, 11)) ** np.array([1, 2, 3])[:, None, None]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy())


def chroma(image: np.ndarray) -> np.ndarray:
    """Cb and Cr of BT.601."""
    red, green, blue = image
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([(blue - y) / 1.772, (red - y) / 1.402])


def test_luminance_of_one_and_colors_of_the_other() -> None:
    other = RNG.uniform(0, 1, PHOTO.shape)
    made = colors.with_luminance(tensor(PHOTO), tensor(other)).numpy()
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    assert np.allclose((weights * made).sum(0), (weights * other).sum(0), atol=1e-12)
    assert np.allclose(chroma(made), chroma(PHOTO), atol=1e-12)


def test_matched_colors_have_the_photos_mean_and_covariance() -> None:
    made = colors.matched(tensor(STYLE), tensor(PHOTO)).numpy()
    assert made.shape == STYLE.shape
    ours, wanted = made.reshape(3, -1), PHOTO.reshape(3, -1)
    assert np.allclose(ours.mean(1), wanted.mean(1), atol=1e-12)
    assert np.allclose(np.cov(ours, bias=True), np.cov(wanted, bias=True), atol=1e-12)


def test_matched_grey_has_the_photos_mean_and_deviation() -> None:
    made = colors.matched_grey(tensor(STYLE), tensor(PHOTO)).numpy()
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])
    wanted = (np.array([0.299, 0.587, 0.114])[:, None, None] * PHOTO).sum(0)
    assert made.mean() == pytest.approx(wanted.mean(), abs=1e-12)
    assert made[0].std() == pytest.approx(wanted.std(), abs=1e-12)


def test_a_style_of_one_color_becomes_the_photos_mean() -> None:
    flat = torch.full((3, 4, 4), 0.25, dtype=torch.float64)
    mean = PHOTO.reshape(3, -1).mean(1)
    assert np.allclose(colors.matched(flat, tensor(PHOTO)).numpy(), mean[:, None, None])
    assert colors.matched_grey(flat, tensor(PHOTO)).isfinite().all()
