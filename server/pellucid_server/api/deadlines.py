"""What is to be done by a call's deadline, and what a caller is told where it is not."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from .. import wire
from ..engine.memory import is_out_of_memory
from ..errors import DeadlineExpired, OutOfMemory


@contextlib.asynccontextmanager
async def in_time(call: wire.Call) -> AsyncIterator[None]:
    """What is to be done by a call's deadline.

    Raises:
        DeadlineExpired: It was not.
        OutOfMemory: There was too little memory for it.
    """
    with answerable():
        async with asyncio.timeout(call.deadline_s - time.monotonic()):
            yield


@contextlib.contextmanager
def answerable() -> Iterator[None]:
    """What runs out, of time or of memory, as an error that a caller can be told."""
    try:
        yield
    except TimeoutError:
        raise expired() from None
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory("the server has too little memory for this request") from None
        raise


def expired() -> DeadlineExpired:
    return DeadlineExpired("the deadline passed before the result was ready")
