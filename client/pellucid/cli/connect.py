"""A client of the server that a command names, and the bars that are shown meanwhile."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from .show import print_error

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from ..client import Client


@dataclass(frozen=True)
class Access:
    """How a server that is locked is reached."""

    token_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def options(self) -> dict[str, Any]:
        """The keywords of a client."""
        token = os.environ.get("PELLUCID_TOKEN") or None
        if self.token_file is not None:
            token = self.token_file.read_text("latin-1").strip()
        return {
            "token": token,
            "tls": self.tls,
            "ca_file": self.ca_file,
            "certificate_file": self.certificate_file,
            "key_file": self.key_file,
        }

    def connect(self, server: str | None) -> "Client":
        from ..client import Client

        return Client(server or "localhost:8001", **self.options())


access: ContextVar[Access] = ContextVar("access")


@contextmanager
def connected(
    server: str | None, *, failure_code: int = 1, waiting: bool = True
) -> Iterator["Client"]:
    """A client; the errors of what is done with it become lines and an exit code.

    Args:
        server: Its address; the default when None.
        failure_code: What the process exits with where no argument is wrong.
        waiting: Whether it is shown that the server is waited for.
    """
    from ..errors import BadArgument, PellucidError

    console = Console(stderr=True)
    try:
        with ExitStack() as stack:
            client = stack.enter_context(access.get().connect(server))
            if waiting and console.is_terminal:
                stack.enter_context(console.status("Waiting for the server"))
            yield client
    except PellucidError as error:
        print_error(error)
        raise typer.Exit(2 if isinstance(error, BadArgument) else failure_code) from None
    except OSError as error:
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(failure_code) from None


def progress_bar(*columns: str) -> "Progress":
    """A bar on the terminal; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True)
    bar: tuple[str | ProgressColumn, ...] = (
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
    )
    return Progress(
        "{task.description}",
        *bar,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how much is done, and of how much."""
    with progress_bar() as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, count: progress.update(task, completed=done, total=count)
