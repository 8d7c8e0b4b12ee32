"""Sends messages over a call of grpc.aio while its answers are read."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

_STATUS_S = 1.0
"""How long what a call ended with may take to follow a message that could not be sent."""
_LOOK_S = 0.005


@asynccontextmanager
async def sending(call: Any, messages: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[None]:
    """Has messages sent amid the block, after which the call is cancelled if it has not ended.

    Of a call whose message can no longer be sent grpc.aio says INTERNAL, or that it was cancelled,
    whatever the server said (grpc/grpc#36066). Here it is what the call ended with.

    Args:
        call: Whose messages nobody sends; its answers are read in the block.
        messages: Those that are not awaited are made in other threads.

    Raises:
        grpc.aio.AioRpcError: What the call ended with.
        Exception: What went wrong with the messages.
    """
    wrong: list[Exception] = []
    unsent = False
    reader = asyncio.current_task()
    assert reader is not None
    cancelled_before = reader.cancelling()

    async def send() -> None:
        nonlocal unsent
        try:
            async for message in awaited(messages):
                await call.write(message)
            await call.done_writing()
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            unsent = True
        except Exception as error:
            wrong.append(error)
            call.cancel()
        except asyncio.CancelledError:  # of what messages are made of, if the call has not ended
            call.cancel()
            raise

    task = asyncio.create_task(send())
    # A message that is not waited for any more does not take the place of what the server said.
    call.add_done_callback(lambda _: task.cancel())
    try:
        yield
    except asyncio.CancelledError:
        if wrong and reader.cancelling() == cancelled_before:
            raise wrong[0] from None
        raise
    except grpc.aio.AioRpcError:
        if not unsent:
            raise
        error = await _ended(call)
        if error.code() is not grpc.StatusCode.OK:
            raise error from None
    finally:
        call.cancel()
        task.cancel()
        await asyncio.wait([task])


async def _ended(call: Any) -> grpc.aio.AioRpcError:
    """What a call ended with, which follows what grpc.aio says of a message."""
    until_s = asyncio.get_running_loop().time() + _STATUS_S
    while (
        await call.code() is grpc.StatusCode.INTERNAL
        and asyncio.get_running_loop().time() < until_s
    ):
        await asyncio.sleep(_LOOK_S)
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )


async def awaited(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Items one by one; those that are not awaited are made in other threads."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    iterator: Iterator[Any] = iter(items)
    end: Any = object()
    while (item := await asyncio.to_thread(lambda: next(iterator, end))) is not end:
        yield item
