"""What attacks are predicted to cost, against the batches that they ride in."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.engine.engine import Unobserved
from pellucid_server.engine.rows import Lane, Rows
from pellucid_server.engine.schedule import Batch
from pellucid_server.errors import DeadlineTooShort
from pellucid_server.methods.attack.carlini_wagner_stepper import CarliniWagnerStepper
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import AscentStepper
from pellucid_server.models.registry import Model, Registry

from tests.harness import Runner, model, photo, running

BATCH_MS = 100.0
LITE = "efficientnet_lite0"


class Counted(Unobserved):
    """Counts batches, and rows in them."""

    def __init__(self) -> None:
        self.batches = self.rows = 0

    def batch(self, batch: Batch, batch_ms: float) -> None:
        assert batch.bucket_size == 4
        self.batches += 1
        self.rows += len(batch.tickets)


def image_of(array: np.ndarray) -> data_pb2.Image:
    tensor = data_pb2.Tensor(data_type=1, shape=array.shape, data=array.tobytes())
    return data_pb2.Image(tensor=tensor)


def corner(name: str) -> data_pb2.Image:
    return image_of(np.ascontiguousarray(photo(name)[:200, :200]))


def asked(
    models: Sequence[Model],
    photos: Sequence[data_pb2.Image] = (),
    timeout_s: float = 300.0,
    **fields: Any,
) -> wire.AskedOptimize:
    request = optimize_pb2.OptimizeSpec(
        model=models[0].name, attack=attack_pb2.Attack(**fields), photos=photos
    )
    if not photos:
        request.image.CopyFrom(image_of(photo("cat")))
    return wire.read_optimize(
        request,
        wire.Call("", time.monotonic() + timeout_s),
        Registry([*models]),
        wire.Limits(10**6, (1,), 10**6, Buckets(4), b"0123456789abcdef"),
    )


def ridden(one: wire.AskedOptimize, models: Sequence[Model]) -> tuple[float, int, int, int]:
    """Batches that are predicted, and those that there were; the same of rows."""
    seen = Counted()
    with running(observer=seen, buckets=(1, 4)) as runner:
        for on in models:
            for lane in (Lane.FORWARD, Lane.GRADIENT):
                runner.engine.costs_of(on).record(lane, 4, BATCH_MS)
        job = runner.engine.submit(one.spec)
        job.future.result(300)
    # Full batches are what rows cost in a queue.
    assert job.queued_ms == pytest.approx(job.row_count * BATCH_MS / 4, rel=0.02)
    return job.cost_ms / BATCH_MS, seen.batches, job.row_count, seen.rows


TWO = (model(LITE), replace(model("resnet18"), name="other"))


@pytest.mark.parametrize(
    ("fields", "batches"),
    [
        # The photo; a gradient; the images; the linear view's logits and slopes.
        ({"fgsm": attack_pb2.Fgsm()}, 1 + 2 + 1 + 1 + 1),
        ({"pgd": attack_pb2.Pgd(step_count=3, restart_count=3)}, 1 + 4 + 2 + 1 + 1),
        ({"pgd": attack_pb2.Pgd(step_count=3, restart_count=6)}, 1 + 6 + 3 + 2 + 1),
        # Of all layers the activations of two images; of each model two.
        (
            {
                "bim": attack_pb2.Bim(step_count=2),
                "linear_layers": ["blocks.1.1", "global_pool"],
                "transfer": True,
            },
            1 + 3 + 1 + 1 + 1 + 1 + 2,
        ),
    ],
    ids=["fgsm", "restarts", "more restarts than a bucket", "linear and transfer"],
)
def test_what_is_known_before_is_counted(fields: dict[str, Any], batches: int) -> None:
    fields["goal_class_index"] = 1  # so that how many classes are looked at is known, too
    predicted, there, rows, rode = ridden(asked(TWO, **fields), TWO)
    assert predicted == pytest.approx(batches, abs=0.01)
    assert there == batches
    assert rows == rode


@pytest.mark.parametrize(
    ("photos", "fields"),
    [
        ((), {"deep_fool": attack_pb2.DeepFool()}),
        ((), {"deep_fool": attack_pb2.DeepFool(norm=attack_pb2.NORM_LINF, candidate_count=3)}),
        ((), {"carlini_wagner": attack_pb2.CarliniWagner(step_count=100, search_count=4)}),
        (
            ("cat", "coffee", "rocket"),
            {"universal": attack_pb2.Universal(pass_count=2, fooling_rate=1, candidate_count=6)},
        ),
    ],
    ids=["deep_fool", "deep_fool of few", "carlini_wagner", "universal"],
)
def test_what_is_usual_is_within_a_factor_of_two(
    photos: Sequence[str], fields: dict[str, Any]
) -> None:
    one = asked(TWO, [corner(name) for name in photos], **fields)
    predicted, there, rows, rode = ridden(one, TWO)
    assert 0.5 <= predicted / there <= 2
    assert 0.5 <= rows / rode <= 2


def test_which_attacks_step_together() -> None:
    kinds = {
        name: asked(TWO, [corner("cat")] if name == "universal" else [], **{name: {}})
        .spec.method.pace(TWO[0])
        .kind
        for name in ("fgsm", "bim", "pgd", "carlini_wagner", "deep_fool", "universal")
    }
    assert kinds == {
        **dict.fromkeys(("fgsm", "bim", "pgd"), AscentStepper),
        "carlini_wagner": CarliniWagnerStepper,
        **dict.fromkeys(("deep_fool", "universal"), Rows),
    }


def slow(runner: Runner) -> None:
    """Every batch takes half a second."""
    for lane in (Lane.FORWARD, Lane.GRADIENT):
        runner.engine.costs_of(TWO[0]).record(lane, 4, 500.0)


LAYERS = [one.name for one in TWO[0].network.layers if one.targetable][:15]
PHOTOS = [corner(name) for name in ("cat", "coffee", "rocket")]


@pytest.mark.parametrize(
    ("name", "field", "default", "timeout_s", "rest"),
    [
        ("carlini_wagner", "step_count", 1000, 600.0, {}),
        ("pgd", "step_count", 40, 15.0, {}),
        ("pgd", "step_count", 40, 17.0, {"linear_layers": LAYERS}),
        ("universal", "pass_count", 10, 45.0, {"photos": PHOTOS}),
    ],
    ids=["carlini_wagner", "pgd", "layers beside", "passes that cost less than the first"],
)
def test_a_refusal_says_what_would_fit(
    name: str, field: str, default: int, timeout_s: float, rest: dict[str, Any]
) -> None:
    """It is let in, and one more would take more than nine tenths of the time."""

    def of(count: int | None = None) -> Any:
        fields = {name: {} if count is None else {field: count}}
        return asked(TWO, timeout_s=timeout_s, **fields, **rest).spec

    with running(buckets=(1, 4)) as runner:
        slow(runner)
        with pytest.raises(DeadlineTooShort) as caught:
            runner.engine.submit(of())
        words = str(caught.value)
        assert f"attack.{name}.{field} of " in words
        assert f", not {default}, would fit" in words
        fitting = int(words.rpartition(" of ")[2].partition(",")[0])
        assert runner.engine.cost_ms(of(fitting + 1)) > 0.9 * timeout_s * 1e3 - 500
        job = runner.engine.submit(of(fitting))
        runner.engine.cancel(job)


@pytest.mark.parametrize(
    ("name", "timeout_s", "rest"),
    [
        ("pgd", 2.0, {"linear_layers": LAYERS}),
        ("universal", 20.0, {"photos": PHOTOS}),
        ("deep_fool", 1.0, {}),
    ],
)
def test_where_nothing_fits_nothing_is_said(
    name: str, timeout_s: float, rest: dict[str, Any]
) -> None:
    with running(buckets=(1, 4)) as runner:
        slow(runner)
        with pytest.raises(DeadlineTooShort, match=r"leaves \d+ ms$"):
            runner.engine.submit(asked(TWO, timeout_s=timeout_s, **{name: {}}, **rest).spec)


@pytest.mark.parametrize(("name", "rest"), [("pgd", {}), ("universal", {"photos": PHOTOS})])
def test_what_goes_on_is_not_told_to_ask_for_less(name: str, rest: dict[str, Any]) -> None:
    """Its checkpoint is of the settings that it is of."""
    spec = asked(TWO, timeout_s=2.0, **{name: {}}, **rest).spec
    states = (Snapshot(0, 0, 1, 1, {}),)
    with running(buckets=(1, 4)) as runner:
        slow(runner)
        with pytest.raises(DeadlineTooShort, match=r"leaves \d+ ms$"):
            runner.engine.submit(replace(spec, method=replace(spec.method, states=states)))
