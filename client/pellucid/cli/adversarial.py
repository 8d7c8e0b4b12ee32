"""Attacked photos as people read them: the linear view, and the matrices of transfer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..adversarial import LinearView, TransferScore
    from ..types import Prediction


def linear_tables(views: "Sequence[LinearView]") -> Iterator[Table]:
    """For each class: what each layer predicted for its logit, and what happened to it."""
    for view in views:
        table = Table(
            "layer",
            "predicted",
            "happened",
            "relative change",
            title=f"logit of {view.label}",
            title_justify="left",
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for effect in view.effects:
            table.add_row(
                Text(effect.layer or "the image"),
                f"{effect.predicted:+.3f}",
                f"{view.happened:+.3f}",
                f"{effect.relative_change:.2%}",
            )
        yield table


def transfer_table(images: "Sequence[Sequence[TransferScore]]") -> Table:
    """A column a model; a row the photo, and each attacked image."""
    table = _headed("", [score.model for score in images[0]])
    table.add_row("photo", *(Text(_words(score.before)) for score in images[0]))
    for place, scores in enumerate(images):
        name = "attacked" if len(images) == 1 else f"attacked {place}"
        table.add_row(name, *(_marked(_words(score.after), score.fooled) for score in scores))
    return table


def square_table(crafted: "Mapping[str, Sequence[TransferScore] | str]") -> Table:
    """A row a model that an image was crafted on, a column a model that looks at it.

    Cells are the source's probability; a row that could not be made says why.

    Args:
        crafted: By model, in order: what every model makes of its image, or why there is none.
    """
    names = list(crafted)
    table = _headed("crafted on", names)
    for name, scores in crafted.items():
        if isinstance(scores, str):
            table.add_row(Text(name), Text(scores))
            continue
        by_model = {score.model: score for score in scores}
        table.add_row(Text(name), *(_cell(by_model.get(other)) for other in names))
    return table


def _headed(first: str, models: "Sequence[str]") -> Table:
    table = Table(first)
    for name in models:
        table.add_column(Text(name))
    return table


def _cell(score: "TransferScore | None") -> Text:
    if score is None:
        return Text("")
    if score.after is None:
        return Text(_NOT_FINITE)
    source = "no such class" if score.source_after is None else f"{score.source_after:.2%}"
    return _marked(source, score.fooled)


_NOT_FINITE = "not finite"


def _words(prediction: "Prediction | None") -> str:
    if prediction is None:
        return _NOT_FINITE
    return f"{prediction.label} {prediction.probability:.2%}"


def _marked(words: str, fooled: bool) -> Text:
    return Text(f"{words}, fooled", "bold red") if fooled else Text(words)
