"""Training a style: its losses, steps and order against arithmetic, and what is left on disk."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pellucid.cli import app
from pellucid.v1 import data_pb2, stylize_pb2
from pellucid_server import wire
from pellucid_server.methods import draws
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.stylize.neural import default_layers
from pellucid_server.models.architectures import ARCHITECTURES
from pellucid_server.models.registry import Model, Precision
from pellucid_server.models.styles.johnson import load_johnson
from pellucid_server.models.styles.library import Library, style_loads
from pellucid_server.styles_training import checkpoint, command
from pellucid_server.styles_training.batches import NoPhotos, PhotoFolder, cut
from pellucid_server.styles_training.checkpoint import BadCheckpoint
from pellucid_server.styles_training.folder import CHECKPOINT_FILE, PREVIEW_FILE, WEIGHTS_FILE
from pellucid_server.styles_training.losses import BlindLayer, PerceptualLoss, Weights
from pellucid_server.styles_training.sheet import sheet
from pellucid_server.styles_training.training import (
    Diverged,
    Losses,
    Settings,
    Training,
    run,
    to_rows,
)
from pellucid_server.styles_training.transformer import Transformer
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

from tests.harness import CPU, PHOTOS, model, photo, running

SIDE_PX = 64
LITE = "efficientnet_lite0"
CONTENT = ("blocks.2.0.bn1", "blocks.3")
STYLE = ("blocks.1.0.bn1", "blocks.3.0.bn1", "blocks.5")
WEIGHTS = Weights(0.7, 1.3, 2.0)
SETTINGS = Settings(
    painting_sha256="0" * 64,
    photos_sha256="1" * 64,
    photo_count=4,
    model=LITE,
    model_sha256="2" * 64,
    content_layers=CONTENT,
    style_layers=STYLE,
    content_weight=WEIGHTS.content,
    style_weight=WEIGHTS.style,
    tv_weight=WEIGHTS.tv,
    size_px=SIDE_PX,
    style_size_px=SIDE_PX,
    batch_size=2,
    learning_rate=1e-3,
    seed=3,
)


def lite(precision: Precision = Precision.FLOAT32) -> Model:
    return model(LITE, precision, SIDE_PX)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos, one of them in a folder, and a file that is none."""
    made = tmp_path_factory.mktemp("photos")
    (made / "more").mkdir()
    for name in PHOTOS:
        inner = made / "more" if name == "cat" else made
        Image.fromarray(photo(name)[..., :3]).resize((120, 90)).save(inner / f"{name}.png")
    (made / "readme.txt").write_text("none")
    return made


@pytest.fixture(scope="module")
def painting(folder: Path) -> Path:
    file = folder.parent / "painting.png"
    Image.fromarray(photo("immunohistochemistry")).resize((80, 70)).save(file)
    return file


def crops(count: int = 2, size_px: int = SIDE_PX) -> np.ndarray:
    return np.stack([cut(photo(name)[..., :3], size_px) for name in PHOTOS[:count]])


def picture() -> torch.Tensor:
    return to_rows(cut(photo("immunohistochemistry"), 72)[None], CPU)[0]


def a_loss(painting: torch.Tensor | None = None) -> PerceptualLoss:
    return PerceptualLoss(
        lite(), picture() if painting is None else painting, CONTENT, STYLE, WEIGHTS
    )


def a_training(settings: Settings = SETTINGS) -> Training:
    return Training(settings, a_loss(), CPU)


# The network.


def test_the_trained_network_is_what_is_loaded(tmp_path: Path) -> None:
    network = Transformer(5).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = draws.named_normal(1, name, tuple(parameter.shape)).double()
            parameter += 0.1 * noise * (1 + parameter.std(correction=0))
    save_file(network.published(), tmp_path / "w.safetensors")
    served = load_johnson(tmp_path / "w.safetensors", name="w", dtype=torch.float64)
    rows = to_rows(crops(), CPU).double()
    with torch.no_grad():
        made = network(rows)
    assert (served(rows, torch.zeros(2, 0).double()) - made).abs().max() < 1e-11
    assert made.std() > 0.1


def test_it_starts_around_grey() -> None:
    rows = to_rows(crops(4), CPU)
    with torch.no_grad():
        made = [Transformer(seed)(rows) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    for one in made:
        assert abs(float(one.mean()) - 0.5) < 0.1
        assert 0.05 < float(one.std()) < 0.4


def test_its_way_back_has_deterministic_kernels() -> None:
    """No part of a step's graph is among those that torch has none for on CUDA."""
    training = a_training()
    photos = to_rows(crops(), CPU)
    pending = [training._loss(training.network(photos), photos)[0].grad_fn]
    names: dict[Any, str] = {}
    while pending:
        if (node := pending.pop()) is not None and node not in names:
            names[node] = node.name()
            pending += [parent for parent, _ in node.next_functions]
    assert len(names) > 100
    without = ("ReflectionPad", "ReplicationPad", "AdaptiveAvgPool", "MaxPool", "UpsampleBi")
    assert not [name for name in names.values() if name.startswith(without)]


# The losses.


@pytest.fixture(scope="module")
def unfolded() -> nn.Module:
    """The network as it was built."""
    module: nn.Module = ARCHITECTURES[LITE].build(SIDE_PX).double().eval()
    return module


def by_hand(
    module: nn.Module, painted: np.ndarray, photos: np.ndarray, painting: np.ndarray
) -> list[float]:
    """In NumPy, in float64, of what hooks see: the weighted sum, content, style and tv."""
    steps = lite().preprocessing

    def seen(images: np.ndarray) -> dict[str, np.ndarray]:
        kept: dict[str, np.ndarray] = {}
        hooks = [
            module.get_submodule(name).register_forward_hook(
                lambda _m, _i, output, name=name: kept.__setitem__(name, output.numpy().copy())
            )
            for name in {*CONTENT, *STYLE}
        ]
        mean, std = (np.array(v)[:, None, None] for v in (steps.mean, steps.std))
        with torch.no_grad():
            module(torch.from_numpy((images - mean) / std))
        for hook in hooks:
            hook.remove()
        return kept

    def gram(maps: np.ndarray) -> np.ndarray:
        channels, height, width = maps.shape
        flat = maps.reshape(channels, -1)
        return flat @ flat.T / (channels * height * width)

    ours, kept, theirs = seen(painted), seen(photos), seen(painting[None])
    content, style = [], []
    for name in CONTENT:
        size = (theirs[name] ** 2).mean()
        content.append(((ours[name] - kept[name]) ** 2).mean() / size)
    for name in STYLE:
        target = gram(theirs[name][0])
        off = [((gram(maps) - target) ** 2).sum() / (target**2).sum() for maps in ours[name]]
        style.append(np.mean(off))
    across = np.mean((painted[..., 1:] - painted[..., :-1]) ** 2)
    down = np.mean((painted[..., 1:, :] - painted[..., :-1, :]) ** 2)
    each = [float(np.mean(content)), float(np.mean(style)), float(across + down)]
    return [0.7 * each[0] + 1.3 * each[1] + 2.0 * each[2], *each]


def test_losses_and_their_slope(unfolded: nn.Module) -> None:
    rng = np.random.default_rng(0)
    photos, style = to_rows(crops(), CPU).double(), picture().double()
    painted = torch.from_numpy(rng.uniform(-0.1, 1.1, photos.shape)).requires_grad_()
    loss = PerceptualLoss(lite(Precision.FLOAT64), style, CONTENT, STYLE, WEIGHTS)
    losses = loss(painted, photos)
    fixed = (photos.numpy(), style.numpy())
    expected = by_hand(unfolded, painted.detach().numpy(), *fixed)
    assert losses.tolist() == pytest.approx(expected, rel=1e-8)
    assert min(expected) > 1e-3
    (slope,) = torch.autograd.grad(losses[0], painted)
    # So near that no gate changes: farther away, a few of them turn the slope by 0.4%.
    way, far = rng.normal(size=photos.shape), 1e-8
    ends = [
        by_hand(unfolded, painted.detach().numpy() + sign * far * way, *fixed)[0]
        for sign in (1, -1)
    ]
    along = float((slope * torch.from_numpy(way)).sum())
    assert along == pytest.approx((ends[0] - ends[1]) / (2 * far), rel=1e-5)


def test_the_network_that_looks_stays_as_it_is() -> None:
    module = lite().network._module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    training = a_training()
    training.advance(crops())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_layer_that_does_not_see_the_painting(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(*_: object) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(1, 2, 3, 3) for name in (*CONTENT, *STYLE)}

    monkeypatch.setattr(PerceptualLoss, "_seen", blind)
    with pytest.raises(BlindLayer, match=r"blocks\.2\.0\.bn1"):
        a_loss()


# Steps.


def test_steps_are_those_of_adam() -> None:
    """As Kingma and Ba write them, in float64, on the gradients of each step."""
    training = a_training()
    parameters = dict(training.network.named_parameters())
    now = {name: p.detach().double().numpy().copy() for name, p in parameters.items()}
    first = dict.fromkeys(now, 0.0)
    second = dict.fromkeys(now, 0.0)
    for step in (1, 2):
        training.advance(crops())
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            gradient = parameter.grad.double().numpy()
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            root = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
            now[name] = now[name] - 1e-3 * first[name] / (1 - 0.9**step) / root
            made = parameter.detach().double().numpy()
            assert np.abs(made - now[name]).max() < 1e-6 * max(1, np.abs(made).max())
    moved = [np.abs(now[name]).max() for name in now if name.endswith(("in3.bias", "conv2d.bias"))]
    assert min(moved) > 1e-4


def test_a_few_steps_lower_the_loss() -> None:
    training = a_training()
    losses = [training.note(training.advance(crops())) for _ in range(6)]
    assert [one.step for one in losses] == [1, 2, 3, 4, 5, 6]
    assert losses[-1].loss < 0.9 * losses[0].loss
    assert training.history == losses


def test_numbers_that_are_not_finite_end_it() -> None:
    training = a_training()
    with torch.no_grad():
        training.network.in1.weight[3] = float("nan")
    with pytest.raises(Diverged, match="after step 0"):
        training.checkpoint()
    with pytest.raises(Diverged, match="the loss of step 1 is nan"):
        training.note(training.advance(crops()))
    assert training.history == []


# Photos.


def test_every_photo_comes_once_in_each_round(folder: Path) -> None:
    photos = PhotoFolder(folder)
    assert photos.names == ["astronaut.png", "coffee.png", "more/cat.png", "rocket.png"]
    seen: list[str] = []
    decoded = photos._photo
    photos._photo = lambda name: (seen.append(name), decoded(name))[1]  # type: ignore[method-assign, func-returns-value]
    for step in range(4):
        photos.batch(7, step, 3, 32)
    rounds = [seen[:4], seen[4:8], seen[8:]]
    assert [sorted(one) for one in rounds] == [photos.names] * 3
    assert len({tuple(one) for one in rounds}) > 1


def test_photos_that_were_changed_are_others(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "photos")
    before = PhotoFolder(copied).sha256
    assert before == PhotoFolder(folder).sha256
    file = copied / "coffee.png"
    data, now_s = file.read_bytes(), int(file.stat().st_mtime)
    file.write_bytes(data + b"1")
    os.utime(file, (now_s, now_s))
    longer = PhotoFolder(copied).sha256
    file.write_bytes(data[:-1] + b"1")
    os.utime(file, (now_s + 5, now_s + 5))
    later = PhotoFolder(copied).sha256
    file.rename(copied / "tea.png")
    assert len({before, longer, later, PhotoFolder(copied).sha256}) == 4


def test_a_batch_is_a_function_of_seed_and_step(folder: Path) -> None:
    ahead = list(PhotoFolder(folder).batches(7, 0, 5, 3, 32))
    assert [one.shape for one in ahead] == [(3, 32, 32, 3)] * 5
    later = list(PhotoFolder(folder).batches(7, 3, 5, 3, 32))
    alone = PhotoFolder(folder).batch(7, 4, 3, 32)
    assert np.array_equal(ahead[3], later[0])
    assert np.array_equal(ahead[4], later[1])
    assert np.array_equal(ahead[4], alone)
    assert not np.array_equal(ahead[0], ahead[4])
    assert not np.array_equal(PhotoFolder(folder).batch(8, 4, 3, 32), alone)
    assert list(PhotoFolder(folder).batches(7, 5, 5, 3, 32)) == []


def test_crops() -> None:
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    left, right = (cut(columns, 50, 0.5, x).astype(int) for x in (0.0, 1.0))
    assert np.array_equal(left[:, :, 0], np.broadcast_to(np.arange(50), (50, 50)))
    assert np.array_equal(right, left + 150)
    assert np.array_equal(cut(columns, 100)[7, :, 1], np.arange(50, 150))
    rows = columns.transpose(1, 0, 2)
    assert np.array_equal(cut(rows, 50, 0.5, y=1.0), right.transpose(1, 0, 2))


def test_photos_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NoPhotos, match=r"there is no photo in .*\.jpg, \.jpeg, \.png, \.webp"):
        PhotoFolder(tmp_path)
    with pytest.raises(NoPhotos, match="there is no folder"):
        PhotoFolder(tmp_path / "nowhere")
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(NoPhotos, match=r"none of 1 photos can be used; a\.jpg: .*unknown"):
        PhotoFolder(tmp_path).first(3, 32)
    (tmp_path / "b.png").write_bytes((folder / "coffee.png").read_bytes())
    (tmp_path / "c.png").write_bytes((folder / "rocket.png").read_bytes()[:500])
    photos = PhotoFolder(tmp_path)
    assert len(photos.first(3, 32)) == 1
    assert photos.bad.keys() == {"a.jpg", "c.png"}
    fresh = PhotoFolder(tmp_path)
    batch = fresh.batch(0, 0, 3, 32)
    assert np.array_equal(batch, photos.batch(0, 0, 3, 32))
    only = photos.first(1, 32)[0]
    assert all(np.abs(crop.mean((0, 1)) - only.mean((0, 1))).max() < 60 for crop in batch)


# Checkpoints.


def test_a_training_goes_on_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    photos, noted = PhotoFolder(folder), []
    undisturbed = a_training()
    run(undisturbed, photos, 4, log_every=2, noted=noted.append, each=[])
    assert [losses.step for losses in noted] == [1, 2, 4]
    file = tmp_path / "kept"
    first = a_training()
    run(
        first,
        photos,
        3,
        log_every=2,
        noted=lambda _: None,
        each=[(2, lambda: first.checkpoint().save(tmp_path / str(first.step)))],
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    (tmp_path / "2").rename(file)
    second = a_training()
    second.restore(checkpoint.load(file))
    assert second.step == 2
    run(second, PhotoFolder(folder), 4, log_every=2, noted=lambda _: None, each=[])
    ends = [one.network.published() for one in (undisturbed, second)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert second.history == undisturbed.history
    other = first.network.published()
    assert not all(torch.equal(ends[0][name], other[name]) for name in other)


def test_a_checkpoint_before_the_first_step(tmp_path: Path) -> None:
    a_training().checkpoint().save(tmp_path / "kept")
    again = a_training()
    again.restore(checkpoint.load(tmp_path / "kept"))
    fresh = a_training()
    for one in (again, fresh):
        one.advance(crops())
    ends = [one.checkpoint().tensors for one in (again, fresh)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_checkpoints_that_are_refused(tmp_path: Path) -> None:
    training = a_training()
    kept = training.checkpoint()
    other = Training(replace(SETTINGS, seed=4, style_weight=2.0), a_loss(), CPU)
    with pytest.raises(BadCheckpoint, match=r"style_weight was 1\.3, is 2\.0; seed was 3, is 4"):
        other.restore(kept)
    name = "weight.conv1.conv2d.weight"
    for wrong in (torch.zeros(3), kept.tensors[name].double()):
        with pytest.raises(BadCheckpoint, match=name):
            training.restore(replace(kept, tensors={**kept.tensors, name: wrong}))
    with pytest.raises(BadCheckpoint, match=r"exp_avg\.conv1"):
        training.restore(replace(kept, header={**kept.header, "step": 1}))
    file = tmp_path / "kept"
    kept.save(file)
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(BadCheckpoint, match="kept"):
        checkpoint.load(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(BadCheckpoint, match="no checkpoint of a training"):
        checkpoint.load(file)


def test_an_interrupted_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept"
    checkpoint.replace(file, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.replace(file, b"after")
    assert file.read_bytes() == b"before"


def test_a_long_history_can_be_read_again(tmp_path: Path) -> None:
    """That of two and a half million steps, looked at every 10 of them."""
    training = a_training()
    training.history = [Losses(step, 0.1 + step, 1 / 3, 0.0, 1e-9) for step in range(250_000)]
    training.checkpoint().save(tmp_path / "kept")
    kept, again = checkpoint.load(tmp_path / "kept"), a_training()
    again.restore(kept)
    assert again.history == training.history
    for wrong in (torch.zeros(3, 4).double(), torch.zeros(3, 5), torch.zeros(5).double()):
        with pytest.raises(BadCheckpoint, match="history is not what"):
            again.restore(replace(kept, tensors={**kept.tensors, "history": wrong}))


# What it looks like.


def test_the_sheet() -> None:
    network, photos = Transformer(0), crops(2)
    made = np.asarray(sheet(photo("immunohistochemistry"), photos, network, CPU))
    assert made.shape == (132, 200, 3)
    assert np.array_equal(made[:64, 68:132], photos[0])
    assert np.array_equal(made[:64, 136:], photos[1])
    with torch.no_grad():
        painted = network(to_rows(photos[1:], CPU))[0].permute(1, 2, 0).numpy()
    assert np.abs(np.clip(painted, 0, 1) * 255 - made[68:, 136:]).max() < 0.51
    assert (made[68:, :64] == 255).all()
    assert np.abs(made[:64, :64].mean() - photo("immunohistochemistry").mean()) < 5


# The command.


def options(painting: Path, images: Path, output: Path, *more: str) -> list[str]:
    """Those given last count."""
    given = f"--images {images} --name mosaic -o {output} --steps 3 --size {SIDE_PX} --batch 2"
    return ["styles", "train", str(painting), *given.split(), "--log-every", "1", *more]


@pytest.fixture
def train(
    painting: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.setattr(command, "load_model", lambda name, **_: model(name, side_px=SIDE_PX))

    def call(*more: str, painting: Path = painting, images: Path = folder) -> Result:
        return CliRunner().invoke(app, options(painting, images, tmp_path / "made", *more))

    return call


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--steps 0", "--steps: is 0; must be 1 to 10000000"),
        ("--size 60", "--size: is 60; must be 64 to 1024"),
        ("--size 66", "--size: is 66; must be a multiple of 4"),
        ("--style-size 32", "--style-size: is 32; must be 64 to 1024"),
        ("--batch 65", "--batch: is 65; must be 1 to 64"),
        ("--learning-rate nan", "--learning-rate: is nan; must be 1e-06 to 1"),
        ("--tv-weight=-1", "--tv-weight: is -1.0; must be 0 to 1000000.0"),
        ("--content-weight 0 --style-weight 0", "--style-weight: is 0, and so is --content-weight"),
        ("--name ../up", "--name: is '../up'; must be of 1 to 64 letters, digits, blanks, - and _"),
        (f"--licence {'x' * 65}", "--licence: has 65 characters; at most 64"),
        ("--device tpu", "--device: is 'tpu'; must be auto, cpu or cuda"),
        ("--model nobody", "--model: is 'nobody'; must be a model folder, or one of efficientnet_"),
        ("--style-layer blocks.99", "--style-layer: efficientnet_lite0 has no layer 'blocks.99'"),
        ("--content-layer classifier", "--content-layer: 'classifier' has no maps of more than"),
        ("--style-layer blocks.1 --style-layer blocks.1", "--style-layer: names one twice"),
        ("--resume", "--resume: there is no"),
    ],
)
def test_options_that_are_refused(
    train: Callable[..., Result], tmp_path: Path, more: str, message: str
) -> None:
    result = train(*more.split())
    assert result.exit_code == 2
    assert result.stderr.startswith(f"pellucid: {message}")
    assert not (tmp_path / "made").exists()


def test_names_of_others_are_refused(train: Callable[..., Result], tmp_path: Path) -> None:
    """Those of the folder that it would be served from, and the published ones."""
    other = tmp_path / "night"
    other.mkdir()
    (other / "style.yaml").write_text("kind: johnson\nfile: w.onnx\nname: starry night\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "style.yaml").write_text("- name: mosaic")
    for name in ("starry night", "3"):
        result = train("--name", name)
        assert result.exit_code == 2
        told = f"pellucid: --name: is '{name}', which is the name of another style already"
        assert result.stderr.startswith(told)
    assert train("--steps", "1").exit_code == 0
    assert train("--steps", "1", "--resume").exit_code == 0  # its own name is not another's


def test_cuda_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(command, "pick_device", torch.device)
    monkeypatch.setattr(command, "make_deterministic", lambda: calls.append("made"))
    assert command._pick_device("cpu") == CPU
    assert calls == []
    assert command._pick_device("cuda").type == "cuda"
    assert calls == ["made"]


def test_files_that_are_refused(train: Callable[..., Result], tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (tmp_path / "text.png").write_text("text")
    for given, message in (
        ({"painting": tmp_path / "no.png"}, "PAINTING: there is no file"),
        ({"painting": tmp_path / "text.png"}, "PAINTING: "),
        ({"images": nothing}, "--images: there is no photo in"),
        ({"images": tmp_path / "nowhere"}, "--images: there is no folder"),
    ):
        result = train(**given)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"pellucid: {message}")
    made = tmp_path / "made"
    made.write_text("a file")
    assert "is no folder" in train().stderr
    made.unlink()
    made.mkdir()
    (made / "thesis.tex").write_text("mine")
    result = train()
    assert (result.exit_code, [path.name for path in made.iterdir()]) == (2, ["thesis.tex"])
    assert "is not empty, and holds no training" in result.stderr
    (made / CHECKPOINT_FILE).write_bytes(b"nothing")
    assert "--resume goes on with it" in train().stderr
    assert "is no safetensors file" in train("--resume").stderr


def test_a_style_is_trained_and_served(
    train: Callable[..., Result], painting: Path, folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("coffee", "rocket"):
        (images / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    result = train("--licence", "CC0-1.0", images=images)
    assert result.exit_code == 0, result.stderr
    assert "step 3 of 3: loss " in result.stderr
    assert "skipped bad.jpg: the JPEG file has a damaged or unsupported header" in result.stderr
    assert "skipped 1 of 3 files" in result.stderr
    assert result.stdout.startswith("first    loss ")
    assert f"served   after a restart with --styles {tmp_path}" in result.stdout
    made = tmp_path / "made"
    about = yaml.safe_load((made / "style.yaml").read_text())
    trained = about.pop("trained")
    assert about == {
        "kind": "johnson",
        "file": WEIGHTS_FILE,
        "name": "mosaic",
        "licence": "CC0-1.0",
    }
    assert trained["painting_sha256"] == hashlib.sha256(painting.read_bytes()).hexdigest()
    assert (trained["step_count"], trained["model"], trained["photo_count"]) == (3, LITE, 3)
    assert trained["style_layers"] == [name for name, _ in default_layers(lite())[1]]
    served = load_johnson(made / about["file"], name=about["name"], licence=about["licence"])
    image = to_rows(crops(1, 96), CPU)
    painted = served(image, served.code_of({0: 1.0})[None])
    kept = checkpoint.load(made / CHECKPOINT_FILE)
    assert kept.header["step"] == 3
    network = Transformer(0)
    state = {name: kept.tensors[f"weight.{name}"] for name, _ in network.named_parameters()}
    network.load_state_dict(state)
    with torch.no_grad():
        assert (painted - network(image)).abs().max() < 1e-4
    shutil.copytree(made, tmp_path / "served" / "mosaic")
    answer = by_name(tmp_path / "served", "mosaic", crops(1, 96)[0])
    assert (answer - painted[0].clip(0, 1)).abs().max() < 1e-5
    with Image.open(made / PREVIEW_FILE) as preview:
        assert preview.size == (3 * SIDE_PX + 8, 2 * SIDE_PX + 4)
    further = train("--resume", "--steps", "4", images=images)
    assert further.exit_code == 0
    assert "going on from step 3" in further.stderr
    assert checkpoint.load(made / CHECKPOINT_FILE).header["step"] == 4
    result = train("--resume", "--steps", "2", images=images)
    assert (result.exit_code, "checkpoint is of step 4" in result.stderr) == (2, True)
    result = train("--resume", "--steps", "9", "--seed", "1", images=images)
    assert (result.exit_code, "seed was 0, is 1" in result.stderr) == (2, True)


def by_name(folder: Path, name: str, photo: np.ndarray) -> torch.Tensor:
    """What a server whose styles are in a folder answers to who asks for one by its name."""
    library = Library([load() for load in style_loads(folder, device=CPU)])
    assert not library.failed
    tensor = data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_UINT8, shape=photo.shape, data=photo.tobytes()
    )
    request = stylize_pb2.StylizeSpec(
        content=data_pb2.Image(tensor=tensor),
        fast=stylize_pb2.Fast(styles=[stylize_pb2.NamedStyle(name=name)], side_px=len(photo)),
    )
    limits = wire.Limits(10**6, (1,), 10**6, Buckets(4), b"0123456789abcdef")
    call = wire.Call("", time.monotonic() + 300)
    with running() as runner:
        asked = wire.read_fast(request, call, library, limits)
        painted: torch.Tensor = runner.engine.submit(asked.spec).future.result(300).result.picture
    return painted


def test_other_software_is_said(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--steps", "1").exit_code == 0
    found = command.computed_with(CPU)
    monkeypatch.setattr(command, "computed_with", lambda _: found | {"threads": 99})
    result = train("--steps", "2", "--resume")
    assert result.exit_code == 0
    assert "is 99: it goes on close by, and not to the same bits" in result.stderr


def test_after_a_kill_it_ends_with_the_same_bits(
    painting: Path, folder: Path, tmp_path: Path
) -> None:
    def arguments(output: str, *more: str) -> list[str]:
        given = ("--name", output, "--checkpoint-every", "1", *more)
        return options(painting, folder, tmp_path / output, *given)

    file = tmp_path / "killed" / CHECKPOINT_FILE
    call = [sys.executable, "-m", "pellucid", *arguments("killed", "--steps", "1000")]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # The checkpoint of a step is there before the next one is told of.
        try:
            assert any("step 3 of 1000" in line for line in process.stderr)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    steps = str(checkpoint.load(file).header["step"] + 1)
    assert not (tmp_path / "killed" / WEIGHTS_FILE).exists()
    for output, more in (("killed", ["--resume"]), ("undisturbed", [])):
        done = CliRunner().invoke(app, arguments(output, "--steps", steps, *more))
        assert done.exit_code == 0, done.stderr
    ends = [(tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("killed", "undisturbed")]
    assert ends[0] == ends[1]
