"""The command `pellucid load`: a load from the command line, a live view and a report of it."""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .connect import access
from .options import ModelName, Server, parameters_of
from .show import print_error, print_part

if TYPE_CHECKING:
    from ..tally import Figures, Report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def load(
    photo: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO|DIR...", help="JPEG, PNG or WebP files, or folders of them."),
    ],
    rate: Annotated[
        float | None, typer.Option(help="Calls a second: an open loop, Poisson arrivals.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Calls at a time: a closed loop. Either it or --rate.")
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD=WEIGHT", help="What is called, how often; predict=1 if unset; again."
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="METHOD.NAME=VALUE",
            help="A parameter of a method of the mix, such as occlusion.window_px=64; again.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(help="Of explanations: attribution, heatmap or rendering; again for more."),
    ] = None,
    duration_s: Annotated[float, typer.Option(help="Seconds that are measured.")] = 30.0,
    warm_up_s: Annotated[float, typer.Option(help="Seconds before, of which none counts.")] = 5.0,
    timeout_s: Annotated[float, typer.Option(help="Deadline of each call in seconds.")] = 10.0,
    max_in_flight: Annotated[
        int, typer.Option(help="Calls at a time with --rate; more are dropped, and counted.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of arrivals, methods and photos.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all figures here, with histograms."),
    ] = None,
    server: Server = None,
    model: ModelName = "",
) -> None:
    """Loads a server, and measures what its callers meet.

    Latencies count from when a call was to be sent. Nothing is tried again. An interrupt ends it
    early. The exit code is 0 if any call was answered in time.
    """
    from ..errors import BadArgument, PellucidError

    try:
        from ..load import Plan, run

        plan = Plan(
            photos=list(_photos(photo)),
            rate=rate,
            concurrency=concurrency,
            mix=_weights(mix) if mix else {"predict": 1.0},
            parameters=_by_method(parameter or ()),
            model=model,
            outputs=outputs,
            duration_s=duration_s,
            warm_up_s=warm_up_s,
            timeout_s=timeout_s,
            max_in_flight=max_in_flight,
            seed=seed,
        )
        with _live() as on_progress:
            options = access.get().options()
            report = run(plan, server or "localhost:8001", on_progress=on_progress, **options)
    except PellucidError as error:
        print_error(error)
        raise typer.Exit(2 if isinstance(error, BadArgument) else 1) from None
    except OSError as error:
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except ModuleNotFoundError as error:
        if error.name != "hdrh":
            raise
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    for part in _parts(report):
        print_part(part)
    if output is not None:
        try:
            output.write_text(json.dumps(report.fields(), indent=2) + "\n")
        except OSError as error:
            print(f"pellucid: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
    raise typer.Exit(0 if report.figures.answered else 1)


def _photos(paths: Sequence[Path]) -> Iterator[Path]:
    from ..folders import photos_in

    for path in paths:
        if path.is_dir():
            yield from photos_in(path)
        else:
            yield path


def _weights(texts: Sequence[str]) -> dict[str, float]:
    from ..errors import BadArgument

    weights: dict[str, float] = {}
    for text in texts:
        method, _, weight = text.partition("=")
        if method in weights:
            raise BadArgument(f"--mix: {method} is given more than once")
        try:
            weights[method] = float(weight)
        except ValueError:
            raise BadArgument(f"--mix: is {text!r}; must be METHOD=WEIGHT") from None
    return weights


def _by_method(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    from ..errors import BadArgument

    by_method: dict[str, list[str]] = {}
    for text in texts:
        method, dot, assignment = text.partition(".")
        if not dot:
            raise BadArgument(f"--parameter: is {text!r}; must be METHOD.NAME=VALUE")
        by_method.setdefault(method, []).append(assignment)
    return {method: parameters_of(method, given) for method, given in by_method.items()}


_SWITCH_S = 0.0005
"""How long the thread that draws may keep the interpreter from the one that sends; drawing takes
tens of milliseconds, and calls would be sent that late."""


@contextmanager
def _live() -> "Iterator[Callable[[Report], None] | None]":
    """Shows what was measured so far on the terminal; nothing elsewhere."""
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    told: deque[Report] = deque(maxlen=1)

    def draw() -> Group:
        return Group(*_parts(told[-1]) if told else ())

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        with Live(get_renderable=draw, console=console, refresh_per_second=2, transient=True):
            yield told.append
    finally:
        sys.setswitchinterval(before_s)


def _parts(report: "Report") -> "Iterator[Table | Text]":
    """A report for people, whether it goes on or has ended."""
    plan, figures = report.plan, report.figures
    rows = {**report.methods, "all": figures} if len(report.methods) > 1 else report.methods
    for columns, line in ((_COUNTS, _counts), (_LATENCIES, _latencies)):
        table = Table(*columns)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, row in rows.items():
            table.add_row(Text(name), *line(row))
        yield table
    about = Table.grid(padding=(0, 2))
    phase = "" if report.measured_s else ", warming up"
    about.add_row("measured", f"{report.measured_s:.1f} of {plan.duration_s:g} s{phase}")
    about.add_row(
        "rates",
        f"{figures.offered_per_s:.1f} calls/s offered, {figures.sent_per_s:.1f} sent, "
        f"{figures.goodput_per_s:.1f} answered within {plan.timeout_s:g} s",
    )
    sent, got = figures.request_bytes / 1e6, figures.response_bytes / 1e6
    about.add_row("bytes", f"{sent:.1f} MB of requests, {got:.1f} MB of responses")
    if report.lag_ms:
        late, most = report.lag_ms["p99"], report.lag_ms["max"]
        about.add_row("sent late by", f"{late:.1f} ms at the 99th percentile, {most:.1f} at most")
    for kind in ("refused", "missed", "errors"):
        counts = getattr(figures, kind)
        if counts:
            words = ", ".join(f"{word} {count}" for word, count in counts.items())
            about.add_row(kind, Text(words))
    if report.interrupted:
        about.add_row("ended", "early, by an interrupt")
    for warning in report.warnings:
        about.add_row("warning", Text(warning))
    yield about


_COUNTS = ("calls", "offered", "in time", "refused", "missed", "errors", "dropped", "in flight")


def _counts(figures: "Figures") -> Iterator[str]:
    yield str(figures.offered)
    yield str(figures.answered)
    for counts in (figures.refused, figures.missed, figures.errors):
        yield str(sum(counts.values()))
    yield str(figures.dropped)
    yield str(figures.unfinished)


_LATENCIES = ("milliseconds", "p50", "p90", "p95", "p99", "p99.9", "max")


def _latencies(figures: "Figures") -> Iterator[str]:
    for name in _LATENCIES[1:]:
        yield f"{figures.latency_ms[name]:.1f}" if figures.latency_ms else ""
