"""A folder of photos: the manifest, what is done again and what is not, names of pictures."""

import errno
import fcntl
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pellucid import BadArgument, Client, NotFound, Unavailable
from pellucid.cli import app
from pellucid.folders import FolderResult, explain_folder, photos_in
from pellucid.v1 import data_pb2, inference_pb2, model_pb2
from typer.testing import CliRunner

from .conftest import MODEL, RUN, FakeServer, encode, explained, fake_server

PHOTOS = [encode(np.full((4, 6, 3), grey, np.uint8), "PNG") for grey in (10, 20, 30)]
PICTURE = encode(np.zeros((4, 6, 3), np.uint8), "JPEG")
FULL = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))


class Server(FakeServer):
    """Which model it has is asked once a run: that is not counted, and does not fail."""

    def __init__(self) -> None:
        super().__init__()
        self.serve("0123456789ab")

    def serve(self, version: str) -> None:
        picture = data_pb2.EncodedImage(format=data_pb2.IMAGE_FORMAT_JPEG, data=PICTURE)
        run, self.model = inference_pb2.Run(), model_pb2.GetModelResponse()
        run.CopyFrom(RUN)
        self.model.CopyFrom(MODEL)
        run.model_version = self.model.version = version
        self.explained = explained(rendering=picture, run=run)

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.model not in ("", "lite"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return self.model


@pytest.fixture
def server() -> Iterator[Server]:
    fake = Server()
    with fake_server(fake):
        yield fake


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, max_retries=0) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    (path / "nested").mkdir(parents=True)
    for name, data in zip(("a.png", "b.PNG", "nested/c.png"), PHOTOS, strict=True):
        (path / name).write_bytes(data)
    (path / "notes.txt").write_text("no photo")
    (path / ".hidden.png").write_bytes(PHOTOS[0])
    return path


def run(client: Client, folder: Path, **options: Any) -> FolderResult:
    given = {"method": "occlusion", "concurrency": 1, **options}
    return explain_folder(client, folder, folder.parent / "why", **given)


def lines(folder: Path) -> list[dict[str, Any]]:
    *whole, rest = (folder.parent / "why" / "manifest.jsonl").read_bytes().split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in whole]


def test_pictures_and_a_manifest(client: Client, server: Server, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = run(client, folder, window_px=32, on_progress=lambda *done: told.append(done))
    assert [entry["photo"] for entry in found.entries] == ["a.png", "b.PNG", "nested/c.png"]
    assert lines(folder) == list(found.entries)
    for entry in found.entries:
        assert (folder.parent / "why" / entry["picture"]).read_bytes() == PICTURE
    assert found.entries[2]["picture"] == "nested/c.png.jpg"
    assert found.entries[0]["target"] == "tabby [cat] (class 0)"
    assert {request.occlusion.window_px for request in server.requests} == {32}
    assert {request.image.encoded for request in server.requests} == set(PHOTOS)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (found.failed, found.earlier_count) == ((), 0)


def test_what_is_done_is_not_done_again_and_a_line_that_was_cut_off_is(
    client: Client, server: Server, folder: Path
) -> None:
    run(client, folder)
    manifest = folder.parent / "why" / "manifest.jsonl"
    whole = manifest.read_text()
    manifest.write_text(whole[:-10])
    server.requests.clear()
    assert run(client, folder).earlier_count == 2
    assert len(server.requests) == 1
    assert manifest.read_text() == whole


STRANGE = ("caf\udce9.png", "line\u2028and\u0085next\r.png", "größe.png")
"""The first is Latin-1: no text in UTF-8."""


def test_names_of_any_bytes_are_kept_and_taken_up_again(
    client: Client, server: Server, folder: Path
) -> None:
    for name in STRANGE:
        (folder / name).write_bytes(PHOTOS[0])
    found = run(client, folder)
    assert found.failed == ()
    assert set(STRANGE) < {entry["photo"] for entry in found.entries}
    assert run(client, folder).entries == found.entries
    assert run(client, folder).earlier_count == 6
    assert (folder.parent / "why" / found.entries[-1]["picture"]).is_file()


def test_manifests_whose_lines_hold_other_line_ends_are_read(client: Client, folder: Path) -> None:
    for name in STRANGE[1:]:
        (folder / name).write_bytes(PHOTOS[0])
    run(client, folder)
    manifest = folder.parent / "why" / "manifest.jsonl"
    texts = [json.dumps(entry, ensure_ascii=False) for entry in lines(folder)]
    whole = "".join(f"{text}\n" for text in texts).encode()
    manifest.write_bytes(whole + '{"photo": "ö'.encode()[:-1])  # cut off inside of a character
    assert run(client, folder).earlier_count == 5
    assert manifest.read_bytes() == whole


def test_another_photo_another_request_and_a_picture_that_is_gone_are_done_again(
    client: Client, server: Server, folder: Path
) -> None:
    run(client, folder)
    for change, count in (
        (lambda: (folder / "a.png").write_bytes(PHOTOS[1]), 1),
        (lambda: (folder.parent / "why" / "b.PNG.jpg").unlink(), 1),
        (lambda: None, 0),
    ):
        change()
        server.requests.clear()
        run(client, folder)
        assert len(server.requests) == count
    server.requests.clear()
    run(client, folder, window_px=16)
    assert len(server.requests) == 3


def test_another_model_is_another_run(client: Client, server: Server, folder: Path) -> None:
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "no photo")
    run(client, folder)
    server.serve("ba9876543210")
    found = run(client, folder)
    assert found.earlier_count == 0
    assert {entry["model_version"] for entry in found.entries} == {"ba9876543210"}
    assert run(client, folder).earlier_count == 3


def test_a_model_that_is_not_there_fails_the_run(client: Client, folder: Path) -> None:
    with pytest.raises(NotFound, match="no such model"):
        run(client, folder, model="nothing")
    assert not (folder.parent / "why").exists()


def test_a_photo_that_cannot_be_read_is_its_own_error(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(done_count: int, _: int) -> None:
        if done_count == 0:
            (folder / "b.PNG").unlink()

    found = run(client, folder, on_progress=gone)
    [failed] = found.failed
    assert failed["photo"] == "b.PNG"
    assert failed["error"] == {
        "code": "UNREADABLE",
        "reason": "",
        "message": "No such file or directory",
    }
    (folder / "b.PNG").write_bytes(PHOTOS[1])
    assert run(client, folder).failed == ()

    def refused(path: Path) -> bytes:
        if path.name == "b.PNG":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        with path.open("rb") as file:
            return file.read()

    monkeypatch.setattr(Path, "read_bytes", refused)
    [failed] = run(client, folder).failed
    assert failed["error"]["message"] == "Permission denied"


def test_errors_of_the_photo_stay_and_others_are_tried_again(
    client: Client, server: Server, folder: Path
) -> None:
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "no photo")
    server.fail(grpc.StatusCode.INTERNAL, "a bug")
    found = run(client, folder)
    assert [entry["photo"] for entry in found.failed] == ["a.png", "b.PNG"]
    assert found.failed[0]["error"] == {
        "code": "INVALID_ARGUMENT",
        "reason": "",
        "message": "no photo",
    }
    server.requests.clear()
    found = run(client, folder)
    assert [request.image.encoded for request in server.requests] == [PHOTOS[1]]
    assert [entry["photo"] for entry in found.failed] == ["a.png"]


def test_a_full_queue_is_waited_for(client: Client, server: Server, folder: Path) -> None:
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", FULL, times=5)
    assert run(client, folder).failed == ()
    assert len(server.requests) == 8


def test_a_full_queue_is_waited_for_until_the_deadline(
    client: Client, server: Server, folder: Path
) -> None:
    long = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=60))
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", long)
    found = run(client, folder, timeout_s=5.0)
    assert [entry["error"]["code"] for entry in found.failed] == ["RESOURCE_EXHAUSTED"]


def test_a_server_that_goes_away_ends_the_run_and_what_is_done_stays(
    client: Client, server: Server, folder: Path
) -> None:
    run(client, folder)
    (folder / "d.png").write_bytes(PHOTOS[0])
    server.fail(grpc.StatusCode.UNAVAILABLE, "stopping", times=9)
    with pytest.raises(Unavailable):
        run(client, folder)
    assert len(lines(folder)) == 3


def test_two_runs_do_not_write_one_manifest(client: Client, folder: Path) -> None:
    run(client, folder)
    with (folder.parent / "why" / "manifest.jsonl").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BadArgument, match="another run writes it"):
            run(client, folder)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_no_two_photos_share_a_picture(client: Client, folder: Path, suffix: str) -> None:
    names = ["a.jpg", "a.jpg.jpg", "a.jpg.png", "a.png", "a.png.jpg", "a.png.png", "a.webp"]
    names += ["a.JPG", "a.b.jpg", "a.b.png"]
    pictures: dict[str, str] = {}
    for name in names:  # one more each time: what is there before keeps its own
        (folder / name).write_bytes(PHOTOS[0])
        found = run(client, folder, format="png" if suffix == "png" else "jpeg")
        now = {entry["photo"]: entry["picture"] for entry in found.entries}
        assert pictures.items() <= now.items()
        pictures = now
    assert len(set(pictures.values())) == len(pictures) == 12
    assert pictures[f"a.{suffix}"] == f"a.{suffix}"
    assert pictures["a.webp"] == f"a.webp.{suffix}"


@pytest.mark.parametrize(
    ("here", "photos", "output"),
    [
        (".", "{}", "{}/why"),
        (".", "photos", "{}/why"),
        (".", "{}", "photos/why"),
        (".", "photos", "photos/nested/../why"),
        ("photos", "{}", "why"),
        ("photos", ".", "../link/why"),
    ],
)
def test_pictures_inside_the_folder_are_not_its_photos(
    client: Client,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    here: str,
    photos: str,
    output: str,
) -> None:
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent / here)
    given = (Path(text.format(folder)) for text in (photos, output))
    asked = functools.partial(explain_folder, client, *given, "gradient")
    assert asked().earlier_count == 0
    again = asked()
    assert [entry["photo"] for entry in again.entries] == ["a.png", "b.PNG", "nested/c.png"]
    assert again.earlier_count == 3


@pytest.mark.parametrize("output", ["photos", "{}", ".", "photos/nested/.."])
def test_pictures_are_not_written_among_the_photos(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(BadArgument, match=r"output: .* holds the photos"):
        explain_folder(client, Path("photos"), Path(output.format(folder)), "gradient")
    assert not list(folder.parent.rglob("manifest.jsonl"))


def test_a_folder_of_pictures_alone_has_no_photo(client: Client, folder: Path) -> None:
    for path in ("a.png", "b.PNG"):
        (folder / path).unlink()
    with pytest.raises(BadArgument, match="there is no photo"):
        explain_folder(client, folder, folder / "nested", "gradient")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]\n", "line 1"),
        ("nonsense\n", "line 1"),
        ("{}\n", "line 1"),
        ('{"photo": "a.png", "error": {"code": "INTERNAL", "message": ""}}\n[1]\n', "line 2"),
        ('{"photo": "a.png"}\n', "line 1"),
        ('{"photo": ["a.png"], "picture": "a.jpg"}\n', "line 1"),
        ('{"photo": "a.png", "picture": 1}\n', "line 1"),
        ('{"photo": "a.png", "error": "bad"}\n', "line 1"),
        ('{"photo": "a.png", "error": {"code": "INTERNAL"}}\n', "line 1"),
    ],
)
def test_a_file_that_is_no_manifest_is_left_alone(
    client: Client, folder: Path, text: str, said: str
) -> None:
    output = folder.parent / "why"
    output.mkdir()
    (output / "manifest.jsonl").write_text(text)
    with pytest.raises(BadArgument, match=said):
        run(client, folder)
    assert (output / "manifest.jsonl").read_text() == text


def test_bad_arguments(client: Client, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="concurrency: is 0; must be 1 to 64"):
        run(client, folder, concurrency=0)
    with pytest.raises(BadArgument, match="not a folder"):
        photos_in(tmp_path / "nowhere")
    with pytest.raises(BadArgument, match="no photo in"):
        photos_in(tmp_path)
    with pytest.raises(BadArgument, match="occlusoin"):
        run(client, folder, method="occlusoin")
    assert not (tmp_path / "why").exists()


def test_the_command_line(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("PELLUCID_SERVER", server.address)
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "no photo")
    asked = ["explain", str(folder), "--method", "occlusion", "-p", "window_px=32"]
    made = CliRunner().invoke(app, [*asked, "--concurrency", "1"])
    assert made.exit_code == 1
    assert made.stdout.splitlines() == [
        "a.png: INVALID_ARGUMENT: no photo",
        "2 explained, 1 failed",
        f"written  {Path('photos-occlusion/manifest.jsonl')}",
    ]
    for option in ("--json", "--live=x.png", "--receipt=x.json"):
        refused = CliRunner().invoke(app, [*asked, option])
        assert refused.exit_code == 2
        assert "is for one photo" in refused.stderr
    one = CliRunner().invoke(app, ["explain", str(folder / "a.png"), "--concurrency", "2"])
    assert one.exit_code == 2
    assert "--concurrency: is for a folder" in one.stderr


def test_names_of_any_bytes_on_the_command_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_SERVER", server.address)
    for name in STRANGE[::2]:
        Path(name).write_bytes(PHOTOS[0])
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "no photo", times=2)
    made = CliRunner().invoke(app, ["explain", ".", "-o", "why"])
    assert made.exit_code == 1, made.exception
    assert made.stdout.splitlines()[:2] == [
        f"{name}: INVALID_ARGUMENT: no photo" for name in ("caf\\udce9.png", "größe.png")
    ]
    made = CliRunner().invoke(app, ["explain", STRANGE[0]])
    assert made.exit_code == 0, made.exception
    assert "caf\\udce9-gradient.jpg" in made.stdout


def test_predict_with_explanations_on_the_command_line(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    attached = inference_pb2.AttachedExplanation
    late = data_pb2.Failure(code=4, message="too late", reason="DEADLINE_EXPIRED")
    server.attached = [attached(explanation=server.explained), attached(failure=late)]
    asked = ["predict", str(folder / "a.png"), "--explain", "occlusion", "--explain", "rise"]
    made = CliRunner().invoke(app, [*asked, "--server", server.address])
    assert made.exit_code == 0, made.stderr
    assert Path("a-occlusion.jpg").read_bytes() == PICTURE
    assert "written  a-occlusion.jpg" in made.stdout
    assert "not written  a-rise.jpg: too late" in made.stdout
    [request] = server.requests
    assert [one.WhichOneof("method") for one in request.explain] == ["occlusion", "rise"]
    server.requests.clear()
    twice = CliRunner().invoke(app, [*asked, "--explain", "rise", "--server", server.address])
    assert twice.exit_code == 2
    assert twice.stderr == "pellucid: --explain: rise is given more than once\n"
    assert server.requests == []
