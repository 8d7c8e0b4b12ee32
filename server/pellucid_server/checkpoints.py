"""Checkpoints of optimizations: a header, tensors and a signature. Nothing is unpickled."""

import hashlib
import hmac
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MAGIC = b"pellucid checkpoint 3\n"
_LENGTH_BYTES = 4
_SIGNATURE_BYTES = hashlib.sha256().digest_size


class BadCheckpoint(ValueError):
    """Why bytes are no checkpoint of a server with this key."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a job.

    Attributes:
        header: Of JSON's types: what the tensors belong to.
        tensors: By name.
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def pack(self, key: bytes) -> bytes:
        """As signed bytes."""
        return b"".join(self.parts(key))

    def parts(self, key: bytes) -> Iterator[bytes | memoryview]:
        """The same bit by bit, tensors as they lie in memory: nothing is copied.

        They are magic, the header's length, the header, safetensors, HMAC-SHA256.
        """
        signature = hmac.new(key, digestmod="sha256")
        header = json.dumps(self.header, sort_keys=True).encode()
        length = len(header).to_bytes(_LENGTH_BYTES, "little")
        for part in (_MAGIC, length, header, *_as_safetensors(self.tensors)):
            signature.update(part)
            yield part
        yield signature.digest()


def _as_safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Tensors as a file of their format has them: the widest first, so that all are aligned."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    entries, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.itemsize
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little")
    yield header
    for _, tensor in ordered:
        array = tensor.detach().cpu().contiguous().numpy()
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        yield little_endian.reshape(-1).view("u1").data


_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
}
"""What may be in a checkpoint, by its name in safetensors."""


def unpack(data: bytes | bytearray, key: bytes) -> Checkpoint:
    """The way back of pack; each tensor is copied once.

    Raises:
        BadCheckpoint: They are no checkpoint, or not signed with this key.
    """
    if not data.startswith(_MAGIC):
        raise BadCheckpoint("is no checkpoint of this version")
    whole = memoryview(data)
    body, signature = whole[:-_SIGNATURE_BYTES], whole[-_SIGNATURE_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, body, "sha256"), signature):
        raise BadCheckpoint(
            "is damaged, or was signed with another key: servers need the same checkpoint_key_file"
        )
    start = len(_MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(body[len(_MAGIC) : start], "little")
    try:
        header = json.loads(bytes(body[start:end]))
        return Checkpoint(header, dict(_of_safetensors(body[end:])))
    except (ValueError, LookupError, TypeError) as error:  # this key signed what cannot be read
        raise BadCheckpoint("is no checkpoint of this version") from error


def _of_safetensors(file: memoryview) -> Iterator[tuple[str, Tensor]]:
    """The way back of _as_safetensors.

    The library's own load takes bytes, of which this is a part, and so two copies of the whole at
    once; here each tensor is copied once, and nothing else is.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    entries, contents = json.loads(bytes(file[8:start])), file[start:]
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        kept = np.frombuffer(contents[first:last], np.dtype(_NUMPY[entry["dtype"]]))
        native = kept.reshape(entry["shape"]).astype(kept.dtype.newbyteorder("="))
        yield name, torch.from_numpy(native)


_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}
"""The same types, as they lie in a file."""


_MOST_EXPONENT = 15
"""Of float16, whose largest number is just below 2^16."""


def halved(tensor: Tensor) -> tuple[Tensor, float]:
    """A tensor in 16 bits a number, as its signed roots times a factor, which comes with it.

    Roots reach from the largest number down by 16 orders of magnitude at a relative error of 1e-3,
    where float16 itself, scaled as well, reaches down by 8: of an image's second moments by Adam,
    which span 22, it loses some, whose pixels then leap.
    """
    roots = tensor.sign() * tensor.abs().sqrt()
    largest = float(roots[roots.isfinite()].abs().max()) if roots.isfinite().any() else 0.0
    factor = 2.0 ** (_MOST_EXPONENT - math.frexp(largest)[1])
    return (roots * factor).half(), factor


def restored(tensor: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    """The way back of halved."""
    roots = tensor.double() / factor
    return (roots * roots.abs()).to(dtype)
