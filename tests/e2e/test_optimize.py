"""Optimizations on a real server: both protocols, both clients, the command line."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import imageio.v3 as imageio
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from pellucid.v1 import optimize_pb2, service_pb2_grpc
from pellucid_server.models.architectures import ARCHITECTURES
from PIL import Image
from typer.testing import CliRunner

from tests.harness import photo

LAYER = "blocks.1.1"


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


def idle(served: Any) -> bool:
    """Whether nothing is under way, soon."""
    until_s = time.monotonic() + 10
    while served.server.engine.admission.depth:
        if time.monotonic() > until_s:
            return False
        time.sleep(0.005)
    return True


def test_a_class_on_both_clients(served: Any, client: pellucid.Client) -> None:
    """The same seed, the same bits; what is seen is what was asked for."""
    options: dict[str, Any] = {"step_count": 60, "seed": 3, "include_pixels": True}
    with client.optimize("goldfish", preview_every=20, **options) as optimization:
        events = list(optimization)
        result = optimization.result()
    assert isinstance(events[0], pellucid.Queued)
    assert events[0].cost_ms > 0
    assert events[0].bucket_size == 4
    progress = [event for event in events if isinstance(event, pellucid.Progress)]
    assert [p.step for p in progress] == sorted({p.step for p in progress})
    assert progress[-1].score > progress[0].score
    previews = [event for event in events if isinstance(event, pellucid.Preview)]
    assert previews
    assert all(preview.image.size == (96, 96) for preview in previews)
    assert result.parameters["learning_rate"] == 0.05
    assert result.parameters["preset"] == "olah"
    assert result.spread is None
    assert result.best.stop_reason == ""
    assert result.best.pixels is not None
    rounded = np.rint(result.best.pixels * 255).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(result.best.image), rounded)
    assert client.predict(rounded).top.label == "goldfish"
    assert client.predict(rounded).top.probability > 0.95

    async def again() -> pellucid.OptimizeResult:
        async with pellucid.AsyncClient(served.grpc) as asynchronous:
            optimization = asynchronous.optimize("goldfish", **options)
            kinds = {type(event) async for event in optimization}
            assert pellucid.Progress in kinds
            return await optimization.result()

    assert np.array_equal(asyncio.run(again()).best.pixels, result.best.pixels)


def test_inversion_brings_the_photo_back(client: pellucid.Client, cat_jpg: Path) -> None:
    made = client.optimize(pellucid.Code(LAYER), photo=cat_jpg, step_count=150).result()
    assert -made.best.progress.terms[0] < 0.05
    steps = ARCHITECTURES["efficientnet_lite0"].preprocessing(96)
    seen = steps.unnormalize(steps.apply(photo("cat")))
    correlation = np.corrcoef(np.ravel(seen), np.ravel(made.best.image))[0, 1]
    assert correlation > 0.8


def test_many_starts(client: pellucid.Client) -> None:
    neuron = pellucid.Neuron("blocks.2.0", 5)
    made = client.optimize(neuron, restart_count=5, step_count=4, format="jpeg").result()
    scores = [image.score for image in made.images]
    assert [image.seed for image in made.images] == [0, 1, 2, 3, 4]
    assert made.best.score == max(scores)
    assert made.spread.least == min(scores)
    assert made.spread.largest == max(scores)
    assert made.spread.mean == pytest.approx(np.mean(scores))
    assert made.spread.standard_deviation == pytest.approx(np.std(scores, ddof=1))
    assert {image.format for image in made.images} == {"jpeg"}


def test_dreams_at_the_photos_own_proportions(client: pellucid.Client, cat_jpg: Path) -> None:
    options: dict[str, Any] = {"height_px": 128, "width_px": 192, "step_count": 2}
    plain = client.optimize(pellucid.Energy("blocks.3.1"), photo=cat_jpg, **options).result()
    guide = np.zeros((50, 50, 3), np.uint8)
    guide[::5] = 255
    guided = client.optimize(
        pellucid.Guide("blocks.3.1"), photo=cat_jpg, guide=guide, **options
    ).result()
    small = np.asarray(Image.fromarray(photo("cat")).resize((192, 128)), float)
    for made in (plain, guided):
        assert made.best.progress.step == 8
        dream = np.asarray(made.best.image, float)
        assert 1 < np.abs(dream - small).mean() < 40
    assert plain.best.encoded != guided.best.encoded


def test_several_objectives_are_weighed(client: pellucid.Client) -> None:
    made = client.optimize(
        [("goldfish", 2.0), (pellucid.Direction(LAYER, [1.0] * 24), 0.01), (2, -1.0)],
        step_count=5,
        tv_penalty=1.0,
    ).result()
    progress = made.best.progress
    fish, direction, shark = progress.terms
    expected = 2 * fish + 0.01 * direction - shark - progress.tv_penalty
    assert progress.score == pytest.approx(expected)
    assert progress.tv_penalty > 0


def test_leaving_early_cancels(served: Any, client: pellucid.Client) -> None:
    long: dict[str, Any] = {"step_count": 1_000, "timeout_s": 600}
    for event in client.optimize("goldfish", **long):
        assert isinstance(event, pellucid.Queued)
        break
    assert idle(served)
    with client.optimize("goldfish", **long) as optimization:
        next(optimization)
    assert idle(served)

    async def leave() -> None:
        async with (
            pellucid.AsyncClient(served.grpc) as asynchronous,
            asynchronous.optimize("goldfish", **long) as optimization,
        ):
            async for _ in optimization:
                break

    asyncio.run(leave())
    assert idle(served)


def test_a_deadline_ends_it(served: Any, client: pellucid.Client) -> None:
    with pytest.raises(pellucid.DeadlineExceeded, match="needs about"):
        client.optimize("goldfish", step_count=10_000, restart_count=64, timeout_s=1).result()
    with pytest.raises(pellucid.DeadlineExceeded):
        client.optimize("goldfish", step_count=150, timeout_s=0.8).result()
    assert idle(served)


def test_events_over_rest(served: Any, cat_jpg: Path) -> None:
    spec = {"ascend": {"objectives": [{"label": "goldfish"}], "stepCount": 12, "previewEvery": 6}}
    answer = httpx.post(f"{served.http}/v1/optimize", json=spec, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    names = [event.removeprefix("event: ") for event, _ in events]
    assert names[0] == "queued"
    assert {"progress", "preview"} <= set(names)
    assert names[-1] == "result"
    result = json.loads(events[-1][1].removeprefix("data: "))
    assert result["ascend"]["objectives"] == [
        {"classIndex": 1, "score": "SCORE_LOGIT", "weight": 1.0}
    ]
    assert result["images"][0]["progress"]["step"] == 12
    form = {"method": "ascend", "objectives[0].code.layer": LAYER, "step_count": "2"}
    with cat_jpg.open("rb") as file:
        answer = httpx.post(
            f"{served.http}/v1/optimize", data=form, files={"image": file}, timeout=60
        )
    assert answer.text.strip().split("\n\n")[-1].startswith("event: result")
    answer = httpx.post(
        f"{served.http}/v1/optimize",
        data={"method": "ascend", "label": "no such fish"},
        files={"note": (None, "text")},
    )
    assert answer.status_code == 400
    assert "note: unknown" in answer.json()["error"]["message"]


def refused(client: pellucid.Client, *args: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(pellucid.StatusError) as caught:
        client.optimize(*args, **options).result()
    return {v.field: v.description for v in caught.value.violations}


def test_everything_that_is_wrong_is_named_at_once(client: pellucid.Client) -> None:
    found = refused(
        client,
        [
            (-1, 1.0),
            ("no such fish", 0.0),
            pellucid.Neuron("blocks.9"),
            pellucid.Neuron(LAYER, 99, y=50, x=0),
            pellucid.Direction(LAYER, [0.0, 0.0]),
            pellucid.Guide("classifier"),
            pellucid.Code("blocks.9"),
        ],
        step_count=0,
        restart_count=65,
        tv_beta=2.0,
    )
    assert found == {
        "ascend.step_count": "is 0; must be 1 to 10000",
        "ascend.restart_count": "is 65; must be 1 to 64",
        "ascend.tv_beta": "needs tv_penalty",
        "ascend.objectives[0].class_index": "is -1; must be 0 to 999",
        "ascend.objectives[1].label": found["ascend.objectives[1].label"],
        "ascend.objectives[1].weight": "is 0; must be finite and not 0",
        "ascend.objectives[2].neuron.layer": found["ascend.objectives[2].neuron.layer"],
        "ascend.objectives[3].neuron.channel": "is 99; must be 0 to 23",
        "ascend.objectives[3].neuron.y": "is 50; must be 0 to 23",
        "ascend.objectives[4].direction.vector": found["ascend.objectives[4].direction.vector"],
        "ascend.objectives[5].guide.layer": "classifier has no maps: its output is 1000",
        "ascend.objectives[6].code.layer": found["ascend.objectives[6].code.layer"],
        "image": "required for START_PHOTO and Code",
        "guide": "required for Guide",
    }


def test_bad_settings_and_sizes(client: pellucid.Client, cat_jpg: Path) -> None:
    assert refused(client, "goldfish", height_px=2000, width_px=2000) == {
        "ascend.height_px": "times width_px is 2000 × 2000, 4000000 pixels; at most 1048576 fit, "
        "such as 1024 × 1024"
    }
    assert set(refused(client, "goldfish", blur_sigma_px=1.0, octave_count=3)) == {
        "ascend.blur_sigma_px",
        "ascend.octave_count",
    }
    small = refused(
        client, "goldfish", preset="mordvintsev", photo=cat_jpg, octave_count=12, octave_scale=2.0
    )
    assert "smallest octave would have a side of 0 px" in small["ascend.octave_count"]
    many = refused(client, "goldfish", preset="mordvintsev", photo=cat_jpg, step_count=5000)
    assert many["ascend.step_count"] == "times octave_count is 20000; must be at most 10000"
    assert set(refused(client, "goldfish", seed=2**63 - 1)) == {"ascend.seed"}
    assert set(refused(client, [])) == {"ascend.objectives"}
    assert set(refused(client, "goldfish", photo=cat_jpg)) == {"image"}
    assert set(refused(client, "goldfish", model="other")) == {"model"}
    inside = refused(client, pellucid.Neuron("blocks.2.0", 1, y=9, x=9), height_px=64, width_px=64)
    assert inside == {
        "ascend.objectives[0].neuron.y": "is 9; must be 0 to 7",
        "ascend.objectives[0].neuron.x": "is 9; must be 0 to 7",
    }
    assert client.optimize(
        pellucid.Neuron("blocks.2.0"), height_px=64, width_px=80, step_count=1
    ).result()
    prepared = np.zeros((3, 96, 96), np.float32)
    found = refused(client, pellucid.Code(LAYER), photo=prepared, height_px=64, width_px=64)
    assert set(found) == {"image.tensor"}


def test_the_first_message_is_the_spec(served: Any) -> None:
    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        for messages, complaint in (
            ([optimize_pb2.OptimizeRequest()], "spec: required in the first message"),
            ([], "the call has no message"),
            (
                [optimize_pb2.OptimizeRequest(spec=optimize_pb2.OptimizeSpec())],
                "method: required; one of ascend",
            ),
        ):
            with pytest.raises(grpc.RpcError, match=complaint) as caught:
                list(stub.Optimize(iter(messages)))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_follows_a_spec_is_not_taken_in_before_the_spec_is_right(served: Any) -> None:
    """Callers who keep the rest back are answered all the same."""
    ascend = optimize_pb2.Ascend(objectives=[optimize_pb2.Objective(class_index=1)])
    wrong = optimize_pb2.Ascend(objectives=ascend.objectives, seed=-1)
    over = threading.Event()

    def messages(spec: optimize_pb2.OptimizeSpec) -> Iterator[optimize_pb2.OptimizeRequest]:
        yield optimize_pb2.OptimizeRequest(spec=spec)
        over.wait(60)

    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        for given, complaint in (
            ({"ascend": ascend, "checkpoint_bytes": 1 << 29}, "checkpoint_bytes: makes 536870912"),
            ({"ascend": ascend, "checkpoint_bytes": -1}, "checkpoint_bytes: is -1"),
            ({"ascend": wrong, "checkpoint_bytes": 100}, "ascend.seed: is -1"),
            ({"ascend": ascend, "photo_count": 1000}, "photo_count: is for Universal"),
        ):
            with pytest.raises(grpc.RpcError, match=complaint) as caught:
                list(stub.Optimize(messages(optimize_pb2.OptimizeSpec(**given)), timeout=30))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    over.set()


def test_a_checkpoint_counts_once(served: Any, client: pellucid.Client) -> None:
    """What came of it is held, and its own bytes no longer."""
    admission, long = served.server.engine.admission, {"step_count": 60, "resume": False}

    def held(**options: Any) -> int:
        assert idle(served)
        with served.held(), client.optimize("goldfish", **long, **options) as optimization:
            assert isinstance(next(iter(optimization)), pellucid.Queued)
            byte_count: int = admission.byte_count
        return byte_count

    with client.optimize("goldfish", **long, checkpoint_every=1) as optimization:
        checkpoint = next(one for one in optimization if isinstance(one, pellucid.Checkpoint))
    more = held(resume_from=checkpoint) - held()
    assert more == pytest.approx(len(checkpoint.data), rel=0.1)


def test_a_form_brings_a_checkpoint(make_server: Any) -> None:
    """Of any number of events, and larger than a message may be; the end has the same bits."""
    given = {"method": "ascend", "class_index": "1", "step_count": "8", "checkpoint_every": "3"}
    with make_server(max_message_bytes=150_000) as running:

        def events(**sent: Any) -> list[tuple[str, dict[str, Any]]]:
            answer = httpx.post(f"{running.http}/v1/optimize", timeout=60, **sent)
            assert answer.status_code == 200, answer.text
            blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
            return [(a[len("event: ") :], json.loads(b[len("data: ") :])) for a, b in blocks]

        form = {name: (None, value) for name, value in given.items()}
        whole = events(files=form)
        parts = [told for name, told in whole if name == "checkpoint" and told["step"] == 3]
        checkpoint = b"".join(base64.b64decode(part["chunk"]) for part in parts)
        assert len(parts) > 1
        assert len(checkpoint) > 150_000
        rest = events(files=form | {"checkpoint": ("checkpoint", checkpoint)})
        assert rest[-1][0] == "result"
        assert rest[-1][1]["images"] == whole[-1][1]["images"]
        assert rest[-1][1]["notes"] == []
        spec = {"ascend": {"objectives": [{"classIndex": 1}]}, "checkpointBytes": 100}
        answer = httpx.post(f"{running.http}/v1/optimize", json=spec)
        assert answer.status_code == 400
        assert "checkpoint_bytes: is for streams" in answer.json()["error"]["message"]


def test_the_command_line(
    served: Any, cat_jpg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        result = CliRunner(env={"PELLUCID_SERVER": served.grpc}).invoke(app, ["optimize", *args])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    printed = run("class", "goldfish", "--steps=20", "--video=fish.gif", "--frame-every=5")
    assert "steps    20 of 20" in printed
    assert "class.png" in printed
    with Image.open("class.png") as image, Image.open("fish.gif") as video:
        assert image.size == (96, 96)
        assert video.n_frames >= 2
        assert video.info["duration"] == 80
    run("neuron", "--layer", LAYER, "--channel=3", "--steps=2", "--restarts=2", "-o", "n.jpg")
    assert Path("n.jpg").read_bytes()[:2] == b"\xff\xd8"
    run("invert", str(cat_jpg), "--layer", LAYER, "--steps=2", "-p", "tv_penalty=1")
    assert Path("cat-invert.png").exists()
    run("dream", str(cat_jpg), "--layer", LAYER, "--steps=1", "--size=120x80", "-o", "d.png")
    with Image.open("d.png") as image:
        assert image.size == (120, 80)
    run("class", "cup", "--steps=20", "--size=121x97", "--video=cup.mp4", "--frame-every=2")
    shown = imageio.imread("cup.mp4", plugin="pyav")
    assert len(shown) >= 2
    assert shown.shape[1:] == (96, 120, 3)
    for args, complaint in (
        (("class", "goldfish", "-p", "nothing=1"), "--parameter: is 'nothing=1'"),
        (("class", "goldfish", "--size=ax9"), "--size: has 'a'"),
        (("class", "goldfish", "--video=a.avi"), "a.avi: must end with .gif, .mp4"),
        (("class", "goldfish", "--frame-every=2"), "needs --video"),
        (("class", "goldfish", "-o", "a.bmp"), "must end with .jpg"),
    ):
        result = CliRunner(env={"PELLUCID_SERVER": served.grpc}).invoke(app, ["optimize", *args])
        assert result.exit_code == 2
        assert complaint in result.stderr


def test_arguments_that_are_wrong_are_not_sent(client: pellucid.Client) -> None:
    for args, options, complaint in (
        (("goldfish",), {"steps": 3}, "steps: not a parameter of optimize"),
        (([("goldfish", 1.0, 2.0)],), {}, "must be \\(objective, weight\\)"),
        ((1.5,), {}, "must be a class index"),
        (("goldfish",), {"preset": "lucid"}, "preset: is 'lucid'"),
    ):
        with pytest.raises(pellucid.BadArgument, match=complaint):
            client.optimize(*args, **options)
