"""The client for asyncio: the twin of client.py."""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from . import _wire, types
from ._channel import connect_aio
from .v1 import model_pb2, service_pb2_grpc


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
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._metadata = _wire.caller_metadata(caller)
        self._target = target
        self._credentials = credentials

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
        )
        return _wire.predict_result(await self._call("Predict", request, timeout_s))

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
