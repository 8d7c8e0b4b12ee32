"""How a client reaches a server that is locked: what it sends, and what it refuses to."""

import traceback
from pathlib import Path
from typing import Any

import grpc
import pellucid
import pytest
import trustme
from pellucid.cli import app
from typer.testing import CliRunner

from .conftest import Call, FakeServer

TOKEN = "a-token-of-alice-1"
CLIENTS = [pellucid.Client, pellucid.AsyncClient]


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("one", "two"):
        made = authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    (folder / "junk.pem").write_text("no PEM")
    return folder


def test_a_token_goes_along(call: Call, server: FakeServer) -> None:
    call("list_models", options={"token": TOKEN})
    call("list_models")
    assert server.metadata[0]["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in server.metadata[1]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("token", ["", " ", f"{TOKEN} ", f"{TOKEN}\n", f"{TOKEN}é"])
def test_a_token_that_is_none(kind: Any, token: str) -> None:
    with pytest.raises(pellucid.BadArgument, match="token: must be printable") as error:
        kind(token=token)
    assert TOKEN not in "".join(traceback.format_exception(error.value))


LOCAL = ("localhost:8001", "localhost", "127.0.0.1:1", "127.9.9.9:1", "[::1]:8001", "unix:/tmp/s")
REMOTE = (
    "pellucid:8001",
    "10.0.0.1:8001",
    "0.0.0.0:8001",
    "127.0.0.1.example.com:8001",
    "localhost.example.com:8001",
    "dns:///localhost:8001",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "::1:8001",
    "[::2]:8001",
)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("target", [*LOCAL, *REMOTE])
def test_a_token_crosses_no_network_in_plain_text(kind: Any, target: str) -> None:
    kind(target)
    kind(target, token=TOKEN, tls=True)
    kind(target, token=TOKEN, credentials=grpc.experimental.insecure_channel_credentials())
    if target in LOCAL:
        assert TOKEN not in repr(kind(target, token=TOKEN))
    else:
        with pytest.raises(pellucid.BadArgument, match="plain text") as error:
            kind(target, token=TOKEN)
        assert TOKEN not in str(error.value)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"ca_file": "absent"}, "absent: cannot be read"),
        ({"ca_file": "junk.pem"}, r"junk.pem: holds no certificate"),
        ({"ca_file": "one.key"}, r"one.key: holds no certificate"),
        ({"certificate_file": "one.pem"}, "need each other"),
        ({"key_file": "one.key"}, "need each other"),
        ({"certificate_file": "junk.pem", "key_file": "one.key"}, "junk.pem: holds no certificate"),
        ({"certificate_file": "one.pem", "key_file": "junk.pem"}, "junk.pem: holds no unencrypted"),
        ({"certificate_file": "one.pem", "key_file": "two.key"}, "two.key: does not fit"),
    ],
)
def test_files_of_no_use(kind: Any, pems: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(pellucid.BadArgument, match=said):
        kind(**{name: pems / file for name, file in files.items()})


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("option", ["tls", "ca_file", "certificate_file", "key_file"])
def test_credentials_stand_alone(kind: Any, pems: Path, option: str) -> None:
    value = True if option == "tls" else pems / "ca.pem"
    with pytest.raises(pellucid.BadArgument, match="credentials"):
        kind(credentials=grpc.ssl_channel_credentials(), **{option: value})


# The command line.


@pytest.mark.parametrize("place", ["file", "variable", "both"])
def test_the_command_line_sends_a_token(server: FakeServer, tmp_path: Path, place: str) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = [] if place == "variable" else [f"--token-file={tmp_path / 'token'}"]
    variables = {"PELLUCID_SERVER": server.address}
    if place != "file":
        variables["PELLUCID_TOKEN"] = TOKEN if place == "variable" else "another"
    result = CliRunner(env=variables).invoke(app, [*options, "models"])
    assert result.exit_code == 0
    assert server.metadata[0]["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--token-file=absent"], 1, "absent"),
        (["--ca-file=absent"], 2, "absent: cannot be read"),
        (["--certificate=absent"], 2, "need each other"),
    ],
)
def test_the_command_line_names_what_is_wrong(
    server: FakeServer, options: list[str], code: int, said: str
) -> None:
    variables = {"PELLUCID_SERVER": server.address}
    result = CliRunner(env=variables).invoke(app, [*options, "models"])
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_command_line_keeps_a_token_from_the_network() -> None:
    variables = {"PELLUCID_SERVER": "pellucid.example.com:8001", "PELLUCID_TOKEN": TOKEN}
    result = CliRunner(env=variables).invoke(app, ["models"])
    assert result.exit_code == 2
    assert "plain text" in result.stderr
    assert TOKEN not in result.output
