"""The command line of attacks: pellucid optimize attack."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .adversarial import linear_tables, square_table, transfer_table
from .connect import connected
from .optimize import Every, Video, save_video, video_options, watched
from .options import LongTimeout, ModelName, Photo, Server, check_png, class_of, refuse
from .show import print_part, timings

if TYPE_CHECKING:
    from ..adversarial import TransferScore
    from ..client import Client
    from ..optimizing import OptimizeResult


def attack(
    photo: Photo,
    method: Annotated[
        str, typer.Option(help="fgsm, bim, pgd, deep_fool or carlini_wagner.")
    ] = "pgd",
    goal: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="What it is to be taken for, by index or label; any if unset."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="What it is to be taken for no longer; by itself if unset."
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="The most of the change, of 255; by norm if unset."),
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2; by method if unset.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps; by method if unset.")] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Length of a step; by epsilon if unset.")
    ] = None,
    restarts: Annotated[
        int | None, typer.Option(help="Images of pgd from as many random starts; 1 if unset.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the starts of pgd; 0 if unset.")] = None,
    linear_layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="Predict the change's effect from this layer on; again for more."
        ),
    ] = None,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Score the result on all models of the server.")
    ] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME=VALUE",
            help="Another parameter of the method, such as confidence=2; again for more.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.png", help="Write the best image."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Write the photo, the change and the result side by side."
        ),
    ] = None,
    each_model: Annotated[
        bool,
        typer.Option(
            "--each-model",
            help="Attack every model of the server in turn, and score all on all; writes nothing.",
        ),
    ] = False,
    video: Video = None,
    frame_every: Every = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """A photo, changed so little that a person hardly sees it, and taken for something else."""
    path = output or Path(f"{photo.stem}-attack.png")
    with connected(server, waiting=False) as client:
        from .. import _attack
        from ..errors import BadArgument

        if path.suffix.lower() != ".png":
            raise BadArgument(f"--output: {path} must end with .png: a JPEG changes the pixels")
        given = {
            "epsilon": epsilon,
            "norm": norm,
            "step_count": steps,
            "step_size": step_size,
            "restart_count": restarts,
            "seed": seed,
        }
        options: dict[str, Any] = {name: one for name, one in given.items() if one is not None}
        options |= dict(_attack.parameter(method, text) for text in parameter or ())
        options |= video_options(video, frame_every)
        if sheet is not None:
            check_png(sheet)
        if each_model:
            others = {"--model": model or None, "--linear-layer": linear_layer}
            files = {"--output": output, "--sheet": sheet, "--video": video}
            refuse("not with --each-model", {**others, **files})
            classes = {"goal": _label(client, goal), "source": _label(client, source)}
            asked = {**options, **classes, "method": method, "timeout_s": timeout_s}
            print_part(square_table(_crafted(client, photo, asked)))
            return
        attacking = client.attack(
            photo,
            method,
            goal=None if goal is None else class_of(goal),
            source=None if source is None else class_of(source),
            linear_layers=linear_layer or (),
            transfer=transfer,
            model=model,
            timeout_s=timeout_s,
            **options,
        )
        result, frames = watched(attacking)
        result.save(path)
        written = [path, *save_video(video, frames, result.images[0].image)]
        if sheet is not None:
            from ..adversarial import sheet as drawn

            drawn(result).save(sheet)
            written.append(sheet)
    _print_result(result, written)


def _label(client: "Client", text: str | None) -> str | None:
    """A class as all models know it: an index is that of the default model's."""
    from ..errors import BadArgument

    if text is None or not text.isdecimal():
        return text
    labels = client.get_model().labels
    if int(text) >= len(labels):
        raise BadArgument(f"--goal and --source: {text} is no class; there are {len(labels)}")
    return labels[int(text)]


def _crafted(
    client: "Client", photo: Path, asked: Mapping[str, Any]
) -> "dict[str, Sequence[TransferScore] | str]":
    """By model: what all models make of the image that it was attacked with, or why there is none.

    Raises:
        StatusError: There is none of any model.
    """
    from ..errors import FailedPrecondition, InvalidArgument, NotFound

    crafted: dict[str, Sequence[TransferScore] | str] = {}
    refused: FailedPrecondition | InvalidArgument | NotFound | None = None
    for summary in client.list_models():
        if not summary.ready:
            continue
        try:
            result, _ = watched(client.attack(photo, model=summary.name, transfer=True, **asked))
        except (FailedPrecondition, InvalidArgument, NotFound) as error:
            crafted[summary.name], refused = error.message, error
            continue
        assert result.best.adversarial is not None
        crafted[summary.name] = result.best.adversarial.transfer
    if refused is not None and all(isinstance(one, str) for one in crafted.values()):
        raise refused
    return crafted


def _print_result(result: "OptimizeResult", written: list[Path]) -> None:
    best, photo = result.best.adversarial, result.attack
    assert best is not None
    assert photo is not None
    table = Table.grid(padding=(0, 2))
    table.add_row("method", str(result.parameters["method"]))
    table.add_row("before", Text(f"{photo.prediction.label} {photo.prediction.probability:.2%}"))
    table.add_row("after", Text(f"{best.prediction.label} {best.prediction.probability:.2%}"))
    table.add_row(
        Text(photo.label),
        f"{photo.source_probability:.2%} before, {best.source_probability:.2%} after",
    )
    if best.goal_probability is not None:
        table.add_row(Text(photo.goal_label), f"{best.goal_probability:.2%} after")
    table.add_row("success", _success(best.success, best.success_unrounded))
    every = [one.adversarial for one in result.images if one.adversarial]
    if len(every) > 1:
        table.add_row("restarts", f"{sum(one.success for one in every)} of {len(every)} succeeded")
    table.add_row("change", f"{best.linf:g} of 255 at most, L2 {best.l2:.4g}")
    if result.best.stop_reason:
        table.add_row("stopped", Text(result.best.stop_reason))
    for note in result.notes:
        table.add_row("note", Text(note))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    for view in linear_tables(best.linear):
        print_part(view)
    if best.transfer:
        print_part(
            transfer_table([one.adversarial.transfer for one in result.images if one.adversarial])
        )
    print_part(timings(result.run))


def _success(rounded: bool, unrounded: bool) -> str:
    if rounded == unrounded:
        return "yes" if rounded else "no"
    return "yes, once rounded to 8 bits" if rounded else "no: only before it was rounded to 8 bits"
