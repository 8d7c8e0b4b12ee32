"""Tokens, TLS files and the settings that name them, and the lock around an application."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pellucid_server import cli
from pellucid_server.api.locked import OPEN_PATHS, Lock, LockedApp
from pellucid_server.config import Settings
from pellucid_server.errors import Unauthenticated
from pellucid_server.locks import Tokens, Watched, read_tokens
from pellucid_server.tls import HttpContext, Identity, read_identity
from pydantic import ValidationError

ALICE, BOB = "a-token-of-alice-1", "a-token-of-bob-22"


def tokens(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_a_token_is_admitted_under_its_name(tmp_path: Path) -> None:
    read = read_tokens(tokens(tmp_path / "t", "# ours", "", f"alice {ALICE}", f"  bob\t{BOB} "))
    assert read.admit([f"Bearer {ALICE}"]) == "alice"
    assert read.admit([f"bearer  {BOB} "]) == "bob"


def test_tokens_need_no_names(tmp_path: Path) -> None:
    assert read_tokens(tokens(tmp_path / "t", ALICE, BOB)).admit([f"Bearer {BOB}"]) is None


def test_two_tokens_of_one_name(tmp_path: Path) -> None:
    read = read_tokens(tokens(tmp_path / "t", f"alice {ALICE}", f"alice {BOB}"))
    assert read.admit([f"Bearer {ALICE}"]) == read.admit([f"Bearer {BOB}"]) == "alice"


@pytest.mark.parametrize(
    "authorization",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [ALICE],
        [f"Basic {ALICE}"],
        [f"Bearer{ALICE}"],
        [f"Bearer {ALICE[:-1]}"],
        [f"Bearer {ALICE}1"],
        [f"Bearer {ALICE} {ALICE}"],
        [f"Bearer {ALICE.upper()}"],
        ["Bearer alice"],
        ["Bearer \xe9\u20ac"],
        [f"Bearer {ALICE}", f"Bearer {ALICE}"],
        [f"Bearer {ALICE}", "Bearer no"],
    ],
)
def test_all_else_is_refused(tmp_path: Path, authorization: list[str]) -> None:
    read = read_tokens(tokens(tmp_path / "t", f"alice {ALICE}"))
    with pytest.raises(Unauthenticated, match="token") as refused:
        read.admit(authorization)
    assert ALICE not in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["", "# nothing"], "holds no token"),
        ([ALICE, "short-of-secret"], "line 2: a token must have 16"),
        ([f"alice {ALICE} more"], "line 1: must be TOKEN or NAME TOKEN"),
        ([f"{ALICE}\u20ac"], "line 1: must be printable ASCII"),
        ([f"zo\xeb {ALICE}"], "line 1: must be printable ASCII"),
        ([ALICE, BOB, ALICE], "line 3: the token is there already"),
        ([f"alice {ALICE}", f"bob {ALICE}"], "line 2: the token is there already"),
        ([f"alice {ALICE}", BOB], "all tokens must have names, or none"),
        (["x" * (64 << 10)] * 2, "more than 65536 bytes"),
    ],
)
def test_a_file_of_tokens_that_is_wrong(tmp_path: Path, lines: list[str], said: str) -> None:
    path = tokens(tmp_path / "t", *lines)
    with pytest.raises(ValueError, match=said) as error:
        read_tokens(path)
    assert str(path) in str(error.value)
    assert not any(secret in str(error.value) for secret in (ALICE, BOB, "secret"))


def test_what_changes_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tokens(tmp_path / "t", ALICE)
    reads: list[Tokens] = []
    watched = Watched([path], lambda: reads.append(read_tokens(path)) or reads[-1])
    watched.refresh()
    assert watched.value is reads[0]
    assert len(reads) == 1
    tokens(path, BOB)  # as long as it was, and maybe of the same time
    watched.refresh()
    watched.value.admit([f"Bearer {BOB}"])
    with pytest.raises(Unauthenticated):
        watched.value.admit([f"Bearer {ALICE}"])
    for broken in ("nothing", None):
        path.unlink() if broken is None else path.write_text(broken)
        caplog.clear()
        watched.refresh()
        watched.refresh()
        (record,) = caplog.records
        assert "what was read before stays in force" in record.message
        watched.value.admit([f"Bearer {BOB}"])
    tokens(path, ALICE)
    watched.refresh()
    watched.value.admit([f"Bearer {ALICE}"])


def test_a_mounted_secret_is_swapped_by_its_link(tmp_path: Path) -> None:
    for name, token in (("one", ALICE), ("two", BOB)):
        (tmp_path / name).mkdir()
        tokens(tmp_path / name / "t", token)
    link = tmp_path / "data"
    link.symlink_to("one")
    watched = Watched([link / "t"], lambda: read_tokens(link / "t"))
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(link)
    watched.refresh()
    watched.value.admit([f"Bearer {BOB}"])


# TLS.


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, good and bad."""
    folder = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("one", "two"):
        made = authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    (folder / "junk.pem").write_bytes(b"\xff no PEM")
    (folder / "cut.pem").write_bytes((folder / "one.pem").read_bytes()[:200])
    key = serialization.load_pem_private_key((folder / "one.key").read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (folder / "encrypted.key").write_bytes(key.private_bytes(*formats))
    tokens(folder / "tokens", ALICE)
    return folder


def test_good_files_are_taken(pems: Path) -> None:
    settings = Settings(
        tls_certificate=pems / "one.pem",
        tls_key=pems / "one.key",
        tls_client_ca=pems / "ca.pem",
        token_file=pems / "tokens",
    )
    assert settings.tls_key == pems / "one.key"


@pytest.mark.parametrize(
    ("names", "field", "said"),
    [
        ({"tls_certificate": "absent"}, "tls_certificate", "not point to a file"),
        ({"tls_certificate": "junk.pem"}, "tls_certificate", "no certificate in PEM"),
        ({"tls_certificate": "cut.pem"}, "tls_certificate", "or a damaged one"),
        ({"tls_certificate": "one.key"}, "tls_certificate", "no certificate in PEM"),
        ({"tls_certificate": "one.pem"}, "tls_key", "need each other"),
        ({"tls_key": "one.key"}, "tls_key", "need each other"),
        ({"tls_certificate": "one.pem", "tls_key": "two.key"}, "tls_key", "does not fit"),
        ({"tls_certificate": "one.pem", "tls_key": "junk.pem"}, "tls_key", "no unencrypted key"),
        ({"tls_certificate": "one.pem", "tls_key": "one.pem"}, "tls_key", "no unencrypted key"),
        (
            {"tls_certificate": "one.pem", "tls_key": "encrypted.key"},
            "tls_key",
            "no unencrypted key",
        ),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca", "needs tls_certificate"),
        (
            {"tls_certificate": "one.pem", "tls_key": "one.key", "tls_client_ca": "junk.pem"},
            "tls_client_ca",
            "no certificate in PEM",
        ),
        ({"token_file": "absent"}, "token_file", "not point to a file"),
        ({"token_file": "junk.pem"}, "token_file", "line 1: must be TOKEN or NAME TOKEN"),
    ],
)
def test_bad_files_are_named_by_their_setting(
    pems: Path, names: dict[str, str], field: str, said: str
) -> None:
    with pytest.raises(ValidationError) as error:
        Settings(**{setting: pems / name for setting, name in names.items()})
    (problem,) = error.value.errors()
    assert problem["loc"] == (field,)
    assert said in problem["msg"]


def test_serve_says_all_that_is_wrong(pems: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = {"certificate": "junk.pem", "client-ca": "junk.pem"}
    code = cli.main([f"--tls-{flag}={pems / name}" for flag, name in flags.items()])
    said = capfd.readouterr().err
    assert code == 2
    assert "tls_certificate" in said
    assert "tls_client_ca" in said


def test_a_connection_gets_the_newest_identity(tmp_path: Path, pems: Path) -> None:
    certificate, key = tmp_path / "c", tmp_path / "k"

    def install(name: str) -> None:
        certificate.write_bytes((pems / f"{name}.pem").read_bytes())
        key.write_bytes((pems / f"{name}.key").read_bytes())

    def shown() -> bytes | None:
        """The certificate that a client is shown."""
        client = ssl.create_default_context(cafile=pems / "ca.pem")
        ends = [ssl.MemoryBIO() for _ in range(4)]
        asking = client.wrap_bio(ends[0], ends[1], server_hostname="localhost")
        answering = context.wrap_bio(ends[2], ends[3], server_side=True)
        for end in (asking, answering) * 3:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            ends[2].write(ends[1].read())
            ends[0].write(ends[3].read())
        return asking.getpeercert(binary_form=True)

    install("one")
    identity: Watched[Identity] = Watched(
        [certificate, key], lambda: read_identity(certificate, key, None)
    )
    context = HttpContext(identity)
    first = shown()
    install("two")
    assert shown() == first
    identity.refresh()
    second = shown()
    assert second is not None
    assert second != first
    key.write_bytes(b"broken")
    identity.refresh()
    assert shown() == second


# An application behind the lock.


LOCKED_PATHS = ("/v1/predict", "/", "/health/live/", "/nothing")


@pytest.mark.parametrize("path", [*LOCKED_PATHS, *sorted(OPEN_PATHS)])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Bearer {ALICE}"])
def test_a_request_is_refused_unread(tmp_path: Path, path: str, authorization: str | None) -> None:
    answered: list[str] = []
    refused: list[str] = []

    def answer(name: str) -> Any:
        async def app(*_: object) -> None:
            answered.append(name)

        return app

    async def receive() -> None:
        raise AssertionError("the body is read")

    file = tokens(tmp_path / "t", ALICE)
    lock = Lock(Watched([file], lambda: read_tokens(file)), refused.append)
    app = LockedApp(answer("app"), lock, lambda *_: answer("refusal"))
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    asyncio.run(app({"type": "http", "path": path, "headers": headers}, receive, receive))
    let_in = path in OPEN_PATHS or authorization == f"Bearer {ALICE}"
    assert answered == ["app" if let_in else "refusal"]
    assert refused == ([] if let_in else ["http"])
