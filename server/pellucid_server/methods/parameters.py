"""How a method says what its parameters are: range and default, each in one place.

A method is a dataclass whose fields are named as its message's are; wire reads and writes
them by what is said here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..models.registry import Model


@dataclass(frozen=True)
class Known:
    """What a bound may follow from.

    Attributes:
        model: None where the request names one that is not there.
        values: The parameters before this one, by name; None where one is not known.
    """

    model: Model | None
    values: Mapping[str, Any]


Bound = float | Callable[[Known], float | None]
"""A number, or how it follows from what is known; None: it cannot be told."""


@dataclass(frozen=True)
class Parameters:
    """What has parameters: a method, or a part of one."""

    def irrelevant(self) -> Mapping[str, str]:
        """Parameters that do not matter as the others are, and when they would."""
        return {}

    def contradictions(self, model: Model) -> Mapping[str, str]:
        """What is wrong with parameters that are in range each."""
        return {}


@dataclass(frozen=True)
class Number:
    """A number from least to most, both included, but for least where it is to be exceeded."""

    default: Bound
    least: float
    most: Bound
    above: bool = False
    because: str = ""
    """Why, where that is not plain."""


@dataclass(frozen=True)
class Choice:
    """One of an enum's values, by its short lower-case name."""

    default: str | Callable[[Known], str]


@dataclass(frozen=True)
class Flag:
    """True or false."""

    default: bool | Callable[[Known], bool]


@dataclass(frozen=True)
class LayerName:
    """A layer with maps that the target depends on; by default the last one."""


@dataclass(frozen=True)
class Nested:
    """A message of its own, with parameters of its own; their defaults may be others here."""

    kind: type
    defaults: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Inputs:
    """One tensor in the network's input frame, or several where that is allowed."""

    several: bool = False


Parameter = Number | Choice | Flag | LayerName | Nested | Inputs


def number(default: Bound, least: float, most: Bound, because: str = "", **without: Any) -> Any:
    """A field for a number.

    Args:
        default: In a message; of the dataclass, too, unless it follows from what is known.
        least: Included.
        most: Included.
        because: Why, where that is not plain.
        **without: `without=value`: the dataclass's own default.
    """
    metadata = {"parameter": Number(default, least, most, because=because)}
    if without:
        return field(default=without["without"], metadata=metadata)
    if callable(default):
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def positive(default: Bound, most: Bound) -> Any:
    """A field for a number of more than 0."""
    parameter = Number(default, 0, most, above=True)
    return (
        field(metadata={"parameter": parameter})
        if callable(default)
        else field(default=default, metadata={"parameter": parameter})
    )


def choice(default: str | Callable[[Known], str]) -> Any:
    metadata = {"parameter": Choice(default)}
    return (
        field(metadata=metadata) if callable(default) else field(default=default, metadata=metadata)
    )


def flag(default: bool | Callable[[Known], bool]) -> Any:
    metadata = {"parameter": Flag(default)}
    return (
        field(metadata=metadata) if callable(default) else field(default=default, metadata=metadata)
    )


def layer_name() -> Any:
    return field(metadata={"parameter": LayerName()})


def nested(kind: type, **defaults: Any) -> Any:
    return field(
        default_factory=lambda: kind(**defaults),
        metadata={"parameter": Nested(kind, tuple(defaults.items()))},
    )


def inputs(several: bool = False) -> Any:
    return field(default=None, metadata={"parameter": Inputs(several)})


MOST_SEED = 2**63 - 1


def seed() -> Any:
    """Of whatever is drawn at random: at least 0."""
    return number(0, 0, MOST_SEED)
