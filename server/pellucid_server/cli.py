"""`pellucid serve`: settings from flags and variables, then the server."""

import asyncio
import logging
import os
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler

from .config import Settings

_DEFAULTS = Settings.model_fields


def _flag(name: str, *declarations: str) -> Any:
    return typer.Option(*declarations, help=_DEFAULTS[name].description, show_default=False)


def _serve(
    host: Annotated[str | None, _flag("host")] = None,
    http_port: Annotated[int | None, _flag("http_port")] = None,
    grpc_port: Annotated[int | None, _flag("grpc_port")] = None,
    metrics_port: Annotated[int | None, _flag("metrics_port")] = None,
    model: Annotated[list[str] | None, _flag("models")] = None,
    device: Annotated[str | None, _flag("device")] = None,
    precision: Annotated[str | None, _flag("precision")] = None,
    input_px: Annotated[int | None, _flag("input_px")] = None,
) -> None:
    """Runs the server until SIGTERM or Ctrl-C; then finishes what it admitted.

    Every other setting is a PELLUCID_… environment variable; README lists them.
    """
    from .serve import NoModels, serve

    console = Console(stderr=True)
    given = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "models": tuple(model) if model else None,
        "device": device,
        "precision": precision,
        "input_px": input_px,
    }
    try:
        settings = Settings.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        for problem in error.errors():
            console.print(f"[red]{'.'.join(map(str, problem['loc']))}[/]: {problem['msg']}")
        raise typer.Exit(2) from None
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False)],
    )
    try:
        asyncio.run(serve(settings))
    except (NoModels, OSError, RuntimeError) as error:
        console.print(f"[red]the server stopped[/]: {error}")
        raise typer.Exit(1) from None


def main(argv: list[str]) -> int:
    """Runs `pellucid serve` with these arguments; returns the exit code."""
    # Read when torch is loaded. By default OpenMP's threads wait in a busy loop: where another
    # process wants the same cores, a batch takes fifty times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app = typer.Typer(add_completion=False)
    app.command()(_serve)
    code: object = app(argv, prog_name="pellucid serve", standalone_mode=False)
    return code if isinstance(code, int) else 0
