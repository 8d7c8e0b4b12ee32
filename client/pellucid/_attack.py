"""Between Python arguments and the messages of attacks: the core that both clients share."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._wire.fields import parse, set_fields
from ._wire.requests import class_index_of
from .errors import BadArgument
from .v1 import attack_pb2, optimize_pb2

_FIELDS = attack_pb2.Attack.DESCRIPTOR.fields_by_name
_SEVERAL = "universal"
"""The method that is of many photos."""

METHODS = tuple(
    field.name
    for field in attack_pb2.Attack.DESCRIPTOR.oneofs_by_name["method"].fields
    if field.name != _SEVERAL
)
"""The algorithms that attack one photo."""

_COMMON = ("progress_every", "preview_every", "checkpoint_every", "checkpoint_precision")


def attack_request(
    method: str,
    *,
    source: int | str | None,
    goal: int | str | None,
    linear_layers: Sequence[str],
    transfer: bool,
    model: str,
    include_pixels: bool,
    parameters: Mapping[str, Any],
) -> optimize_pb2.OptimizeSpec:
    """What is asked, but for the photo and a checkpoint."""
    if method not in METHODS:
        raise BadArgument(f"method: is {method!r}; must be one of {', '.join(METHODS)}")
    spec = optimize_pb2.OptimizeSpec()
    set_fields(spec, model=model, include_pixels=include_pixels)
    attack = spec.attack
    set_fields(attack, linear_layers=linear_layers, transfer=transfer)
    set_method(attack, method, parameters)
    _set_class(attack, "class_index", "label", source)
    _set_class(attack, "goal_class_index", "goal_label", goal)
    return spec


def set_method(attack: attack_pb2.Attack, method: str, parameters: Mapping[str, Any]) -> None:
    """Sets an algorithm with its parameters.

    Raises:
        BadArgument: It has no such parameters.
    """
    known = parameters_of(method)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        has = ", ".join(known)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of {method}, which has {has}")
    inner = getattr(attack, method)
    inner.SetInParent()
    for name, value in parameters.items():
        set_fields(attack if name in _COMMON else inner, **{name: value})


def parameters_of(method: str) -> tuple[str, ...]:
    """The parameters of a method, and of all.

    Raises:
        BadArgument: There is no such method.
    """
    if method not in (*METHODS, _SEVERAL):
        raise BadArgument(f"method: is {method!r}; must be one of {', '.join(METHODS)}")
    return (*_fields_of(method), *_COMMON)


def _fields_of(method: str) -> Mapping[str, Any]:
    kind = _FIELDS[method].message_type
    assert kind is not None
    return kind.fields_by_name


def parameter(method: str, text: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    known = parameters_of(method)
    if not equals or name not in known:
        raise BadArgument(
            f"--parameter: is {text!r}; must be NAME=VALUE, where names are {', '.join(known)}"
        )
    fields = _FIELDS if name in _COMMON else _fields_of(method)
    return name, parse(name, fields[name], value)


def _set_class(
    attack: attack_pb2.Attack, by_index: str, by_label: str, value: int | str | None
) -> None:
    if isinstance(value, str):
        setattr(attack, by_label, value)
    elif value is not None:
        setattr(attack, by_index, class_index_of(value))
