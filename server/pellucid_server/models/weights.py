"""Weights from a safetensors file: its header is checked before anything else of it is read."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import quoted

MOST_WEIGHTS_BYTES = 4 << 30
"""Twice the largest of torchvision's published weights; a network takes up to three times it."""
MOST_CLASSES = 100_000
_MOST_HEADER_BYTES = 16 << 20
"""A hundred thousand tensors."""
_MOST_AXES = 16
_MOST_NAMED = 4
"""Tensors that a message names before it counts the others."""

_ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
_FLOATS = ("F64", "F32", "F16", "BF16")


class BadWeights(ValueError):
    """Weights that cannot be used; the message says why."""


@dataclass(frozen=True)
class Entry:
    """What a safetensors file says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file: its header is read, and its length held against it.

    Raises:
        BadWeights: The file is too large, or is not what its header says.
    """
    size = file.stat().st_size
    if size > MOST_WEIGHTS_BYTES:
        raise BadWeights(f"has {size} bytes; at most {MOST_WEIGHTS_BYTES} are accepted")
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > size - 8:
            raise BadWeights(
                f"is no safetensors file, or cut off: its header would have {length} bytes, and"
                f" {max(0, size - 8)} follow"
            )
        if length > _MOST_HEADER_BYTES:
            raise BadWeights(f"has a header of {length} bytes; at most {_MOST_HEADER_BYTES}")
        text = opened.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # also of what is no UTF-8
        raise BadWeights(f"has a header that is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise BadWeights("has a header that is no JSON object")
    header.pop("__metadata__", None)
    entries: dict[str, Entry] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, about in header.items():
        entries[name], start, stop = _entry(name, about)
        ranges.append((start, stop, name))
    _check_ranges(sorted(ranges), size - 8 - length)
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _entry(name: str, about: Any) -> tuple[Entry, int, int]:
    try:
        dtype, shape, (start, stop) = about["dtype"], about["shape"], about["data_offsets"]
        numbers = [*shape, start, stop]
        sound = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in numbers)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound or len(shape) > _MOST_AXES:
        raise BadWeights(f"has a header that does not say what {quoted(name)} is")
    if dtype not in _ITEM_BYTES:
        known = ", ".join(_FLOATS)
        raise BadWeights(
            f"holds {quoted(name)} as {quoted(dtype)}, which cannot be used; {known} can"
        )
    taken = prod(shape) * _ITEM_BYTES[dtype]
    if stop - start != taken:
        raise BadWeights(
            f"gives {quoted(name)} {stop - start} bytes; {_times(shape)} of {dtype} takes {taken}"
        )
    return Entry(dtype, tuple(shape)), start, stop


def _check_ranges(ranges: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Tensors lie side by side, from the first byte of the data to its last."""
    end = 0
    for start, stop, name in ranges:
        if stop > data_bytes:
            raise BadWeights(
                f"is cut off, or lies: {quoted(name)} ends at byte {stop} of {data_bytes}"
            )
        if start != end:
            fault = "overlaps the tensor before it" if start < end else "leaves a gap before it"
            raise BadWeights(f"lies about its tensors: {quoted(name)} {fault}, at byte {start}")
        end = stop
    if end != data_bytes:
        raise BadWeights(f"has {data_bytes - end} bytes behind its last tensor")


def _times(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"


def class_count_of(entries: Mapping[str, Entry], module: nn.Module, built_for: int) -> int:
    """How many classes weights are for, where they are for another number than the network.

    Args:
        entries: The tensors of the weights.
        module: The network.
        built_for: Its number of classes.

    Returns:
        The number by which the first axis of some tensors of the weights differs from the
        network's, if it is the same one in all of them and nothing else differs.
    """
    counts = {
        entries[name].shape[:1]
        for name, tensor in module.state_dict().items()
        if name in entries
        and tensor.shape != entries[name].shape
        and tensor.shape[:1] == (built_for,)
        and tensor.shape[1:] == entries[name].shape[1:]
    }
    (count,) = counts.pop() if len(counts) == 1 else (built_for,)
    return count if 1 <= count <= MOST_CLASSES else built_for


def load_weights(file: Path, entries: Mapping[str, Entry], module: nn.Module) -> None:
    """Gives a network the weights of a safetensors file, in the precision that they have.

    Counters of batches, which only training reads, may be missing. Nothing is read where
    something does not fit.

    Args:
        file: Its path.
        entries: Its header.
        module: The network, changed in place. Tensors that it does not have must not be
            among the entries.

    Raises:
        BadWeights: A tensor is missing, unexpected, or of another shape or dtype, or a value
            is not finite. All such tensors are counted, and the first ones named.
    """
    wanted = module.state_dict()
    counters = {name for name in wanted if name.endswith(".num_batches_tracked")}
    shared = [(name, tensor, entries[name]) for name, tensor in wanted.items() if name in entries]
    _refuse(
        {
            "lacks": [name for name in wanted if name not in entries and name not in counters],
            "holds what the architecture has not:": [n for n in entries if n not in wanted],
            "does not fit:": [
                f"{name} is {_times(entry.shape)}, the architecture's is {_times(tensor.shape)}"
                for name, tensor, entry in shared
                if tensor.shape != entry.shape
            ],
            f"holds dtypes that cannot be used ({', '.join(_FLOATS)} can):": [
                f"{name} is {entry.dtype}"
                for name, tensor, entry in shared
                if tensor.is_floating_point() and entry.dtype not in _FLOATS
            ],
            "holds fractions where the architecture counts:": [
                f"{name} is {entry.dtype}"
                for name, tensor, entry in shared
                if not tensor.is_floating_point() and entry.dtype in _FLOATS
            ],
        }
    )
    # A copy: what safetensors gives stays a map of the file, which may be changed or cut.
    try:
        tensors = {name: t.clone() for name, t in load_file(file).items() if name in entries}
    except SafetensorError as error:
        raise BadWeights(f"cannot be read: {error}") from None
    unfit = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    _refuse({"has values that are not finite:": unfit})
    for name, tensor, _ in shared:
        if not tensor.is_floating_point():
            tensors[name] = tensors[name].to(tensor.dtype)
    module.load_state_dict({name: wanted[name] for name in counters} | tensors, assign=True)


def _refuse(faults: Mapping[str, list[str]]) -> None:
    complaints = []
    for fault, names in faults.items():
        if names:
            rest = len(names) - _MOST_NAMED
            more = f" and {rest} more" if rest > 0 else ""
            complaints.append(f"{fault} {', '.join(n[:200] for n in names[:_MOST_NAMED])}{more}")
    if complaints:
        raise BadWeights("; ".join(complaints))
