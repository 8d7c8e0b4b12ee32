"""Maps of codes, against scikit-learn, scipy and arithmetic by hand."""

import functools
import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from pellucid_server import wire
from pellucid_server.errors import InvalidArgument
from pellucid_server.models.registry import Model
from pellucid_server.projection.grid import assigned, grid_shape
from pellucid_server.projection.plan import Pca, Placing, Plan, Progress, TSne, Umap
from pellucid_server.projection.reduce import reduced
from pellucid_server.projection.result import Map
from pellucid_server.projection.solve import project
from pellucid_server.wire.project import AskedProject
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS.astype(np.float32)
NEIGHBORS = 10


def solved(codes: np.ndarray, plan: Plan, reference: Any = None, report: Any = None) -> Map:
    which = np.arange(len(codes))
    filled = plan.filled(*(codes if reference is None else reference[0]).shape)
    return project(codes, which, filled, reference, report or (lambda _: None))


@functools.cache
def of_digits(seed: int = 0) -> Map:
    return solved(DIGITS[:300], Plan(TSne(), seed=seed))


def test_t_sne_is_as_trustworthy_as_scikit_learns() -> None:
    own = trustworthiness(DIGITS[:300], of_digits().points, n_neighbors=NEIGHBORS)
    theirs = trustworthiness(
        DIGITS[:300],
        TSNE(random_state=0, init="pca").fit_transform(DIGITS[:300]),
        n_neighbors=NEIGHBORS,
    )
    assert own > theirs - 0.01
    shuffled = np.random.default_rng(0).permutation(of_digits().points)
    assert trustworthiness(DIGITS[:300], shuffled, n_neighbors=NEIGHBORS) < 0.6


def test_the_same_seed_gives_the_same_map() -> None:
    again = solved(DIGITS[:300], Plan(TSne(), seed=0))
    assert np.array_equal(again.points, of_digits().points)
    assert not np.array_equal(of_digits(1 << 40).points, of_digits().points)


def test_new_points_lie_beside_their_like() -> None:
    """Codes that are the map's own come to lie where they are; of others, neighbours agree."""
    made = of_digits()
    placed = solved(DIGITS[:400], Plan(Placing()), (DIGITS[:300], made.points)).points
    span = float(np.ptp(made.points, 0).max())
    moved = np.linalg.norm(placed[:300] - made.points, axis=1)
    assert np.median(moved) < 0.02 * span
    distances = np.linalg.norm(placed[300:, None] - made.points[None], axis=2)
    agree = LABELS[distances.argmin(1)] == LABELS[300:400]
    assert agree.mean() > 0.85


def test_each_new_point_is_placed_by_itself() -> None:
    made = of_digits()
    together, alone = (
        solved(new, Plan(Placing()), (DIGITS[:300], made.points)).points
        for new in (DIGITS[300:320], DIGITS[300:301])
    )
    np.testing.assert_allclose(together[0], alone[0], atol=1e-3)


def test_a_map_of_components_is_gone_on_with_even_mirrored() -> None:
    codes = DIGITS[:200].astype(np.float64)
    fitted = PCA(2).fit(codes[:150])
    mirrored = fitted.transform(codes[:150]) * [-1, 2] + [7, 0]
    placed = solved(DIGITS[150:200], Plan(Pca()), (DIGITS[:150], mirrored))
    expected = fitted.transform(codes[150:]) * [-1, 2] + [7, 0]
    np.testing.assert_allclose(placed.points, expected, rtol=1e-4, atol=1e-3)
    assert placed.fit == pytest.approx(1)
    other = solved(DIGITS[150:200], Plan(Pca()), (DIGITS[:150], of_digits().points[:150]))
    assert other.fit < 0.9


def test_progress_tells_its_stages_and_steps() -> None:
    told: list[Progress] = []
    method = TSne(early_exaggeration_step_count=20, step_count=30)
    solved(DIGITS[:40], Plan(method, grid=True), report=told.append)
    stages = [stage for stage, _ in itertools.groupby(one.stage for one in told)]
    assert stages == ["reduce", "neighbors", "optimize", "assign"]
    steps = [one.step for one in told if one.stage == "optimize"]
    assert steps == [10, 20, 30, 40, 50]
    assert {one.step_count for one in told if one.stage == "optimize"} == {50}
    assert told[-2].divergence > 0


def test_the_reduction_is_scikit_learns() -> None:
    codes = DIGITS[:100].astype(np.float64)
    made, expected = reduced(codes, codes[:3], 20, 0), PCA(20).fit(codes)
    np.testing.assert_allclose(np.abs(made.codes), np.abs(expected.transform(codes)), atol=1e-6)
    np.testing.assert_allclose(made.new, made.codes[:3], atol=1e-8)
    assert made.kept_variance == pytest.approx(expected.explained_variance_ratio_.sum())
    whole = reduced(codes, codes[:0], 0, 0)
    assert whole.codes is codes
    assert whole.kept_variance == 1


def test_a_few_points_and_a_single_number_are_enough() -> None:
    for count, width in ((4, 64), (5, 64), (9, 1)):
        codes = DIGITS[:count, 20 : 20 + width] if width > 1 else np.arange(9.0)[:, None]
        method = TSne(early_exaggeration_step_count=10, step_count=10)
        points = solved(codes.astype(np.float32), Plan(method)).points
        assert np.isfinite(points).all()
        assert len(np.unique(points, axis=0)) == count
    line = solved(np.arange(9, dtype=np.float32)[:, None], Plan(Pca())).points
    assert np.array_equal(np.abs(np.diff(line[:, 0])), np.ones(8))
    assert not line[:, 1].any()


def test_umap_is_trustworthy_and_the_same_again() -> None:
    """It compiles for a while: all of it is looked at in one test."""
    plan = Plan(Umap())
    first, again = (solved(DIGITS[:150], plan).points for _ in range(2))
    assert np.array_equal(first, again)
    assert trustworthiness(DIGITS[:150], first, n_neighbors=NEIGHBORS) > 0.93
    for count in (4, 17):
        few = replace(plan, method=Umap(neighbor_count=3))
        assert np.isfinite(solved(DIGITS[:count], few).points).all()


def test_the_assignment_is_the_best_of_all() -> None:
    """Of all that there are, for five points on a grid of six places."""
    points = np.random.default_rng(3).normal(size=(5, 2))
    rows, columns = grid_shape(5)
    assert (rows, columns) == (2, 3)
    scaled = (points - points.min(0)) / np.ptp(points, 0)
    wanted = np.stack([1 - scaled[:, 1], 2 * scaled[:, 0]], 1)

    def cost(places: Any) -> float:
        return float(np.square(wanted - np.array(places)).sum())

    everywhere = list(itertools.product(range(rows), range(columns)))
    best = min(itertools.permutations(everywhere, 5), key=cost)
    assert assigned(points).tolist() == [list(place) for place in best]


def test_points_on_a_grid_stay_where_they_are() -> None:
    """Up is up: the highest are in the first row."""
    places = np.array([[row, column] for row in range(4) for column in range(4)])
    points = np.stack([places[:, 1] * 10.0, -places[:, 0] * 3.0], 1)
    order = np.random.default_rng(0).permutation(16)
    assert np.array_equal(assigned(points[order]), places[order])
    assert grid_shape(1) == (1, 1)
    assert grid_shape(16) == (4, 4)
    assert len({tuple(one) for one in assigned(np.zeros((7, 2))).tolist()}) == 7


@pytest.mark.parametrize(
    ("count", "map_count", "most"),
    [(4472, 0, 4471 / 3), (4500, 0, 1481.48), (20_000, 0, 333.33), (20_000, 4000, 333.33)],
)
def test_neighbours_of_all_points_together_are_bounded(
    count: int, map_count: int, most: float
) -> None:
    """A third of the points less one; and 20 million by three times the points."""
    codes = np.arange(count, dtype=np.float32)[:, None]
    old = np.zeros((map_count, 2)) if map_count else None

    def read(perplexity: float) -> wire.Problem:
        plan = Plan((Placing if map_count else TSne)(perplexity=perplexity))
        asked = AskedProject(plan, cast(Model, None), None, old, ())
        return wire.read_problem(asked, [codes], of_photos=False)

    assert len(read(most).codes) == count - map_count
    with pytest.raises(InvalidArgument, match=f"must be 1 to {most:.4g}"):
        read(most * 1.001)


def test_what_solves_loads_no_torch() -> None:
    script = "import sys, pellucid_server.projection.solve; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
