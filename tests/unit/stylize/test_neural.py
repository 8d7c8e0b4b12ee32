"""Optimized style through the engine: what its images are, and that each is as if alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pellucid_server.engine.job import Job
from pellucid_server.engine.rows import ClassTarget
from pellucid_server.errors import InvalidArgument
from pellucid_server.inputs import ArrayPhoto, Photos, Pictures
from pellucid_server.methods.optimize.ascent import PRESETS, Ascent
from pellucid_server.methods.optimize.optimize import Buckets, Optimize
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import Preview, Progress
from pellucid_server.methods.stylize.neural import Neural, default_layers
from pellucid_server.methods.stylize.stylize import Picture, Stylize, Stylized
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model
from torchvision.models import get_model

from tests.harness import Runner, model, photo, running, spec, tiny_model

NAME = "efficientnet_lite0"
BUCKETS = Buckets(4)
LAYERS = ((("blocks.2", 1.0),), (("blocks.0", 1.0), ("blocks.1", 2.0)))
CONTENT = photo("cat")[::4, ::4]
STYLE = photo("coffee")[::4, ::4]
"""Of other proportions."""


def stylize(
    styles: list[np.ndarray] | None = None, layers: Any = LAYERS, **parameters: Any
) -> tuple[Stylize, list[np.ndarray]]:
    """A method, and the pictures that it needs but for mask and start."""
    defaults: dict[str, Any] = {"style_weight": 1e3, "learning_rate": 5.0, "step_count": 4}
    neural = Neural(**(defaults | {"side_px": 64} | parameters))
    pictures = [CONTENT, *(styles or [STYLE])]
    made = [Picture(ArrayPhoto(p, None).sha256, *p.shape[:2]) for p in pictures]
    return Stylize(neural, *layers, made[0], tuple(made[1:]), False, BUCKETS), pictures


def submit(
    runner: Runner,
    method: Stylize,
    pictures: list[np.ndarray],
    outlet: Any = None,
    name: str = NAME,
) -> Job:
    made = spec(model(name), method, torch.zeros(3, 2, 2), bucket_size=BUCKETS.of(method.size))
    sources = tuple(ArrayPhoto(np.ascontiguousarray(p), None) for p in pictures)
    made = replace(made, source=Pictures(sources, tuple(method.sizes)))
    job = runner.engine.submit(made, outlet=outlet)
    runner.submitted.append(job)
    return job


def run(runner: Runner, method: Stylize, pictures: list[np.ndarray], **options: Any) -> Stylized:
    made: Stylized = submit(runner, method, pictures, **options).future.result(120).result
    return made


def pixels(made: Stylized) -> np.ndarray:
    return made.picture.permute(1, 2, 0).numpy()


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As the model's preprocessing does it."""
    steps = replace(
        model(NAME).preprocessing, height_px=size[0], width_px=size[1], resize_shorter_side_px=0
    )
    image = steps.apply(np.ascontiguousarray(image))
    scale = [np.reshape(part, (3, 1, 1)) for part in (steps.std, steps.mean)]
    return (image * scale[0] + scale[1]).transpose(1, 2, 0)


def test_from_the_photo_content_starts_at_0_and_style_falls() -> None:
    shown: list[Any] = []
    method, pictures = stylize(step_count=30, progress_every=1, preview_every=15)
    with running() as runner:
        made = run(runner, method, pictures, outlet=lambda done: shown.append(done.result))
    progress = [one for one in shown if isinstance(one, Progress)]
    assert progress[0].step == 1
    assert [one.step for one in shown if isinstance(one, Preview)] == [15, 30]
    first, last = progress[0], made.end.progress
    assert first.terms[0] == 0
    assert last.terms[0] < 0
    assert sum(last.terms[1:]) > sum(first.terms[1:]) / 2
    assert last.score == pytest.approx(
        last.terms[0] + 1e3 * last.terms[1] + 2e3 * last.terms[2], rel=1e-9
    )
    assert last.step == 30
    assert made.picture.shape == (3, 42, 64)
    assert 0 <= made.picture.min() < made.picture.max() <= 1
    assert made.clipped_share == 0


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"update": "lbfgs", "learning_rate": 1.0, "step_count": 6},
    {"start": "noise", "seed": 3, "normalization": "johnson", "scale_count": 2},
    {"styles": [STYLE, photo("rocket")[::4, ::4]], "original_colors": "histogram"},
)


def test_bits_do_not_depend_on_who_else_is_there() -> None:
    """Beside each other, and beside optimizations of the same size."""
    ascent = Ascent(
        **(PRESETS["yosinski_4"] | {"preset": "yosinski_4", "height_px": 42, "width_px": 64}),
    )
    climb = Optimize(((ClassTarget(3), 1.0),), replace(ascent, step_count=7), BUCKETS)
    jobs = [stylize(**variant) for variant in VARIANTS]
    with running() as runner:
        alone = [run(runner, *job) for job in jobs]
        with runner.held():
            other = spec(model(NAME), climb, torch.zeros(3, 2, 2), bucket_size=4)
            runner.engine.submit(replace(other, source=Photos((), (42, 64))))
            together = [submit(runner, *job) for job in jobs]
        for job, expected in zip(together, alone, strict=True):
            done = job.future.result(120)
            assert torch.equal(done.result.picture, expected.picture)
            assert done.result.end.progress == expected.end.progress
        assert runner.engine._groups == {}


@pytest.mark.parametrize("scale_count", [1, 3])
def test_it_goes_on_to_the_same_bits(scale_count: int) -> None:
    kept: list[Snapshot] = []

    def keep(done: Any) -> None:
        if isinstance(done.result, Snapshot):
            kept.append(done.result)

    method, pictures = stylize(scale_count=scale_count, checkpoint_every=2, tv_weight=1.0)
    with running() as runner:
        whole = run(runner, method, pictures, outlet=keep)
        assert [snapshot.total for snapshot in kept] == list(range(2, 4 * scale_count + 1, 2))
        for snapshot in kept[:-1]:
            resumed = run(runner, replace(method, states=(snapshot,)), pictures)
            assert torch.equal(resumed.picture, whole.picture)
            assert resumed.end.progress == whole.end.progress


def test_moments_are_carried_from_scale_to_scale() -> None:
    """Resized, over how much the area grew, the second over its square: then Adam's step."""
    method, pictures = stylize(scale_count=2, step_count=1, checkpoint_every=1)
    states: list[Snapshot] = []

    def keep(done: Any) -> None:
        if isinstance(done.result, Snapshot):
            states.append(done.result)

    with running() as runner:
        run(runner, method, pictures, outlet=keep)
    small, large = (30, 45), (42, 64)
    assert method.scales == [small, large]

    def moments(state: Snapshot, size: tuple[int, int]) -> list[torch.Tensor]:
        count = 3 * size[0] * size[1]
        return [state.tensors[n][:count].view(1, 3, *size).double() for n in ("first", "second")]

    grew = (42 * 64) / (30 * 45)
    first, second = (
        torch.nn.functional.interpolate(moment, large, mode="bilinear") / grew**power
        for power, moment in enumerate(moments(states[0], small), 1)
    )
    after = moments(states[1], large)
    gradient = (after[0] - 0.9 * first) / 0.1
    assert gradient.abs().max() > 0
    expected = 0.999 * second + 0.001 * gradient.square()
    assert torch.allclose(after[1], expected, rtol=1e-3, atol=1e-6 * float(expected.max()))


def test_masked_places_keep_the_photo() -> None:
    method, pictures = stylize(step_count=5)
    mask = np.zeros_like(CONTENT)
    mask[:, : CONTENT.shape[1] // 2] = 255
    with running() as runner:
        made = pixels(run(runner, replace(method, masked=True), [*pictures, mask]))
        kept = resized(CONTENT, (42, 64))
        assert np.allclose(made[:, 36:], kept[:, 36:], atol=1e-5)
        assert np.abs(made[:, :28] - kept[:, :28]).mean() > 0.02
        with pytest.raises(InvalidArgument, match="mask: is black everywhere"):
            run(runner, replace(method, masked=True), [*pictures, np.zeros_like(CONTENT)])


def chroma(image: np.ndarray) -> np.ndarray:
    """Cb and Cr of BT.601, of red, green and blue first."""
    red, green, blue = image.astype(np.float64)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([(blue - y) / 1.772, (red - y) / 1.402])


@pytest.mark.parametrize("update", ["adam", "lbfgs"])
def test_luminance_alone_changes(update: str) -> None:
    """What is clipped is known from the picture alone: values at either end of the gamut."""
    rate = {"adam": 5.0, "lbfgs": 1.0}[update]
    method, pictures = stylize(
        original_colors="luminance", step_count=10, update=update, learning_rate=rate
    )
    with running() as runner:
        made = run(runner, method, pictures)
    kept = resized(CONTENT, (42, 64)).transpose(2, 0, 1)
    picture = made.picture.numpy()
    inside = (picture > 0).all(0) & (picture < 1).all(0)
    assert inside.mean() > 0.5
    difference = (picture - kept)[:, inside]
    assert np.abs(difference).mean() > 0.01
    off = np.abs(chroma(picture) - chroma(kept))[:, inside]
    assert (off.mean(1) <= 2 / 255).all()
    assert off.max() < 1e-5
    ends = (picture == 0) | (picture == 1)
    assert made.clipped_share == pytest.approx(ends.mean(), abs=1e-9)


@pytest.mark.parametrize("original_colors", ["off", "luminance"])
def test_previews_are_what_it_would_end_as(original_colors: str) -> None:
    """At every scale: with the photo's colours, and the photo where the mask is black."""
    shown: list[Any] = []
    method, pictures = stylize(
        original_colors=original_colors, scale_count=2, step_count=6, preview_every=6
    )
    mask = np.zeros_like(CONTENT)
    mask[:, : CONTENT.shape[1] // 2] = 255
    with running() as runner:
        made = run(
            runner,
            replace(method, masked=True),
            [*pictures, mask],
            outlet=lambda done: shown.append(done.result),
        )
    small, large = (one.picture for one in shown if isinstance(one, Preview))
    assert torch.equal(large, made.picture)
    assert small.shape == (3, 30, 45)
    kept = resized(CONTENT, (30, 45)).transpose(2, 0, 1)
    assert np.abs(small.numpy()[:, :, 26:] - kept[:, :, 26:]).mean() < 0.01
    assert np.abs(small.numpy()[:, :, :20] - kept[:, :, :20]).mean() > 0.02
    off = np.abs(chroma(small.numpy()) - chroma(kept))[:, :, :20].mean()
    assert (off < 0.01) == (original_colors == "luminance")


def test_styles_are_kept_with_the_model() -> None:
    method, pictures = stylize(styles=[photo("rocket")[::5, ::5]])
    with running() as runner:
        before = submit(runner, method, pictures).future.result(120)
        again = submit(runner, method, pictures).future.result(120)
    assert len(before.rides) - len(again.rides) == 2  # a look at each style layer
    assert torch.equal(before.result.picture, again.result.picture)


def test_pooling_by_the_average_is_another_network() -> None:
    layers = ((("features.4", 1.0),), (("features.1", 1.0), ("features.7", 1.0)))
    network = model("vgg11").network
    inputs = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    taps = network.averaged.forward(inputs, ("features.1", "features.2"))
    expected = torch.nn.functional.avg_pool2d(taps["features.1"], 2)
    assert torch.allclose(taps["features.2"], expected, atol=1e-6)
    assert network.averaged is network.averaged
    with running() as runner:
        made = [
            run(runner, *stylize(layers=layers, pooling=pooling), name="vgg11")
            for pooling in ("as_trained", "average")
        ]
    assert not torch.equal(made[0].picture, made[1].picture)
    assert all(one.end.finite for one in made)


def seeded(name: str, side_px: int = 64) -> Model:
    """A VGG as it is built, but for its classifier, which would take half a gigabyte."""
    with torch.device("meta"):
        module = get_model(name, weights=None)
    module.classifier = torch.nn.Linear(512 * 49, 4)
    module.features.to_empty(device="cpu")
    for part in module.features:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    network = Network(
        module, height_px=side_px, width_px=side_px, dtype=torch.float32, device=torch.device("cpu")
    )
    return replace(model("vgg11"), architecture=f"torchvision/{name}", network=network)


VGG = {
    "vgg11": (14, (1, 4, 7, 12, 17)),
    "vgg13": (18, (1, 6, 11, 16, 21)),
    "vgg16": (20, (1, 6, 11, 18, 25)),
    "vgg19": (22, (1, 6, 11, 20, 29)),
    "vgg16_bn": (29, (2, 9, 16, 26, 36)),
}
"""Places of conv4_2, and of conv1_1 to conv5_1, rectified: counted in torchvision's table."""


@pytest.mark.parametrize("name", VGG)
def test_default_layers_of_vgg(name: str) -> None:
    served = seeded(name)
    content, style = default_layers(served)
    assert content == ((f"features.{VGG[name][0]}", 1.0),)
    assert style == tuple((f"features.{place}", 1.0) for place in VGG[name][1])
    modules = dict(served.network._module.named_modules())
    assert all(isinstance(modules[layer], torch.nn.ReLU) for layer, _ in (*content, *style))
    kinds = [(one.kind, one.shape[0]) for one in served.network.layers]
    assert kinds.count(("Conv2d", 512)) >= 4


@pytest.mark.parametrize("side_px", [64, 96])
def test_default_layers_of_others_are_rectified(side_px: int) -> None:
    """The same at every input, and neither a container of all others nor what pools to one size."""
    unknown = replace(seeded("vgg16", side_px), architecture="torchvision/another")
    content, style = default_layers(unknown)
    assert [name for name, _ in style] == [f"features.{k}" for k in (3, 8, 15, 22, 29)]
    assert [name for name, _ in content] == ["features.22"]
    module = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.BatchNorm2d(4)),
        torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, 2), torch.nn.Tanh()),
        torch.nn.AdaptiveAvgPool2d(5),
        torch.nn.Flatten(),
        torch.nn.Linear(200, 4),
    )
    content, style = default_layers(tiny_model(module.eval(), side_px))
    assert [name for name, _ in style] == ["0.1", "1.1"]
    assert [name for name, _ in content] == ["0.1"]


def test_default_layers() -> None:
    content, style = default_layers(model(NAME))
    assert len(content) == 1
    assert len(style) >= 4
    for name in (NAME, "resnet18", "googlenet", "vgg11", "densenet121"):
        for layers in default_layers(model(name)):
            assert layers
            assert all(model(name).network.layer(layer) for layer, _ in layers)
    vgg = replace(model("vgg11"), architecture="torchvision/vgg19")
    assert default_layers(vgg)[1]  # no such layers there: those of each size


@pytest.mark.parametrize(("name", "rival"), [("googlenet", "inception4a"), ("resnet18", "layer3")])
def test_content_is_of_no_layer_of_style(name: str, rival: str) -> None:
    """Next to one, with maps of its size; and both losses fall, from noise."""
    content, style = default_layers(model(name))
    network = model(name).network
    assert not {layer for layer, _ in content} & {layer for layer, _ in style}
    shapes = []
    for layer in (content[0][0], rival):
        known = network.layer(layer)
        assert known is not None
        shapes.append(known.shape[1:])
    assert shapes[0] == shapes[1]
    options = {"start": "noise", "step_count": 20, "progress_every": 1}
    method, pictures = stylize(layers=(content, style), **options)
    shown: list[Any] = []
    with running() as runner:
        made = run(
            runner, method, pictures, name=name, outlet=lambda done: shown.append(done.result)
        )
    first = next(one for one in shown if isinstance(one, Progress))
    last = made.end.progress
    assert last.terms[0] > first.terms[0]
    assert sum(last.terms[1:]) > sum(first.terms[1:])


def test_gram_matrices_are_counted() -> None:
    """Those of every style, and of their mean, at each of its layers."""
    on = model(NAME)
    method, _ = stylize()
    shapes = on.network.shapes_at(*method.size)
    other = replace(method, styles=(*method.styles, replace(method.styles[0], height_px=1)))
    deeper = replace(method, style_layers=(*method.style_layers, ("blocks.6", 1.0)))
    one_more = sum(shapes[layer][0] ** 2 for layer in ("blocks.0", "blocks.1")) * 4
    size = other.style_size(other.styles[1], other.size)
    assert other.byte_count(on) - method.byte_count(on) == one_more + 2 * 3 * size[0] * size[1] * 4
    assert deeper.byte_count(on) - method.byte_count(on) > 2 * 320**2 * 4


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"content_weight": 0.0, "style_weight": 0.0}, "style_weight"),
        ({"pooling": "average"}, "pooling"),
        ({"scale_count": 4}, "scale_count"),
        ({"scale_count": 2, "step_count": 6000}, "step_count"),
    ],
)
def test_contradictions(parameters: dict[str, Any], field: str) -> None:
    neural = stylize(**parameters)[0].neural
    assert list(neural.contradictions(model(NAME))) == [field]
