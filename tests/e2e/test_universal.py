"""Universal perturbations on a real server: both protocols, both clients, the command line."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2, service_pb2_grpc
from PIL import Image
from typer.testing import CliRunner

from tests.harness import photo

SHORT: dict[str, Any] = {"pass_count": 1, "step_count": 2, "candidate_count": 3}
NAMES = ("cat", "coffee", "rocket")


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        Image.fromarray(photo(name)[:200, :200]).save(made / f"{name}.png")
    return made


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return [folder / f"{name}.png" for name in sorted(NAMES)]


def test_both_clients_make_the_same(
    served: Any, client: pellucid.Client, files: list[Path]
) -> None:
    with client.universal(files, progress_every=1, preview_every=2, **SHORT) as making:
        events = list(making)
        result = making.result()
    assert isinstance(events[0], pellucid.Queued)
    steps = [event.step for event in events if isinstance(event, pellucid.Progress)]
    assert steps[-1] == 3
    assert any(isinstance(event, pellucid.Preview) for event in events)
    made = result.universal
    assert made is not None
    assert made.linf <= 10
    assert made.linf == np.abs(made.perturbation).max()
    assert made.l2 == pytest.approx(np.linalg.norm(made.perturbation))
    assert made.fooling_rate == np.mean([one.fooled for one in made.photos])
    assert result.parameters["method"] == "universal"
    assert result.parameters["overshoot"] == 0.02
    for file, outcome, image in zip(files, made.photos, result.images, strict=True):
        assert client.predict(file).top.label == outcome.before.label
        assert client.predict(np.asarray(image.image)).top.label == outcome.after.label
        assert image.adversarial.success == outcome.fooled

    async def again() -> pellucid.OptimizeResult:
        async with pellucid.AsyncClient(served.grpc) as asynchronous:
            return await asynchronous.universal(files, **SHORT).result()

    assert np.array_equal(asyncio.run(again()).universal.perturbation, made.perturbation)


def test_a_form_brings_the_photos(served: Any, files: list[Path]) -> None:
    data = {"method": "attack", **{f"attack.universal.{k}": str(v) for k, v in SHORT.items()}}
    sent = [("photos", (file.name, file.read_bytes())) for file in files]
    answer = httpx.post(f"{served.http}/v1/optimize", data=data, files=sent, timeout=120)
    name, _, content = answer.text.strip().split("\n\n")[-1].partition("\n")
    assert name == "event: result"
    result = json.loads(content.removeprefix("data: "))
    assert len(result["attack"]["universal"]["photos"]) == 3


def test_a_form_has_a_cap_of_its_own(make_server: Any, files: list[Path]) -> None:
    """Above that of a message; a photo set above its own cap is refused on both ways."""
    data = {"method": "attack", "attack.universal.pass_count": "1"}
    size = files[0].stat().st_size
    sent = [("photos", (f"{k}", files[0].read_bytes())) for k in range(3)]
    with make_server(max_message_bytes=2 * size, max_photo_set_bytes=int(2.5 * size)) as running:
        answer = httpx.post(f"{running.http}/v1/optimize", data=data, files=sent)
        assert answer.status_code == 400
        assert (
            f"photos: take more than {int(2.5 * size)} bytes" in answer.json()["error"]["message"]
        )
        few = {"data": data | {"attack.universal.pass_count": "0"}, "files": sent[:2]}
        answer = httpx.post(f"{running.http}/v1/optimize", **few)
        assert answer.status_code == 400
        assert "pass_count: is 0" in answer.json()["error"]["message"]
        with (
            pellucid.Client(running.grpc) as client,
            pytest.raises(pellucid.InvalidArgument, match="photos: take more than"),
        ):
            client.universal([files[0]] * 3, **SHORT).result()


def test_what_is_wrong_with_a_stream(served: Any, files: list[Path]) -> None:
    message = optimize_pb2.OptimizeRequest
    one = message(photo=data_pb2.Image(encoded=files[0].read_bytes()))
    attack = attack_pb2.Attack(universal=attack_pb2.Universal(**SHORT))

    def spec(count: int) -> optimize_pb2.OptimizeRequest:
        return message(spec=optimize_pb2.OptimizeSpec(attack=attack, photo_count=count))

    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        for messages, complaint in (
            ([spec(-1)], "photo_count: is -1; must be 0 to 1024"),
            ([spec(1025)], "photo_count: is 1025; must be 0 to 1024"),
            ([spec(3), one, one], "photo_count: is 3; 2 photos came"),
            ([spec(2), one, message(checkpoint_chunk=b"a")], "photo_count: is 2; 1 photos came"),
            ([spec(1), one, one], "photo_count: is 1; more messages came"),
            ([spec(0)], "photos: has 0; must have 1 to 1024"),
            ([spec(2), one, message(photo=data_pb2.Image())], r"photos\[1\]: required"),
        ):
            with pytest.raises(grpc.RpcError, match=complaint) as caught:
                list(stub.Optimize(iter(messages)))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_arguments_that_are_wrong_are_not_sent(client: pellucid.Client, files: list[Path]) -> None:
    with pytest.raises(pellucid.BadArgument, match="photos: is one photo"):
        client.universal(files[0])
    with pytest.raises(pellucid.BadArgument, match="steps: not a parameter of universal"):
        client.universal(files, steps=3)
    with pytest.raises(pellucid.BadArgument, match="method: is 'universal'"):
        client.attack(files[0], "universal")
    with pytest.raises(pellucid.PhotoNotFound):
        client.universal(["nowhere.png"])


def test_a_server_that_stops_hands_it_over(
    make_server: Any, tmp_path: Path, files: list[Path]
) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"a key that replicas share")
    options = {**SHORT, "fooling_rate": 1.0, "epsilon": 2.0, "pass_count": 3}
    with make_server(checkpoint_key_file=key) as stays, pellucid.Client(stays.grpc) as client:
        with make_server(checkpoint_key_file=key) as leaves, pellucid.Client(leaves.grpc) as other:
            making = other.universal(
                files, resume=False, checkpoint_every=10_000, progress_every=1, **options
            )
            next(event for event in making if isinstance(event, pellucid.Progress))
            leaves.do(leaves.server.stop())
            checkpoints = []
            with pytest.raises(pellucid.Unavailable):
                checkpoints.extend(e for e in making if isinstance(e, pellucid.Checkpoint))
        assert len(checkpoints) == 1
        assert 0 < checkpoints[0].step < 9
        result = client.universal(files, resume_from=checkpoints[0], **options).result()
        assert result.notes == ()
        whole = client.universal(files, **options).result()
    assert np.array_equal(result.universal.perturbation, whole.universal.perturbation)


def test_the_command_line(
    served: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Any:
        runner = CliRunner(env={"PELLUCID_SERVER": served.grpc})
        return runner.invoke(app, ["optimize", "universal", *args])

    short = ("-p", "step_count=2", "-p", "candidate_count=3", "--passes=1")
    result = run(str(folder), "-o", "v.png", *short, "--video=v.gif", "--frame-every=1")
    assert result.exit_code == 0, result.stderr
    assert "of 3 photos" in result.stdout
    assert "1 of 1" in result.stdout
    with Image.open("v.png") as image, Image.open("v.gif") as video:
        assert image.size == video.size == (96, 96)
    (tmp_path / "empty").mkdir()
    for args, complaint in (
        ((str(tmp_path / "empty"),), "there is no photo in"),
        ((str(folder), "-p", "steps=1"), "--parameter: is 'steps=1'"),
        ((str(folder), "-o", "v.bmp"), "must end with"),
        ((str(folder), "--epsilon=0.5"), "must be 1 to 255"),
    ):
        result = run(*args)
        assert result.exit_code != 0
        assert complaint in result.stderr
