"""What a request may ask for, and who asks."""

from dataclasses import dataclass

from ..methods.optimize.optimize import Buckets


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


@dataclass(frozen=True)
class Call:
    """Who calls, and until when; deadline_s is by time.monotonic()."""

    caller: str
    deadline_s: float
