"""Fixtures that every test may use."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the server does

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Runner, running


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def styles() -> Path:
    """The published style networks, which `make test` has fetched into the checkout."""
    folder = Path(__file__).parents[1] / "styles"
    if not folder.is_dir():
        pytest.fail(f"{folder} is missing: `pellucid models pull styles` in the checkout makes it")
    return folder
