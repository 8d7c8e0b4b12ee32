"""float32 against float64 with the gate decisions of the float32 run made again."""

import pytest

from tests.harness import NETWORKS, Runner
from tests.oracle.replay import compare_precisions

BOUND = 1e-5


@pytest.mark.parametrize("photo_name", ["cat", "coffee"])
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_equals_replayed_float64(runner: Runner, name: str, photo_name: str) -> None:
    comparison = compare_precisions(runner, name, photo_name)
    assert comparison.replayed_error <= BOUND
    # Without replaying, what differs is what flipped: no flip, no more error than rounding.
    assert comparison.flip_count > 0 or comparison.free_error <= BOUND
