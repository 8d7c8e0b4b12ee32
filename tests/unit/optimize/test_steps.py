"""A step's arithmetic against formulas written once more, in float64 NumPy."""

import numpy as np
import pytest
import torch
from pellucid_server.methods import draws
from pellucid_server.methods.optimize import prelude, regularizers, updates
from scipy import ndimage

SIZE = (12, 17)
MEAN = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64).view(3, 1, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 40, (3, 3, *SIZE))
GRADIENTS = RNG.normal(0, 1, IMAGES.shape)
ENERGY = 3 * 12 * 17 * 57.4**2


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy())


def close(actual: torch.Tensor, expected: object) -> bool:
    return np.allclose(actual.detach().numpy(), expected, rtol=1e-11, atol=1e-12)


# Penalties, and their slopes.


def test_lp() -> None:
    images = as_tensor(IMAGES).requires_grad_()
    made = regularizers.lp_penalty(images, numbers(3, 0, 5), numbers(2, 6, 6))
    expected = [
        3 / 2 * (IMAGES[0] ** 2).sum() / ENERGY,
        0,
        5 / 2 * (IMAGES[2] ** 6).sum() / ENERGY,
    ]
    assert close(made, expected)
    [slope] = torch.autograd.grad(made.sum(), images)
    assert close(slope[0], 3 * IMAGES[0] / ENERGY)
    assert not slope[1].any()
    assert close(slope[2], 5 * 3 * IMAGES[2] ** 5 / ENERGY)


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_total_variation(beta: float) -> None:
    images = as_tensor(IMAGES).requires_grad_()
    made = regularizers.tv_penalty(images, numbers(4, 0, 4), numbers(beta, 2, beta))
    [slope] = torch.autograd.grad(made.sum(), images)
    for row, strength in ((0, 4), (1, 0), (2, 4)):
        total, expected = 0.0, np.zeros(IMAGES[row].shape)
        for c, y, x in np.ndindex(expected.shape):
            here = IMAGES[row][c, y, x]
            down = IMAGES[row][c, y + 1, x] - here if y + 1 < SIZE[0] else 0.0
            right = IMAGES[row][c, y, x + 1] - here if x + 1 < SIZE[1] else 0.0
            square = down**2 + right**2
            total += max(square, 1e-10) ** (beta / 2)
            if square > 1e-10:
                factor = beta * square ** (beta / 2 - 1)
                expected[c, y, x] -= factor * (down + right)
                if y + 1 < SIZE[0]:
                    expected[c, y + 1, x] += factor * down
                if x + 1 < SIZE[1]:
                    expected[c, y, x + 1] += factor * right
        assert float(made[row].detach()) == pytest.approx(strength / 2 * total / ENERGY, rel=1e-11)
        assert close(slope[row], strength / 2 * expected / ENERGY)


# Operators.


def test_decay() -> None:
    made = regularizers.decay(as_tensor(IMAGES), numbers(0, 0.25, 1))
    assert close(made, [IMAGES[0], 0.75 * IMAGES[1], 0 * IMAGES[2]])


def test_blur_is_scipys() -> None:
    made = regularizers.blur(as_tensor(IMAGES), numbers(0.5, 0, 3), 10.0)
    for row, sigma in ((0, 0.5), (2, 3)):
        expected = [ndimage.gaussian_filter(plane, sigma) for plane in IMAGES[row]]
        assert close(made[row], expected)
    assert close(made[1], IMAGES[1])


def test_small_norms_are_clipped() -> None:
    made = regularizers.clip_small_norms(as_tensor(IMAGES), numbers(50, 0, 20))
    for row, percentile in ((0, 50), (1, 0), (2, 20)):
        norms = np.linalg.norm(IMAGES[row], axis=0)
        small = norms < np.percentile(norms, percentile)
        assert close(made[row], np.where(small, 0, IMAGES[row]))
        assert small.mean() == pytest.approx(percentile / 100, abs=0.01)


def test_small_contributions_are_clipped() -> None:
    made = regularizers.clip_small_contributions(
        as_tensor(IMAGES), as_tensor(GRADIENTS), numbers(90, 0, 33.3)
    )
    for row, percentile in ((0, 90), (1, 0), (2, 33.3)):
        contribution = np.abs((GRADIENTS[row] * -IMAGES[row]).sum(0))
        small = contribution < np.percentile(contribution, percentile)
        assert close(made[row], np.where(small, 0, IMAGES[row]))


# Updates.


def test_adam_by_hand() -> None:
    """Two steps of one number: the mean of the signs, at first."""
    zero, rate = torch.zeros(1, 1, dtype=torch.float64), numbers(0.1)
    change, first, second = updates.adam(zero + 3, zero, zero, rate, numbers(1))
    assert float(change) == pytest.approx(0.1 * 3 / (3 + 1e-8), rel=1e-12)
    change, first, second = updates.adam(zero - 1, first, second, rate, numbers(2))
    mean = (0.9 * 0.1 * 3 + 0.1 * -1) / (1 - 0.9**2)
    square = (0.999 * 0.001 * 9 + 0.001 * 1) / (1 - 0.999**2)
    assert float(change) == pytest.approx(0.1 * mean / (square**0.5 + 1e-8), rel=1e-12)


def test_other_updates_by_hand() -> None:
    gradient = torch.tensor([[1.0, -3.0], [0.0, 0.0]], dtype=torch.float64)
    velocity = torch.tensor([[10.0, 10.0], [1.0, 1.0]], dtype=torch.float64)
    made = updates.momentum(gradient, velocity, numbers(2, 2), numbers(0.5, 0))
    assert close(made, [[5 + 2, 5 - 6], [0, 0]])
    assert close(
        updates.normalized(gradient, numbers(1.5, 1.5), numbers(2, 2)),
        [
            [1.5 / 2, -4.5 / 2],
            [0, 0],
        ],
    )
    assert close(updates.progress(gradient, numbers(100, 1), numbers(2, 2)), [[0.2, -0.6], [0, 0]])
    assert close(updates.progress(gradient, numbers(0.1, 1), numbers(2, 2)), [[0.1, -0.3], [0, 0]])


def test_steps_of_a_norm_by_hand() -> None:
    gradient = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert close(updates.sign(gradient, numbers(2, 2)), [[2, -2, 0], [0, 0, 0]])
    assert close(updates.unit(gradient, numbers(10, 10)), [[6, -8, 0], [0, 0, 0]])


def test_budgets_by_hand() -> None:
    anchor = torch.tensor([[10.0, 20.0, 30.0]] * 3, dtype=torch.float64)
    change = [[3.0, -4.0, 1.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.4]]
    there = anchor + torch.tensor(change, dtype=torch.float64)
    made = updates.within_linf(there, anchor, numbers(2, 2, 2))
    assert close(made - anchor, [[2, -2, 1], [0, 0, 0], [0.3, 0, 0.4]])
    there[0, 2] = 30.0
    made = updates.within_l2(there, anchor, numbers(2.5, 1, 1))
    assert close(made - anchor, [[1.5, -2, 0], [0, 0, 0], [0.3, 0, 0.4]])
    assert torch.equal(made[2], there[2])  # what is near enough is left as it is


# The prelude.


def test_a_spectrum_by_hand() -> None:
    """A cosine of red alone, in decorrelated colours."""
    parameters = torch.zeros(1, 3, *SIZE[:1], SIZE[1] // 2 + 1, 2, dtype=torch.float64)
    parameters[0, 1, 2, 3, 0] = 40.0
    image = prelude.from_spectrum(parameters.flatten(1), SIZE, MEAN)[0].numpy()
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    frequency = np.hypot(2 / 12, 3 / 17)
    wave = 2 * 40 / frequency * np.cos(2 * np.pi * (2 * ys / 12 + 3 * xs / 17))
    wave = wave / np.sqrt(12 * 17) / 4
    largest = np.sqrt(0.26**2 + 0.27**2 + 0.27**2)
    for color, mean, share in zip(image, (0.5, 0.4, 0.3), (0.09, 0.0, -0.09), strict=True):
        logit = share / largest * wave
        assert np.allclose(color, 255 / (1 + np.exp(-logit)) - 255 * mean, rtol=1e-11)


def test_spectrum_and_pixels_there_and_back() -> None:
    images = as_tensor(IMAGES).clamp(-60, 60)
    there = prelude.to_spectrum(images, MEAN)
    assert there.shape == (3, prelude.parameter_count(*SIZE))
    assert torch.allclose(prelude.from_spectrum(there, SIZE, MEAN), images, atol=1e-9)
    flat = prelude.from_pixels(images, SIZE)
    assert flat.shape == there.shape
    assert torch.equal(prelude.pixels_of(flat, SIZE), images)


def test_jitter_is_numpys_roll_and_goes_back() -> None:
    images = as_tensor(IMAGES).requires_grad_()
    down, right = torch.tensor([2, 0, -5]), torch.tensor([-1, 0, 16])
    rolled = prelude.roll(images, down, right)
    for row in range(3):
        shift = (int(down[row]), int(right[row]))
        assert np.array_equal(rolled[row].detach(), np.roll(IMAGES[row], shift, (1, 2)))
    [back] = torch.autograd.grad(rolled, images, as_tensor(GRADIENTS))
    for row in range(3):
        shift = (-int(down[row]), -int(right[row]))
        assert np.array_equal(back[row], np.roll(GRADIENTS[row], shift, (1, 2)))


@pytest.mark.parametrize(("degrees", "factor"), [(0, 1), (10, 1), (0, 1.1), (-7, 0.9), (90, 1)])
def test_warp_is_scipys(degrees: float, factor: float) -> None:
    made = prelude.warp(as_tensor(IMAGES[:1]), numbers(degrees), numbers(factor))[0]
    angle, (height, width) = np.deg2rad(degrees), SIZE
    ys, xs = (
        np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    )
    # Where each pixel comes from: turned the other way, in smaller steps.
    from_x = (np.cos(angle) * xs - np.sin(angle) * ys) / factor + (width - 1) / 2
    from_y = (np.sin(angle) * xs + np.cos(angle) * ys) / factor + (height - 1) / 2
    inside = (from_x > 0) & (from_x < width - 1) & (from_y > 0) & (from_y < height - 1)
    assert inside.mean() > 0.5
    for plane, turned in zip(IMAGES[0], made, strict=True):
        expected = ndimage.map_coordinates(plane, [from_y, from_x], order=1)
        assert np.allclose(turned.numpy()[inside], expected[inside], atol=1e-9)


def test_draws_are_of_seed_and_step_alone() -> None:
    seeds, steps = np.arange(200) % 20, np.arange(200) // 20
    together = draws.uniforms(seeds, steps, 50)
    assert together.shape == (200, 50)
    assert np.array_equal(together[37:38], draws.uniforms(seeds[37:38], steps[37:38], 50))
    assert len(np.unique(together)) == together.size
    assert 0 <= together.min() < 0.001
    assert 0.999 < together.max() < 1
    assert abs(together.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(together[:, 0], together[:, 1])[0, 1]) < 0.2
    assert abs(np.corrcoef(together[:-1, 0], together[1:, 0])[0, 1]) < 0.2
