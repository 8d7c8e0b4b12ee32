"""The commands."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .attack import attack
from .connect import Access, access, connected
from .evidence import compare, evidence
from .explain import explain
from .index import patches, similar
from .inspect import embed, inspect
from .map import map_photos
from .optimize import optimize
from .options import (
    AsJson,
    BucketSize,
    ModelName,
    Photo,
    Receipt,
    Server,
    Shown,
    Timeout,
)
from .show import (
    print_json,
    print_model,
    print_models,
    print_part,
    print_predictions,
)
from .styles import styles
from .stylize import stylize
from .unit import unit
from .universal import universal
from .video import video

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


app.command()(explain)
app.command()(compare)
app.command()(evidence)
app.command()(patches)
app.command()(similar)


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


models = typer.Typer(
    cls=Shown, help="Shows the server's models (the command show), or fetches one."
)


app.add_typer(models, name="models")
optimize.command()(attack)
optimize.command()(universal)
app.add_typer(optimize, name="optimize")

stylize.command()(video)
app.add_typer(stylize, name="stylize")
app.command("map")(map_photos)
app.add_typer(inspect, name="inspect")
app.command()(embed)
app.command()(unit)
app.add_typer(styles, name="styles")


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
def index(context: typer.Context) -> None:
    """Finds what excites each unit in a folder of photos; needs the server installed."""
    _hand_on("index", context.args)


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
