"""The errors that a caller can meet, and one table from each to its codes.

PellucidError
├── InvalidArgument      the request itself is wrong: every violation is named
├── NotFound             it names a model, label or layer that does not exist
├── FailedPrecondition   it is well formed, but this model cannot do it
├── Overloaded           the queue is full: retry after the delay
├── OutOfMemory          it needs more memory than there is: no retry helps
├── DeadlineTooShort     its own cost exceeds its deadline: no retry helps
├── DeadlineExpired      its deadline passed while it waited or ran
├── ReceivedTooSlowly    what follows its first message comes below the pace (gRPC)
├── Cancelled            its caller went away
├── Unauthenticated      it came without a token of the server's
├── Unavailable          the server is starting or stopping: another replica will answer
├── TooLarge             its body exceeds the cap (REST; gRPC counts for itself)
├── MethodNotAllowed     the route does not take this HTTP method (REST)
├── NotAcceptable        no representation that the caller accepts (REST)
├── UnsupportedMedia     a body of a type that is not read here (REST)
└── Internal             a bug; what happened stays in the log
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a request."""

    field: str
    description: str


class PellucidError(Exception):
    """An error with a message that a caller may read."""

    reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_delay_ms: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.retry_delay_ms = retry_delay_ms


class InvalidArgument(PellucidError):
    reason = "INVALID_ARGUMENT"


class NotFound(PellucidError):
    reason = "NOT_FOUND"


class FailedPrecondition(PellucidError):
    reason = "METHOD_NOT_APPLICABLE"


class Overloaded(PellucidError):
    reason = "QUEUE_FULL"


class OutOfMemory(PellucidError):
    reason = "OUT_OF_MEMORY"


class DeadlineTooShort(PellucidError):
    reason = "COST_EXCEEDS_DEADLINE"


class DeadlineExpired(PellucidError):
    reason = "DEADLINE_EXPIRED"


class ReceivedTooSlowly(PellucidError):
    reason = "RECEIVED_TOO_SLOWLY"


class Cancelled(PellucidError):
    reason = "CANCELLED"


class Unauthenticated(PellucidError):
    reason = "UNAUTHENTICATED"


class Unavailable(PellucidError):
    reason = "UNAVAILABLE"


class TooLarge(PellucidError):
    reason = "BODY_TOO_LARGE"


class MethodNotAllowed(PellucidError):
    reason = "METHOD_NOT_ALLOWED"


class NotAcceptable(PellucidError):
    reason = "NOT_ACCEPTABLE"


class UnsupportedMedia(PellucidError):
    reason = "UNSUPPORTED_MEDIA_TYPE"


class Internal(PellucidError):
    reason = "INTERNAL"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has the details")


@dataclass(frozen=True)
class Codes:
    """What an error is called in each protocol."""

    grpc: StatusCode
    http: int


CODES: dict[type[PellucidError], Codes] = {
    InvalidArgument: Codes(StatusCode.INVALID_ARGUMENT, 400),
    NotFound: Codes(StatusCode.NOT_FOUND, 404),
    FailedPrecondition: Codes(StatusCode.FAILED_PRECONDITION, 400),
    Overloaded: Codes(StatusCode.RESOURCE_EXHAUSTED, 429),
    OutOfMemory: Codes(StatusCode.RESOURCE_EXHAUSTED, 507),
    DeadlineTooShort: Codes(StatusCode.DEADLINE_EXCEEDED, 504),
    DeadlineExpired: Codes(StatusCode.DEADLINE_EXCEEDED, 504),
    ReceivedTooSlowly: Codes(StatusCode.DEADLINE_EXCEEDED, 504),
    Cancelled: Codes(StatusCode.CANCELLED, 499),
    Unauthenticated: Codes(StatusCode.UNAUTHENTICATED, 401),
    Unavailable: Codes(StatusCode.UNAVAILABLE, 503),
    TooLarge: Codes(StatusCode.RESOURCE_EXHAUSTED, 413),
    MethodNotAllowed: Codes(StatusCode.UNIMPLEMENTED, 405),
    NotAcceptable: Codes(StatusCode.INVALID_ARGUMENT, 406),
    UnsupportedMedia: Codes(StatusCode.INVALID_ARGUMENT, 415),
    Internal: Codes(StatusCode.INTERNAL, 500),
}


def failure_of(error: Exception, what: str = "a request") -> PellucidError:
    """What a caller is told of an error; that what failed is logged, if it is a bug.

    The error loses its traceback, cause and context: by its frames it would hold the future that
    it came from, and the job.
    """
    failure = error if isinstance(error, PellucidError) else Internal()
    if failure is not error:
        log.error("%s failed", what, exc_info=error)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return failure


_MOST_QUOTED = 64


def quoted(text: str) -> str:
    """A caller's words, cut so that a message stays one that people read."""
    cut = text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 1]}…"
    return repr(cut)
