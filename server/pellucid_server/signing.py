"""The key that checkpoints are signed with."""

from pathlib import Path

from pellucid import pem

_LEAST_KEY_BYTES = 16


def read_key(path: Path) -> bytes:
    """A key from its file, white space around it left out.

    Raises:
        ValueError: It cannot be read, or is too short.
    """
    key = pem.read(path).strip()
    if len(key) < _LEAST_KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes; it needs at least {_LEAST_KEY_BYTES}")
    return key
