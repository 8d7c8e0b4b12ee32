"""The benchmark of truth on a real server: maps that are right pass, and broken ones do not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pellucid
import pytest
import scipy.stats
from pellucid import benchmark

from examples import planted

LEAST_POINTING = {"gradient": 0.75, "grad_cam": 0.25}
"""Of photos; what the maps of one row reach is 0.85 and 0.375."""
METHODS = tuple(LEAST_POINTING)


def test_maps_point_at_the_patch_and_broken_ones_are_at_chance(
    make_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    importance = benchmark._importance

    def broken(how: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(benchmark, "_importance", lambda result: how(importance(result)))

    with (
        make_server(models=(), model_folders=planted.MODEL.parent) as running,
        pellucid.Client(running.grpc, timeout_s=120) as client,
    ):
        report = benchmark.measure(client, planted.PHOTOS, METHODS, evidence=())
        broken(lambda values: -values)
        inverted = benchmark.measure(client, planted.PHOTOS, METHODS[:1], evidence=())
        broken(np.zeros_like)
        constant = benchmark.measure(client, planted.PHOTOS, METHODS[:1], evidence=())
    assert report.model == "planted"
    chance = report.table["chance"]["pointing"].mean
    assert 0.03 < chance < 0.1
    least, most = scipy.stats.binom.interval(0.99, planted.PHOTO_COUNT, chance)
    hits = planted.PHOTO_COUNT * report.table["shuffled"]["pointing"].mean
    assert least <= hits <= most
    for method, share in LEAST_POINTING.items():
        assert report.table[method]["pointing"].count == planted.PHOTO_COUNT
        assert report.table[method]["pointing"].mean >= share > most / planted.PHOTO_COUNT
    for wrong in (inverted, constant):
        assert planted.PHOTO_COUNT * wrong.table["gradient"]["pointing"].mean <= most
