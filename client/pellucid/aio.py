"""The client for asyncio: the twin of client.py."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from . import _stylize, _wire, stylizing, types
from ._inspecting_aio import AsyncInspecting
from ._looking import AsyncLooking
from ._making_aio import AsyncMaking
from ._projecting import AsyncProjecting
from .compare import CONCURRENCY, EVIDENCE, Compared, Comparison, Question, questions
from .errors import StatusError
from .v1 import model_pb2, stylize_pb2


class AsyncClient(AsyncMaking, AsyncProjecting, AsyncLooking, AsyncInspecting):
    """The client of client.py for asyncio: the same arguments, results and errors.

    Belongs to the loop that its first call runs in.
    """

    async def predict(
        self,
        photo: types.Photo,
        *,
        model: str = "",
        top_k: int | None = None,
        include_logits: bool = False,
        bucket_size: int | None = None,
        explain: Sequence[str | types.Explain] = (),
        explain_budget_ms: float | None = None,
        timeout_s: float | None = None,
    ) -> types.PredictResult:
        """What the network sees in a photo: see Client.predict."""
        request = await asyncio.to_thread(
            _wire.predict_request,
            photo,
            model=model,
            top_k=top_k,
            include_logits=include_logits,
            bucket_size=bucket_size,
            explain=explain,
            explain_budget_ms=explain_budget_ms,
        )
        return _wire.predict_result(await self._call("Predict", request, timeout_s))

    async def predict_batch(
        self,
        photos: Sequence[types.Photo],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> tuple[types.PredictResult | StatusError, ...]:
        """What the network sees in each of several photos: see Client.predict_batch."""
        request = await asyncio.to_thread(_wire.predict_batch_request, photos, options)
        return _wire.predict_results(await self._call("PredictBatch", request, timeout_s))

    async def explain_batch(
        self,
        photos: Sequence[types.Photo],
        method: str = "gradient",
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> tuple[types.ExplainResult | StatusError, ...]:
        """Why the network answers so, for several photos: see Client.explain_batch."""
        request = await asyncio.to_thread(_wire.explain_batch_request, photos, method, options)
        return _wire.explain_results(await self._call("ExplainBatch", request, timeout_s))

    async def explain(
        self,
        photo: types.Photo,
        method: str = "gradient",
        *,
        target: "types.Target | None" = None,
        against: int | str | None = None,
        score: str | None = None,
        model: str = "",
        outputs: Sequence[str] | None = None,
        color_scale: str | None = None,
        percentile: float | None = None,
        longest_side_px: int | None = None,
        format: str | None = None,
        legend: bool | None = None,
        bucket_size: int | None = None,
        until: types.Until | None = None,
        evidence: "types.Evidence | None" = None,
        timeout_s: float | None = None,
        **method_parameters: Any,
    ) -> types.ExplainResult:
        """Why the network answers as it does: see Client.explain."""
        request = await asyncio.to_thread(
            _wire.explain_request,
            photo,
            method,
            target=target,
            against=against,
            score=score,
            model=model,
            outputs=outputs,
            bucket_size=bucket_size,
            until=until,
            evidence=evidence,
            rendering={
                "color_scale": color_scale,
                "percentile": percentile,
                "longest_side_px": longest_side_px,
                "format": format,
                "legend": legend,
            },
            method_parameters=method_parameters,
        )
        return _wire.explain_result(await self._call("Explain", request, timeout_s))

    async def explain_stream(
        self,
        photo: types.Photo,
        method: str,
        *,
        target: "types.Target | None" = None,
        against: int | str | None = None,
        score: str | None = None,
        model: str = "",
        outputs: Sequence[str] | None = None,
        color_scale: str | None = None,
        percentile: float | None = None,
        longest_side_px: int | None = None,
        format: str | None = None,
        legend: bool | None = None,
        bucket_size: int | None = None,
        until: types.Until | None = None,
        evidence: "types.Evidence | None" = None,
        timeout_s: float | None = None,
        **method_parameters: Any,
    ) -> AsyncGenerator[types.ExplainResult, None]:
        """An explanation that is shown as it is made: see Client.explain_stream.

        Leaving the loop ends the call once the generator is closed, which contextlib.aclosing
        does at once, and the loop soon.
        """
        request = await asyncio.to_thread(
            _wire.explain_request,
            photo,
            method,
            target=target,
            against=against,
            score=score,
            model=model,
            outputs=outputs,
            bucket_size=bucket_size,
            until=until,
            evidence=evidence,
            rendering={
                "color_scale": color_scale,
                "percentile": percentile,
                "longest_side_px": longest_side_px,
                "format": format,
                "legend": legend,
            },
            method_parameters=method_parameters,
        )
        stream = self._stream("ExplainStream", _wire.stream_request(request), timeout_s)
        async with aclosing(stream) as responses:
            async for response in responses:
                yield _wire.explain_result(response.explanation)

    async def compare(
        self,
        photo: types.Photo,
        methods: Sequence[str] | None = None,
        *,
        target: "types.Target | None" = None,
        against: int | str | None = None,
        score: str | None = None,
        model: str = "",
        outputs: Sequence[str] | None = None,
        longest_side_px: int | None = None,
        legend: bool | None = None,
        until: types.Until | None = None,
        evidence: "types.Evidence | None" = EVIDENCE,
        timeout_s: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Comparison:
        """Methods side by side on one photo: see Client.compare."""
        image = await asyncio.to_thread(_wire.loaded, photo)
        known = await self.get_model(model, timeout_s=timeout_s)
        asked = questions(known, methods, _wire.evidence_of(evidence), until)
        score = _wire.common_score(target, score)
        limit = asyncio.Semaphore(CONCURRENCY)
        rows: dict[str, Compared] = {}

        async def ask(question: Question) -> Compared:
            async with limit:
                try:
                    result = await self.explain(
                        image,
                        question.method,
                        target=target,
                        against=against,
                        score=score,
                        model=model,
                        outputs=outputs,
                        longest_side_px=longest_side_px,
                        legend=legend,
                        until=question.until,
                        evidence=question.evidence,
                        timeout_s=timeout_s,
                        **(_wire.endable(question.method) if question.until else {}),
                    )
                except StatusError as error:
                    return Compared(question.method, None, error)
            return Compared(question.method, result)

        def done(row: Compared) -> None:
            rows[row.method] = row
            if on_progress is not None:
                on_progress(len(rows), len(asked))

        for question in asked:
            if target is not None:
                break
            done(row := await ask(question))
            target = None if row.result is None else row.result.target.class_index
        tasks = [asyncio.ensure_future(ask(one)) for one in asked if one.method not in rows]
        try:
            for task in asyncio.as_completed(tasks):
                done(await task)
        finally:
            for task in tasks:
                task.cancel()
        return Comparison(image, tuple(rows[question.method] for question in asked))

    async def replay(
        self,
        receipt: types.Receipt,
        photo: types.Photo,
        *,
        timeout_s: float | None = None,
    ) -> types.Replay:
        """Makes a result again from its receipt, and compares the two.

        Args:
            receipt: Of a PredictResult or an ExplainResult.
            photo: The one that the result is of; see Photo.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            BadArgument: The photo is not the one that the receipt is of.
        """
        before, rpc, request = await asyncio.to_thread(_wire.replay_request, receipt, photo)
        return _wire.replay(before, await self._call(rpc, request, timeout_s))

    async def list_styles(
        self, *, timeout_s: float | None = None
    ) -> "tuple[stylizing.StyleNetwork, ...]":
        """The server's networks of fast style; none where no styles are installed."""
        request = stylize_pb2.ListStylesRequest()
        return _stylize.networks(await self._call("ListStyles", request, timeout_s))

    async def list_models(
        self, *, timeout_s: float | None = None
    ) -> tuple[types.ModelSummary, ...]:
        """All models of the server, by name."""
        request = model_pb2.ListModelsRequest()
        return _wire.model_summaries(await self._call("ListModels", request, timeout_s))

    async def get_model(self, name: str = "", *, timeout_s: float | None = None) -> types.Model:
        """One model in full; the server's default model when the name is empty."""
        request = _wire.get_model_request(name)
        return _wire.model(await self._call("GetModel", request, timeout_s))
