"""The command line: what the client does, for people and for pipes."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.progress import Progress, ProgressColumn

    from .client import Client
    from .compare import Comparison
    from .errors import PellucidError
    from .folders import FolderResult
    from .types import (
        EvidenceResult,
        ExplainResult,
        Model,
        ModelSummary,
        PredictResult,
        Run,
        Target,
        Until,
    )
    from .v1 import inference_pb2

# numpy, PIL and gRPC are imported where they are used: --help and serve need none of them.

app = typer.Typer(
    name="pellucid",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="A JPEG, PNG or WebP file.")]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="PELLUCID_SERVER", metavar="HOST:PORT", help="Where it is; localhost:8001 if unset."
    ),
]
ModelName = Annotated[str, typer.Option(help="Name of the model; the server's default if unset.")]
Timeout = Annotated[float | None, typer.Option(help="Deadline in seconds; 30 if unset.")]
LongTimeout = Annotated[
    float, typer.Option(help="Deadline of each explanation in seconds; 600 if unset.")
]
BucketSize = Annotated[
    int | None, typer.Option(help="Batch size to run at, which fixes the result's bits.")
]
Receipt = typer.Option(
    metavar="FILE.json", help="Write here what is needed to make it again: see replay."
)
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON, less its files.")]

TargetClass = Annotated[
    list[str] | None,
    typer.Option(
        help="Class, by index or label; again to add another's score; the top prediction if unset."
    ),
]
Against = Annotated[
    str | None, typer.Option(help="Class whose score is subtracted, by index or label.")
]
Evidence = Annotated[
    list[str] | None,
    typer.Option(
        "-e",
        "--evidence",
        metavar="NAME[.PARAMETER=VALUE]",
        help="What would show it false: completeness, curves, stability, randomization, cascade "
        "or agreement; as curves.step_count=32 or agreement.methods=METHOD with a parameter; "
        "again for more.",
    ),
]
Tolerance = Annotated[
    float | None, typer.Option(help="End when the error is at most this, 0.0001 to 1.")
]
MaxRows = Annotated[int | None, typer.Option(help="End after so many rows.")]
MaxMs = Annotated[float | None, typer.Option(help="End after so many milliseconds.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method", metavar="NAME", help="Again for more; all that the model supports if unset."
    ),
]


@dataclass(frozen=True)
class _Access:
    """How a server that is locked is reached."""

    token_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def connect(self, server: str | None) -> "Client":
        from .client import Client

        token = os.environ.get("PELLUCID_TOKEN") or None
        if self.token_file is not None:
            token = self.token_file.read_text("latin-1").strip()
        return Client(
            server or "localhost:8001",
            token=token,
            tls=self.tls,
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
        )


_access: ContextVar[_Access] = ContextVar("_access")


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
    before = _access.set(_Access(token_file, tls, ca_file, certificate, key))
    context.call_on_close(lambda: _access.reset(before))


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
            help="Explain the top class along with it, and write PHOTO-METHOD.jpg; again for more.",
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
    with _connected(server) as client:
        from . import _wire
        from .errors import PellucidError

        request = _wire.predict_request(
            photo,
            model=model,
            top_k=top_k,
            include_logits=False,
            bucket_size=bucket_size,
            explain=explain or (),
            explain_budget_ms=explain_budget_ms,
        )
        response = client._call("Predict", request, timeout_s)
        result = _wire.predict_result(response)
        paths = [Path(f"{photo.stem}-{method}.jpg") for method in explain or ()]
        for path, explanation in zip(paths, result.explanations, strict=True):
            if not isinstance(explanation, PellucidError):
                explanation.save(path)
        if receipt is not None:
            result.receipt.save(receipt)
    if as_json:
        _print_json(response)
        return
    _print_predictions(result)
    for path, explanation in zip(paths, result.explanations, strict=True):
        if isinstance(explanation, PellucidError):
            _print(Text(f"not written  {path}: {explanation}"))
        else:
            _print(Text(f"written  {path}"))


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
        with _connected(server, waiting=False) as client:
            _refuse("is for one photo", one_photo)
            found = _explain_folder(
                client,
                photo,
                output or Path(f"{photo.resolve().name}-{method}"),
                method,
                concurrency=concurrency,
                timeout_s=timeout_s,
                target=_target(target, layer, channel, y, x),
                against=None if against is None else _class(against),
                score=score,
                model=model,
                bucket_size=bucket_size,
                until=_until(tolerance, max_rows, max_ms),
                color_scale=color_scale,
                percentile=percentile,
                longest_side_px=longest_side_px,
                **_parameters(method, parameter or []),
            )
        _print_folder(found)
        raise typer.Exit(1 if found.failed else 0)
    if (output, raw, chart, live) == (None, None, None, None) and not as_json:
        output = Path(f"{photo.stem}-{method}.jpg")
    drawn = [path for path in (output, live) if path is not None]
    outputs = ["heatmap"]
    outputs += ["rendering"] if drawn else []
    outputs += ["attribution"] if raw is not None else []
    with _connected(server, waiting=live is None) as client:
        from . import _wire

        _refuse("is for a folder", {"--concurrency": concurrency})
        measured = _wire.evidence_options(evidence or ())
        if chart is not None:
            _check_png(chart)
            measured.setdefault("curves", {})
        request = _wire.explain_request(
            photo,
            method,
            target=_target(target, layer, channel, y, x),
            against=None if against is None else _class(against),
            score=score,
            model=model,
            outputs=outputs,
            bucket_size=bucket_size,
            until=_until(tolerance, max_rows, max_ms),
            evidence=measured,
            rendering={
                "color_scale": color_scale,
                "percentile": percentile,
                "longest_side_px": longest_side_px,
                "format": _common_format(drawn),
            },
            method_parameters=_parameters(method, parameter or []),
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
        _print_json(response)
    else:
        paths = (output, live, raw, chart, receipt)
        _print_explanation(result, [path for path in paths if path is not None])


def _refuse(why: str, options: Mapping[str, object]) -> None:
    """Refuses options that were given where they mean nothing."""
    from .errors import BadArgument

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise BadArgument(f"{', '.join(given)}: {why}")


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
    from . import folders

    with _counted("photos") as on_progress:
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


def _print_folder(found: "FolderResult") -> None:
    for entry in found.failed:
        error = entry["error"]
        _print(Text(f"{entry['photo']}: {error['code']}: {error['message']}"))
    done = len(found.entries) - len(found.failed)
    earlier = f", {found.earlier_count} of all in earlier runs" if found.earlier_count else ""
    _print(Text(f"{done} explained, {len(found.failed)} failed{earlier}"))
    _print(Text(f"written  {found.manifest}"))


def _explain_live(
    client: "Client",
    request: "inference_pb2.ExplainRequest",
    timeout_s: float | None,
    path: Path,
) -> Any:
    """The response that a stream ends with; what is drawn of each goes to the file."""
    from . import _wire

    response: Any = None
    stream = client._stream("ExplainStream", _wire.stream_request(request), timeout_s)
    rows = request.until.row_count if request.until.HasField("row_count") else None
    with closing(stream) as responses, _progress("{task.fields[error]}") as progress:
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
    with _connected(server, waiting=False) as client:
        from . import _wire
        from .compare import EVIDENCE

        format_ = _common_format([] if output is None else [output])
        measured = _wire.evidence_options(evidence or EVIDENCE)
        with _counted("methods") as on_progress:
            comparison = client.compare(
                photo,
                method,
                target=_target(target, None, None, None, None),
                against=None if against is None else _class(against),
                score=score,
                model=model,
                outputs=["heatmap", "rendering"],
                longest_side_px=480,
                legend=False,
                until=_until(tolerance, max_rows, max_ms),
                evidence=measured,
                timeout_s=timeout_s,
                on_progress=on_progress,
            )
        if output is not None and comparison.ranking():
            from .render import encode

            output.write_bytes(encode(comparison.sheet(), "png" if format_ == "png" else "jpeg"))
    if as_json:
        print(json.dumps(comparison.fields(), indent=2, ensure_ascii=False))
    else:
        _print_comparison(comparison, output)
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
    with _connected(server, waiting=False) as client:
        from . import _wire, benchmark

        with _counted("explanations") as on_progress:
            report = benchmark.measure(
                client,
                folder,
                method,
                model=model,
                evidence=_wire.evidence_options(evidence or benchmark.EVIDENCE),
                until=_until(tolerance, max_rows, max_ms),
                timeout_s=timeout_s,
                on_progress=on_progress,
            )
        paths = report.save(output or Path(f"{folder.resolve().name}-evidence"))
    heading, *lines = report.lines()
    table = Table(*heading)
    for line in lines:
        table.add_row(*map(Text, line))
    _print(table)
    _print(Text(f"{len(report.photos)} photos, {report.model} {report.model_version}"))
    _print(Text(f"written  {'  '.join(map(str, paths))}"))


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
    with _connected(server, failure_code=2) as client:
        from . import types

        replayed = client.replay(types.Receipt.load(receipt), photo, timeout_s=timeout_s)
    table = Table.grid(padding=(0, 2))
    table.add_row("equal to the bit", "yes" if replayed.equal else "no")
    if not replayed.equal:
        table.add_row("difference", f"{replayed.difference:.3g} (relative, of the sketch)")
    for note in replayed.notes:
        table.add_row("note", Text(note))
    _print(table)
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


@models.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
    server: Server = None,
    timeout_s: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """The models of the server, or one of them in full."""
    with _connected(server) as client:
        from . import _wire
        from .v1 import model_pb2

        if name is None:
            response = client._call("ListModels", model_pb2.ListModelsRequest(), timeout_s)
        else:
            response = client._call("GetModel", _wire.get_model_request(name), timeout_s)
    if as_json:
        _print_json(response)
    elif name is None:
        _print_models(_wire.model_summaries(response))
    else:
        _print_model(_wire.model(response))


_HANDED_ON: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


@models.command(**_HANDED_ON)
def pull(context: typer.Context) -> None:
    """Fetches published weights and makes a model folder of them; needs the server installed."""
    _hand_on("pull", context.args)


@app.command(**_HANDED_ON)
def serve(context: typer.Context) -> None:
    """Starts a server; all that follows goes to it, --help too."""
    _hand_on("main", context.args)


def _hand_on(function: str, arguments: list[str]) -> None:
    try:
        code = getattr(import_module("pellucid_server.cli"), function)(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("pellucid.", "pellucid_server.")):
            raise  # a bug of ours
        print("The server is not installed: pip install 'pellucid[server]'.", file=sys.stderr)
        code = 1
    raise typer.Exit(code)


# Calls.


@contextmanager
def _connected(
    server: str | None, *, failure_code: int = 1, waiting: bool = True
) -> Iterator["Client"]:
    """A client; the errors of what is done with it become lines and an exit code.

    Args:
        server: Its address; the default when None.
        failure_code: What the process exits with where no argument is wrong.
        waiting: Whether it is shown that the server is waited for.
    """
    from .errors import BadArgument, PellucidError

    console = Console(stderr=True)
    try:
        with ExitStack() as stack:
            client = stack.enter_context(_access.get().connect(server))
            if waiting and console.is_terminal:
                stack.enter_context(console.status("Waiting for the server"))
            yield client
    except PellucidError as error:
        _print_error(error)
        raise typer.Exit(2 if isinstance(error, BadArgument) else failure_code) from None
    except OSError as error:
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(failure_code) from None


def _progress(*columns: str) -> "Progress":
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
def _counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how much is done, and of how much."""
    with _progress() as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, count: progress.update(task, completed=done, total=count)


def _until(tolerance: float | None, max_rows: int | None, max_ms: float | None) -> "Until | None":
    from .types import Until

    until = Until(tolerance, max_rows, max_ms)
    return None if until == Until() else until


def _common_format(paths: list[Path]) -> str | None:
    """The format of the files that one rendering is written to."""
    from .errors import BadArgument
    from .types import format_of

    formats = {format_of(path) for path in paths}
    if len(formats) > 1:
        raise BadArgument("--live and --output: must be of the same format")
    return formats.pop() if formats else None


def _check_png(path: Path) -> None:
    from .errors import BadArgument

    if path.suffix.lower() != ".png":
        raise BadArgument(f"{path}: must end with .png")


def _target(
    target: list[str] | None, layer: str | None, channel: int | None, y: int | None, x: int | None
) -> "Target | None":
    from .errors import BadArgument
    from .types import Neuron

    if layer is not None:
        if target:
            raise BadArgument("--target: names a class, --layer a neuron; give one of them")
        return Neuron(layer, channel, y, x)
    if (channel, y, x) != (None, None, None):
        raise BadArgument("--channel, --y and --x: need --layer")
    classes = [_class(one) for one in target or ()]
    return (classes[0] if len(classes) == 1 else classes) if classes else None


def _class(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _parameters(method: str, texts: list[str]) -> dict[str, Any]:
    from . import _wire
    from .errors import BadArgument

    parameters: dict[str, Any] = {}
    for text in texts:
        name, value = _wire.parameter(method, text)
        known = parameters.get(name)
        if isinstance(value, dict) and isinstance(known, dict) and not known.keys() & value.keys():
            known.update(value)
        elif name in parameters:
            raise BadArgument(f"--parameter: {name} is given more than once")
        else:
            parameters[name] = value
    return parameters


def _save_array(path: Path, result: "ExplainResult") -> None:
    import numpy as np

    assert result.attribution is not None
    with path.open("wb") as file:  # np.save itself would add .npy to any other name
        np.save(file, result.attribution)


# What is printed.


def _print_json(response: "Message") -> None:
    from google.protobuf.json_format import MessageToDict

    full = MessageToDict(response, always_print_fields_with_no_presence=True)
    print(json.dumps(_without_bytes(full), indent=2, ensure_ascii=False))


def _without_bytes(value: Any) -> Any:
    """The JSON without the field that holds a tensor's or a file's bytes."""
    if isinstance(value, dict):
        return {k: _without_bytes(v) for k, v in value.items() if k != "data"}
    if isinstance(value, list):
        return [_without_bytes(v) for v in value]
    return value


def _print_error(error: "PellucidError") -> None:
    message = " ".join(error.message.split())
    if error.violations and all(v.description in message for v in error.violations):
        message = "the server refuses the request"  # the lines below say all of it
    code = "" if error.code is None else f"{error.code.name}: "
    print(f"pellucid: {code}{message}", file=sys.stderr)
    for violation in error.violations:
        print(f"  {violation.field}: {violation.description}", file=sys.stderr)


def _print_predictions(result: "PredictResult") -> None:
    table = Table("label", "probability", "logit", "class")
    for column in table.columns[1:]:
        column.justify = "right"
    for p in result.predictions:
        table.add_row(Text(p.label), f"{p.probability:.2%}", f"{p.logit:.3f}", str(p.class_index))
    _print(table)
    _print(_timings(result.run))


def _print_explanation(result: "ExplainResult", written: list[Path]) -> None:
    from .compare import target_words

    target, name = result.target, target_words(result)
    parameters = ", ".join(f"{k}={v}" for k, v in result.parameters.items())
    table = Table.grid(padding=(0, 2))
    table.add_row("method", Text(f"{result.method}({parameters})"))
    table.add_row("target", Text(name + (", the top prediction" if target.top_prediction else "")))
    kind = "" if target.score_kind is None else f", {target.score_kind.replace('_', ' ')}"
    table.add_row("score", f"{target.score:.4f}{kind}")
    if result.convergence is not None:
        made = result.convergence
        ended = made.stop.replace("_", " ")
        residual = "" if made.residual is None else f", residual {made.residual:.3g}"
        text = f"{ended}, {made.row_count} rows, error {made.error:.3g}{residual}"
        table.add_row("convergence", text)
    for words in _evidence_words(result.evidence) if result.evidence is not None else ():
        table.add_row(*map(Text, words))
    for warning in result.warnings:
        table.add_row("warning", Text(f"{warning.reason}: {warning.description}"))
    for path in written:
        table.add_row("written", Text(str(path)))
    _print(table)
    _print(_timings(result.run))


def _evidence_words(evidence: "EvidenceResult") -> Iterator[tuple[str, str]]:
    """Each piece of evidence in a line."""
    if (sums := evidence.completeness) is not None:
        yield (
            "completeness",
            f"the sum is {sums.attribution_sum:.4g}, of {sums.expected_sum:.4g}: "
            f"relative error {sums.relative_error:.2g}",
        )
    if (curves := evidence.curves) is not None:
        areas = f"insertion {curves.map.insertion_area:.3f}, deletion "
        areas += f"{curves.map.deletion_area:.3f}"
        yield "curves", f"{areas}, gain {curves.gain:.3f} over random and centre"
    if (noisy := evidence.stability) is not None:
        least = f"{noisy.least:.2f} at least, {len(noisy.correlations)} noisy images"
        yield "stability", f"rank correlation {noisy.mean:.2f} on average, {least}"
    if (permuted := evidence.randomization) is not None:
        yield (
            "randomization",
            f"rank correlation {permuted.correlation:.2f}, of magnitudes "
            f"{permuted.absolute_correlation:.2f}, with a permuted classifier",
        )
    if (cascade := evidence.cascade) is not None:
        stages = (f"{s.absolute_correlation:.2f} from {s.layer} on" for s in cascade.stages)
        yield "cascade", f"rank correlation of magnitudes, redrawn: {', '.join(stages)}"
    if (agreement := evidence.agreement) is not None:
        others = (
            f"{one.method} {one.correlation:.2f} (top twentieth {one.top_overlap:.0%})"
            for one in agreement.methods
        )
        yield "agreement", f"rank correlation with {', '.join(others)}"


def _print_comparison(comparison: "Comparison", written: Path | None) -> None:
    from .compare import COLUMNS, target_words

    table = Table(*COLUMNS)
    for line in comparison.table():
        table.add_row(*map(Text, line))
    _print(table)
    ranking = comparison.ranking()
    if not ranking:
        return
    about = Table.grid(padding=(0, 2))
    about.add_row("target", Text(target_words(ranking[0].result)))
    best = comparison.best
    about.add_row(
        "believe first", "none: there is a doubt of each" if best is None else best.method
    )
    if written is not None:
        about.add_row("written", Text(str(written)))
    _print(about)


def _timings(run: "Run") -> Text:
    return Text(
        f"{run.model} {run.model_version} on {run.device}, {run.precision}: "
        f"decode {run.decode_ms:.1f} ms, queue {run.queue_ms:.1f} ms, "
        f"run {run.run_ms:.1f} ms, render {run.render_ms:.1f} ms"
    )


def _print_models(summaries: "tuple[ModelSummary, ...]") -> None:
    table = Table("name", "version", "ready")
    for summary in summaries:
        ready = "yes" if summary.ready else f"no: {summary.reason}"
        table.add_row(Text(summary.name), summary.version, Text(ready))
    _print(table)


def _print_model(model: "Model") -> None:
    made = model.preprocessing
    about = Table.grid(padding=(0, 2))
    about.add_row("name", Text(model.name))
    about.add_row("version", model.version)
    about.add_row("ready", Text("yes" if model.ready else f"no: {model.reason}"))
    about.add_row("architecture", Text(model.architecture))
    about.add_row("computes in", f"{model.precision} on {model.device}")
    about.add_row("input", f"{made.height_px} × {made.width_px} px, {made.interpolation}")
    about.add_row("classes", str(len(model.labels)))
    about.add_row("rectifiers", str(model.gate_count))
    methods = Table("method", "supported", "rows", "anytime", "evidence")
    for support in model.methods:
        methods.add_row(
            support.method,
            Text("yes" if support.supported else support.reason),
            str(support.row_count) if support.supported else "",
            "yes" if support.anytime else "",
            ", ".join(support.evidence),
        )
    layers = Table("layer", "type", "shape", "target", "note")
    for layer in model.layers:
        shape = " × ".join(map(str, layer.shape))
        targetable = "yes" if layer.targetable else "no"
        layers.add_row(Text(layer.name), layer.type, shape, targetable, Text(layer.note))
    costs = Table("lane", "bucket", "milliseconds a row")
    for cost in model.costs:
        costs.add_row(cost.lane, str(cost.bucket_size), f"{cost.row_ms:.2f}")
    for part in (about, methods, costs, layers):
        _print(part)


_PIPE_COLUMNS = 1000


def _print(part: Table | Text) -> None:
    console = Console(soft_wrap=True)
    if not console.is_terminal:  # a pipe is as wide as what goes through it
        console.width = _PIPE_COLUMNS
    console.print(part)


from .cli_optimize import optimize  # noqa: E402 - it is made of what is above

app.add_typer(optimize, name="optimize")
