"""What the commands have in common: their options, and the texts of these as values."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from ..types import Target, Until


class Shown(TyperGroup):
    """A group with a command that is meant where none is named: `models NAME` is `models show`."""

    usual = "show"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, "--help"}:
            args = [self.usual, *args]
        return super().parse_args(ctx, args)


class Pictured(Shown):
    """The same with the command photo."""

    usual = "photo"


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


def refuse(why: str, options: Mapping[str, object]) -> None:
    """Refuses options that were given where they mean nothing."""
    from ..errors import BadArgument

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise BadArgument(f"{', '.join(given)}: {why}")


def until_of(tolerance: float | None, max_rows: int | None, max_ms: float | None) -> "Until | None":
    from ..types import Until

    until = Until(tolerance, max_rows, max_ms)
    return None if until == Until() else until


def common_format(paths: list[Path]) -> str | None:
    """The format of the files that one rendering is written to."""
    from ..errors import BadArgument
    from ..types import format_of

    formats = {format_of(path) for path in paths}
    if len(formats) > 1:
        raise BadArgument("--live and --output: must be of the same format")
    return formats.pop() if formats else None


def check_png(path: Path) -> None:
    from ..errors import BadArgument

    if path.suffix.lower() != ".png":
        raise BadArgument(f"{path}: must end with .png")


def target_of(
    target: list[str] | None, layer: str | None, channel: int | None, y: int | None, x: int | None
) -> "Target | None":
    from ..errors import BadArgument
    from ..types import Neuron

    if layer is not None:
        if target:
            raise BadArgument("--target: names a class, --layer a neuron; give one of them")
        return Neuron(layer, channel, y, x)
    if (channel, y, x) != (None, None, None):
        raise BadArgument("--channel, --y and --x: need --layer")
    classes = [class_of(one) for one in target or ()]
    return (classes[0] if len(classes) == 1 else classes) if classes else None


def class_of(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def parameters_of(method: str, texts: list[str]) -> dict[str, Any]:
    from .. import _wire
    from ..errors import BadArgument

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
