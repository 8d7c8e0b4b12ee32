"""Checkpoints of optimizations: a header, tensors and a signature. Nothing is unpickled."""

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_MAGIC = b"pellucid checkpoint 2\n"
_LENGTH_BYTES = 4
_SIGNATURE_BYTES = hashlib.sha256().digest_size
_LEAST_KEY_BYTES = 16


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
        """As signed bytes: magic, the header's length, the header, safetensors, HMAC-SHA256."""
        header = json.dumps(self.header, sort_keys=True).encode()
        length = len(header).to_bytes(_LENGTH_BYTES, "little")
        body = b"".join([_MAGIC, length, header, save(dict(self.tensors))])
        return body + _sign(body, key)


def unpack(data: bytes, key: bytes) -> Checkpoint:
    """The way back of pack.

    Raises:
        BadCheckpoint: They are no checkpoint, or not signed with this key.
    """
    if not data.startswith(_MAGIC):
        raise BadCheckpoint("is no checkpoint of this version")
    body, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
    if not hmac.compare_digest(_sign(body, key), signature):
        raise BadCheckpoint(
            "is damaged, or was signed with another key: servers need the same checkpoint_key_file"
        )
    start = len(_MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(body[len(_MAGIC) : start], "little")
    try:
        return Checkpoint(json.loads(body[start:end]), load(body[end:]))
    except (ValueError, SafetensorError) as error:  # this key signed what this code cannot read
        raise BadCheckpoint("is no checkpoint of this version") from error


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


def _sign(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")


def read_key(path: Path) -> bytes:
    """A key from its file, white space around it left out.

    Raises:
        ValueError: It is too short.
        OSError: It cannot be read.
    """
    key = path.read_bytes().strip()
    if len(key) < _LEAST_KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes; it needs at least {_LEAST_KEY_BYTES}")
    return key
