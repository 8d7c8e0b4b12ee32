"""The command line of which map to believe: pellucid compare, and pellucid evidence."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected, counted
from .options import (
    Against,
    Evidence,
    LongTimeout,
    MaxMs,
    MaxRows,
    Methods,
    ModelName,
    Photo,
    Server,
    TargetClass,
    Tolerance,
    class_of,
    common_format,
    target_of,
    until_of,
)
from .show import (
    print_comparison,
    print_part,
)


def compare(
    photo: Photo,
    method: Methods = None,
    target: TargetClass = None,
    against: Against = None,
    score: Annotated[
        str | None, typer.Option(help="logit, log_probability or probability; logit if unset.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write all maps on a sheet here, as .png or .jpg; PHOTO-compare.jpg if unset, "
            "and nothing else is asked for.",
        ),
    ] = None,
    evidence: Evidence = None,
    tolerance: Tolerance = None,
    max_rows: MaxRows = None,
    max_ms: MaxMs = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Which method's map to believe on one photo: methods side by side, measured and ranked."""
    if output is None and not as_json:
        output = Path(f"{photo.stem}-compare.jpg")
    with connected(server, waiting=False) as client:
        from .. import _wire
        from ..compare import EVIDENCE

        format_ = common_format([] if output is None else [output])
        measured = _wire.evidence_options(evidence or EVIDENCE)
        with counted("methods") as on_progress:
            comparison = client.compare(
                photo,
                method,
                target=target_of(target, None, None, None, None),
                against=None if against is None else class_of(against),
                score=score,
                model=model,
                outputs=["heatmap", "rendering"],
                longest_side_px=480,
                legend=False,
                until=until_of(tolerance, max_rows, max_ms),
                evidence=measured,
                timeout_s=timeout_s,
                on_progress=on_progress,
            )
        if output is not None and comparison.ranking():
            from ..render import encode

            output.write_bytes(encode(comparison.sheet(), "png" if format_ == "png" else "jpeg"))
    if as_json:
        print(json.dumps(comparison.fields(), indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison, output)
    raise typer.Exit(0 if comparison.ranking() else 1)


def evidence(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Photos; in truth.json, which class each is of, and where that is seen.",
        ),
    ],
    method: Methods = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="REPORT_DIR",
            help="Write report.html and results.json here; DIR-evidence if unset.",
        ),
    ] = None,
    evidence: Evidence = None,
    tolerance: Tolerance = None,
    max_rows: MaxRows = None,
    max_ms: MaxMs = None,
    server: Server = None,
    model: Annotated[
        str, typer.Option(help="Its name; what truth.json says, or the server's default, if unset.")
    ] = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """Which methods' maps hold over a folder of photos: a page, and a file of numbers."""
    with connected(server, waiting=False) as client:
        from .. import _wire, benchmark

        with counted("explanations") as on_progress:
            report = benchmark.measure(
                client,
                folder,
                method,
                model=model,
                evidence=_wire.evidence_options(evidence or benchmark.EVIDENCE),
                until=until_of(tolerance, max_rows, max_ms),
                timeout_s=timeout_s,
                on_progress=on_progress,
            )
        paths = report.save(output or Path(f"{folder.resolve().name}-evidence"))
    heading, *lines = report.lines()
    table = Table(*heading)
    for line in lines:
        table.add_row(*map(Text, line))
    print_part(table)
    print_part(Text(f"{len(report.photos)} photos, {report.model} {report.model_version}"))
    print_part(Text(f"written  {'  '.join(map(str, paths))}"))
