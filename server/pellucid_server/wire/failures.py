"""Errors as messages: of a call, or of one image of several."""

import math
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from pellucid.v1 import data_pb2

from ..errors import CODES, PellucidError

ERROR_DOMAIN = "pellucid"


def write_failure(error: PellucidError) -> data_pb2.Failure:
    """An error of one part of a request."""
    return data_pb2.Failure(
        code=_code(error),
        message=error.message,
        reason=error.reason,
        violations=[
            data_pb2.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ],
        retry_delay_ms=error.retry_delay_ms,
    )


def write_error(error: PellucidError) -> status_pb2.Status:
    """An error as google.rpc.Status, with its reason, violations and retry delay."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.violations
                ]
            )
        )
    if error.retry_delay_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(math.ceil(error.retry_delay_ms))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=_code(error), message=error.message, details=packed)


def _code(error: PellucidError) -> code_pb2.Code:
    return code_pb2.Code.Value(CODES[type(error)].grpc.name)
