"""What a request may ask for, and who asks."""

from dataclasses import dataclass

from ..methods.optimize.optimize import Buckets
from .fields import Violations


@dataclass(frozen=True)
class Limits:
    """What a request may ask for on this server."""

    max_photo_pixels: int
    buckets: tuple[int, ...]
    max_optimize_pixels: int
    optimize_buckets: Buckets
    checkpoint_key: bytes
    max_optimize_bytes: int = 1 << 30
    max_checkpoint_bytes: int = 256 << 20
    max_photo_set_bytes: int = 256 << 20
    max_response_bytes: int = 32 << 20


def check_sendable(
    found: Violations, field: str, what: str, byte_count: int, limits: Limits, instead: str
) -> None:
    """Finds fault with a field where what it asks for is more than is sent.

    Args:
        found: Where that is noted.
        field: Which asks for it.
        what: It is, in words.
        byte_count: Of it.
        limits: Of the server.
        instead: What to ask for.
    """
    if byte_count > limits.max_response_bytes:
        most = limits.max_response_bytes
        found.invalid(field, f"{what} take {byte_count} bytes; at most {most} are sent: {instead}")


@dataclass(frozen=True)
class Call:
    """Who calls, and until when; deadline_s is by time.monotonic()."""

    caller: str
    deadline_s: float
