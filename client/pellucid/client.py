"""The client that blocks until the answer is there."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from typing import Any

from . import _stylize, _wire, stylizing, types
from ._inspecting import Inspecting
from ._looking import Looking
from ._making import Making
from ._projecting import Projecting
from .compare import CONCURRENCY, EVIDENCE, Compared, Comparison, Question, questions
from .errors import StatusError
from .v1 import model_pb2, stylize_pb2


class Client(Making, Projecting, Looking, Inspecting):
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
