"""The commands."""

import json
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from .attack import attack
from .connect import Access, access, connected, counted, progress_bar
from .optimize import optimize
from .options import (
    Against,
    AsJson,
    BucketSize,
    Evidence,
    LongTimeout,
    MaxMs,
    MaxRows,
    Methods,
    ModelName,
    Photo,
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
    print_comparison,
    print_explanation,
    print_folder,
    print_json,
    print_model,
    print_models,
    print_part,
    print_predictions,
)
from .stylize import stylize
from .universal import universal

if TYPE_CHECKING:
    from ..client import Client
    from ..folders import FolderResult
    from ..types import ExplainResult
    from ..v1 import inference_pb2

# numpy, PIL and gRPC are imported where they are used: --help and serve need none of them.

app = typer.Typer(
    name="pellucid",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def locks(
    context: typer.Context,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of the token; PELLUCID_TOKEN is one itself."),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", envvar="PELLUCID_TLS", help="Connect by TLS.")
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PELLUCID_CA_FILE",
            metavar="FILE.pem",
            help="Who signs the server's certificate; implies --tls.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            envvar="PELLUCID_CERTIFICATE",
            metavar="FILE.pem",
            help="Certificate to show to the server; implies --tls.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(envvar="PELLUCID_KEY", metavar="FILE.pem", help="Its key, unencrypted."),
    ] = None,
) -> None:
    """Asks a Pellucid server what is in a photo, and why it says so."""
    before = access.set(Access(token_file, tls, ca_file, certificate, key))
    context.call_on_close(lambda: access.reset(before))


def main() -> None:
    """Runs the command that sys.argv names."""
    app()


@app.command()
def predict(
    photo: Photo,
    top_k: Annotated[int | None, typer.Option(help="How many classes; 5 if unset.")] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            "--explain",
            metavar="METHOD",
            help="Explain the top class along with it, and write PHOTO-METHOD.jpg; again for other "
            "methods.",
        ),
    ] = None,
    explain_budget_ms: Annotated[
        float | None,
        typer.Option(help="Give up explanations after so many milliseconds, not the prediction."),
    ] = None,
    receipt: Annotated[Path | None, Receipt] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """What the network sees in a photo."""
    with connected(server) as client:
        from .. import _wire
        from ..errors import BadArgument, PellucidError

        methods = explain or []
        twice = sorted({method for method in methods if methods.count(method) > 1})
        if twice:
            raise BadArgument(f"--explain: {', '.join(twice)} is given more than once")
        request = _wire.predict_request(
            photo,
            model=model,
            top_k=top_k,
            include_logits=False,
            bucket_size=bucket_size,
            explain=methods,
            explain_budget_ms=explain_budget_ms,
        )
        response = client._call("Predict", request, timeout_s)
        result = _wire.predict_result(response)
        paths = [Path(f"{photo.stem}-{method}.jpg") for method in methods]
        for path, explanation in zip(paths, result.explanations, strict=True):
            if not isinstance(explanation, PellucidError):
                explanation.save(path)
        if receipt is not None:
            result.receipt.save(receipt)
    if as_json:
        print_json(response)
        return
    print_predictions(result)
    for path, explanation in zip(paths, result.explanations, strict=True):
        if isinstance(explanation, PellucidError):
            print_part(Text(f"not written  {path}: {explanation}"))
        else:
            print_part(Text(f"written  {path}"))


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def replay(
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="From --receipt.")],
    photo: Photo,
    server: Server = None,
    timeout_s: Timeout = None,
) -> None:
    """Makes a result again from its receipt.

    The exit code is 0 if it is equal to the bit, 1 if it is not, 2 if it could not be made.
    """
    with connected(server, failure_code=2) as client:
        from .. import types

        replayed = client.replay(types.Receipt.load(receipt), photo, timeout_s=timeout_s)
    table = Table.grid(padding=(0, 2))
    table.add_row("equal to the bit", "yes" if replayed.equal else "no")
    if not replayed.equal:
        table.add_row("difference", f"{replayed.difference:.3g} (relative, of the sketch)")
    for note in replayed.notes:
        table.add_row("note", Text(note))
    print_part(table)
    raise typer.Exit(0 if replayed.equal else 1)


class _Models(TyperGroup):
    """`models` and `models NAME` are `models show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, "--help"}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(
    cls=_Models, help="Shows the server's models (the command show), or fetches one."
)


app.add_typer(models, name="models")
optimize.command()(attack)
optimize.command()(universal)
app.add_typer(optimize, name="optimize")

styles = typer.Typer(no_args_is_help=True, help="Trains styles that are painted in one pass.")
app.add_typer(styles, name="styles")
app.command()(stylize)


@models.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
    server: Server = None,
    timeout_s: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """The models of the server, or one of them in full."""
    with connected(server) as client:
        from .. import _wire
        from ..v1 import model_pb2

        if name is None:
            response = client._call("ListModels", model_pb2.ListModelsRequest(), timeout_s)
        else:
            response = client._call("GetModel", _wire.get_model_request(name), timeout_s)
    if as_json:
        print_json(response)
    elif name is None:
        print_models(_wire.model_summaries(response))
    else:
        print_model(_wire.model(response))


_HANDED_ON: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


@models.command(**_HANDED_ON)
def pull(context: typer.Context) -> None:
    """Fetches published weights and makes a model folder of them; needs the server installed."""
    _hand_on("pull", context.args)


@optimize.command(**_HANDED_ON)
def landscape(context: typer.Context) -> None:
    """Whether larger networks end up alike: with plots; needs the server installed."""
    _hand_on("landscape", context.args)


@styles.command(**_HANDED_ON)
def train(context: typer.Context) -> None:
    """Trains a style on a painting and a folder of photos; needs the server installed."""
    _hand_on("train_style", context.args)


@app.command(**_HANDED_ON)
def serve(context: typer.Context) -> None:
    """Starts a server; all that follows goes to it, --help too."""
    _hand_on("main", context.args)


@app.command(**_HANDED_ON)
def load(context: typer.Context) -> None:
    """Loads a server, and measures what its callers meet; --help says how."""
    from .load import app as command

    command(context.args, prog_name="pellucid load")


def _hand_on(function: str, arguments: list[str]) -> None:
    try:
        code = getattr(import_module("pellucid_server.cli"), function)(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("pellucid.", "pellucid_server.")):
            raise  # a bug of ours
        print("The server is not installed: pip install 'pellucid[server]'.", file=sys.stderr)
        code = 1
    raise typer.Exit(code)
