"""The client for asyncio: the twin of client.py."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from . import (
    _attack,
    _optimize,
    _stylize,
    _universal,
    _video,
    _wire,
    optimizing,
    stylizing,
    types,
    video,
)
from ._channel import FilePath, channel_credentials, connect_aio
from .compare import CONCURRENCY, EVIDENCE, Compared, Comparison, Question, questions
from .errors import Internal, StatusError
from .v1 import model_pb2, service_pb2_grpc, stylize_pb2


class AsyncClient:
    """The client of client.py for asyncio: the same arguments, results and errors.

    Belongs to the loop that its first call runs in.
    """

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        timeout_s: float = 30.0,
        max_retries: int = 2,
        caller: str = "",
        token: str | None = None,
        tls: bool = False,
        ca_file: FilePath | None = None,
        certificate_file: FilePath | None = None,
        key_file: FilePath | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._metadata = _wire.call_metadata(caller, token)
        self._target = target
        self._credentials = channel_credentials(
            target,
            credentials,
            token=token,
            tls=tls,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
        )

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return connect_aio(self._target, self._credentials)

    @cached_property
    def _stub(self) -> service_pb2_grpc.PellucidServiceStub:
        return service_pb2_grpc.PellucidServiceStub(self._channel)

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

    def optimize(
        self,
        objectives: "optimizing.Objectives",
        *,
        photo: "types.Photo | None" = None,
        guide: "types.Photo | None" = None,
        score: str | None = None,
        model: str = "",
        format: str | None = None,
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "optimizing.AsyncOptimization":
        """Images made for what the network is after: see Client.optimize.

        Photos are read at the first step, and missed there.
        """
        spec = _optimize.optimize_request(
            objectives,
            score=score,
            model=model,
            format=format,
            include_pixels=include_pixels,
            parameters=parameters,
        )
        given = {"image": photo, "guide": guide}
        course = _optimize.Course(
            spec,
            timeout_s,
            photos=[(getattr(spec, name), one) for name, one in given.items() if one is not None],
            resume=resume,
            resume_from=resume_from,
        )
        return self._optimization(course)

    def attack(
        self,
        photo: types.Photo,
        method: str = "pgd",
        *,
        source: int | str | None = None,
        goal: int | str | None = None,
        linear_layers: Sequence[str] = (),
        transfer: bool = False,
        model: str = "",
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "optimizing.AsyncOptimization":
        """A small change of a photo that changes what it is taken for: see Client.attack."""
        spec = _attack.attack_request(
            method,
            source=source,
            goal=goal,
            linear_layers=linear_layers,
            transfer=transfer,
            model=model,
            include_pixels=include_pixels,
            parameters=parameters,
        )
        course = _optimize.Course(
            spec, timeout_s, photos=[(spec.image, photo)], resume=resume, resume_from=resume_from
        )
        return self._optimization(course)

    def universal(
        self,
        photos: "Sequence[types.Photo]",
        *,
        model: str = "",
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "optimizing.AsyncOptimization":
        """One small change for many photos: see Client.universal."""
        spec = _universal.universal_request(
            model=model, include_pixels=include_pixels, parameters=parameters
        )
        course = _optimize.Course(
            spec, timeout_s, photo_set=photos, resume=resume, resume_from=resume_from
        )
        return self._optimization(course)

    def _optimization(self, course: _optimize.Course) -> "optimizing.AsyncOptimization":
        return optimizing.AsyncCourse(self._events(course), optimizing.OptimizeResult)

    def stylize(
        self,
        photo: types.Photo,
        styles: "stylizing.Styles",
        *,
        method: str = "neural",
        mask: "types.Photo | None" = None,
        start_image: "types.Photo | None" = None,
        content_layers: Mapping[str, float] | Sequence[str] | None = None,
        style_layers: Mapping[str, float] | Sequence[str] | None = None,
        model: str = "",
        format: str | None = None,
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "stylizing.AsyncStylization":
        """The photo in the style of paintings: see Client.stylize."""
        spec, photos = _stylize.stylize_request(
            photo,
            styles,
            method=method,
            mask=mask,
            start_image=start_image,
            content_layers=content_layers,
            style_layers=style_layers,
            model=model,
            format=format,
            include_pixels=include_pixels,
            parameters=parameters,
        )
        course = _optimize.Course(
            spec, timeout_s, photos=photos, resume=resume, resume_from=resume_from
        )
        return optimizing.AsyncCourse(self._events(course), stylizing.Stylized)

    def stylize_video(
        self,
        frames: "video.AsyncFrames",
        styles: "stylizing.Styles",
        *,
        keep_all: bool = False,
        smoothing: float | None = None,
        format: str | None = None,
        quality: int | None = None,
        frame_timeout_ms: float | None = None,
        timeout_s: float | None = None,
        **parameters: Any,
    ) -> "video.AsyncStylizedVideo":
        """A video in the style of paintings: see Client.stylize_video.

        Frames may come from an asynchronous iterable, too. A style's file is read here.
        """
        spec = _video.video_request(
            styles,
            parameters,
            overflow="keep_all" if keep_all else None,
            smoothing=smoothing,
            format=format,
            quality=quality,
            frame_timeout_ms=frame_timeout_ms,
        )
        call = functools.partial(
            self._stub.StylizeVideo, timeout=timeout_s, metadata=self._metadata
        )
        shown = _video.stream_aio(call, spec, frames)
        return optimizing.AsyncCourse(shown, video.VideoSummary)

    async def _events(self, course: _optimize.Course) -> AsyncGenerator[Any, None]:
        """What a job shows, and its result, on however many servers."""
        await asyncio.to_thread(course.read_photos)
        while True:
            stream = self._stream(course.call, course.messages(), course.remaining_s())
            try:
                async with aclosing(stream) as responses:
                    async for response in responses:
                        if (event := course.event(response)) is not None:
                            yield event
                course.end()
                return
            except StatusError as error:
                pause_s = course.pause_s(error)
            await asyncio.sleep(pause_s)

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

    async def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        if "_channel" in vars(self):
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, rpc: str, request: Message, timeout_s: float | None) -> Any:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send = getattr(self._stub, rpc)
        while True:
            try:
                return await send(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error)
            await asyncio.sleep(pause_s)

    async def _stream(
        self, rpc: str, request: Message | Sequence[Message], timeout_s: float | None
    ) -> AsyncGenerator[Any, None]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send, started = getattr(self._stub, rpc), False
        while True:
            sent = iter(request) if isinstance(request, list) else request
            call = send(sent, timeout=attempts.remaining_s(), metadata=self._metadata)
            try:
                async for response in call:
                    started = True
                    yield response
                if not started:
                    raise Internal("the server's stream is empty")
                return
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error, started=started)
            finally:
                call.cancel()
            await asyncio.sleep(pause_s)
