"""The client that blocks until the answer is there."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from . import _wire, types
from ._channel import connect
from .v1 import model_pb2, service_pb2_grpc


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
        credentials: For TLS; plain text when None.

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
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._metadata = _wire.caller_metadata(caller)
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
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _wire.predict_request(
            photo, model=model, top_k=top_k, include_logits=include_logits, bucket_size=bucket_size
        )
        return _wire.predict_result(self._call("Predict", request, timeout_s))

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
