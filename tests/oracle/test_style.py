"""Optimized style as it runs, against the papers' losses on hooks of the untouched network."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pellucid_server.inputs import ArrayPhoto, Pictures
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.snapshot import Snapshot
from pellucid_server.methods.optimize.stepper import Progress
from pellucid_server.methods.stylize.neural import Neural
from pellucid_server.methods.stylize.stylize import Picture, Stylize
from pellucid_server.models.registry import Precision
from PIL import Image
from torch import Tensor

from tests.harness import model, photo, relative_error, running, spec, untouched

NAME = "efficientnet_lite0"
CONTENT_LAYERS = {"blocks.2": 1.0, "blocks.3": 0.25}
STYLE_LAYERS = {"blocks.0": 1.0, "blocks.1": 2.0, "blocks.3": 0.5}
CONTENT_WEIGHT, STYLE_WEIGHT = 0.5, 700.0
STYLE_WEIGHTS = (1.0, 3.0)
HEIGHT_PX, WIDTH_PX = 48, 64


def picture(name: str, height_px: int, width_px: int) -> np.ndarray:
    """Of a size that is used as it is."""
    return np.asarray(Image.fromarray(photo(name)).resize((width_px, height_px)))


CONTENT, START = picture("cat", 48, 64), picture("rocket", 48, 64)
STYLES = picture("coffee", 64, 48), picture("astronaut", 32, 96)
"""As large in area."""

_ACROSS = np.linspace(0, 255, WIDTH_PX).astype(np.uint8)
MASK = np.broadcast_to(_ACROSS[None, :, None], (HEIGHT_PX, WIDTH_PX, 3))


def seen(pixels: Tensor) -> dict[str, Tensor]:
    """Activations of the layers, N×H×W each, of 3×H×W from 0 to 255."""
    network, kept = untouched(NAME), {}

    def keeper(name: str) -> Any:
        return lambda module, inputs, output: kept.update({name: output[0]})

    hooks = [
        network.get_submodule(name).register_forward_hook(keeper(name))
        for name in {**CONTENT_LAYERS, **STYLE_LAYERS}
    ]
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in _normalization())
    network(((pixels / 255 - mean) / std)[None])
    for hook in hooks:
        hook.remove()
    return kept


def _normalization() -> tuple[Any, Any]:
    steps = model(NAME).preprocessing
    return steps.mean, steps.std


def plain(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))


def products(maps: Tensor, places: Tensor | None) -> Tensor:
    """Σ_k F_ik·F_jk of N×H×W, each place as it weighs; by the number of places where all do."""
    height, width = maps.shape[1:]
    if places is None:
        return torch.einsum("ihw,jhw->ij", maps, maps) / (height * width)
    step = HEIGHT_PX // height, WIDTH_PX // width
    shares = places.reshape(height, step[0], width, step[1]).sum((1, 3)) / places.sum()
    return torch.einsum("hw,ihw,jhw->ij", shares, maps, maps)


def losses(image: Tensor, normalization: str, masked: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Of each layer, not weighted: Gatys, Ecker and Bethge 2015; or means of squares."""
    ours, photographed = seen(image), seen(plain(CONTENT))
    painted = [seen(plain(style)) for style in STYLES]
    content = []
    for layer in CONTENT_LAYERS:
        off = (ours[layer] - photographed[layer]).square()
        content.append(off.sum() / 2 if normalization == "gatys" else off.mean())
    style = []
    places = plain(MASK)[0] if masked else None
    for layer in STYLE_LAYERS:
        loss = torch.zeros((), dtype=torch.float64)
        for weight, one in zip(STYLE_WEIGHTS, painted, strict=True):
            off = products(ours[layer], places) - products(one[layer], None)
            count = len(off)
            if normalization == "gatys":
                each = off.square().sum() / (4 * count**2)
            else:
                each = (off / count).square().mean()
            loss = loss + weight / sum(STYLE_WEIGHTS) * each
        style.append(loss)
    return content, style


def shown(normalization: str, masked: bool) -> tuple[Progress, Snapshot]:
    """The first step's progress, and the state after it."""
    neural = Neural(
        normalization=normalization,
        content_weight=CONTENT_WEIGHT,
        style_weight=STYLE_WEIGHT,
        side_px=WIDTH_PX,
        learning_rate=5.0,
        start="image",
        step_count=2,
        progress_every=1,
        checkpoint_every=1,
    )
    pictures = [np.ascontiguousarray(p) for p in (CONTENT, *STYLES, *[MASK] * masked, START)]
    sources = tuple(ArrayPhoto(one, None) for one in pictures)
    known = [Picture(s.sha256, *s.photo.shape[:2]) for s in sources]
    styles = tuple(replace(s, weight=w) for s, w in zip(known[1:], STYLE_WEIGHTS, strict=False))
    layers = tuple(CONTENT_LAYERS.items()), tuple(STYLE_LAYERS.items())
    method = Stylize(neural, *layers, known[0], styles, masked, Buckets(2))
    assert method.sizes == [one.shape[:2] for one in pictures]
    on = model(NAME, Precision.FLOAT64)
    asked = spec(on, method, torch.zeros(3, 2, 2), bucket_size=2)
    asked = replace(asked, source=Pictures(sources, tuple(method.sizes)))
    events: list[Any] = []
    with running() as runner:
        job = runner.engine.submit(asked, outlet=lambda done: events.append(done.result))
        job.future.result(300)
    return (
        next(one for one in events if isinstance(one, Progress)),
        next(one for one in events if isinstance(one, Snapshot)),
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalization", ["gatys", "johnson"])
def test_losses_and_their_gradient(normalization: str, masked: bool) -> None:
    progress, state = shown(normalization, masked)
    image = plain(START).requires_grad_()
    content, style = losses(image, normalization, masked)
    assert [-term for term in progress.terms] == pytest.approx(
        [float(one.detach()) for one in (*content, *style)], rel=1e-9
    )
    weighted = zip(
        (*content, *style),
        [CONTENT_WEIGHT * w for w in CONTENT_LAYERS.values()]
        + [STYLE_WEIGHT * w for w in STYLE_LAYERS.values()],
        strict=True,
    )
    loss = sum((weight * one for one, weight in weighted), torch.zeros(()))
    assert -progress.score == pytest.approx(float(loss.detach()), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, image)
    # Adam's first moment after one step is a tenth of the slope, which the negative loss climbs.
    first = state.tensors["first"][: image.numel()].view_as(image)
    assert relative_error(-10 * first, gradient) < 1e-9
