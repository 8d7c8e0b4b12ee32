"""The command line: what the client does, for people and for pipes."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from .client import Client
    from .errors import PellucidError
    from .types import ExplainResult, Model, ModelSummary, Neuron, PredictResult, Run

# numpy, PIL and gRPC are imported where they are used: --help and serve need none of them.

app = typer.Typer(
    name="pellucid",
    help="Asks a Pellucid server what is in a photo, and why it says so.",
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
BucketSize = Annotated[
    int | None, typer.Option(help="Batch size to run at, which fixes the result's bits.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON, less its files.")]


def main() -> None:
    """Runs the command that sys.argv names."""
    app()


@app.command()
def predict(
    photo: Photo,
    top_k: Annotated[int | None, typer.Option(help="How many classes; 5 if unset.")] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """What the network sees in a photo."""
    with _connected(server) as client:
        from . import _wire

        request = _wire.predict_request(
            photo, model=model, top_k=top_k, include_logits=False, bucket_size=bucket_size
        )
        response = client._call("Predict", request, timeout_s)
    if as_json:
        _print_json(response)
    else:
        _print_predictions(_wire.predict_result(response))


@app.command()
def explain(
    photo: Photo,
    method: Annotated[str, typer.Option(help="gradient, occlusion, ...: see models NAME.")] = (
        "gradient"
    ),
    target: Annotated[
        str | None,
        typer.Option(help="Class, by index or label; the top prediction if unset."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Target a neuron of this layer.")] = None,
    channel: Annotated[int | None, typer.Option(help="Its channel, from 0.")] = None,
    y: Annotated[int | None, typer.Option(help="Its row; the whole map if unset.")] = None,
    x: Annotated[int | None, typer.Option(help="Its column; the whole map if unset.")] = None,
    window_px: Annotated[int | None, typer.Option(help="Occlusion: side of the window.")] = None,
    stride_px: Annotated[int | None, typer.Option(help="Occlusion: between windows.")] = None,
    fill: Annotated[str | None, typer.Option(help="Occlusion: mean, black, white or blur.")] = None,
    blur_sigma_px: Annotated[
        float | None, typer.Option(help="Occlusion: standard deviation of the blur.")
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
            "asked for.",
        ),
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Write the attribution here, as float32."),
    ] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """Why the network answers as it does."""
    if output is None and raw is None and not as_json:
        output = Path(f"{photo.stem}-{method}.jpg")
    outputs = ["heatmap"]
    outputs += ["rendering"] if output is not None else []
    outputs += ["attribution"] if raw is not None else []
    parameters = {
        "window_px": window_px,
        "stride_px": stride_px,
        "fill": fill,
        "blur_sigma_px": blur_sigma_px,
    }
    with _connected(server) as client:
        from . import _wire
        from .types import format_of

        request = _wire.explain_request(
            photo,
            method,
            target=_target(target, layer, channel, y, x),
            model=model,
            outputs=outputs,
            bucket_size=bucket_size,
            rendering={
                "color_scale": color_scale,
                "percentile": percentile,
                "longest_side_px": longest_side_px,
                "format": None if output is None else format_of(output),
            },
            method_parameters={k: v for k, v in parameters.items() if v is not None},
        )
        response = client._call("Explain", request, timeout_s)
        result = _wire.explain_result(response)
        if output is not None:
            result.save(output)
        if raw is not None:
            _save_array(raw, result)
    if as_json:
        _print_json(response)
    else:
        _print_explanation(result, [path for path in (output, raw) if path is not None])


@app.command()
def models(
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


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def serve(context: typer.Context) -> None:
    """Starts a server; all that follows goes to it, --help too."""
    try:
        code = import_module("pellucid_server.cli").main(context.args)
    except ModuleNotFoundError:
        print("The server is not installed: pip install 'pellucid[server]'.", file=sys.stderr)
        code = 1
    raise typer.Exit(code)


# Calls.


@contextmanager
def _connected(server: str | None) -> Iterator["Client"]:
    """A client; the errors of what is done with it become lines and an exit code."""
    from .client import Client
    from .errors import BadArgument, PellucidError

    console = Console(stderr=True)
    try:
        with ExitStack() as stack:
            client = stack.enter_context(Client(server) if server else Client())
            if console.is_terminal:
                stack.enter_context(console.status("Waiting for the server"))
            yield client
    except PellucidError as error:
        _print_error(error)
        raise typer.Exit(2 if isinstance(error, BadArgument) else 1) from None
    except OSError as error:
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _target(
    target: str | None, layer: str | None, channel: int | None, y: int | None, x: int | None
) -> "int | str | Neuron | None":
    from .errors import BadArgument
    from .types import Neuron

    if layer is not None:
        if target is not None:
            raise BadArgument("--target: names a class, --layer a neuron; give one of them")
        return Neuron(layer, channel or 0, y, x)
    if (channel, y, x) != (None, None, None):
        raise BadArgument("--channel, --y and --x: need --layer")
    return int(target) if target is not None and target.isdecimal() else target


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
    target = result.target
    if target.neuron is not None:
        place = "" if target.neuron.y is None else f" at {target.neuron.y}, {target.neuron.x}"
        name = f"{target.neuron.layer}, channel {target.neuron.channel}{place}"
    else:
        name = f"{target.label} (class {target.class_index})"
    parameters = ", ".join(f"{k}={v}" for k, v in result.parameters.items())
    table = Table.grid(padding=(0, 2))
    table.add_row("method", Text(f"{result.method}({parameters})"))
    table.add_row("target", Text(name + (", the top prediction" if target.top_prediction else "")))
    table.add_row("score", f"{target.score:.4f}")
    for path in written:
        table.add_row("written", Text(str(path)))
    _print(table)
    _print(_timings(result.run))


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
    methods = Table("method", "supported")
    for support in model.methods:
        methods.add_row(support.method, Text("yes" if support.supported else support.reason))
    layers = Table("layer", "type", "shape", "target", "note")
    for layer in model.layers:
        shape = " × ".join(map(str, layer.shape))
        targetable = "yes" if layer.targetable else "no"
        layers.add_row(Text(layer.name), layer.type, shape, targetable, Text(layer.note))
    for part in (about, methods, layers):
        _print(part)


def _print(part: Table | Text) -> None:
    Console(soft_wrap=True).print(part)
