"""Methods side by side on one photo, and which of their maps to believe there.

Pure: what is asked is sent by the clients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BadArgument, StatusError
from .types import EvidenceResult, ExplainResult, Model, ResolvedTarget, Until

if TYPE_CHECKING:
    from PIL.Image import Image

CLASS_BLIND = 0.5
"""From this absolute rank correlation with the map of a permuted classifier on, a map is doubted: a
quarter of its ranks' variance, the correlation's square, has nothing to do with the class."""

STABLE = 0.5
"""Below this mean rank correlation with the maps of slightly noisy images, a map says more of the
noise than of the photo: noise of that strength (0.02 of the input's range) cannot be seen."""

USEFUL_GAIN = 0.0
"""A map whose gain is not above this orders pixels no better than chance or the centre does."""

CONCURRENCY = 4
"""Explanations of a comparison under way at once: enough to fill the server's batches, and few
beside other callers'."""

EVIDENCE = ("curves", "randomization", "stability")
"""What a comparison measures by default: what ranks maps, and what casts doubt on them."""


@dataclass(frozen=True)
class Question:
    """What one method of a comparison is asked.

    Attributes:
        method: Its name.
        evidence: What is measured of it, of what it can have.
        until: When it ends; None where it cannot end early.
    """

    method: str
    evidence: Mapping[str, Mapping[str, Any]]
    until: Until | None


def questions(
    model: Model,
    methods: Sequence[str] | None,
    evidence: Mapping[str, Mapping[str, Any]],
    until: Until | None,
) -> tuple[Question, ...]:
    """What each method of a comparison is asked.

    Args:
        model: That is asked.
        methods: All that the model supports when None.
        evidence: What is to be measured, where a method can have it.
        until: When methods end that can end early.

    Raises:
        BadArgument: No methods, or one twice.
    """
    support = {one.method: one for one in model.methods}
    if methods is None:
        methods = [one.method for one in model.methods if one.supported and one.method != "predict"]
    elif isinstance(methods, str):
        raise BadArgument(f"methods: is {methods!r}; must be a sequence of names")
    if not methods:
        raise BadArgument("methods: is empty; must name at least one")
    twice = [name for number, name in enumerate(methods) if name in methods[:number]]
    if twice:
        raise BadArgument(f"methods: names {twice[0]!r} more than once")
    return tuple(
        Question(
            method,
            _possible(evidence, method, support[method].evidence) if method in support else {},
            until if method in support and support[method].anytime else None,
        )
        for method in methods
    )


def _possible(
    evidence: Mapping[str, Mapping[str, Any]], method: str, names: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """The evidence that a method can have; agreement is with methods other than itself."""
    possible = {name: of for name, of in evidence.items() if name in names}
    others = possible.get("agreement", {}).get("methods")
    if others and not isinstance(others, str):
        others = [name for name in others if name != method]
        possible["agreement"] = {**possible["agreement"], "methods": others}
        if not others:
            del possible["agreement"]
    return possible


@dataclass(frozen=True, eq=False)
class Compared:
    """What one method of a comparison says, and how good that is.

    Numbers that were not measured are None.

    Attributes:
        method: Its name.
        result: Its explanation; None where it failed.
        error: Why it failed; None where it did not.
    """

    method: str
    result: ExplainResult | None = field(repr=False)
    error: StatusError | None = None

    @property
    def evidence(self) -> EvidenceResult | None:
        """What was measured of it."""
        return None if self.result is None else self.result.evidence

    @property
    def insertion_area(self) -> float | None:
        """Of the map: the higher, the better."""
        curves = self.evidence and self.evidence.curves
        return curves.map.insertion_area if curves else None

    @property
    def deletion_area(self) -> float | None:
        """Of the map: the lower, the better."""
        curves = self.evidence and self.evidence.curves
        return curves.map.deletion_area if curves else None

    @property
    def gain(self) -> float | None:
        """The map's insertion less deletion area, less that of the better yardstick."""
        curves = self.evidence and self.evidence.curves
        return curves.gain if curves else None

    @property
    def stability(self) -> float | None:
        """The mean rank correlation with the maps of slightly noisy images."""
        measured = self.evidence and self.evidence.stability
        return measured.mean if measured else None

    @property
    def randomization(self) -> float | None:
        """The absolute rank correlation with the map of a permuted classifier."""
        measured = self.evidence and self.evidence.randomization
        return measured.absolute_correlation if measured else None

    @property
    def completeness_error(self) -> float | None:
        """By how much the attributions' sum misses what it should be, relative."""
        measured = self.evidence and self.evidence.completeness
        return measured.relative_error if measured else None

    @property
    def row_count(self) -> int | None:
        """Rows that were run for the map, those of evidence not counted."""
        if self.result is None:
            return None
        if self.result.convergence is not None:
            return self.result.convergence.row_count
        rows = sum(batch.own_row_count for batch in self.result.run.batches)
        return rows - (self.evidence.row_count if self.evidence else 0)

    def numbers(self) -> dict[str, float | int | None]:
        """All of the above by name: insertion, deletion, gain and so on."""
        numbers = {
            "gain": self.gain,
            "insertion": self.insertion_area,
            "deletion": self.deletion_area,
            "randomization": self.randomization,
            "stability": self.stability,
            "completeness_error": self.completeness_error,
        }
        # What is not a number has no place in JSON.
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in numbers.items()}
        return {**finite, "row_count": self.row_count}

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Why not to believe the map, in words; empty where nothing is against it."""
        doubts = []
        if self.gain is not None and not self.gain > USEFUL_GAIN:
            doubts.append(f"no better than the yardsticks: gain {self.gain:.3f}")
        if self.randomization is not None and not abs(self.randomization) < CLASS_BLIND:
            doubts.append(
                "does not depend on the class: rank correlation "
                f"{self.randomization:.2f} with the map of a permuted classifier"
            )
        if self.stability is not None and not self.stability >= STABLE:
            doubts.append(
                "does not stay when the image hardly changes: mean rank correlation "
                f"{self.stability:.2f} with the maps of noisy images"
            )
        return tuple(doubts)


COLUMNS = (
    *("method", "gain", "insertion", "deletion"),
    *("randomization", "stability", "completeness", "rows", "doubts"),
)
"""The heading of Comparison.table."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods side by side: one photo, one target.

    Attributes:
        photo: As it was sent: the bytes of a file, or an array.
        rows: A method each, in the order that was asked for.
    """

    photo: bytes | NDArray[np.uint8] | NDArray[np.float32] = field(repr=False)
    rows: tuple[Compared, ...]

    def ranking(self) -> tuple[Compared, ...]:
        """Which map to believe here, first the one to believe most; see Compared.doubts.

        Methods by gain, those without one last; those that there is a doubt of come after all
        others. Methods that failed are left out.
        """
        return tuple(sorted((row for row in self.rows if row.result is not None), key=_rank))

    @property
    def best(self) -> Compared | None:
        """The first of the ranking; None where there is a doubt of every map."""
        first = next(iter(self.ranking()), None)
        return None if first is None or first.doubts else first

    def table(self) -> list[tuple[str, ...]]:
        """A line for each method in the order of the ranking, those that failed last.

        The columns are COLUMNS; "-" stands for what was not measured. Of doubts, the numbers are
        in columns of their own.
        """
        ranked = self.ranking()
        lines = [
            (
                row.method,
                *(_cell(number) for number in (row.gain, row.insertion_area, row.deletion_area)),
                *(_cell(number, 2) for number in (row.randomization, row.stability)),
                "-" if row.completeness_error is None else f"{row.completeness_error:.2g}",
                str(row.row_count),
                "; ".join(doubt.partition(":")[0] for doubt in row.doubts),
            )
            for row in ranked
        ]
        failed = (row for row in self.rows if row.error is not None)
        blank = ("-",) * (len(COLUMNS) - 2)
        return lines + [(row.method, *blank, f"failed: {row.error}") for row in failed]

    def fields(self) -> dict[str, Any]:
        """All numbers as JSON has them."""
        ranked = self.ranking()
        return {
            "target": target_words(ranked[0].result) if ranked else None,
            "best": None if self.best is None else self.best.method,
            "ranking": [row.method for row in ranked],
            "methods": {
                row.method: {**row.numbers(), "doubts": row.doubts}
                if row.error is None
                else {"error": str(row.error)}
                for row in self.rows
            },
        }

    def sheet(self, *, cell_px: int = 320, column_count: int = 4) -> "Image":
        """The photo, then each method's rendering in the order of the ranking, in a grid.

        Args:
            cell_px: Width of a picture.
            column_count: Pictures side by side.

        Raises:
            NotRequested: The outputs that were asked for leave the rendering out.
            BadArgument: No method succeeded.
        """
        from .render import contact_sheet

        ranked = self.ranking()
        if not ranked:
            raise BadArgument("sheet: no method succeeded: there is nothing to show")
        pictures, captions = [self._picture()], [target_words(ranked[0].result)]
        for row in ranked:
            assert row.result is not None
            pictures.append(row.result.image)
            captions.append(_caption(row))
        starts = range(0, len(pictures), column_count)
        return contact_sheet(
            [pictures[start : start + column_count] for start in starts],
            captions=[captions[start : start + column_count] for start in starts],
            cell_px=cell_px,
        )

    def _picture(self) -> "Image":
        """The photo, upright; of an input that came preprocessed, what it is of."""
        from PIL import Image

        from .render import upright

        if isinstance(self.photo, bytes):
            return upright(self.photo)
        if self.photo.dtype == np.uint8:
            return Image.fromarray(self.photo)
        made = next(row.result.run.preprocessing for row in self.rows if row.result is not None)
        unit = self.photo.transpose(1, 2, 0) * np.array(made.std) + np.array(made.mean)
        return Image.fromarray(np.rint(unit * 255).clip(0, 255).astype(np.uint8))


def _rank(row: Compared) -> tuple[bool, float]:
    known = row.gain is not None and not math.isnan(row.gain)
    return bool(row.doubts), -row.gain if known and row.gain is not None else math.inf


def _cell(number: float | None, digits: int = 3) -> str:
    return "-" if number is None else f"{number:.{digits}f}"


def _caption(row: Compared) -> str:
    numbers = {
        "gain": row.gain,
        "randomization": row.randomization,
        "stability": row.stability,
    }
    words = [f"{name} {number:.2f}" for name, number in numbers.items() if number is not None]
    return f"{row.method}: {', '.join(words)}" if words else row.method


def target_words(result: ExplainResult | None) -> str:
    """What was explained, for a human."""
    return "" if result is None else resolved_words(result.target)


def resolved_words(target: ResolvedTarget) -> str:
    """A target, for a human."""
    if target.neuron is not None:
        neuron = target.neuron
        channel = "all channels" if neuron.channel is None else f"channel {neuron.channel}"
        place = "" if neuron.y is None else f" at {neuron.y}, {neuron.x}"
        words = f"{neuron.layer}, {channel}{place}"
    elif target.class_index is not None:
        words = f"{target.label} (class {target.class_index})"
    else:
        words = " + ".join(target.labels)
    if target.against_class_index is not None:
        words += f" against {target.against_label} (class {target.against_class_index})"
    return words
