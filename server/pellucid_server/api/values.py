"""JSON as callers write it, read strictly, and what messages repeat of it."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from ..engine.admission import Held
from ..errors import InvalidArgument, Violation

_MOST_NAMES = 10_000
"""Objects and quotes in a body. An object takes ten times a number's time, all of it under the
interpreter's lock: these take a few milliseconds, and requests have some hundreds."""

_MOST_DIGITS = 400
"""Of an integer: reading them takes time by their square, and no double has more than 309."""

_VALUE_BYTES = 64
"""About what a value takes: a number, or an empty list, and its place in a list."""

_MOST_SHOWN = 60
"""Characters of a wrong value that its message repeats."""


class Object(list[tuple[str, Any]]):
    """A JSON object as its members in order, so that one given twice is seen."""


def parse_json(body: bytes, most_values: int, held: Held | None = None) -> object:
    """What a body says; objects keep members that are given twice.

    Args:
        body: JSON in UTF-8.
        most_values: The most values that it may have: what is parsed takes memory for each.
        held: Counts that memory until the request is answered; None: it is too small to count.

    Raises:
        InvalidArgument: It is not JSON, or has too many values, objects or texts.
        Overloaded: Other requests leave no room for it.
    """
    object_count = body.count(b"{")
    value_count = object_count + body.count(b",") + body.count(b"[")
    if value_count > most_values:
        raise InvalidArgument(f"the body has more than {most_values} values")
    if object_count + body.count(b'"') > _MOST_NAMES:
        raise InvalidArgument(f"the body has more than {_MOST_NAMES} objects and quotes")
    if held is not None:
        held.add(len(body) + value_count * _VALUE_BYTES)
    try:
        return json.loads(
            body.decode(), object_pairs_hook=Object, parse_int=_integer, parse_constant=_refuse
        )
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the body is not UTF-8: see byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"the body is not JSON: see line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidArgument("the body is nested too deeply") from None


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise InvalidArgument("the body is not JSON: it has a number that is too long")
    return int(text)


def _refuse(constant: str) -> NoReturn:
    raise InvalidArgument(f'the body is not JSON: {constant} must be written "{constant}"')


def decode_base64(value: object) -> bytes:
    """Base64 of either alphabet, with or without padding; nothing else is skipped over.

    Raises:
        binascii.Error: It is something else.
    """
    if not isinstance(value, str) or not value.isascii():
        raise binascii.Error
    standard = value.encode().translate(_STANDARD_ALPHABET)
    return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)


_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")


def shown(value: object) -> str:
    """A wrong value, fit for a message."""
    match value:
        case Object():
            return "an object"
        case list():
            return "a list"
        case str() if len(value) > _MOST_SHOWN:
            return f"{value[:_MOST_SHOWN]!r}… of {len(value)} characters"
        case str():
            return repr(value)
        case _:
            text = json.dumps(value)
            return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def plain(name: str) -> str:
    """A name that a caller made up, fit for a message: short, and without lone surrogates."""
    return name[:_MOST_SHOWN].encode(errors="backslashreplace").decode()


def raise_any(found: Sequence[Violation]) -> None:
    """Refuses a request with all that is wrong with it.

    Raises:
        InvalidArgument: Something is.
    """
    if found:
        message = "; ".join(f"{v.field}: {v.description}" for v in found)
        raise InvalidArgument(message, violations=found)
