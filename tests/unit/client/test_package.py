"""What importing the package brings, and what it does not."""

import subprocess
import sys

import pellucid
import pytest


def loaded(statement: str) -> set[str]:
    """The top-level modules that are loaded after a statement, in a process of its own."""
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_is_light() -> None:
    everything = "import pellucid; [getattr(pellucid, name) for name in pellucid.__all__]"
    assert "grpc" in loaded(everything)
    assert not loaded(everything) & {"torch", "PIL", "typer", "rich", "hdrh", "pellucid_server"}


def test_the_command_line_loads_late() -> None:
    heavy = {"grpc", "numpy", "PIL", "torch", "google", "hdrh", "pellucid_server"}
    assert not loaded("import pellucid.cli") & heavy


def test_public_names() -> None:
    assert sorted(pellucid.__all__) == sorted(set(pellucid.__all__))
    for name in pellucid.__all__:
        assert getattr(pellucid, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = pellucid.nope
    assert pellucid.__version__.count(".") == 2
