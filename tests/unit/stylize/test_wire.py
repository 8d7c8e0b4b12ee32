"""Requests for stylized images: what is asked, and all that can be wrong with it."""

import io
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pellucid.v1 import checkpoint_pb2, data_pb2, stylize_pb2
from pellucid_server import wire
from pellucid_server.errors import FailedPrecondition, InvalidArgument, NotFound, PellucidError
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.stylize.stylize import Stylize
from pellucid_server.models.registry import Registry
from PIL import Image

from tests.harness import model, photo, running

NAME = "efficientnet_lite0"
LIMITS = wire.Limits(10**6, (1,), 300 * 300, Buckets(4), b"0123456789abcdef")


def encoded(array: np.ndarray) -> data_pb2.Image:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(data, "PNG")
    return data_pb2.Image(encoded=data.getvalue())


CONTENT = photo("cat")[::4, ::4]
STYLE = photo("coffee")[::4, ::4]


def request(*, styles: Any = None, **neural: Any) -> stylize_pb2.StylizeSpec:
    made = stylize_pb2.StylizeSpec(content=encoded(CONTENT), neural={"side_px": 64, **neural})
    for style in [STYLE] if styles is None else styles:
        made.styles.add(image=encoded(style))
    return made


def read(spec: stylize_pb2.StylizeSpec, name: str = NAME) -> wire.AskedStylize:
    registry = Registry([model(name)])
    return wire.read_stylize(spec, wire.Call("", time.monotonic() + 100), registry, LIMITS)


def violations(spec: stylize_pb2.StylizeSpec) -> tuple[type[PellucidError], dict[str, str]]:
    with pytest.raises(PellucidError) as raised:
        read(spec)
    return type(raised.value), {v.field: v.description for v in raised.value.violations}


def test_defaults_are_filled_in() -> None:
    asked = read(request())
    method = asked.spec.method
    assert isinstance(method, Stylize)
    assert asked.spec.bucket_size == 4
    assert method.size == (42, 64)
    assert method.sizes == [(42, 64), (42, 63)]
    neural = asked.settings.neural
    assert neural.step_count == 200
    assert neural.learning_rate == 10
    assert neural.style_weight > 0
    assert len(neural.content_layers) == 1
    assert len(neural.style_layers) == 4
    assert [style.weight for style in asked.settings.styles] == [1]
    assert not asked.settings.styles[0].HasField("image")
    lbfgs = read(request(update=stylize_pb2.STYLE_UPDATE_LBFGS)).settings.neural
    assert lbfgs.learning_rate == 1


WRONG: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"side_px": 63}, "neural.side_px", "is 63; must be 64 to 2048"),
    ({"side_px": 512}, "neural.side_px", "at most 90000 fit"),
    ({"side_px": 64, "scale_count": 4}, "neural.scale_count", "at least 32 are needed"),
    ({"content_weight": 0, "style_weight": 0}, "neural.style_weight", "one must be more"),
    ({"learning_rate": float("nan")}, "neural.learning_rate", "is nan"),
    ({"seed": 1}, "neural.seed", "is for STYLE_START_NOISE"),
    ({"checkpoint_precision": 2}, "neural.checkpoint_precision", "needs checkpoint_every"),
    ({"pooling": 2}, "neural.pooling", "has no max-pooling layers"),
    ({"normalization": 9}, "neural.normalization", "GRAM_NORMALIZATION_JOHNSON"),
    ({"start": 3}, "start", "required for STYLE_START_IMAGE"),
    ({"styles": []}, "styles", "has 0; must have 1 to 8"),
    ({"styles": [STYLE] * 9}, "styles", "has 9; must have 1 to 8"),
    (
        {"scale_count": 2, "style_layers": [{"layer": "blocks.6"}]},
        "content",
        "is too small at 30 × 45 pixels: blocks.6 has maps of 1 × 2",
    ),
    (
        {"style_layers": [{"layer": "blocks.0", "weight": 0}]},
        "neural.style_layers[0].weight",
        "is 0; must be more than 0",
    ),
    (
        {"style_layers": [{"layer": "blocks.0"}, {"layer": "blocks.0"}]},
        "neural.style_layers[1].layer",
        "is there already",
    ),
    (
        {"content_layers": [{"layer": "blocks.0"}] * 9},
        "neural.content_layers",
        "has 9; at most 8",
    ),
)


@pytest.mark.parametrize(("asked", "field", "says"), WRONG, ids=lambda one: str(one)[:40])
def test_what_is_wrong_is_named(asked: dict[str, Any], field: str, says: str) -> None:
    kind, found = violations(request(**asked))
    assert kind is InvalidArgument
    assert says in found[field]


def test_everything_wrong_is_said_at_once() -> None:
    spec = request(side_px=10, step_count=0, styles=[])
    spec.content.Clear()
    spec.mask.encoded = b"no picture"
    spec.model = "another"
    assert set(violations(spec)[1]) == {
        "model",
        "content",
        "styles",
        "mask.encoded",
        "neural.side_px",
        "neural.step_count",
    }


def test_layers_that_are_not_there_or_have_no_maps() -> None:
    kind, found = violations(request(style_layers=[{"layer": "blocks.0x"}]))
    assert kind is NotFound
    assert "close to it: blocks.0" in found["neural.style_layers[0].layer"]
    kind, found = violations(request(content_layers=[{"layer": "classifier"}]))
    assert kind is FailedPrecondition
    assert "has no maps" in found["neural.content_layers[0].layer"]


def test_pictures_that_do_not_fit() -> None:
    spec = request()
    spec.mask.CopyFrom(encoded(CONTENT[1:]))
    kind, found = violations(spec)
    assert kind is InvalidArgument
    assert found["mask"] == "must be as large as the content: they are 74 × 113 and 75 × 113"
    spec = request()
    spec.start.CopyFrom(encoded(CONTENT))
    assert violations(spec)[1]["start"] == "is for STYLE_START_IMAGE"
    spec = request()
    prepared = np.zeros((3, 96, 96), np.float32)
    spec.content.tensor.CopyFrom(
        data_pb2.Tensor(
            data_type=data_pb2.DATA_TYPE_FLOAT32, shape=prepared.shape, data=prepared.tobytes()
        )
    )
    assert "is float32; send a photo" in violations(spec)[1]["content.tensor"]
    spec = request()
    spec.ClearField("neural")
    assert "required" in violations(spec)[1]["method"]


def pictures_of(spec: stylize_pb2.StylizeSpec, name: str = NAME) -> list[np.ndarray]:
    """What the method gets, in grey levels from 0 to 1, H×W each."""
    asked = read(spec, name)
    on, sizes = asked.spec.model.preprocessing, asked.spec.method.sizes
    numbers = asked.spec.source.load(asked.spec.model).input
    parts = numbers.split([3 * height * width for height, width in sizes])
    return [
        part.view(3, *size)[0].numpy() * on.std[0] + on.mean[0]
        for part, size in zip(parts, sizes, strict=True)
    ]


def rising(height_px: int, width_px: int) -> np.ndarray:
    """From black on the left to white on the right."""
    levels = np.linspace(0, 255, width_px).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels[None, :, None], (height_px, width_px, 3)))


@pytest.mark.parametrize("name", [NAME, "resnet18"])
@pytest.mark.parametrize("size", [(40, 400), (41, 400), (96, 96)])
def test_pictures_are_seen_whole(size: tuple[int, int], name: str) -> None:
    """However long they are, and at the network's own size, too, which crops photos by itself."""
    shape = rising(*size)
    layers = [{"layer": "blocks.0" if name == NAME else "layer1"}]
    spec = request(side_px=96, styles=[shape], style_layers=layers, content_layers=layers)
    spec.content.CopyFrom(encoded(shape))
    spec.mask.CopyFrom(encoded(shape))
    content, style, mask = pictures_of(spec, name)
    for seen in (content, style, mask):
        at = np.linspace(0, 1, seen.shape[1])
        assert np.abs(seen - at).max() < 1.5 / seen.shape[1]


def test_a_start_of_other_proportions_is_its_middle() -> None:
    """As much of it as there is in the photo's proportions."""
    spec = request(start=stylize_pb2.STYLE_START_IMAGE)
    spec.content.CopyFrom(encoded(rising(60, 90)))
    for size, (first, last) in {
        (60, 180): (0.25, 0.75),
        (180, 90): (0, 1),
        (40, 60): (0, 1),
    }.items():
        spec.start.CopyFrom(encoded(rising(*size)))
        seen = pictures_of(spec)[-1]
        assert np.abs(seen - np.linspace(first, last, seen.shape[1])).max() < 1.5 / seen.shape[1]


def test_a_checkpoint_belongs_to_its_request() -> None:
    """It goes on from there; with other settings, weights or pictures it is refused."""
    spec = request(step_count=4, checkpoint_every=2, update=stylize_pb2.STYLE_UPDATE_LBFGS)
    asked, kept = read(spec), []
    with running() as runner:
        job = runner.engine.submit(asked.spec, outlet=lambda done: kept.append(done.result))
        whole = job.future.result(120)
        snapshots = [one for one in kept if isinstance(one, Snapshot)]
        parts = wire.write_checkpoint(
            asked.spec, asked.settings, snapshots[:1], LIMITS.checkpoint_key
        )
        spec.checkpoint = b"".join(part.chunk for part in parts)
        spec.neural.progress_every = 1
        resumed = read(spec)
        assert resumed.notes == (
            "bits differ: the history of L-BFGS starts anew after a checkpoint",
        )
        done = runner.engine.submit(resumed.spec).future.result(120)
    assert done.result.end.progress.step == whole.result.end.progress.step == 4
    made = wire.write_stylize(resumed, replace(done, rides=whole.rides)).result
    assert made.progress.step_count == 4
    assert len(made.progress.style_losses) == 4
    assert made.progress.content_losses[0] > 0
    assert made.notes
    asked.settings.neural.checkpoint_precision = checkpoint_pb2.CHECKPOINT_PRECISION_HALF
    halves = wire.write_checkpoint(asked.spec, asked.settings, snapshots[:1], LIMITS.checkpoint_key)
    spec.checkpoint, whole_form = b"".join(part.chunk for part in halves), spec.checkpoint
    assert len(spec.checkpoint) < 0.6 * len(whole_form)
    assert read(spec).notes[0] == "bits differ: the checkpoint is of half precision"
    for other in (
        request(step_count=5, update=stylize_pb2.STYLE_UPDATE_LBFGS),
        request(step_count=4, update=stylize_pb2.STYLE_UPDATE_LBFGS, styles=[CONTENT]),
    ):
        other.checkpoint = spec.checkpoint
        assert "is of another" in violations(other)[1]["checkpoint"]
    spec.styles[0].weight = 2.0
    assert "is of another neural" in violations(spec)[1]["checkpoint"]
