"""Whole steps of a linear network through the stepper, against NumPy: what, and in which order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pellucid_server.engine.lockstep import Climb
from pellucid_server.engine.rows import Chore, ClassTarget, SumTarget, TopTarget
from pellucid_server.methods import draws
from pellucid_server.methods.optimize import prelude
from pellucid_server.methods.optimize.ascent import PRESETS, Ascent
from pellucid_server.methods.optimize.optimize import Buckets, Optimize
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import (
    STATE,
    AscentStepper,
    End,
    Progress,
    Start,
    numbers_of,
)
from PIL import Image
from scipy import ndimage
from torch import nn

from tests.harness import tiny_model

Array = NDArray[np.float64]
SIZE = (16, 20)
MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
LOW, HIGH = -255 * MEAN[:, None, None], 255 * (1 - MEAN[:, None, None])
ENERGY = 3 * 16 * 20 * 57.4**2
RNG = np.random.default_rng(0)
SLOPES = RNG.normal(0, 1, (3, 3, *SIZE))
PHOTO = RNG.uniform(LOW, HIGH, (3, *SIZE))
TARGET = SumTarget(((ClassTarget(0), 1.0),))


def ascent(preset: str, **parameters: Any) -> Ascent:
    given = {"preset": preset, "height_px": SIZE[0], "width_px": SIZE[1], "progress_every": 1}
    return Ascent(**(PRESETS[preset] | given | parameters))


class Slots:
    """A stepper in float64, and the scores Σ w·input of its slots."""

    def __init__(self, bucket_size: int, dtype: torch.dtype = torch.float64) -> None:
        self.stepper = AscentStepper(
            SIZE, MEAN.tolist(), STD.tolist(), bucket_size, dtype, dtype, torch.device("cpu")
        )
        self._bucket_size = bucket_size

    def join(self, how: Ascent, last: bool = True) -> int:
        photo = torch.from_numpy(PHOTO) if how.start == "photo" else None
        return self.stepper.join(Start(how, TARGET, photo, 0, 0, last, anchor=photo))

    def step(self, slots: list[int], moved: set[int] | None = None) -> Any:
        inputs, looked = self.stepper.look(slots)
        weights = torch.from_numpy(SLOPES[: len(slots)]).to(inputs)
        scores = (weights * inputs).flatten(1).sum(1).double()
        gradient = torch.zeros(self._bucket_size, *inputs.shape[1:]).to(inputs)
        gradient[: len(slots)] = weights
        moved = set(range(len(slots))) if moved is None else moved
        return self.stepper.step(looked, gradient, scores.tolist(), scores[:, None], moved)


# The same in NumPy, of one image at a time.


def bilinear(degrees: float, factor: float) -> Array:
    """The matrix, pixels × pixels, of turning and scaling about the centre; edges are mirrored."""
    height, width = SIZE
    angle, matrix = np.deg2rad(degrees), np.zeros((height * width,) * 2)

    def mirrored(place: float, length: int) -> float:
        place = (place + 0.5) % (2 * length)
        return float(np.clip(min(place, 2 * length - place) - 0.5, 0, length - 1))

    for y, x in np.ndindex(SIZE):
        down, right = y - (height - 1) / 2, x - (width - 1) / 2
        from_x = (np.cos(angle) * right - np.sin(angle) * down) / factor + (width - 1) / 2
        from_y = (np.sin(angle) * right + np.cos(angle) * down) / factor + (height - 1) / 2
        from_y, from_x = mirrored(from_y, height), mirrored(from_x, width)
        for v in (int(from_y), int(from_y) + 1):
            for u in (int(from_x), int(from_x) + 1):
                share = (1 - abs(from_y - v)) * (1 - abs(from_x - u))
                if share > 0:
                    matrix[y * width + x, v * width + u] += share
    return matrix


def shifted(down: int, right: int) -> Array:
    """The matrix of jitter."""
    pixels = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE)
    return np.eye(pixels.size)[np.roll(pixels, (down, right), (0, 1)).ravel()]


def transform(how: Ascent, step: int) -> Array:
    """Of a step: the draws are the product's own."""
    draw = draws.uniforms(np.array([how.seed]), np.array([step]), 4)[0]
    down, right = (int(d * (2 * how.jitter_px + 1)) - how.jitter_px for d in draw[:2])
    matrix = shifted(down, right)
    if how.rotation_degrees or how.scaling:
        degrees = (2 * draw[2] - 1) * how.rotation_degrees
        matrix = bilinear(degrees, 1 + (2 * draw[3] - 1) * how.scaling) @ matrix
    return matrix


def spectrum() -> Array:
    """The matrix, pixels × numbers of one colour, of the scaled inverse Fourier transform."""
    height, width = SIZE
    down, across = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    scale = 1 / np.maximum(np.hypot(down[:, None], across), 1 / max(SIZE))
    columns = []
    for y, x, part in np.ndindex(height, width // 2 + 1, 2):
        one = np.zeros(scale.shape, complex)
        one[y, x] = scale[y, x] * (1j if part else 1)
        columns.append(np.fft.irfft2(one, SIZE, norm="ortho").ravel() / 4)
    return np.array(columns).T


COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLORS = COLORS / np.linalg.norm(COLORS, axis=0).max()
FOURIER = spectrum()


def image_of(how: Ascent, parameters: Array) -> Array:
    if not how.spectral:
        return parameters
    planes = COLORS @ (parameters.reshape(3, -1) @ FOURIER.T)
    return 255 * (1 / (1 + np.exp(-planes)) - MEAN[:, None]).reshape(3, *SIZE)


def back(how: Ascent, image: Array, slope: Array) -> Array:
    """From the slope by the image to that by the parameters."""
    if not how.spectral:
        return slope
    share = (image / 255 + MEAN[:, None, None]).reshape(3, -1)
    return (COLORS.T @ (slope.reshape(3, -1) * 255 * share * (1 - share)) @ FOURIER).ravel()


def penalties(how: Ascent, x: Array) -> tuple[float, float, Array]:
    """Of Lp and of total variation, and the slope of both."""
    lp = how.lp_penalty / 2 * (np.abs(x) ** how.lp_order).sum() / ENERGY
    slope = np.abs(x) ** (how.lp_order - 1) * np.sign(x) * how.lp_order
    slope = how.lp_penalty / 2 * slope / ENERGY
    down, right = np.zeros_like(x), np.zeros_like(x)
    down[:, :-1], right[:, :, :-1] = np.diff(x, axis=1), np.diff(x, axis=2)
    square = down**2 + right**2
    tv = how.tv_penalty / 2 * (np.maximum(square, 1e-10) ** (how.tv_beta / 2)).sum() / ENERGY
    root = np.where(square > 1e-10, np.maximum(square, 1e-10) ** (how.tv_beta / 2 - 1), 0)
    factor = how.tv_penalty / 2 * how.tv_beta * root / ENERGY
    slope -= factor * (down + right)
    slope[:, 1:] += (factor * down)[:, :-1]
    slope[:, :, 1:] += (factor * right)[:, :, :-1]
    return lp, tv, slope


def operated(how: Ascent, step: int, x: Array, slope: Array) -> Array:
    """After a step: decay, blur, small norms, small contributions, valid pixels."""
    x = x * (1 - how.l2_decay)
    if how.blur_sigma_px and step % how.blur_every == 0:
        x = np.array([ndimage.gaussian_filter(plane, how.blur_sigma_px) for plane in x])
    if how.small_norm_percentile:
        norms = np.linalg.norm(x, axis=0)
        x = np.where(norms < np.percentile(norms, how.small_norm_percentile), 0, x)
    if how.small_contribution_percentile:
        parts = np.abs((x * slope).sum(0))
        x = np.where(parts < np.percentile(parts, how.small_contribution_percentile), 0, x)
    return np.clip(x, LOW, HIGH) if how.clip_pixels else x


def climb(how: Ascent, weights: Array) -> Iterator[tuple[Array, float, float, float]]:
    """The image at each look, and its score, Lp and total variation."""
    shape = (3 * SIZE[0] * (SIZE[1] // 2 + 1) * 2,) if how.spectral else (3, *SIZE)
    first, second = np.zeros(shape), np.zeros(shape)
    x = np.zeros(shape)
    if how.start == "noise":
        x = how.noise_std * draws.normal(how.seed, 0, shape).numpy()
    if how.start == "photo":
        x = PHOTO.copy()
    for step in range(how.step_count + 1):
        image = image_of(how, x)
        matrix = transform(how, step) if step < how.step_count else np.eye(SIZE[0] * SIZE[1])
        seen = (image.reshape(3, -1) @ matrix.T).reshape(image.shape)
        outer = weights / (255 * STD[:, None, None])
        lp, tv, of_penalties = penalties(how, image)
        yield image, float((outer * seen).sum()) - lp - tv, lp, tv
        slope = (outer.reshape(3, -1) @ matrix).reshape(image.shape) - of_penalties
        slope = back(how, image, slope)
        rate = how.learning_rate
        match how.update:
            case "adam":
                first = 0.9 * first + 0.1 * slope
                second = 0.999 * second + 0.001 * slope**2
                mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
                x = x + rate * mean / (np.sqrt(square) + 1e-8)
            case "momentum":
                first = how.momentum * first + rate * slope
                x = x + first
            case "normalized":
                x = x + rate * slope / np.abs(slope).mean()
            case "progress":
                x = x + min(rate, how.progress / (slope**2).sum()) * slope
        if not how.spectral:
            x = operated(how, step, x, slope)


_HERE = 0.001 * 3 * SIZE[0] * SIZE[1] * 57.4**2
"""Mahendran and Vedaldi's rate is of the image's size."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in PRESETS},
    "mahendran": ("mahendran", {"learning_rate": _HERE}),
    "mordvintsev": ("mordvintsev", {"jitter_px": 5, "octave_count": 1}),
    "yosinski_2": ("yosinski_2", {"learning_rate": 2000.0, "blur_sigma_px": 2.0, "blur_every": 2}),
    "everything": (
        "yosinski_1",
        {
            "update": "momentum",
            "momentum": 0.7,
            "learning_rate": 500.0,
            "l2_decay": 0.1,
            "blur_sigma_px": 1.0,
            "blur_every": 2,
            "small_contribution_percentile": 20.0,
            "lp_penalty": 500.0,
            "lp_order": 2.5,
            "tv_penalty": 300.0,
            "tv_beta": 1.5,
            "jitter_px": 3,
            "scaling": 0.2,
            "rotation_degrees": 20.0,
        },
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_three_steps_of_each_preset(name: str) -> None:
    """Beside two rows of other presets, in a bucket of four."""
    names = [name, *(other for other in ("olah", "mahendran", "yosinski_3") if other != name)][:3]
    hows = [
        ascent(VARIANTS[one][0], **(VARIANTS[one][1] | {"step_count": 3, "seed": 5 + k}))
        for k, one in enumerate(names)
    ]
    group = Slots(4)
    slots = [group.join(how) for how in hows]
    made: list[list[Progress]] = [[] for _ in slots]
    ends: list[End] = []
    for _ in range(4):
        told = group.step(slots)
        for row, moved in told.items():
            made[row] += moved.shown
            ends += [moved.end] if moved.end is not None else []
    for row, how in enumerate(hows):
        expected = list(climb(how, SLOPES[row]))
        start, end = expected[0][0], expected[3][0]
        moved = np.abs(end - start).max()
        assert moved > 0.01
        assert np.allclose(ends[row].image.numpy(), end, rtol=1e-8, atol=1e-8 * moved)
        assert ends[row].finite
        looks = [expected[k] for k in (0, 1, 3)]  # an image's last step is told of with its end
        for told_of, (_, score, lp, tv) in zip(made[row], looks, strict=True):
            assert told_of.score == pytest.approx(score, rel=1e-9, abs=1e-9)
            assert told_of.lp_penalty == pytest.approx(lp, rel=1e-9)
            assert told_of.tv_penalty == pytest.approx(tv, rel=1e-9)
        assert [one.step for one in made[row]] == [1, 2, 3]


def test_only_who_moves_is_moved() -> None:
    group = Slots(2)
    slots = [group.join(ascent("simonyan", step_count=5)) for _ in range(2)]
    group.step(slots, moved={1})
    still, moved = (group.stepper.stop(slot).end for slot in slots)
    assert not still.image.any()
    assert np.isnan(still.progress.score)
    assert moved.progress.step == 1
    group.step(slots, moved={1})
    assert group.stepper.stop(slots[1]).end.image.any()  # the last that was scored


def test_what_is_computed_for_neighbours_does_not_end_a_diverging_image() -> None:
    """To the step and to the bit: of pixels near the end of float32 powers and spectra are not."""

    def until_it_ends(*neighbours: Ascent) -> tuple[int, End]:
        group = Slots(4, torch.float32)
        wild = ascent("simonyan", learning_rate=1e38, momentum=0.0, lp_penalty=0.0, step_count=1000)
        slots = [group.join(how) for how in (wild, *neighbours)]
        for step in range(1000):
            told = group.step(slots)
            if told[0].end is not None:
                assert all(told[row].end is None for row in range(1, len(slots)))
                return step, told[0].end
        raise AssertionError

    step, alone = until_it_ends()
    assert step > 10
    assert alone.image.abs().max() > 1e37
    for neighbour in (
        ascent("olah"),
        ascent("mahendran", learning_rate=1.0, tv_penalty=0.0),
        ascent("mahendran", learning_rate=1e-3, lp_penalty=0.0, tv_beta=4.0),
        ascent("yosinski_1"),
    ):
        among = until_it_ends(neighbour)
        assert among[0] == step
        assert among[1].progress == alone.progress
        assert torch.equal(among[1].image, alone.image)


def test_a_score_that_a_penalty_sends_to_infinity_is_no_end() -> None:
    """|x|^12 of pixels in the thousands is beyond float32."""
    group = Slots(2, torch.float32)
    how = {"lp_penalty": 1.0, "lp_order": 12.0, "learning_rate": 1e5, "momentum": 0.0}
    slots = [
        group.join(ascent("simonyan", step_count=1, **how)),
        group.join(ascent("simonyan", step_count=1, **(how | {"lp_order": 2.0}))),
    ]
    group.step(slots)
    told = group.step(slots)
    bad, good = told[0].end, told[1].end
    assert (bad.finite, good.finite) == (False, True)
    assert not bad.image.any()  # grey, where it was last scored
    assert (bad.progress.step, bad.progress.lp_penalty) == (1, 0.0)
    assert np.isfinite(bad.progress.score)
    assert good.image.abs().max() > 1000


def test_a_rounded_state_is_within_its_bounds_before_it_is_looked_at() -> None:
    """Half precision may round over a bound; a whole state goes on as it is."""
    how = ascent("simonyan", start="photo", max_linf=3.0, step_count=5)
    photo = torch.from_numpy(PHOTO)
    beyond = prelude.from_pixels(photo[None] + 3.07, SIZE)[0]
    tensors = dict.fromkeys(STATE, beyond)
    numbers = dict.fromkeys(numbers_of(1), float("nan"))
    farthest = []
    for rounded in (True, False):
        state = Snapshot(0, 0, 1, 1, tensors, numbers, rounded=rounded)
        stepper = Slots(1).stepper
        slot = stepper.join(Start(how, TARGET, photo, 0, 0, True, state, anchor=photo))
        inputs, _ = stepper.look([slot])
        pixels = 255 * inputs[0] * torch.from_numpy(STD)[:, None, None]
        images = (pixels, stepper.stop(slot).end.image)
        farthest += [float((image - photo).abs().max()) for image in images]
    assert farthest == pytest.approx([3, 3, 3.07, 3.07], rel=1e-9)


# Octaves.


def resized(image: Array, size: tuple[int, int]) -> Array:
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in image]
    bilinear = Image.Resampling.BILINEAR
    return np.array([plane.resize(size[::-1], bilinear) for plane in planes], np.float64)


def test_octaves_begin_with_what_was_added_to_the_photo() -> None:
    """Three of three images: one ends in the second octave, and has no third."""
    torch.manual_seed(0)
    model = tiny_model(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), 48)
    how = ascent(
        "mordvintsev",
        height_px=48,
        width_px=64,
        octave_count=3,
        octave_scale=1.5,
        restart_count=3,
    )
    photo = torch.from_numpy(RNG.uniform(-2, 2, (1, 3, 48, 64))).float()
    std = np.array(model.preprocessing.std)[:, None, None]
    pixels = photo[0].double().numpy() * 255 * std
    program = Optimize(((ClassTarget(1), 1.0),), how, Buckets(4)).program(model, photo, TopTarget())
    details: list[Array | None] = [None] * 3
    alive = [0, 1, 2]
    wanted: Any = next(program)
    if isinstance(wanted, Chore):  # sizes are tried beforehand
        wanted = program.send(wanted.do(photo))
    for octave, size in enumerate([(21, 28), (32, 43), (48, 64)]):
        assert isinstance(wanted, Climb)
        assert (wanted.size, len(wanted.starts)) == (size, len(alive))
        base, ends = resized(pixels, size), []
        for start, k in zip(wanted.starts, alive, strict=True):
            assert (start.restart, start.octave, start.last) == (k, octave, octave == 2)
            detail = details[k]
            expected = base if detail is None else base + resized(detail, size)
            assert np.allclose(start.image.numpy(), expected, atol=1e-3)
            details[k] = RNG.normal(0, 20, (3, *size))
            image = torch.from_numpy(base + details[k]).float()
            progress = Progress(k, octave, 0.0, (0.0,), 0.0, 0.0)
            ends.append(End(image, image, progress, finite=(octave, k) != (1, 1)))
        alive = [k for k in alive if (octave, k) != (1, 1)]
        try:
            wanted = program.send(ends)
        except StopIteration as stop:
            made = stop.value
    assert [end.finite for end in made.ends] == [True, False, True]
    assert [tuple(picture.shape[1:]) for picture in made.pictures] == [(48, 64), (32, 43), (48, 64)]
