"""UMAP, by umap-learn."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .plan import Plan, Progress, Umap

Array = NDArray[np.float64]


def embedded(codes: Array, plan: Plan, report: Callable[[Progress], None]) -> Array:
    """A map of codes, n×2. One thread: the same seed gives the same map."""
    method = plan.method
    assert isinstance(method, Umap)
    report(Progress("neighbors"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread; that parts lie apart
        import umap  # here alone: it compiles for seconds

        report(Progress("optimize"))
        made: Array = umap.UMAP(
            n_neighbors=method.neighbor_count,
            min_dist=method.min_distance,
            metric=plan.distance,
            init="spectral" if len(codes) > _LEAST_SPECTRAL else "random",
            random_state=plan.random_state,
            n_jobs=1,
        ).fit_transform(codes)
    return made.astype(np.float64)


_LEAST_SPECTRAL = 16
"""Of fewer points there are too few eigenvectors to start from."""
