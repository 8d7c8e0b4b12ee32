"""One call: what goes along with it, its deadline and attempts, and what it ends with."""

import math
import time
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from ..errors import BY_CODE, BadArgument, ResourceExhausted, StatusError, Unknown, Violation


def call_metadata(caller: str, token: str | None) -> tuple[tuple[str, str], ...]:
    """What goes along with every call."""
    if not (caller.isascii() and caller.isprintable()):
        raise BadArgument(f"caller: is {caller!r}; must be printable ASCII")
    metadata = [("pellucid-caller", caller)] if caller else []
    if token is not None:
        if not all("!" <= character <= "~" for character in token or " "):
            raise BadArgument("token: must be printable ASCII without spaces, and not empty")
        metadata.append(("authorization", f"Bearer {token}"))
    return tuple(metadata)


def deadline_s(timeout_s: float) -> float:
    """When time is up, on the monotonic clock.

    Raises:
        BadArgument: Never, or before now.
    """
    if not 0 < timeout_s < math.inf:
        raise BadArgument(f"timeout_s: is {timeout_s}; must be more than 0 and finite")
    return time.monotonic() + timeout_s


_DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
)


class Attempts:
    """The attempts of one call under one deadline."""

    def __init__(self, timeout_s: float, max_retries: int) -> None:
        self._expires_s = deadline_s(timeout_s)
        self._retries_left = max_retries

    def remaining_s(self) -> float:
        return max(0.0, self._expires_s - time.monotonic())

    def pause_s(self, error: grpc.RpcError, *, started: bool = False) -> float:
        """How long to wait before the next attempt.

        Args:
            error: What the call ended with.
            started: Whether a part of the answer was there already.

        Raises:
            StatusError: There is to be none: the answer had started, no retry was offered, none
                is left, or its delay reaches beyond the deadline.
        """
        failure = failure_of(error)
        delay_s = failure.retry_delay_s
        if (
            started
            or not isinstance(failure, ResourceExhausted)
            or delay_s is None
            or self._retries_left <= 0
            or delay_s >= self.remaining_s()
        ):
            raise failure from error
        self._retries_left -= 1
        return delay_s


def _details(error: grpc.RpcError) -> list[Message]:
    """What the server says of an error besides its code and message; nothing if unreadable."""
    known = {kind.DESCRIPTOR.full_name: kind for kind in _DETAILS}
    trailing: Any = error.trailing_metadata() or ()
    packed = next((value for key, value in trailing if key == "grpc-status-details-bin"), b"")
    try:
        details = status_pb2.Status.FromString(packed).details
        kinds = [(known.get(detail.TypeName()), detail.value) for detail in details]
        return [kind.FromString(value) for kind, value in kinds if kind is not None]
    except DecodeError:
        return []


def failure_of(error: grpc.RpcError) -> StatusError:
    """The exception for what a call ended with, with the details that the server sent."""
    reason, violations, retry_delay_s = "", [], None
    for detail in _details(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            reason = detail.reason
        elif isinstance(detail, error_details_pb2.BadRequest):
            violations = [Violation(v.field, v.description) for v in detail.field_violations]
        elif isinstance(detail, error_details_pb2.RetryInfo):
            delay = detail.retry_delay
            retry_delay_s = max(0.0, delay.seconds + delay.nanos / 1e9)
    return BY_CODE.get(error.code(), Unknown)(
        error.details() or error.code().name,
        reason=reason,
        violations=violations,
        retry_delay_s=retry_delay_s,
    )
