"""The command line of explanations: pellucid explain, of one photo or of a folder."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connect import connected, counted, progress_bar
from .options import (
    Against,
    AsJson,
    BucketSize,
    Evidence,
    MaxMs,
    MaxRows,
    ModelName,
    Receipt,
    Server,
    TargetClass,
    Timeout,
    Tolerance,
    check_png,
    class_of,
    common_format,
    parameters_of,
    refuse,
    target_of,
    until_of,
)
from .show import (
    print_explanation,
    print_folder,
    print_json,
)

if TYPE_CHECKING:
    from ..client import Client
    from ..folders import FolderResult
    from ..types import ExplainResult
    from ..v1 import inference_pb2


def explain(
    photo: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTO|DIR",
            help="A JPEG, PNG or WebP file, or a folder of them and of such folders.",
        ),
    ],
    method: Annotated[str, typer.Option(help="gradient, occlusion, ...: see models NAME.")] = (
        "gradient"
    ),
    target: TargetClass = None,
    against: Against = None,
    score: Annotated[
        str | None,
        typer.Option(help="logit, log_probability or probability; the method's own if unset."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Target a neuron of this layer.")] = None,
    channel: Annotated[int | None, typer.Option(help="Its channel, from 0; all if unset.")] = None,
    y: Annotated[int | None, typer.Option(help="Its row; the whole map if unset.")] = None,
    x: Annotated[int | None, typer.Option(help="Its column; the whole map if unset.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME=VALUE",
            help="A parameter of the method, such as window_px=32 or baseline=blur; again for "
            "more.",
        ),
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of the strongest colour, 50 to 100; 99.5 if unset.")
    ] = None,
    color_scale: Annotated[
        str | None, typer.Option(help="signed or absolute; the method's own if unset.")
    ] = None,
    longest_side_px: Annotated[
        int | None, typer.Option(help="Of the image, 32 to 4096; 1024 if unset.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the image here, as .png or .jpg; PHOTO-METHOD.jpg if nothing else is "
            "asked for. Of DIR: write images and manifest.jsonl into this folder; DIR-METHOD if "
            "unset. Run again, it goes on where it stopped.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Of DIR: photos under way at once, 1 to 64; 8 if unset.")
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Write the attribution here, as float32."),
    ] = None,
    receipt: Annotated[Path | None, Receipt] = None,
    evidence: Evidence = None,
    tolerance: Tolerance = None,
    max_rows: MaxRows = None,
    max_ms: MaxMs = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Write the chart of deletion and insertion here; -e curves."
        ),
    ] = None,
    live: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the image here, as .png or .jpg, again with every estimate while it is "
            "made.",
        ),
    ] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """Why the network answers as it does."""
    if photo.is_dir():
        one_photo: dict[str, object] = {"--raw": raw, "--receipt": receipt, "--chart": chart}
        one_photo |= {"--live": live, "--evidence": evidence, "--json": as_json or None}
        with connected(server, waiting=False) as client:
            refuse("is for one photo", one_photo)
            found = _explain_folder(
                client,
                photo,
                output or Path(f"{photo.resolve().name}-{method}"),
                method,
                concurrency=concurrency,
                timeout_s=timeout_s,
                target=target_of(target, layer, channel, y, x),
                against=None if against is None else class_of(against),
                score=score,
                model=model,
                bucket_size=bucket_size,
                until=until_of(tolerance, max_rows, max_ms),
                color_scale=color_scale,
                percentile=percentile,
                longest_side_px=longest_side_px,
                **parameters_of(method, parameter or []),
            )
        print_folder(found)
        raise typer.Exit(1 if found.failed else 0)
    if (output, raw, chart, live) == (None, None, None, None) and not as_json:
        output = Path(f"{photo.stem}-{method}.jpg")
    drawn = [path for path in (output, live) if path is not None]
    outputs = ["heatmap"]
    outputs += ["rendering"] if drawn else []
    outputs += ["attribution"] if raw is not None else []
    with connected(server, waiting=live is None) as client:
        from .. import _wire

        refuse("is for a folder", {"--concurrency": concurrency})
        measured = _wire.evidence_options(evidence or ())
        if chart is not None:
            check_png(chart)
            measured.setdefault("curves", {})
        request = _wire.explain_request(
            photo,
            method,
            target=target_of(target, layer, channel, y, x),
            against=None if against is None else class_of(against),
            score=score,
            model=model,
            outputs=outputs,
            bucket_size=bucket_size,
            until=until_of(tolerance, max_rows, max_ms),
            evidence=measured,
            rendering={
                "color_scale": color_scale,
                "percentile": percentile,
                "longest_side_px": longest_side_px,
                "format": common_format(drawn),
            },
            method_parameters=parameters_of(method, parameter or []),
        )
        if live is None:
            response = client._call("Explain", request, timeout_s)
        else:
            response = _explain_live(client, request, timeout_s, live)
        result = _wire.explain_result(response)
        if output is not None:
            result.save(output)
        if raw is not None:
            _save_array(raw, result)
        if chart is not None and result.evidence and result.evidence.curves:
            chart.write_bytes(result.evidence.curves.chart_png)
        if receipt is not None:
            result.receipt.save(receipt)
    if as_json:
        print_json(response)
    else:
        paths = (output, live, raw, chart, receipt)
        print_explanation(result, [path for path in paths if path is not None])


def _explain_folder(
    client: "Client",
    folder: Path,
    output: Path,
    method: str,
    *,
    concurrency: int | None,
    timeout_s: float | None,
    **options: Any,
) -> "FolderResult":
    from .. import folders

    with counted("photos") as on_progress:
        return folders.explain_folder(
            client,
            folder,
            output,
            method,
            concurrency=folders.CONCURRENCY if concurrency is None else concurrency,
            timeout_s=600.0 if timeout_s is None else timeout_s,
            on_progress=on_progress,
            **{name: value for name, value in options.items() if value is not None},
        )


def _explain_live(
    client: "Client",
    request: "inference_pb2.ExplainRequest",
    timeout_s: float | None,
    path: Path,
) -> Any:
    """The response that a stream ends with; what is drawn of each goes to the file."""
    from .. import _wire

    response: Any = None
    stream = client._stream("ExplainStream", _wire.stream_request(request), timeout_s)
    rows = request.until.row_count if request.until.HasField("row_count") else None
    with closing(stream) as responses, progress_bar("{task.fields[error]}") as progress:
        task = progress.add_task("rows", total=rows, error="")
        for event in responses:
            response = event.explanation
            result = _wire.explain_result(response)
            _replace(path, result._rendering())
            if result.convergence is not None:
                made = result.convergence
                error = f"error {made.error:.3g}"
                progress.update(task, completed=made.row_count, error=error)
    return response


def _replace(path: Path, data: bytes) -> None:
    """Writes a file so that whoever looks at it sees all of it, or what was there before."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _save_array(path: Path, result: "ExplainResult") -> None:
    import numpy as np

    assert result.attribution is not None
    with path.open("wb") as file:  # np.save itself would add .npy to any other name
        np.save(file, result.attribution)
