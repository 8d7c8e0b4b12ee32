"""How far ends are apart: variances with bootstrap intervals, and how they go with size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Statistic = Callable[..., Any]
"""Of an array, along an axis."""

Trend = Literal["falls", "rises", "cannot be told"]

LEVEL = 0.95
_RESAMPLES = 4999

NOTHING = 1e-12
"""A variance of numbers of about 1 that is no more than this is rounding."""


@dataclass(frozen=True)
class Interval:
    """A number, and between what the bootstrap has it with 95% confidence."""

    value: float
    low: float
    high: float


def variance(sample: Array, axis: int = -1) -> Any:
    """Of a sample, without bias."""
    return np.var(sample, axis=axis, ddof=1)


def relative_variance(sample: Array, axis: int = -1) -> Any:
    """The square of the coefficient of variation: no scale of the sample changes it."""
    return variance(sample, axis) / np.square(np.mean(sample, axis=axis))


def estimate(sample: Array, statistic: Statistic, seed: int) -> Interval:
    """A statistic with the interval of BCa (Efron 1987, doi:10.1080/01621459.1987.10478410).

    Args:
        sample: At least 3 numbers that are independent of each other.
        statistic: Of them.
        seed: Of the resampling.
    """
    value = float(statistic(sample))
    if np.ptp(sample) == 0:  # resamples are all alike, which BCa has no answer to
        return Interval(value, value, value)
    found = stats.bootstrap(
        (sample,),
        statistic,
        vectorized=True,
        n_resamples=_RESAMPLES,
        confidence_level=LEVEL,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def slope(
    sizes: Sequence[float], samples: Sequence[Array], statistic: Statistic, seed: int
) -> Interval | None:
    """The power of the size that a statistic goes as, by least squares of logarithms.

    The interval is of percentiles; each size's sample is resampled by itself. Sizes where there is
    no spread at all are left out; None where fewer than two are left.
    """
    kept = [n for n, sample in enumerate(samples) if statistic(sample) > NOTHING]
    if len(kept) < 2:
        return None
    random = np.random.default_rng(seed)
    logs = []
    for n in kept:
        sample = samples[n]
        picks = random.integers(len(sample), size=(_RESAMPLES, len(sample)))
        # Resamples of few numbers can be all alike: what has no logarithm is dropped below.
        with np.errstate(divide="ignore"):
            logs.append(
                np.log(np.vstack([statistic(sample), statistic(sample[picks], axis=1)[:, None]]))
            )
    table = np.hstack(logs)
    along = np.log([float(sizes[n]) for n in kept])
    along -= along.mean()
    with np.errstate(invalid="ignore"):
        slopes = table @ (along / np.square(along).sum())
    value, resampled = slopes[0], slopes[1:][np.isfinite(slopes[1:])]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(value), float(low), float(high))


def trend(slope: Interval | None) -> Trend:
    """What the interval of a slope leaves no doubt of."""
    if slope is None or slope.low <= 0 <= slope.high:
        return "cannot be told"
    return "falls" if slope.high < 0 else "rises"
