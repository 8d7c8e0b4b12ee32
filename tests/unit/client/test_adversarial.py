"""Attacked photos as a caller gets them, and as the command line and a sheet show them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pellucid import _attack, _optimize
from pellucid.adversarial import sheet
from pellucid.cli import attack as command
from pellucid.cli.adversarial import linear_tables, square_table, transfer_table
from pellucid.client import Client
from pellucid.errors import BadArgument, FailedPrecondition, NotFound
from pellucid.optimizing import OptimizeResult
from pellucid.v1 import attack_pb2, checkpoint_pb2, data_pb2, inference_pb2, optimize_pb2
from rich.console import Console
from rich.table import Table

from .conftest import RUN, encode


def prediction(index: int, label: str, probability: float) -> inference_pb2.Prediction:
    return inference_pb2.Prediction(
        class_index=index, label=label, probability=probability, logit=1
    )


CAT, TOASTER = prediction(1, "cat", 0.75), prediction(0, "toaster", 0.9375)
TRANSFER = [
    attack_pb2.TransferScore(
        model="lite", before=CAT, after=TOASTER, source_before=0.75, source_after=0.0, fooled=True
    ),
    attack_pb2.TransferScore(model="[boxed]", before=CAT, after=CAT, fooled=False),
]
LINEAR = [
    attack_pb2.LinearView(
        class_index=1,
        label="cat",
        happened=-4.5,
        effects=[
            attack_pb2.LinearEffect(predicted=-20.25, relative_change=0.0625),
            attack_pb2.LinearEffect(layer="classifier", predicted=-4.5, relative_change=0.5),
        ],
    )
]


def picture(value: int) -> data_pb2.EncodedImage:
    return data_pb2.EncodedImage(
        format=data_pb2.IMAGE_FORMAT_PNG, data=encode(np.full((40, 40, 3), value, np.uint8), "PNG")
    )


def answered(image_count: int = 1) -> OptimizeResult:
    """As a client reads it."""
    how = attack_pb2.Adversarial(
        success=True,
        success_unrounded=True,
        prediction=TOASTER,
        goal_probability=0.9375,
        linf=8,
        l2=500,
        perturbation=picture(128),
        perturbation_gain=15.875,
        linear=LINEAR,
        transfer=TRANSFER,
    )
    message = optimize_pb2.OptimizeResult(
        images=[optimize_pb2.OptimizedImage(image=picture(40), adversarial=how)] * image_count,
        attack=attack_pb2.AttackResult(original=picture(200), prediction=CAT, label="cat"),
        run=RUN,
    )
    return _optimize.result(message)


def lines(table: Table) -> list[list[str]]:
    """The cells of a table as it is printed, borders left out."""
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(table)
    rows = captured.get().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows if "│" in row]


def test_what_is_not_there_is_none() -> None:
    how = answered().images[0].adversarial
    assert how is not None
    lite, boxed = how.transfer
    assert (lite.source_before, lite.source_after, lite.fooled) == (0.75, 0.0, True)
    assert (boxed.source_before, boxed.source_after, boxed.fooled) == (None, None, False)
    assert (lite.before.label, lite.after.label) == ("cat", "toaster")
    [view] = how.linear
    assert (view.label, view.happened) == ("cat", -4.5)
    assert [(e.layer, e.predicted) for e in view.effects] == [("", -20.25), ("classifier", -4.5)]


def test_tables() -> None:
    how = answered().images[0].adversarial
    assert how is not None
    [table] = linear_tables(how.linear)
    assert lines(table) == [
        ["layer", "predicted", "happened", "relative change"],
        ["the image", "-20.250", "-4.500", "6.25%"],
        ["classifier", "-4.500", "-4.500", "50.00%"],
    ]
    assert lines(transfer_table([how.transfer])) == [
        ["", "lite", "[boxed]"],
        ["photo", "cat 75.00%", "cat 75.00%"],
        ["attacked", "toaster 93.75%, fooled", "cat 75.00%"],
    ]
    assert [row[0] for row in lines(transfer_table([how.transfer] * 2))] == [
        "",
        "photo",
        "attacked 0",
        "attacked 1",
    ]
    square = square_table({"lite": how.transfer, "[boxed]": "cannot be looked into"})
    assert lines(square) == [
        ["crafted on", "lite", "[boxed]"],
        ["lite", "0.00%, fooled", "no such class"],
        ["[boxed]", "cannot be looked into", ""],
    ]


def test_a_sheet_shows_all_three() -> None:
    made = sheet(answered(2), cell_px=160)
    pixels = np.asarray(made)
    gap = 8
    assert made.width == gap + 3 * (160 + gap)
    for row in range(2):
        for column, value in enumerate((200, 128, 40)):
            x = gap + column * (160 + gap) + 80
            found = (pixels[:, x] == value).all(axis=1)
            assert found.sum() == 2 * 160, (row, column)
    alone = sheet(answered(), cell_px=160)
    assert alone.height < made.height < 2 * alone.height


class Attacking:
    """A client of three models, one of which is not ready, another a black box."""

    def __init__(self, refusals: dict[str, Exception]) -> None:
        self.refusals = refusals
        self.asked: list[dict[str, Any]] = []

    def list_models(self) -> Any:
        names = {"lite": True, "broken": False, "boxed": True}
        return [SimpleNamespace(name=name, ready=ready) for name, ready in names.items()]

    def get_model(self) -> Any:
        return SimpleNamespace(labels=("toaster", "cat"))

    def attack(self, photo: Path, **asked: Any) -> str:
        self.asked.append(asked)
        if asked["model"] in self.refusals:
            raise self.refusals[asked["model"]]
        return "attacking"


def test_every_model_is_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "watched", lambda _: (answered(), []))
    client = Attacking({"boxed": FailedPrecondition("it cannot be looked into")})
    made = command._crafted(cast(Client, client), Path("cat.jpg"), {"goal": "toaster"})
    assert list(made) == ["lite", "boxed"]
    assert [score.model for score in cast(Any, made["lite"])] == ["lite", "[boxed]"]
    assert made["boxed"] == "it cannot be looked into"
    assert client.asked == [
        {"model": name, "transfer": True, "goal": "toaster"} for name in ("lite", "boxed")
    ]


def test_where_none_can_be_attacked_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals: dict[str, Exception] = {
        "lite": NotFound("no such label"),
        "boxed": FailedPrecondition("it cannot be looked into"),
    }
    with pytest.raises(FailedPrecondition, match="looked into"):
        command._crafted(cast(Client, Attacking(refusals)), Path("cat.jpg"), {})


def test_an_index_is_a_label_to_all_models() -> None:
    client = cast(Client, Attacking({}))
    assert command._label(client, "1") == "cat"
    assert command._label(client, "toaster") == "toaster"
    assert command._label(client, None) is None
    with pytest.raises(BadArgument, match="2 is no class; there are 2"):
        command._label(client, "2")


@pytest.mark.parametrize("method", ["pgd", "carlini_wagner", "universal"])
def test_how_exact_checkpoints_are_is_asked_for_as_of_an_ascent(method: str) -> None:
    """Of the attack, whichever its algorithm is; as a keyword, and on the command line."""
    half = checkpoint_pb2.CHECKPOINT_PRECISION_HALF
    name, value = _attack.parameter(method, "checkpoint_precision=half")
    asked = attack_pb2.Attack()
    _attack.set_method(asked, method, {name: value, "checkpoint_every": 5})
    assert asked.checkpoint_precision == half
    assert asked.checkpoint_every == 5
    with pytest.raises(BadArgument, match="checkpoint_precision"):
        _attack.set_method(attack_pb2.Attack(), method, {"checkpoint_precision": "quarter"})
