"""A server behind TLS and tokens, as every kind of caller meets it."""

import asyncio
import http.client
import itertools
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pellucid
import pytest
import trustme
from google.rpc import error_details_pb2
from grpc.aio._server import Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from pellucid.cli import app as command_line
from pellucid_server import serve
from pellucid_server.api.inference.rest import is_here
from pellucid_server.api.locked import OPEN_PATHS
from starlette.routing import Mount
from typer.testing import CliRunner, Result

ALICE, BOB, WRONG = "a-token-of-alice-1", "a-token-of-bob-22", "a-token-of-nobody"
CREDENTIALS = {"right": ALICE, "wrong": WRONG, "no": None}
PREDICT = "/pellucid.v1.PellucidService/Predict"
LIST_MODELS = "/pellucid.v1.PellucidService/ListModels"
MODEL = "resnet18"


@dataclass
class Locked:
    """A server that asks for a token and for a client's certificate, and what it is made of."""

    running: Any
    folder: Path
    app: Any
    rpcs: set[str]

    @property
    def address(self) -> str:
        return str(self.running.grpc)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.running.server.http_port}"

    def files(self, ca: str = "ca", own: str | None = "client") -> dict[str, Path]:
        """The SDK's arguments for an authority, and for a certificate of the client's own."""
        files = {"ca_file": self.folder / f"{ca}.pem"}
        if own is not None:
            files["certificate_file"] = self.folder / f"{own}.pem"
            files["key_file"] = self.folder / f"{own}.key"
        return files

    def channel(self) -> grpc.Channel:
        read = [self.files()[name].read_bytes() for name in ("ca_file", "key_file")]
        chain = self.files()["certificate_file"].read_bytes()
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(*read, chain))

    def http(self, ca: str = "ca", own: str | None = "client") -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.context(ca, own), timeout=30)

    def context(self, ca: str = "ca", own: str | None = "client") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / f"{ca}.pem")
        if own is not None:
            context.load_cert_chain(self.folder / f"{own}.pem", self.folder / f"{own}.key")
        return context


def write_pair(authority: trustme.CA, folder: Path, name: str) -> None:
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    made.private_key_pem.write_to_path(folder / f"{name}.key")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("locks")
    for ca, pairs in (("ca", ("server", "client")), ("other", ("stranger",))):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(made / f"{ca}.pem")
        for name in pairs:
            write_pair(authority, made, name)
    (made / "tokens").write_text(f"alice {ALICE}\n")
    return made


@pytest.fixture(scope="module")
def locked(folder: Path, make_server: Callable[..., Any]) -> Iterator[Locked]:
    apps: list[Any] = []
    rpcs: set[str] = set()
    build_app = serve.build_app
    add_generic, add_registered = (
        Server.add_generic_rpc_handlers,
        Server.add_registered_method_handlers,
    )

    def keep_app(*args: Any) -> Any:
        apps.append(build_app(*args))
        return apps[-1]

    def keep_generic(self: Any, handlers: Any) -> None:
        rpcs.update(name for handler in handlers for name in handler._method_handlers)
        add_generic(self, handlers)

    def keep_registered(self: Any, service: str, handlers: Any) -> None:
        rpcs.update(f"/{service}/{name}" for name in handlers)
        add_registered(self, service, handlers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid_server.serve.build_app", keep_app)
        patch.setattr("pellucid_server.serve._WATCH_S", 0.02)
        patch.setattr(Server, "add_generic_rpc_handlers", keep_generic)
        patch.setattr(Server, "add_registered_method_handlers", keep_registered)
        with make_server(
            models=(MODEL,),
            input_px=64,
            buckets=(1,),
            tls_certificate=folder / "server.pem",
            tls_key=folder / "server.key",
            tls_client_ca=folder / "ca.pem",
            token_file=folder / "tokens",
        ) as running:
            yield Locked(running, folder, apps[0], rpcs)


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def outcome(
    channel: grpc.Channel, rpc: str, token: str | None, messages: Iterator[bytes]
) -> tuple[str, Any]:
    """The code that a call ends with, or OK at its first answer; and the error."""
    call = channel.stream_stream(rpc)(messages, timeout=30, metadata=tuple(bearer(token).items()))
    try:
        next(call)
    except StopIteration:
        return "OK", None
    except grpc.RpcError as error:
        return error.code().name, error
    finally:
        call.cancel()
    return "OK", None


def reason_of(error: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    rpc_status.from_call(error).details[0].Unpack(info)
    return str(info.reason)


# Tokens.


def test_every_rpc_is_locked(locked: Locked) -> None:
    open_rpcs = {"/grpc.health.v1.Health/Check"}
    assert {PREDICT, *open_rpcs} < locked.rpcs
    with locked.channel() as channel:
        for rpc, (kind, token) in itertools.product(
            [*sorted(locked.rpcs), "/pellucid.v1.PellucidService/Nothing", "/nothing"],
            CREDENTIALS.items(),
        ):
            code, error = outcome(channel, rpc, token, iter([b""]))
            refused = kind != "right" and rpc not in open_rpcs
            assert (code == "UNAUTHENTICATED") == refused, (rpc, kind, code)
            if refused:
                assert reason_of(error) == "UNAUTHENTICATED"
                assert not any(one in str(error) for one in (ALICE, WRONG))


def test_reflection_knows_every_rpc(locked: Locked) -> None:
    """And so the handlers that the test above goes through are all that there are."""
    with locked.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        metadata = tuple(bearer(ALICE).items())
        (answer,) = stub.ServerReflectionInfo(iter([asked]), metadata=metadata, timeout=30)
    services = {one.name for one in answer.list_services_response.service}
    assert {rpc.split("/")[1] for rpc in locked.rpcs} == services


def routes(app: Any) -> Iterator[tuple[str, str]]:
    """Every method and path that the application answers."""
    for route in app.routes:
        path = re.sub(r"\{[^}]*\}", "x", route.path)
        if isinstance(route, Mount):
            yield "GET", f"{path}/swagger-ui.css"
        else:
            # A WebSocket begins as a GET.
            yield from ((method, path) for method in sorted(getattr(route, "methods", {"GET"})))


def test_every_route_is_locked(locked: Locked) -> None:
    known = list(routes(locked.app))
    assert {("POST", "/v1/predict"), ("GET", "/docs"), ("GET", "/openapi.json")} < set(known)
    others = [("GET", "/nothing"), ("OPTIONS", "/v1/predict"), ("GET", "/health/live/")]
    with locked.http() as client:
        for (method, path), (kind, token) in itertools.product(known + others, CREDENTIALS.items()):
            answer = client.request(method, path, headers=bearer(token))
            refused = kind != "right" and path not in OPEN_PATHS
            assert (answer.status_code == 401) == refused, (method, path, kind)
            if refused:
                assert answer.headers["www-authenticate"] == "Bearer"
                if method != "HEAD":
                    error = answer.json()["error"]
                    assert isinstance(error, str) == is_here(path)
                    if not is_here(path):
                        assert error["status"] == error["details"][0]["reason"] == "UNAUTHENTICATED"
                assert not any(one in answer.text for one in (ALICE, WRONG))


def test_the_document_says_so(locked: Locked) -> None:
    with locked.http() as client:
        document = client.get("/openapi.json", headers=bearer(ALICE)).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            security = operation.get("security", document["security"])
            assert security == ([] if path in OPEN_PATHS else [{"token": []}])
            assert ("401" in operation["responses"]) == (path not in OPEN_PATHS)


def test_probes_need_no_token(locked: Locked) -> None:
    with locked.channel() as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    with locked.http() as client:
        assert client.get("/health/live").json() == {"live": True}
        assert client.get("/health/ready").json() == {"ready": True}


def test_the_metrics_port_is_for_probes_without_tls(locked: Locked) -> None:
    base = locked.running.metrics.removesuffix("/metrics")
    assert httpx.get(f"{base}/health/live").json() == {"live": True}
    assert httpx.get(f"{base}/health/ready").json() == {"ready": True}
    with locked.http() as client:
        assert client.get("/v1/models").status_code == 401
    counted = httpx.get(locked.running.metrics).text
    assert re.search(r'^pellucid_unauthenticated_total\{protocol="http"\} [1-9]', counted, re.M)


def test_readiness_on_the_metrics_port_is_the_servers(make_server: Callable[..., Any]) -> None:
    with make_server(start=False) as running:
        running.server._open_metrics()
        base = running.metrics.removesuffix("/metrics")
        assert httpx.get(f"{base}/health/live").status_code == 200
        answer = httpx.get(f"{base}/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})


@pytest.fixture
def arrivals(locked: Locked, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that are counted, with their bytes, while the test runs."""
    admission, seen = locked.running.server.engine.admission, []
    holding = admission.holding
    monkeypatch.setattr(admission, "holding", lambda: seen.append(holding()) or seen[-1])
    return seen


def test_a_refused_message_is_not_read(locked: Locked, arrivals: list[Any]) -> None:
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        ended.wait(60)
        yield from ()

    sent = {
        "none yet": never(),
        "corrupt": iter([b"\xff" * 100]),
        "above the cap": iter([bytes(locked.running.server.settings.max_message_bytes + 1)]),
    }
    with locked.channel() as channel:
        for name, messages in sent.items():
            assert outcome(channel, PREDICT, WRONG, messages)[0] == "UNAUTHENTICATED", name
        ended.set()
        assert not arrivals
        assert locked.running.server.engine.admission.byte_count == 0
        assert outcome(channel, PREDICT, ALICE, iter([b"\xff" * 100]))[0] != "UNAUTHENTICATED"
    assert arrivals


def test_a_refused_body_is_not_read(locked: Locked, arrivals: list[Any]) -> None:
    port = locked.running.server.http_port
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=locked.context())
    connection.putrequest("POST", "/v1/predict")
    for name, value in bearer(WRONG).items():
        connection.putheader(name, value)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(20 << 20))
    connection.endheaders()  # and no byte of the body
    assert connection.getresponse().status == 401
    connection.close()
    with locked.http() as client:
        for body in (b"{", bytes(20 << 20), bytes(40 << 20)):
            headers = {**bearer(WRONG), "content-type": "application/json"}
            assert client.post("/v1/predict", content=body, headers=headers).status_code == 401
    assert not arrivals
    assert locked.running.server.engine.admission.byte_count == 0


def test_the_tokens_name_is_the_caller(
    locked: Locked, cat_jpg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, callers = locked.running.server.engine, []
    submit = engine.submit

    def seen(spec: Any, *rest: Any) -> Any:
        callers.append(spec.caller)
        return submit(spec, *rest)

    monkeypatch.setattr(engine, "submit", seen)
    with pellucid.Client(
        locked.address, token=ALICE, caller="somebody-else", **locked.files()
    ) as client:
        client.predict(cat_jpg)
        for _ in client.explain_stream(cat_jpg, "rise", mask_count=100):
            pass
    with locked.http() as client:
        headers = {**bearer(ALICE), "pellucid-caller": "somebody-else"}
        files = {"image": cat_jpg.read_bytes()}
        assert client.post("/v1/predict", files=files, headers=headers).status_code == 200
    assert callers == ["alice"] * 3


def test_tokens_change_with_their_file(locked: Locked) -> None:
    path = locked.folder / "tokens"
    before = path.read_text()

    def until(token: str, code: str) -> None:
        """Calls until a call ends so."""
        deadline_s = time.monotonic() + 30
        while outcome(channel, LIST_MODELS, token, iter([b""]))[0] != code:
            assert time.monotonic() < deadline_s

    with locked.channel() as channel, locked.http() as client:
        path.write_text(f"bob {BOB}\n")
        until(BOB, "OK")
        until(ALICE, "UNAUTHENTICATED")
        assert client.get("/v1/models", headers=bearer(BOB)).status_code == 200
        assert client.get("/v1/models", headers=bearer(ALICE)).status_code == 401
        path.write_text(before)
        until(ALICE, "OK")


# TLS.


def with_sdk(target: str, **options: Any) -> None:
    with pellucid.Client(target, timeout_s=20, **options) as client:
        assert client.list_models()[0].name == MODEL


def with_async_sdk(target: str, **options: Any) -> None:
    async def call() -> None:
        async with pellucid.AsyncClient(target, timeout_s=20, **options) as client:
            assert (await client.list_models())[0].name == MODEL

    asyncio.run(call())


SDKS = [with_sdk, with_async_sdk]


@pytest.mark.parametrize("call", SDKS)
def test_the_right_files_and_token_connect(locked: Locked, call: Callable[..., None]) -> None:
    call(locked.address, token=ALICE, **locked.files())


@pytest.mark.parametrize("token", [WRONG, None])
@pytest.mark.parametrize("call", SDKS)
def test_the_sdk_says_what_is_missing(
    locked: Locked, call: Callable[..., None], token: str | None
) -> None:
    with pytest.raises(pellucid.Unauthenticated, match="token") as error:
        call(locked.address, token=token, **locked.files())
    assert error.value.reason == "UNAUTHENTICATED"
    assert WRONG not in repr(error.value) + str(error.value)


NO_WAY = {
    "another authority": {"ca": "other"},
    "no certificate": {"own": None},
    "a certificate of another authority": {"own": "stranger"},
}


@pytest.mark.parametrize("case", [*NO_WAY, "plain text"])
@pytest.mark.parametrize("call", SDKS)
def test_other_files_do_not_connect(locked: Locked, call: Callable[..., None], case: str) -> None:
    files = locked.files(**NO_WAY[case]) if case in NO_WAY else {}
    with pytest.raises(pellucid.Unavailable):
        call(locked.address, token=ALICE, **files)


@pytest.mark.parametrize("case", NO_WAY)
def test_http_does_not_connect_either(locked: Locked, case: str) -> None:
    with locked.http(**NO_WAY[case]) as client, pytest.raises(httpx.TransportError):
        client.get("/health/live")


def test_plain_http_is_not_spoken(locked: Locked) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(locked.url.replace("https", "http") + "/health/live")


def test_old_versions_of_tls_are_not_spoken(locked: Locked) -> None:
    context = locked.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    for port in (locked.running.server.http_port, locked.running.server.grpc_port):
        with socket.create_connection(("127.0.0.1", port), 10) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname="localhost")


def test_tls_alone_and_a_new_certificate(
    tmp_path: Path, folder: Path, make_server: Callable[..., Any]
) -> None:
    """No client's certificate, no token; the files change while it serves."""
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    pair = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    with make_server(start=False, **pair) as running:
        running.do(running.server._open_grpc(None))
        running.do(running.server._open_http(None))
        url = f"https://127.0.0.1:{running.server.http_port}/health/live"

        def reached(ca: Path) -> list[bool]:
            with (
                pellucid.Client(running.grpc, ca_file=ca, max_retries=0) as client,
                pytest.raises(pellucid.Unavailable) as error,
            ):
                client.list_models()
            found = [error.value.reason == "UNAVAILABLE"]  # the server's own word: it has no models
            try:
                context = ssl.create_default_context(cafile=ca)
                found.append(httpx.get(url, verify=context).status_code == 200)
            except httpx.ConnectError:
                found.append(False)
            return found

        other = trustme.CA()
        other.cert_pem.write_to_path(tmp_path / "new.pem")
        assert reached(folder / "ca.pem") == [True, True]
        write_pair(other, tmp_path, "server")
        running.server._identity.refresh()
        assert reached(tmp_path / "new.pem") == [True, True]
        assert reached(folder / "ca.pem") == [False, False]


# The command line.


def command(locked: Locked, *arguments: str, **environment: str | Path) -> Result:
    variables = {name: str(value) for name, value in environment.items()}
    variables["PELLUCID_SERVER"] = locked.address
    return CliRunner(env=variables).invoke(command_line, arguments)


def test_the_command_line_by_options(locked: Locked, cat_jpg: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{ALICE}\n")
    files = locked.files()
    options = [
        f"--token-file={tmp_path / 'token'}",
        f"--ca-file={files['ca_file']}",
        f"--certificate={files['certificate_file']}",
        f"--key={files['key_file']}",
    ]
    listed = command(locked, *options, "models", "--json")
    assert json.loads(listed.stdout)["models"][0]["name"] == MODEL
    assert command(locked, *options, "predict", str(cat_jpg)).exit_code == 0
    load = ("load", str(cat_jpg), "--concurrency=1", "--duration-s=0.5", "--warm-up-s=0")
    assert command(locked, *options, *load).exit_code == 0
    assert "UNAUTHENTICATED" in command(locked, *options[1:], *load).stderr


@pytest.mark.parametrize("token", [ALICE, WRONG, ""])
def test_the_command_line_by_variables(locked: Locked, token: str) -> None:
    files = locked.files()
    result = command(
        locked,
        "models",
        PELLUCID_TOKEN=token,
        PELLUCID_CA_FILE=files["ca_file"],
        PELLUCID_CERTIFICATE=files["certificate_file"],
        PELLUCID_KEY=files["key_file"],
    )
    if token == ALICE:
        assert result.exit_code == 0
    else:
        assert result.exit_code == 1
        assert "UNAUTHENTICATED" in result.stderr
        assert WRONG not in result.output


def test_the_command_line_in_plain_text(locked: Locked) -> None:
    assert "UNAVAILABLE" in command(locked, "models").stderr
