"""Streams that bring what they announced too slowly, or not at all."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pellucid
import pytest
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2, service_pb2_grpc

from tests.harness import photo

PHOTO = data_pb2.Image(encoded=b"a")
SPEC = optimize_pb2.OptimizeSpec(
    attack=attack_pb2.Attack(universal=attack_pb2.Universal()), photo_count=1000
)


def test_a_stream_that_is_being_received_holds_a_permit(
    make_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended with what it has brought, and gives the permit back."""
    monkeypatch.setattr("pellucid_server.api.rpc.RECEIVE_TIMEOUT_S", 3.0)
    over = threading.Event()

    def messages() -> Iterator[optimize_pb2.OptimizeRequest]:
        yield optimize_pb2.OptimizeRequest(spec=SPEC)
        yield optimize_pb2.OptimizeRequest(photo=PHOTO)
        over.wait(60)

    with (
        make_server(max_requests=1) as running,
        grpc.insecure_channel(running.grpc) as channel,
        pellucid.Client(running.grpc, max_retries=0) as client,
    ):
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        stalled = stub.Optimize(messages(), timeout=60)
        refused = ""
        until_s = time.monotonic() + 20
        while not refused:
            assert time.monotonic() < until_s
            try:
                client.predict(photo("cat"))
            except pellucid.ResourceExhausted as error:
                refused = str(error)
        assert "1 requests are under way" in refused
        with pytest.raises(grpc.RpcError) as late:
            list(stalled)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert f"came too slowly, {PHOTO.ByteSize()} bytes of it" in late.value.details()
        assert client.predict(photo("cat")).top.label
        over.set()


def test_streams_that_dribble_starve_nobody(
    make_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is received, one waits; those beyond are told when to come again."""
    monkeypatch.setattr("pellucid_server.api.rpc.RECEIVE_TIMEOUT_S", 3.0)
    over = threading.Event()

    def messages() -> Iterator[optimize_pb2.OptimizeRequest]:
        yield optimize_pb2.OptimizeRequest(spec=SPEC)
        while not over.wait(0.1):
            yield optimize_pb2.OptimizeRequest(photo=PHOTO)

    with (
        make_server(queue_bytes=4 << 26, max_message_bytes=1 << 26) as running,
        grpc.insecure_channel(running.grpc) as channel,
        pellucid.Client(running.grpc) as client,
    ):
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        streams = [stub.Optimize(messages(), timeout=60) for _ in range(3)]
        codes = []
        for stream in streams:
            assert client.predict(photo("cat")).top.label
            with pytest.raises(grpc.RpcError) as ended:
                list(stream)
            codes.append(ended.value.code().name)
        assert sorted(codes) == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"]
        over.set()
