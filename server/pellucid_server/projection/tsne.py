"""t-SNE, by openTSNE (Poličar, Stražar and Zupan 2024)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openTSNE import TSNEEmbedding
from openTSNE.affinity import PerplexityBasedNN
from openTSNE.initialization import jitter, rescale

from .plan import Placing, Plan, Progress, TSne
from .reduce import plane, reduced

Array = NDArray[np.float64]
Report = Callable[[Progress], None]

_EVERY_STEPS = 10
"""From one progress to the next."""

_MOST_TREE_POINTS = 10_000
"""Above, repulsion is interpolated: Linderman and others 2019. A tree is nearer below."""

_PLACING_STEPS = 250
_PLACING_NEIGHBORS = 25
_PLACING: dict[str, Any] = {
    "learning_rate": 0.1,
    "exaggeration": 1.5,
    "momentum": 0.8,
    "max_grad_norm": 0.25,
}
"""As openTSNE places points: small steps, on the ground of what is there."""


def embedded(codes: Array, plan: Plan, report: Report) -> tuple[Array, float]:
    """A map of codes, n×2, and its Kullback-Leibler divergence.

    It starts from the two first principal components (Kobak and Berens 2019), and its neighbours
    are exact. One thread: the same seed gives the same map.
    """
    method = plan.method
    assert isinstance(method, TSne)
    assert method.perplexity is not None
    report(Progress("neighbors"))
    affinities = _affinities(codes, method.perplexity, plan)
    two = reduced(codes, codes[:0], min(2, codes.shape[1]), plan.random_state).codes
    start = jitter(rescale(plane(two)), random_state=plan.random_state)
    embedding = TSNEEmbedding(
        start,
        affinities,
        negative_gradient_method="bh" if len(codes) <= _MOST_TREE_POINTS else "fft",
        random_state=plan.random_state,
        n_jobs=1,
        learning_rate=method.learning_rate,
        momentum=0.8,
        max_step_norm=5,
    )
    early, late = method.early_exaggeration_step_count, method.step_count
    for before, count, exaggeration in ((0, early, method.early_exaggeration), (early, late, 1)):
        if count:
            embedding.optimize(
                count,
                inplace=True,
                exaggeration=exaggeration,
                callbacks=[_told(report, before, early + late)],
                callbacks_every_iters=_EVERY_STEPS,
            )
    return np.array(embedding), float(embedding.kl_divergence)


def placed(codes: Array, points: Array, new: Array, plan: Plan, report: Report) -> Array:
    """Where new codes lie on a map, m×2, each by itself; the map stays as it is.

    Args:
        codes: n×K, of the map.
        points: n×2, the map.
        new: m×K.
        plan: Placing is its method.
        report: Gets progress.
    """
    method, count = plan.method, len(codes)
    assert isinstance(method, Placing)
    assert method.perplexity is not None
    report(Progress("neighbors"))
    perplexity = method.perplexity
    middle = (points.max(0) + points.min(0)) / 2
    embedding = TSNEEmbedding(
        points - middle,
        _affinities(codes, perplexity, plan),
        negative_gradient_method="bh",
        random_state=plan.random_state,
        n_jobs=1,
    )
    k = min(_PLACING_NEIGHBORS, count)
    made = embedding.prepare_partial(new, initialization="median", k=k, perplexity=perplexity)
    made.optimize(
        _PLACING_STEPS,
        inplace=True,
        callbacks=[_told(report, 0, _PLACING_STEPS)],
        callbacks_every_iters=_EVERY_STEPS,
        **_PLACING,
    )
    there: Array = np.array(made) + middle
    return there


def _affinities(codes: Array, perplexity: float, plan: Plan) -> Any:
    return PerplexityBasedNN(
        codes,
        perplexity,
        method="exact",
        metric=plan.distance,
        n_jobs=1,
        random_state=plan.random_state,
    )


def _told(report: Report, before: int, count: int) -> Callable[[int, float, Any], bool]:
    """A callback, that never ends it."""

    def tell(step: int, divergence: float, _: Any) -> bool:
        report(Progress("optimize", before + step, count, float(divergence)))
        return False

    return tell
