"""Fixtures that every test may use."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the server does
if "OMP_NUM_THREADS" in os.environ:
    # Numba sets torch's number of threads to its own, and bits depend on it.
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Runner, running


@pytest.fixture(autouse=True, scope="module")
def _memory_is_handed_back() -> Iterator[None]:
    """A process of tests would keep what its servers have freed, see keep_freed_memory."""
    yield
    gc.collect()
    gc.freeze()  # what is left stays: the next collections need not look at it
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # servers that run in this process collect often


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries complain, as the process ends, of what they still have


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
