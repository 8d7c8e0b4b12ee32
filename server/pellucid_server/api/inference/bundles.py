"""One request of several images, run as as many requests of PellucidService."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from pellucid.v1 import data_pb2, inference_pb2

from ... import wire
from ...config import Settings
from ...engine.admission import Held
from ...engine.job import Priority
from ...errors import DeadlineExpired, PellucidError, Violation, failure_of
from ..service import Service

_Part = TypeVar("_Part")
_Answer = TypeVar("_Answer")

Response = inference_pb2.PredictResponse | inference_pb2.ExplainResponse


@dataclass(frozen=True)
class Bundle:
    """Images, and what of each is asked.

    Attributes:
        images: At least one.
        predict: What of every image is predicted, without an image; None: nothing.
        explain: What of every image is explained, likewise.
        timeout_s: The deadline from the request's arrival, if it brings one.
    """

    images: Sequence[data_pb2.Image]
    predict: inference_pb2.PredictRequest | None = None
    explain: inference_pb2.ExplainRequest | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Answered(Generic[_Part]):
    """What came of one image; None: that was not asked."""

    prediction: _Part | None
    explanation: _Part | None


@dataclass(frozen=True)
class Plan(Generic[_Part, _Answer]):
    """A request that was read, and how it is answered.

    Attributes:
        bundle: What is asked.
        take: Keeps of a response what is needed. Runs in a worker.
        write: Makes the answer of what came of every image, in order. Runs in a worker.
    """

    bundle: Bundle
    take: Callable[[Response], _Part]
    write: Callable[[Sequence[Answered[_Part]]], _Answer]


@dataclass(frozen=True)
class Asker:
    """Who asks.

    Attributes:
        name: Whom the device is shared fairly between.
        limit_s: How long it waits, from now; None: as long as its request says.
    """

    name: str
    limit_s: float | None = None


class Bundles:
    """Answers requests of several images."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._most_at_once = min(wire.MOST_IMAGES, settings.max_requests)

    async def answer(
        self,
        asker: Asker,
        read: Callable[[Held, wire.Call], Awaitable[Plan[Any, _Answer]]],
        watched: Callable[[Awaitable[_Answer]], Awaitable[_Answer]] = lambda answering: answering,
    ) -> _Answer:
        """Answers a request, by its deadline.

        Args:
            asker: Who asks.
            read: Receives the request, by the deadline of that call, and validates it.
            watched: Ends what it is given when the asker goes away.

        Raises:
            PellucidError: As of any one image.
        """
        arrived_s = time.monotonic()
        counted: Message = inference_pb2.PredictRequest()
        with self._service.arrival(lambda: counted) as held:
            self._service.check_room(Priority.PREDICT)
            call = self._service.call(asker.name, asker.limit_s)
            try:
                async with asyncio.timeout(call.deadline_s - arrived_s):
                    plan = await read(held, call)
            except TimeoutError:
                raise DeadlineExpired("the request did not arrive in time") from None
            bundle = plan.bundle
            counted = bundle.explain or bundle.predict or counted
            held.add(sum(image.ByteSize() for image in bundle.images))
            if bundle.timeout_s is not None:
                limits_s = [s for s in (bundle.timeout_s, asker.limit_s) if s is not None]
                left_s = min(limits_s) - (time.monotonic() - arrived_s)
                call = self._service.call(asker.name, left_s)

            async def answering() -> _Answer:
                answered = await self._answer_all(plan, call, held)
                priority = Priority.PREDICT if bundle.explain is None else Priority.EXPLAIN
                return await self._service.work(priority, call, lambda: plan.write(answered))

            return await watched(answering())

    async def _answer_all(
        self, plan: Plan[_Part, Any], call: wire.Call, held: Held
    ) -> list[Answered[_Part]]:
        """What comes of every image; the first error ends all of it."""
        images = plan.bundle.images
        places = asyncio.Semaphore(self._most_at_once)

        async def ask(at: int, request: Message | None) -> _Part | None:
            if request is None:
                return None
            try:
                async with places:
                    return await self._ask(plan, request, images[at], call, held)
            except PellucidError as error:
                if len(images) == 1:
                    raise
                raise _of_image(at, failure_of(error)) from None

        asking = [
            asyncio.ensure_future(ask(at, request))
            for request in (plan.bundle.predict, plan.bundle.explain)
            for at in range(len(images))
        ]
        try:
            parts = await asyncio.gather(*asking)
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        predictions, explanations = parts[: len(images)], parts[len(images) :]
        return [Answered(*both) for both in zip(predictions, explanations, strict=True)]

    async def _ask(
        self,
        plan: Plan[_Part, Any],
        request: Message,
        image: data_pb2.Image,
        call: wire.Call,
        held: Held,
    ) -> _Part:
        if isinstance(request, inference_pb2.PredictRequest):
            predict = inference_pb2.PredictRequest(image=image)
            predict.MergeFrom(request)
            return await self._service.predict(predict, call, held, plan.take)
        assert isinstance(request, inference_pb2.ExplainRequest)
        explain = inference_pb2.ExplainRequest(image=image)
        explain.MergeFrom(request)
        return await self._service.explain(explain, call, held, plan.take)


def _of_image(at: int, error: PellucidError) -> PellucidError:
    """An error that says which of several images is wrong, where one is."""
    found = [
        Violation(f"image[{at}]{v.field.removeprefix('image')}", v.description)
        if v.field.startswith("image")
        else v
        for v in error.violations
    ]
    if found == list(error.violations):
        return error
    message = "; ".join(f"{v.field}: {v.description}" for v in found)
    return type(error)(message, violations=found)
