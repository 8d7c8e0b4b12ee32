"""Fixtures that every test may use."""

from collections.abc import Iterator

import pytest

from tests.harness import Runner, running


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with running() as started:
        yield started
