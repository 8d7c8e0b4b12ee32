"""Attacks on a real server: both protocols, both clients, the command line."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from PIL import Image
from typer.testing import CliRunner

from tests.harness import photo

PGD: dict[str, Any] = {"goal": "goldfish", "epsilon": 8, "step_size": 2, "step_count": 8}


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


def test_a_goal_is_reached_on_both_clients(
    served: Any, client: pellucid.Client, cat_jpg: Path, tmp_path: Path
) -> None:
    with client.attack(cat_jpg, preview_every=4, **PGD) as attack:
        events = list(attack)
        result = attack.result()
    assert isinstance(events[0], pellucid.Queued)
    assert any(isinstance(event, pellucid.Preview) for event in events)
    best = result.best.adversarial
    assert best is not None
    assert best.success
    assert best.success_unrounded
    assert best.prediction.label == "goldfish"
    assert best.goal_probability == best.prediction.probability > 0.9
    assert best.linf <= 8
    assert result.attack is not None
    assert result.attack.label == result.attack.prediction.label == "Egyptian cat"
    assert result.attack.source_probability > 0.5 > best.source_probability
    assert result.parameters["method"] == "pgd"
    assert result.parameters["epsilon"] == 8
    assert result.parameters["norm"] == "linf"
    before, after = np.asarray(result.attack.original, int), np.asarray(result.best.image, int)
    assert np.abs(after - before).max() == best.linf
    assert np.sqrt(((after - before) ** 2).sum()) == pytest.approx(best.l2)
    # The file that is saved is what was scored.
    result.save(tmp_path / "fish.png")
    with Image.open(tmp_path / "fish.png") as file:
        again = client.predict(np.asarray(file)).top
    assert again.label == "goldfish"
    assert again.probability == pytest.approx(best.prediction.probability, rel=1e-3)

    async def twin() -> pellucid.OptimizeResult:
        async with pellucid.AsyncClient(served.grpc) as asynchronous:
            return await asynchronous.attack(cat_jpg, **PGD).result()

    assert asyncio.run(twin()).best.encoded == result.best.encoded


def test_going_on_from_a_checkpoint(client: pellucid.Client, cat_jpg: Path) -> None:
    whole = client.attack(cat_jpg, checkpoint_every=4, **PGD)
    checkpoints = [event for event in whole if isinstance(event, pellucid.Checkpoint)]
    assert checkpoints
    rest = client.attack(cat_jpg, resume_from=checkpoints[0], **PGD).result()
    assert rest.best.encoded == whole.result().best.encoded
    with pytest.raises(pellucid.InvalidArgument, match="of another attack"):
        client.attack(cat_jpg, resume_from=checkpoints[0], **PGD | {"epsilon": 7}).result()


def test_other_methods(client: pellucid.Client, cat_jpg: Path) -> None:
    one = client.attack(cat_jpg, "fgsm", norm="l2", epsilon=500).result()
    assert one.best.adversarial is not None
    assert one.best.adversarial.l2 <= 500
    assert one.best.adversarial.goal_probability is None
    assert one.parameters["norm"] == "l2"
    given = {"step_count": 10, "search_count": 2, "initial_weight": 0.1, "confidence": 1}
    two = client.attack(cat_jpg, "carlini_wagner", include_pixels=True, **given).result()
    assert two.best.adversarial is not None
    assert two.best.adversarial.success_unrounded
    assert two.best.pixels is not None
    assert two.best.pixels.shape == (3, 96, 96)


def test_what_is_wrong_is_named(client: pellucid.Client, cat_jpg: Path) -> None:
    with pytest.raises(pellucid.InvalidArgument) as caught:
        client.attack(cat_jpg, "bim", epsilon=0, step_count=0).result()
    assert {v.field for v in caught.value.violations} == {
        "attack.bim.epsilon",
        "attack.bim.step_count",
    }
    with pytest.raises(pellucid.InvalidArgument, match="taken for already"):
        client.attack(cat_jpg, goal="Egyptian cat").result()
    for method, options, complaint in (
        ("pdg", {}, "method: is 'pdg'; must be one of fgsm, bim"),
        ("fgsm", {"step_count": 3}, "step_count: not a parameter of fgsm"),
        ("pgd", {"norm": "l3"}, "norm: is 'l3'"),
        ("pgd", {"goal": 1.5}, "must be a class index"),
    ):
        with pytest.raises(pellucid.BadArgument, match=complaint):
            client.attack(cat_jpg, method, **options)


def test_over_rest(served: Any, cat_jpg: Path) -> None:
    tensor = {
        "dataType": "DATA_TYPE_UINT8",
        "shape": list(photo("cat").shape),
        "data": base64.b64encode(photo("cat").tobytes()).decode(),
    }
    spec = {"attack": {"fgsm": {"epsilon": 4}}, "image": {"tensor": tensor}}
    answer = httpx.post(f"{served.http}/v1/optimize", json=spec, timeout=60)
    result = json.loads(answer.text.strip().split("\n\n")[-1].split("data: ")[1])
    assert result["images"][0]["adversarial"]["linf"] == 4
    assert result["attack"]["attack"]["fgsm"] == {"epsilon": 4.0, "norm": "NORM_LINF"}
    form = {"method": "attack", "bim.step_count": "2", "goal_label": "goldfish"}
    with cat_jpg.open("rb") as file:
        answer = httpx.post(
            f"{served.http}/v1/optimize", data=form, files={"image": file}, timeout=60
        )
    last = answer.text.strip().split("\n\n")[-1]
    assert last.startswith("event: result"), answer.text[:500]
    result = json.loads(last.split("data: ")[1])
    assert result["attack"]["goalLabel"] == "goldfish"
    assert result["images"][0]["progress"]["stepCount"] == 2


def test_the_command_line(
    served: Any, cat_jpg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"PELLUCID_SERVER": served.grpc, "COLUMNS": "200"})

    def run(*args: str) -> Any:
        return runner.invoke(app, ["optimize", "attack", str(cat_jpg), *args])

    done = run(
        *("--goal=goldfish", "--epsilon=8", "--steps=6", "--step-size=2", "--restarts=2"),
        *("-o", "fish.png", "--video=fish.gif", "--frame-every=2", "--linear-layer=blocks.1.1"),
    )
    assert done.exit_code == 0, done.stderr
    for words in ("Egyptian cat", "goldfish", "success       yes", "2 of 2 succeeded", "fish.png"):
        assert words in done.stdout
    with Image.open("fish.png") as image, Image.open("fish.gif") as video:
        assert image.size == (96, 96)
        assert video.n_frames >= 2
    done = run("--method=bim", "--norm=l2", "-p", "step_count=2", "--source=285")
    assert done.exit_code == 0, done.stderr
    assert Path("cat-attack.png").exists()
    for args, complaint in (
        (("-o", "a.jpg"), "must end with .png"),
        (("--method=nothing",), "method: is 'nothing'"),
        (("-p", "confidence=1"), "--parameter: is 'confidence=1'"),
        (("--frame-every=2",), "needs --video"),
    ):
        done = run(*args)
        assert done.exit_code == 2
        assert complaint in done.stderr
