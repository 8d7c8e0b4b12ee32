"""The client that blocks until the answer is there."""

import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
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
from ._channel import FilePath, channel_credentials, connect
from .compare import CONCURRENCY, EVIDENCE, Compared, Comparison, Question, questions
from .errors import Internal, StatusError
from .v1 import model_pb2, service_pb2_grpc, stylize_pb2


class Client:
    """A client of one Pellucid server; safe to share between threads.

    Connects at the first call. Calls that meet an unavailable server are tried up to four times;
    calls that meet a full queue are tried again after the delay that the server asks for.

    Args:
        target: HOST:PORT of the server.
        timeout_s: Deadline of each call in seconds, retries included.
        max_retries: How often a call is tried again at most when the queue is full.
        caller: The name under which the server shares its time fairly between callers; the
            address of this machine when empty.
        token: What the server knows this caller by. Over plain text it is sent to this machine
            alone: to localhost, a loopback address or a unix socket.
        tls: Whether to connect by TLS; plain text when neither this nor one of the files is given.
        ca_file: PEM file of who signs the server's certificate; the authorities that gRPC knows
            when None.
        certificate_file: PEM file of this client's certificate, for servers that require one.
        key_file: PEM file of its key, unencrypted.
        credentials: Of your own making, in place of tls and the files.

    Raises:
        BadArgument: An argument is wrong, or a file is of no use.

    Every call raises:
        BadArgument: An argument is wrong; nothing was sent.
        StatusError: One of its kinds, by the gRPC status code.
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
        credentials = channel_credentials(
            target,
            credentials,
            token=token,
            tls=tls,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
        )
        self._channel = connect(target, credentials)
        self._stub = service_pb2_grpc.PellucidServiceStub(self._channel)

    def predict(
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
        """What the network sees in a photo.

        Args:
            photo: See Photo.
            model: Its name; the server's default model when empty.
            top_k: How many classes to return, 1 to all; 5 by default.
            include_logits: Whether to return the logits of all classes.
            bucket_size: The batch size to run at, one of the server's: fixes the result's bits.
                The server chooses by default.
            explain: Explanations to send along, of the top class unless they name a target:
                names of methods, or Explain with more. One that fails is its error in the
                result's explanations, and does not stop the prediction.
            explain_budget_ms: When explanations that are not done are given up, in milliseconds
                from the request's arrival; nine tenths of the deadline by default.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _wire.predict_request(
            photo,
            model=model,
            top_k=top_k,
            include_logits=include_logits,
            bucket_size=bucket_size,
            explain=explain,
            explain_budget_ms=explain_budget_ms,
        )
        return _wire.predict_result(self._call("Predict", request, timeout_s))

    def predict_batch(
        self,
        photos: Sequence[types.Photo],
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> tuple[types.PredictResult | StatusError, ...]:
        """What the network sees in each of several photos, in one call.

        Args:
            photos: 1 to 64; see Photo.
            timeout_s: This call's deadline in seconds; the client's by default.
            **options: Those of predict, for all of them.

        Returns:
            For each photo its result, or what is wrong with it.

        Raises:
            PhotoNotFound: There is no such file; nothing was sent.
        """
        request = _wire.predict_batch_request(photos, options)
        return _wire.predict_results(self._call("PredictBatch", request, timeout_s))

    def explain_batch(
        self,
        photos: Sequence[types.Photo],
        method: str = "gradient",
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> tuple[types.ExplainResult | StatusError, ...]:
        """Why the network answers as it does, for each of several photos, in one call.

        Args:
            photos: 1 to 64; see Photo.
            method: See explain.
            timeout_s: This call's deadline in seconds; the client's by default.
            **options: Those of explain, for all of them, and the method's own parameters.

        Returns:
            For each photo its explanation, or what is wrong with it.

        Raises:
            PhotoNotFound: There is no such file; nothing was sent.
        """
        request = _wire.explain_batch_request(photos, method, options)
        return _wire.explain_results(self._call("ExplainBatch", request, timeout_s))

    def explain(
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
        """Why the network answers as it does.

        Args:
            photo: See Photo.
            method: Its name, with its parameters as keywords: explain(photo, "occlusion",
                window_px=32).
            target: A class by index or label, several of them (their scores are added), or a
                Neuron; the top prediction when None.
            against: A class by index or label whose score is subtracted: why this, not that.
            score: "logit", "log_probability" or "probability"; the method's own by default.
            model: Its name; the server's default model when empty.
            outputs: Any of "attribution", "heatmap", "rendering"; the last two by default.
            color_scale: "signed" or "absolute"; the method's own by default.
            percentile: The percentile of the magnitudes that the strongest colour stands for,
                50 to 100; 99.5 by default.
            longest_side_px: Of the rendering without its legend, 32 to 4096; 1024 by default.
            format: Of the rendering: "jpeg" (the default) or "png".
            legend: Whether the rendering has one; True by default.
            bucket_size: The batch size to run at, one of the server's: fixes the result's bits.
                The server chooses by default.
            until: When it is good enough to end before all rows are run.
            evidence: What to send along that would show it false: see Evidence.
            timeout_s: This call's deadline in seconds; the client's by default.
            **method_parameters: The method's own: see the README, or the method's message in
                the contract. An enum is its short lower-case name, a baseline a Baseline.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _wire.explain_request(
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
        return _wire.explain_result(self._call("Explain", request, timeout_s))

    def explain_stream(
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
    ) -> Generator[types.ExplainResult, None, None]:
        """An explanation that is shown as it is made, coarse to fine.

        Yields estimates, of which convergence.stop is "running", and last the explanation itself,
        with its receipt and evidence. Estimates that come faster than they are taken are left
        out. Leaving the loop, or closing the generator, ends the call. A full queue, and every
        error, is met at the first step.

        Args:
            photo: See Photo.
            method: The name of one of which MethodSupport.anytime says that it can be streamed,
                with its parameters as keywords.
            target: See explain, for this and all that follows.
            against: A class whose score is subtracted.
            score: "logit", "log_probability" or "probability".
            model: Its name.
            outputs: Of each estimate, too.
            color_scale: "signed" or "absolute".
            percentile: The percentile that the strongest colour stands for.
            longest_side_px: Of the renderings.
            format: Of the renderings.
            legend: Whether they have one.
            bucket_size: The batch size to run at.
            until: When it is good enough to end before all rows are run.
            evidence: What to send along with the last one.
            timeout_s: The deadline of all of it in seconds; the client's by default.
            **method_parameters: The method's own.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _wire.explain_request(
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
        with closing(stream) as responses:
            for response in responses:
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
    ) -> "optimizing.Optimization":
        """Images made for what the network is after: a class, a neuron, a code, a dream.

        Args:
            objectives: A class by index or label, a Neuron, Direction, Code, Energy, Guide or
                Diversity; or a list of several of them, each in a tuple with its weight if that is
                not 1: [("goldfish", 2), (1, -0.5)]. See Objectives.
            photo: Whose Code it is, and where start="photo" starts; see Photo.
            guide: Whose features Guide wants.
            score: Of classes: "logit" (the default), "log_probability" or "probability".
            model: Its name; the server's default model when empty.
            format: Of the images: "png" (the default) or "jpeg".
            include_pixels: Whether they come as numbers, too.
            resume: Whether it goes on by itself, from the last checkpoint and within the deadline,
                when a server leaves on the way: checkpoint_every is 50 steps then, unless it is
                given. It is started over where that checkpoint is refused, and says so.
            resume_from: A checkpoint to go on from, of the same arguments.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the contract's Ascend: preset (which all others follow from:
                "olah", which a Code has without transformations; "mordvintsev" for Energy and
                Guide), step_count, height_px, width_px, seed, restart_count, preview_every,
                tv_penalty and so on. An enum is its short lower-case name.

        Returns:
            Its events, one by one, and its result. A full queue, and every other error of the
            server, is met at the first step.

        Raises:
            PhotoNotFound: There is no such file.
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
    ) -> "optimizing.Optimization":
        """A small change of a photo that changes what the network takes it for.

        Args:
            photo: See Photo; not one that is preprocessed already.
            method: "fgsm", "bim", "pgd", "deep_fool" or "carlini_wagner".
            source: The class that it is to be taken for no longer, by index or label; the one that
                it is taken for when None.
            goal: The class that it is to be taken for; any other when None.
            linear_layers: Layers at which the effect of the change is predicted.
            transfer: Whether the result is scored on all models of the server.
            model: Its name; the server's default model when empty.
            include_pixels: Whether the images come as they were before they were rounded, too.
            resume: As of optimize.
            resume_from: Likewise.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the method in the contract, such as epsilon, norm ("linf" or
                "l2"), step_count, step_size, restart_count and seed of "pgd"; and progress_every,
                preview_every and checkpoint_every.

        Returns:
            Its events, one by one, and its result: see optimize. images[k].adversarial tells how
            an image fares.

        Raises:
            PhotoNotFound: There is no such file.
        """
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
    ) -> "optimizing.Optimization":
        """One small change that alters what the network takes most of many photos for.

        Args:
            photos: 1 to 1024; see Photo; none that is preprocessed already.
            model: Its name; the server's default model when empty.
            include_pixels: Whether images come as numbers, too.
            resume: As of optimize.
            resume_from: Likewise.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of Universal in the contract, such as epsilon, norm ("linf" or
                "l2"), pass_count, fooling_rate and seed; and progress_every, preview_every and
                checkpoint_every, in photos.

        Returns:
            Its events, one by one, and its result: see optimize. A progress's score is the
            fooling rate so far; result().universal has the perturbation.

        Raises:
            PhotoNotFound: There is no such file.
        """
        spec = _universal.universal_request(
            model=model, include_pixels=include_pixels, parameters=parameters
        )
        course = _optimize.Course(
            spec, timeout_s, photo_set=photos, resume=resume, resume_from=resume_from
        )
        return self._optimization(course)

    def _optimization(self, course: _optimize.Course) -> "optimizing.Optimization":
        course.read_photos()
        return optimizing.Course(self._events(course), optimizing.OptimizeResult)

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
    ) -> "stylizing.Stylization":
        """The photo in the style of paintings.

        By optimization (Gatys, Ecker and Bethge 2015), or in one pass of a network that was trained
        for it (Johnson 2016, Dumoulin 2017, Ghiasi 2017).

        Args:
            photo: The content; see Photo.
            styles: A painting, or several, each with a weight if it is not 1:
                ["waves.jpg", ("night.jpg", 2.0)]. With method "fast" also names of styles, which
                list_styles has: ["7", ("12", 0.5)].
            method: "neural", by optimization, or "fast", in one pass.
            mask: Where the style is: white for all of it, black for none; as large as the photo.
            start_image: What it starts from, instead of the photo.
            content_layers: Names of layers, or their weights by name; by architecture when None.
            style_layers: Likewise.
            model: Its name; the server's default model when empty.
            format: Of the image: "png" (the default) or "jpeg".
            include_pixels: Whether it comes as numbers, too.
            resume: As of optimize.
            resume_from: A checkpoint to go on from, of the same arguments.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the contract's Neural: side_px, step_count, style_weight,
                content_weight, tv_weight, scale_count, update, original_colors, pooling and so
                on. Or of its Fast: strength, side_px, original_colors, bucket_size. An enum is
                its short lower-case name.

        Returns:
            Its events, one by one, and its result: see optimize.

        Raises:
            PhotoNotFound: There is no such file.
        """
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
        course.read_photos()
        return optimizing.Course(self._events(course), stylizing.Stylized)

    def stylize_video(
        self,
        frames: "video.Frames",
        styles: "stylizing.Styles",
        *,
        keep_all: bool = False,
        smoothing: float | None = None,
        format: str | None = None,
        quality: int | None = None,
        frame_timeout_ms: float | None = None,
        timeout_s: float | None = None,
        **parameters: Any,
    ) -> "video.StylizedVideo":
        """A video in the style of paintings, frame by frame, in order and as they are made.

        Args:
            frames: Of one size; each an array or a file's bytes, or any other Photo, or
                (Photo, its time in milliseconds), which comes back. They are taken from another
                thread, at the pace at which they can be sent.
            styles: As of stylize with method "fast".
            keep_all: Whether each frame is waited for; else those that come faster than the
                server can paint are dropped, the oldest that waits first, and counted.
            smoothing: How much of the result before is kept where the frames are alike: 0, the
                default, to 0.95.
            format: In which frames come back: "jpeg" (the default) or "rgb".
            quality: Of JPEG: 1 to 100; 90 by default.
            frame_timeout_ms: How long a frame may take once it waits no more; 30000 by default.
            timeout_s: The deadline of the whole stream in seconds; none when None.
            **parameters: strength, side_px (the frames' own by default), original_colors,
                bucket_size.

        Returns:
            The frames, one by one, and the summary of them as its result: see optimize. A frame
            that failed says why in its error; the others go on.

        Raises:
            PhotoNotFound: There is no such file of a style.
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
        shown = _video.stream(call, spec, frames)
        return optimizing.Course(shown, video.VideoSummary)

    def _events(self, course: _optimize.Course) -> Generator[Any, None, None]:
        """What a job shows, and its result, on however many servers."""
        while True:
            stream = self._stream(course.call, course.messages(), course.remaining_s())
            try:
                with closing(stream) as responses:
                    for response in responses:
                        if (event := course.event(response)) is not None:
                            yield event
                course.end()
                return
            except StatusError as error:
                pause_s = course.pause_s(error)
            time.sleep(pause_s)

    def compare(
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
        """Methods side by side on one photo, and which of their maps to believe there.

        All explain the same target and the same kind of score. A method that fails shows its
        error in its row and does not stop the others; evidence that a method cannot have is left
        out for it. A few methods are asked at a time.

        Args:
            photo: See Photo.
            methods: Their names; all that the model supports when None.
            target: See explain; the top prediction, resolved once, when None.
            against: A class by index or label whose score is subtracted.
            score: "logit" (the default here: every method has it), "log_probability" or
                "probability".
            model: Its name; the server's default model when empty.
            outputs: See explain. Comparison.sheet needs the rendering.
            longest_side_px: Of the renderings, 32 to 4096; 1024 by default.
            legend: Whether renderings have one; True by default.
            until: When methods that can end early are good enough; a quadrature is adaptive then.
            evidence: What is measured of each: see Evidence.
            timeout_s: The deadline of each call in seconds; the client's by default.
            on_progress: Called with the methods that are done and all of them, after each.

        Raises:
            PhotoNotFound: There is no such file.
        """
        image = _wire.loaded(photo)
        known = self.get_model(model, timeout_s=timeout_s)
        asked = questions(known, methods, _wire.evidence_of(evidence), until)
        score = _wire.common_score(target, score)
        rows: dict[str, Compared] = {}

        def ask(question: Question) -> Compared:
            try:
                result = self.explain(
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
            done(row := ask(question))
            target = None if row.result is None else row.result.target.class_index
        pool = ThreadPoolExecutor(CONCURRENCY)
        try:
            futures = [pool.submit(ask, one) for one in asked if one.method not in rows]
            for future in as_completed(futures):
                done(future.result())
        finally:  # whoever interrupts it does not wait for calls that are under way
            pool.shutdown(wait=False, cancel_futures=True)
        return Comparison(image, tuple(rows[question.method] for question in asked))

    def replay(
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
        before, rpc, request = _wire.replay_request(receipt, photo)
        return _wire.replay(before, self._call(rpc, request, timeout_s))

    def list_styles(
        self, *, timeout_s: float | None = None
    ) -> "tuple[stylizing.StyleNetwork, ...]":
        """The server's networks of fast style; none where no styles are installed."""
        request = stylize_pb2.ListStylesRequest()
        return _stylize.networks(self._call("ListStyles", request, timeout_s))

    def list_models(self, *, timeout_s: float | None = None) -> tuple[types.ModelSummary, ...]:
        """All models of the server, by name."""
        request = model_pb2.ListModelsRequest()
        return _wire.model_summaries(self._call("ListModels", request, timeout_s))

    def get_model(self, name: str = "", *, timeout_s: float | None = None) -> types.Model:
        """One model in full; the server's default model when the name is empty."""
        request = _wire.get_model_request(name)
        return _wire.model(self._call("GetModel", request, timeout_s))

    def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, rpc: str, request: Message, timeout_s: float | None) -> Any:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send = getattr(self._stub, rpc)
        while True:
            try:
                return send(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error)
            time.sleep(pause_s)

    def _stream(
        self, rpc: str, request: Message | Sequence[Message], timeout_s: float | None
    ) -> Generator[Any, None, None]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send, started = getattr(self._stub, rpc), False
        while True:
            sent = iter(request) if isinstance(request, list) else request
            call = send(sent, timeout=attempts.remaining_s(), metadata=self._metadata)
            try:
                for response in call:
                    started = True
                    yield response
                if not started:
                    raise Internal("the server's stream is empty")
                return
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error, started=started)
            finally:
                call.cancel()
            time.sleep(pause_s)
