"""Training a style on a CUDA device. Skipped where there is none."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pellucid_server.engine.device import make_deterministic
from pellucid_server.models.registry import load_model
from pellucid_server.styles_training.losses import PerceptualLoss
from pellucid_server.styles_training.training import Settings, Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SETTINGS = Settings(
    painting_sha256="",
    photos_sha256="",
    photo_count=4,
    model="efficientnet_lite0",
    model_sha256="",
    content_layers=("blocks.2.0.bn1",),
    style_layers=("blocks.1.0.bn1", "blocks.3.0.bn1"),
    content_weight=1.0,
    style_weight=1.0,
    tv_weight=1.0,
    size_px=64,
    style_size_px=64,
    batch_size=4,
    learning_rate=1e-3,
    seed=0,
)


def a_training(device: torch.device) -> Training:
    model = load_model(SETTINGS.model, device=device, side_px=64)
    painting = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    layers = (SETTINGS.content_layers, SETTINGS.style_layers)
    return Training(SETTINGS, PerceptualLoss(model, painting, *layers, SETTINGS.weights), device)


@pytest.fixture
def strict() -> Iterator[None]:
    """As the command computes; and what has no deterministic kernel fails instead of warning."""
    make_deterministic()
    torch.use_deterministic_algorithms(True)
    yield
    make_deterministic()


@pytest.mark.usefixtures("strict")
def test_a_training_goes_on_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    batches = rng.integers(0, 256, (6, 4, 64, 64, 3), np.uint8)
    whole, first, second = (a_training(torch.device("cuda")) for _ in range(3))
    for crops in batches:
        whole.advance(crops)
    for crops in batches[:3]:
        first.advance(crops)
    second.restore(first.checkpoint())
    for crops in batches[3:]:
        second.advance(crops)
    ends = [one.network.published() for one in (whole, second)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_steps_wait_for_nothing_and_are_the_cpus() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    ours, theirs = a_training(torch.device("cuda")), a_training(torch.device("cpu"))
    losses = [ours.advance(crops)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses += [ours.advance(crops) for _ in range(2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for loss in losses:
        assert loss.tolist() == pytest.approx(theirs.advance(crops).tolist(), rel=0.02)
