"""The exceptions that a caller can meet, and one table to them from gRPC's codes.

PellucidError
├── BadArgument              an argument is wrong; nothing was sent (also a ValueError)
├── PhotoNotFound            there is no such photo file (also a FileNotFoundError)
├── NotRequested             a part of a result that was not asked for
└── StatusError              the server, or the way to it, answered with an error
    ├── Cancelled                the call was cancelled
    ├── Unknown                  no code came that says what happened
    ├── InvalidArgument          the request is wrong: see violations
    ├── DeadlineExceeded         no answer within timeout_s (also a TimeoutError)
    ├── NotFound                 the model, label or layer does not exist
    ├── AlreadyExists            what the request makes is there already
    ├── PermissionDenied         this caller may not do it
    ├── ResourceExhausted        the queue is full, or a message is larger than the cap
    ├── FailedPrecondition       this model cannot do it
    ├── Aborted                  another request came between
    ├── OutOfRange               beyond the end of what is there
    ├── Unimplemented            the server has no such call
    ├── Internal                 a bug in the server
    ├── Unavailable              the server cannot be reached, is starting or stopping
    ├── DataLoss                 data was lost or damaged
    └── Unauthenticated          the server does not know who calls
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a request.

    Attributes:
        field: The path of the field in the request, for example target.class_index.
        description: What is wrong with it, and what is allowed.
    """

    field: str
    description: str


class PellucidError(Exception):
    """The root of all errors of this package.

    Attributes:
        code: The gRPC status code; None where no server was involved.
        message: What happened, for a human.
        reason: What happened, for a program, for example QUEUE_FULL; may be empty.
        violations: Everything that is wrong with the request.
        retry_delay_s: Seconds after which a retry can succeed; None when no retry can.
    """

    code: ClassVar[StatusCode | None] = None

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[Violation] = (),
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = tuple(violations)
        self.retry_delay_s = retry_delay_s

    def __str__(self) -> str:
        return self.message


class BadArgument(PellucidError, ValueError):
    """An argument is wrong; nothing was sent."""


class PhotoNotFound(PellucidError, FileNotFoundError):
    """There is no such photo file."""


class NotRequested(PellucidError):
    """A part of a result that was not asked for."""


class StatusError(PellucidError):
    """The server, or the way to it, answered with an error."""


class Cancelled(StatusError):
    code = StatusCode.CANCELLED


class Unknown(StatusError):
    code = StatusCode.UNKNOWN


class InvalidArgument(StatusError):
    code = StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(StatusError, TimeoutError):
    code = StatusCode.DEADLINE_EXCEEDED


class NotFound(StatusError):
    code = StatusCode.NOT_FOUND


class AlreadyExists(StatusError):
    code = StatusCode.ALREADY_EXISTS


class PermissionDenied(StatusError):
    code = StatusCode.PERMISSION_DENIED


class ResourceExhausted(StatusError):
    code = StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(StatusError):
    code = StatusCode.FAILED_PRECONDITION


class Aborted(StatusError):
    code = StatusCode.ABORTED


class OutOfRange(StatusError):
    code = StatusCode.OUT_OF_RANGE


class Unimplemented(StatusError):
    code = StatusCode.UNIMPLEMENTED


class Internal(StatusError):
    code = StatusCode.INTERNAL


class Unavailable(StatusError):
    code = StatusCode.UNAVAILABLE


class DataLoss(StatusError):
    code = StatusCode.DATA_LOSS


class Unauthenticated(StatusError):
    code = StatusCode.UNAUTHENTICATED


BY_CODE: dict[StatusCode | None, type[StatusError]] = {
    error.code: error for error in StatusError.__subclasses__()
}
