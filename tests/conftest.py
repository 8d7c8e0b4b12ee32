"""Fixtures that every test may use."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the server does

from collections.abc import Iterator

import pytest

from tests.harness import Runner, running


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with running() as started:
        yield started
