"""Codes as their principal components."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reduced:
    """Codes on axes of their own.

    Attributes:
        codes: n×K.
        new: m×K: others, on the same axes.
        kept_variance: The share of the codes' variance that is left, 0 to 1.
    """

    codes: Array
    new: Array
    kept_variance: float


def reduced(codes: Array, new: Array, component_count: int, random_state: int) -> Reduced:
    """The first principal components; 0: the codes as they are.

    Args:
        codes: n×D, whose axes they are.
        new: m×D, others.
        component_count: K, at most n and D.
        random_state: Of the solver that is used where there is much to reduce: Halko, Martinsson
            and Tropp 2011, arXiv:0909.4061.
    """
    if not component_count:
        return Reduced(codes, new, 1.0)
    pca = PCA(component_count, random_state=random_state)
    own = pca.fit_transform(codes)
    kept = float(np.nansum(pca.explained_variance_ratio_))  # NaN where nothing varies
    return Reduced(own, pca.transform(new) if len(new) else own[:0], min(kept, 1.0))


def plane(codes: Array) -> Array:
    """The first two of their numbers, n×2; 0 where there is but one."""
    made = np.zeros((len(codes), 2))
    made[:, : codes.shape[1]] = codes[:, :2]
    return made
