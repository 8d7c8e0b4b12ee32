"""From codes to a map: all that runs in a process of its own."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import neighbors, tsne
from .grid import assigned, grid_shape
from .plan import Pca, Placing, Plan, Progress, TSne
from .reduce import Array, plane, reduced
from .result import Map

Report = Callable[[Progress], None]


def project(
    codes: NDArray[np.floating],
    which: NDArray[np.int64],
    plan: Plan,
    reference: tuple[NDArray[np.floating], NDArray[np.floating]] | None,
    report: Report,
) -> Map:
    """A map of codes, or where they lie on one.

    Args:
        codes: n×D, all different unless there is a map.
        which: Of each point, which of the codes it has.
        plan: With everything filled in.
        reference: The codes of a map, m×D, all different, and the map, m×2.
        report: Gets progress.
    """
    assert plan.component_count is not None
    old = codes[:0] if reference is None else reference[0]
    axes, new = (codes, old) if reference is None else (old, codes)
    report(Progress("reduce"))
    small = reduced(
        axes.astype(np.float64), new.astype(np.float64), plan.component_count, plan.random_state
    )
    divergence = fit = 0.0
    if reference is not None:
        points, fit = _onto(small.codes, reference[1].astype(np.float64), small.new, plan, report)
    elif isinstance(plan.method, Pca):
        points = plane(small.codes)
    elif isinstance(plan.method, TSne):
        points, divergence = tsne.embedded(small.codes, plan, report)
    else:
        points = neighbors.embedded(small.codes, plan, report)
    points = points[which]
    places = None
    if plan.grid:
        report(Progress("assign"))
        places = assigned(points)
    shape = grid_shape(len(points)) if plan.grid else (0, 0)
    kept = small.kept_variance
    return Map(points.astype(np.float32), places, shape, kept, divergence, fit)


def _onto(
    codes: Array, points: Array, new: Array, plan: Plan, report: Report
) -> tuple[Array, float]:
    """Where new codes lie on a map; and the fit of a map of principal components."""
    if isinstance(plan.method, Placing):
        return tsne.placed(codes, points, new, plan, report), 1.0
    one = np.ones((len(codes), 1))  # axes may be mirrored, and the middle of all may lie elsewhere
    turn, *_ = np.linalg.lstsq(np.hstack([codes, one]), points)
    left = points - np.hstack([codes, one]) @ turn
    spread = float(np.square(points - points.mean(0)).sum())
    fit = 1 - float(np.square(left).sum()) / spread if spread else 1.0
    return np.hstack([new, np.ones((len(new), 1))]) @ turn, fit
