"""Bodies of REST, JSON or a form, as request messages: the proto JSON mapping, read strictly.

A form is the same tree of values as a JSON object, with texts for leaves, so both are read by
the same rules, and what is wrong is called by the same name: the field's path in the contract.
"""

import functools
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from pellucid.v1 import codes_pb2, data_pb2, inspect_pb2, optimize_pb2, stylize_pb2

from ..errors import Violation
from ..wire import MOST_PHOTOS
from . import values
from .multipart import Part, split
from .tree import NUMBER, descriptor_of, fill

METHOD = "method"
"""The form field that names a member of the request's oneof of the same name."""
EVIDENCE = "evidence"
"""The form field that names members of the request's message of the same name."""
EXPLAIN = "explain"
"""The form field that names methods, whose explanations are sent along as their defaults are."""
_FILES = (data_pb2.Image.DESCRIPTOR, stylize_pb2.StylePicture.DESCRIPTOR)
_FIRST_ALONE = (optimize_pb2.Objective.DESCRIPTOR, stylize_pb2.NamedStyle.DESCRIPTOR)
"""Repeated messages whose first element a form can have: by objectives[0], fast.styles[0]."""
IMAGES = "images"
"""The form field of a batch's images. All else that its form has is of the message beside it."""
PHOTOS = "photos"
"""The form field of a photo set, beside all else that a form has."""
TIMEOUT = "timeout_ms"
"""The form field, and query parameter, of the deadline."""
_MOST_VALUES = 1000
"""Values in a JSON body: far above any request's, and what is parsed stays as small as it was."""
_MOST_PARTS = 128
"""Of a form, the photos of a set not counted."""
MOST_TEXT_BYTES = 16 << 10


def read(
    request: Message, body: bytes, boundary: bytes | None, query: Sequence[tuple[str, str]]
) -> float | None:
    """Fills in a request from its body and its query.

    Args:
        request: An empty message.
        body: JSON, or a form.
        boundary: A form's boundary; None for JSON.
        query: Names and values of the query.

    Returns:
        The deadline in milliseconds from the request's arrival, if it brings one.

    Raises:
        InvalidArgument: With every violation.
    """
    found: list[Violation] = []
    timeouts = []
    for name, text in query:
        if name == TIMEOUT:
            timeouts.append(text)
        else:
            found.append(Violation(values.plain(name), f"unknown; the query may have {TIMEOUT}"))
    if boundary is None:
        fill(found, request, values.parse_json(body, _MOST_VALUES), "")
    else:
        timeouts += _read_form(found, request, split(body, boundary, _most_parts(request)))
    timeout_ms = _read_timeout(found, timeouts)
    values.raise_any(found)
    return timeout_ms


def query_timeout_ms(query: Sequence[tuple[str, str]]) -> float | None:
    """The deadline that a query brings; none if it is wrong, which read says later."""
    wrong: list[Violation] = []
    timeout_ms = _read_timeout(wrong, [text for name, text in query if name == TIMEOUT])
    return None if wrong else timeout_ms


def _read_timeout(found: list[Violation], texts: Sequence[str]) -> float | None:
    if len(texts) > 1:
        found.append(Violation(TIMEOUT, "given more than once"))
    for text in texts:
        if not NUMBER.fullmatch(text) or not 0 < float(text) < math.inf:
            found.append(Violation(TIMEOUT, f"is {values.shown(text)}; must be a positive number"))
            return None
    return float(texts[0]) if texts else None


# Forms.


@dataclass(frozen=True)
class FormField:
    """A scalar of a request, or a message of it, by its path in the request."""

    path: tuple[str, ...]
    descriptor: FieldDescriptor
    choices: frozenset[tuple[str, ...]]
    """The messages on its path, itself too, that a form has instead of others: by their paths."""

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def is_message(self) -> bool:
        """Whether a form can only choose it, at its defaults: by an empty text."""
        return self.descriptor.message_type is not None

    def split(self, text: str) -> list[str]:
        """The elements of a repeated one in a text; a label may have a comma itself."""
        return [text] if self.name == "labels" else text.split(",")

    def read(self, text: str) -> object:
        """The text as the JSON value that it stands for; as it is when it stands for none."""
        if self.descriptor.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        return self.enum_names.get(text.lower(), text)

    @property
    def enum_names(self) -> dict[str, str]:
        """Short lower-case names of an enum to the full ones."""
        enum = self.descriptor.enum_type
        if enum is None:
            return {}
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        return {v.name.removeprefix(prefix).lower(): v.name for v in enum.values if v.number}


def file_fields(request: Descriptor) -> tuple[str, ...]:
    """Names of the fields that are files in a form: images, messages with one, and bytes."""
    return tuple(f.name for f in request.fields if f.message_type in _FILES or _is_bytes(f))


def _is_bytes(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_BYTES


def files_are_optional(request: Descriptor) -> bool:
    """Whether what else is asked for says which of the files there must be."""
    return len(file_fields(request)) > 1 or request is inspect_pb2.InspectRequest.DESCRIPTOR


def asked_of_each(request: Descriptor) -> FieldDescriptor | None:
    """The message of a batch that says what is asked of each image; None: there is none."""
    if IMAGES not in request.fields_by_name:
        return None
    messages = (field for field in request.fields if field.message_type is not None)
    return next((field for field in messages if field.name != IMAGES), None)


def attachable(request: Descriptor) -> tuple[str, ...]:
    """Names of the methods whose explanations may be sent along."""
    field = request.fields_by_name.get(EXPLAIN)
    inner = None if field is None or not field.is_repeated else field.message_type
    return () if inner is None else methods(inner)


def methods(request: Descriptor) -> tuple[str, ...]:
    """Names of the request's methods; none where it has no such oneof."""
    oneof = request.oneofs_by_name.get(METHOD)
    return () if oneof is None else tuple(field.name for field in oneof.fields)


def method_is_optional(request: Descriptor) -> bool:
    """Whether one of the methods is meant where none is named."""
    return request is codes_pb2.ProjectSpec.DESCRIPTOR


@functools.cache
def form_fields(request: Descriptor, method: str | None = None) -> tuple[FormField, ...]:
    """The scalars that a form may have, beside its files and the name of its method.

    Args:
        request: The request's descriptor.
        method: With only this method's parameters; None: with all methods'.
    """
    return tuple(field for field in _fields(request, method) if not field.is_message)


@functools.cache
def form_messages(request: Descriptor, method: str | None = None) -> tuple[FormField, ...]:
    """The messages that a form may choose by an empty text: those that are one of several.

    The others say nothing where they are empty, and METHOD names its own. Args are those of
    form_fields.
    """
    named = methods(request)
    return tuple(
        field
        for field in _fields(request, method)
        if field.is_message and field.path in field.choices and field.dotted not in named
    )


def _fields(request: Descriptor, method: str | None) -> Iterator[FormField]:
    others = set(methods(request)) - {method} if method else set()
    for field in _each(request, ()):
        if field.path[0] not in file_fields(request) and field.path[0] not in others:
            yield field


def _each(
    message: Descriptor, path: tuple[str, ...], choices: frozenset[tuple[str, ...]] = frozenset()
) -> Iterator[FormField]:
    for field in message.fields:
        first = field.message_type in _FIRST_ALONE
        here = (*path, f"{field.name}[0]" if first else field.name)
        if field.message_type is None:
            yield FormField(here, field, choices)
        elif first or not field.is_repeated:
            oneof = field.containing_oneof  # with one field alone it is that of an optional
            several = oneof is not None and len(oneof.fields) > 1
            within = choices | {here} if several else choices
            yield FormField(here, field, within)
            yield from _each(field.message_type, here, within)


def has_field(request: Message, name: str) -> bool:
    """Whether a form has a field of that name, with whichever method."""
    return name == METHOD or name in _by_name(descriptor_of(request), None)


@functools.cache
def _by_name(request: Descriptor, method: str | None) -> dict[str, tuple[FormField, ...]]:
    """What a form has by its dotted name, by its name in the method, and by its short one.

    Where a short name is several fields', the one comes first that lies highest in the method.
    """
    reserved = {*file_fields(request), METHOD, TIMEOUT}
    named: dict[str, tuple[FormField, ...]] = {}
    short: dict[str, tuple[FormField, ...]] = {}

    def highest(field: FormField) -> tuple[bool, bool, int]:
        return (field.is_message, field.path[0] != method, len(field.path))

    every = (*form_fields(request, method), *form_messages(request, method))
    for field in sorted(every, key=highest):
        named[field.dotted] = (field,)
        if field.path[0] == method:
            named[".".join(field.path[1:])] = (field,)
        # What is measured is named in full: a seed alone is the method's.
        if field.name not in reserved and field.path[0] != EVIDENCE:
            short[field.name] = (*short.get(field.name, ()), field)
        if field.name == "fill" and len(field.path) > 2:  # baseline=blur is baseline.fill=blur
            short[field.path[-2]] = (*short.get(field.path[-2], ()), field)
    return short | named


def _most_parts(request: Message) -> int:
    has_photos = PHOTOS in descriptor_of(request).fields_by_name
    return _MOST_PARTS + (MOST_PHOTOS if has_photos else 0)


def _read_form(found: list[Violation], request: Message, parts: Sequence[Part]) -> list[str]:
    """Fills in a request from a form; returns the texts of its timeout."""
    descriptor = descriptor_of(request)
    batch = asked_of_each(descriptor)
    files: dict[str, list[Part]] = {name: [] for name in file_fields(descriptor)}
    texts: dict[str, list[str]] = {}
    for part in parts:
        if part.name in files:
            files[part.name].append(part)
        elif part.is_file:
            found.append(Violation(values.plain(part.name), "is a file; must be a text"))
        elif (text := _decode_text(found, part)) is not None:
            texts.setdefault(part.name, []).append(text)
    timeouts = texts.pop(TIMEOUT, [])
    asked = request
    if batch is not None:
        asked = getattr(request, batch.name)
        asked.SetInParent()
    read_texts(found, asked, texts, (*files, TIMEOUT))
    optional = files_are_optional(descriptor)
    for name, given in files.items():
        if descriptor.fields_by_name[name].is_repeated:
            _read_files(found, getattr(request, name), name, given, optional=optional)
        else:
            _read_file(found, request, name, given, optional=optional)
    return timeouts


def read_texts(
    found: list[Violation],
    request: Message,
    texts: dict[str, list[str]],
    beside: Sequence[str] = (),
    without: Collection[str] = (),
) -> None:
    """Fills in a request from the texts of its fields, noting all that is wrong with them.

    Args:
        found: Where violations are noted.
        request: An empty message.
        texts: By the fields' names: dotted, or short where that is clear.
        beside: Names that are read elsewhere, for a message that lists what there is.
        without: Fields of the request that are not read from texts here.
    """
    descriptor = descriptor_of(request)
    tree = values.Object()
    method = _read_method(found, descriptor, texts, tree)
    if EVIDENCE not in without:
        _read_evidence(found, descriptor, texts, tree)
    _read_attached(found, descriptor, texts, tree)
    _read_fields(found, descriptor, texts, method, tree, beside, without)
    fill(found, request, tree, "")


def _decode_text(found: list[Violation], part: Part) -> str | None:
    if len(part.data) > MOST_TEXT_BYTES:
        found.append(
            Violation(
                values.plain(part.name),
                f"has {len(part.data)} bytes; a text has at most {MOST_TEXT_BYTES}",
            )
        )
        return None
    try:
        return part.data.decode()
    except UnicodeDecodeError:
        found.append(Violation(values.plain(part.name), "is not UTF-8"))
        return None


def _read_file(
    found: list[Violation],
    request: Message,
    name: str,
    given: Sequence[Part],
    *,
    optional: bool,
) -> None:
    if not given and optional:
        return
    if len(given) != 1:
        many = f"given {len(given)} times; exactly one file" if given else "required; a file"
        found.append(Violation(name, many))
    elif _is_file(found, name, given[0]):
        data = bytes(given[0].data)
        if _is_bytes(descriptor_of(request).fields_by_name[name]):
            setattr(request, name, data)
        else:
            getattr(request, name).encoded = data


def _read_files(
    found: list[Violation],
    images: Any,
    name: str,
    given: Sequence[Part],
    *,
    optional: bool,
) -> None:
    if not given and not optional:
        found.append(Violation(name, "required; a file, and again for more"))
    for part in given:
        if _is_file(found, name, part):
            one = images.add()
            image = one if isinstance(one, data_pb2.Image) else one.image
            image.encoded = bytes(part.data)


def _is_file(found: list[Violation], name: str, part: Part) -> bool:
    if not part.is_file:
        found.append(Violation(name, f"is a text; must be a file (curl's -F {name}=@photo.jpg)"))
    return part.is_file


def _read_method(
    found: list[Violation], descriptor: Descriptor, texts: dict[str, list[str]], tree: values.Object
) -> str | None:
    allowed = methods(descriptor)
    if not allowed:
        return None
    given = texts.pop(METHOD, [])
    one_of = f"one of {', '.join(allowed)}"
    if not given and method_is_optional(descriptor):
        return None
    if not given:
        found.append(Violation(METHOD, f"required; {one_of}"))
    elif len(given) > 1:
        found.append(Violation(METHOD, "given more than once"))
    elif given[0] not in allowed:
        found.append(Violation(METHOD, f"is {values.shown(given[0])}; must be {one_of}"))
    else:
        tree.append((given[0], values.Object()))
        return given[0]
    return None


def measures(request: Descriptor) -> tuple[str, ...]:
    """Names of the evidence that a request can ask for."""
    field = request.fields_by_name.get(EVIDENCE)
    inner = None if field is None else field.message_type
    return () if inner is None else tuple(inner.fields_by_name)


def _read_evidence(
    found: list[Violation], descriptor: Descriptor, texts: dict[str, list[str]], tree: values.Object
) -> None:
    allowed = measures(descriptor)
    if not allowed:
        return
    for text in texts.pop(EVIDENCE, []):
        for name in (word.strip() for word in text.split(",")):
            if name in allowed:
                _insert(tree, (EVIDENCE, name, ""), None)
            else:
                one_of = ", ".join(allowed)
                found.append(
                    Violation(EVIDENCE, f"is {values.shown(name)}; must be among {one_of}")
                )


def _read_attached(
    found: list[Violation], descriptor: Descriptor, texts: dict[str, list[str]], tree: values.Object
) -> None:
    allowed = attachable(descriptor)
    attached: list[values.Object] = []
    for text in texts.pop(EXPLAIN, []) if allowed else ():
        for name in (word.strip() for word in text.split(",")):
            if name in allowed:
                attached.append(values.Object([(name, values.Object())]))
            else:
                one_of = ", ".join(allowed)
                found.append(Violation(EXPLAIN, f"is {values.shown(name)}; must be among {one_of}"))
    if attached:
        tree.append((EXPLAIN, attached))


def _read_fields(
    found: list[Violation],
    descriptor: Descriptor,
    texts: dict[str, list[str]],
    method: str | None,
    tree: values.Object,
    beside: Sequence[str],
    without: Collection[str],
) -> None:
    allowed, of_all = (
        {
            name: kept
            for name, fields in _by_name(descriptor, of).items()
            if (kept := [field for field in fields if field.path[0] not in without])
        }
        for of in (method, None)
    )
    # Names of one field say first what is chosen, wherever they stand in the form; then a short
    # name of several is that of a field that can be beside it.
    clear = [allowed[name][0] for name in texts if len(allowed.get(name, ())) == 1]
    chosen = frozenset({(method,)} if method else ()).union(*(field.choices for field in clear))
    messages: dict[FormField, list[str]] = {}  # by the field: it may have been given by two names
    for name, given in texts.items():
        if name in allowed:
            fields = allowed[name]
            field = next((one for one in fields if one.choices <= chosen), fields[0])
            if field.is_message:
                messages.setdefault(field, []).extend(given)
                _read_message(found, descriptor, field, messages[field], tree)
            elif field.descriptor.is_repeated:
                words = [word.strip() for text in given for word in field.split(text)]
                _insert(tree, field.path, [field.read(word) for word in words])
            else:
                for text in given:
                    _insert(tree, field.path, field.read(text))
        elif name in of_all:
            field = of_all[name][0]
            found.append(Violation(field.dotted, f"is of {field.path[0]}, not of {method}"))
        else:
            every = (*form_fields(descriptor, method), *form_messages(descriptor, method))
            known = [one.name for one in every if one.path[0] not in without]
            known = [EXPLAIN] * bool(attachable(descriptor)) + known
            known = [*beside, *([METHOD] * bool(methods(descriptor))), *known]
            there_are = f"unknown; the fields are: {', '.join(dict.fromkeys(known))}"
            found.append(Violation(values.plain(name), there_are))


def _read_message(
    found: list[Violation],
    descriptor: Descriptor,
    field: FormField,
    given: Sequence[str],
    tree: values.Object,
) -> None:
    if len(given) > 1:
        found.append(Violation(field.dotted, "given more than once"))
    elif given[0]:
        inner = [f for f in form_fields(descriptor) if f.path[: len(field.path)] == field.path]
        fields = ", ".join(one.dotted for one in inner) or "none"
        empty = f"is {values.shown(given[0])}; must be empty, for all at defaults; its fields are: "
        found.append(Violation(field.dotted, empty + fields))
    else:
        _insert(tree, (*field.path, ""), None)


def named_in(request: Descriptor, field: FormField) -> str:
    """The shortest name by which a form has a message, with whichever method."""
    return field.name if _by_name(request, None).get(field.name) == (field,) else field.dotted


def _insert(tree: values.Object, path: Sequence[str], value: object) -> None:
    """Adds a leaf to the tree; one that is there already stays, to be seen.

    A leaf without a name makes the object that it would be in.
    """
    for step in path[:-1]:
        name, first, _ = step.partition("[0]")
        inner = next((item for known, item in tree if known == name), None)
        if inner is None:
            inner = values.Object()
            tree.append((name, [inner] if first else inner))
        tree = inner[0] if first and not isinstance(inner, values.Object) else inner
    if path[-1]:
        tree.append((path[-1], value))
