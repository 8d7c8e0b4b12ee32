"""An index against brute force: plain torch, hooks, sorting."""

import copy
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pellucid_server.engine.rows import NeuronTarget
from pellucid_server.errors import FailedPrecondition
from pellucid_server.index import progress as progress_module
from pellucid_server.index.build import Built, Options, build, choose_layers
from pellucid_server.index.folder import Index
from pellucid_server.index.manifest import BadIndex, version_of
from pellucid_server.index.mounted import mount
from pellucid_server.index.peaks import Files, LoadedFiles, Peaks
from pellucid_server.index.progress import Progress, Refused
from pellucid_server.methods.explain.gradients import Gradient
from pellucid_server.methods.inspect.embed import Embed, default_layer
from pellucid_server.methods.inspect.similar import Similar
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision
from PIL import Image
from torch import nn

from tests.harness import CPU, Runner, crops, model, untouched
from tests.oracle.networks import seeded, served
from tests.unit.index.conftest import LAYERS, options, resnet

# A folded convolution's tap is its norm's output.
HOOKED = {
    "conv1": "bn1",
    "layer1.0.conv2": "layer1.0.bn2",
    "layer2.0": "layer2.0",
    "layer3.1.conv2": "layer3.1.bn2",
    "fc": "fc",
}


@pytest.fixture(scope="module")
def activations(photos: Path) -> dict[str, torch.Tensor]:
    """Of each layer, photos × channels × places, float64; and of what the classifier gets."""
    network, kept = untouched("resnet18"), {}
    hooks = [
        network.get_submodule(hooked).register_forward_hook(
            lambda _m, _i, out, name=name: kept.__setitem__(name, out.clone())
        )
        for name, hooked in HOOKED.items()
    ]
    hooks.append(
        network.fc.register_forward_pre_hook(lambda _m, given: kept.__setitem__("code", given[0]))
    )
    steps = resnet().preprocessing
    images = [steps.apply(np.asarray(Image.open(path))) for path in sorted(photos.glob("???.png"))]
    with torch.no_grad():
        network(torch.from_numpy(np.stack(images)))
    for hook in hooks:
        hook.remove()
    return kept


def test_top_patches_are_those_of_brute_force(
    built: Built, photos: Path, activations: dict[str, torch.Tensor]
) -> None:
    index, names = Index(built.folder), [path.name for path in sorted(photos.glob("???.png"))]
    for layer in LAYERS:
        maps = activations[layer].flatten(2) if layer != "fc" else activations[layer][:, :, None]
        width = 1 if layer == "fc" else activations[layer].shape[3]
        largest, where = maps.max(2)
        for channel in range(maps.shape[1]):
            order = largest[:, channel].argsort(descending=True, stable=True)[:4].tolist()
            found = index.patches(layer, channel, 4)
            assert [one.name for one in found] == [names[photo] for photo in order]
            assert [one.y * width + one.x for one in found] == where[order, channel].tolist()
            expected = pytest.approx(largest[order, channel].tolist(), rel=1e-5, abs=1e-6)
            assert [one.activation for one in found] == expected
            edges, counts = index.histogram(layer, channel)
            inside = np.histogram(largest[:, channel].float().numpy(), edges)[0]
            assert inside.tolist() == list(counts)
            assert sum(counts) == 12


def test_codes_and_neighbours_are_those_of_brute_force(
    built: Built, activations: dict[str, torch.Tensor]
) -> None:
    index, codes = Index(built.folder), activations["code"]
    units = codes / codes.norm(dim=1, keepdim=True)
    for photo in range(12):
        assert index.code(photo) == pytest.approx(codes[photo].numpy(), rel=1e-4, abs=1e-6)
        found = index.nearest(codes[photo].float().numpy(), 100)
        similarities = units @ units[photo]
        order = similarities.argsort(descending=True).tolist()
        assert [one.photo for one in found] == order
        assert found[0].photo == photo
        expected = pytest.approx(similarities[order].tolist(), abs=1e-6)
        assert [one.similarity for one in found] == expected


def test_the_picture_is_what_the_network_saw(built: Built, photos: Path) -> None:
    index, steps = Index(built.folder), resnet().preprocessing
    for number, path in enumerate(sorted(photos.glob("???.png"))):
        seen = steps.apply(np.asarray(Image.open(path)))
        assert (index.pixels(number) == steps.unnormalize(seen)).all()
        assert np.abs(steps.normalize(index.pixels(number)) - seen).max() < 1e-12


def test_what_cannot_be_read_is_listed(built: Built) -> None:
    assert [name for name, _ in built.failures] == ["005b.jpg", "011b.png"]
    assert "format is unknown" in built.failures[0][1]
    assert "truncated" in built.failures[1][1]
    assert built.about["photo_count"] == 12
    assert built.about["failed_count"] == 2


@pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv2", "layer2.0"])
def test_nothing_outside_its_box_matters(built: Built, runner: Runner, layer: str) -> None:
    """Through the served network; and something inside does."""
    index, on = Index(built.folder), resnet()
    rng = np.random.default_rng(3)
    for channel in rng.choice(index.channel_counts[layer], 6, replace=False).tolist():
        patch = index.patches(layer, channel, 4)[int(rng.integers(4))]
        unit = NeuronTarget(layer, channel, patch.y, patch.x)
        top, left, bottom, right = patch.box
        seen = on.preprocessing.normalize(index.pixels(patch.photo))
        inside = np.zeros(seen.shape, bool)
        inside[:, top:bottom, left:right] = True
        noise = rng.standard_normal(seen.shape) * 3

        def value(image: np.ndarray, unit: NeuronTarget = unit) -> float:
            tensor = torch.from_numpy(image)
            return runner.run(on, Gradient(), tensor, unit, bucket_size=1).result.score

        assert value(seen) == pytest.approx(patch.activation, rel=1e-6, abs=1e-6)
        assert value(np.where(inside, seen, noise)) == pytest.approx(value(seen), rel=1e-12)
        assert abs(value(np.where(inside, noise, seen)) - value(seen)) > 1e-6


def test_the_same_command_again_finds_it_finished(built: Built, photos: Path) -> None:
    paths = sorted(photos.iterdir())
    again = build(resnet(), options(resnet()), photos, paths, built.folder)
    assert again == replace(built, earlier_count=14)
    with pytest.raises(Refused, match="whose top k is 4, not 5"):
        build(resnet(), options(resnet(), top_k=5), photos, paths, built.folder)
    with pytest.raises(Refused, match="whose layers is"):
        build(resnet(), options(resnet(), layers=("fc",)), photos, paths, built.folder)
    with pytest.raises(Refused, match="index of 14 photos, and there are 13 now"):
        build(resnet(), options(resnet()), photos, paths[1:], built.folder)


def test_an_index_of_other_photos_is_not_taken_for_finished(tmp_path: Path) -> None:
    """As many as it is of: one of another name, one changed, one that failed and is whole now."""
    folder, out, on = tmp_path / "photos", tmp_path / "index", resnet()
    paths = crops(folder, 3)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-3000])
    made = build(on, options(on, layers=("fc",)), folder, paths, out)
    assert [name for name, _ in made.failures] == ["001.png"]

    def again() -> Built:
        return build(on, options(on, layers=("fc",)), folder, sorted(folder.iterdir()), out)

    assert again() == replace(made, earlier_count=3)
    paths[1].write_bytes(whole)
    with pytest.raises(Refused, match=r"index of another 001\.png: it has changed since"):
        again()
    paths[1].write_bytes(whole[:-3000])
    kept = paths[0].read_bytes()
    paths[0].write_bytes(paths[2].read_bytes())
    with pytest.raises(Refused, match=r"index of another 000\.png: it has changed since"):
        again()
    paths[0].write_bytes(kept)
    paths[0].rename(folder / "other.png")
    with pytest.raises(Refused, match=r"index of other photos: other\.png is not among them"):
        again()


def break_off(chosen: Options, photos: Path, paths: list[Path], out: Path, most: int = 1) -> None:
    """Begins an index, and is interrupted once so many photos are done."""

    def look(done: int, count: int) -> None:
        if done >= most:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(resnet(), chosen, photos, paths, out, look)


def test_batches_that_are_tallied_and_batches_that_are_logged(
    built: Built, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way from half-written to finished leads to the same bytes."""
    monkeypatch.setattr(progress_module, "_BATCHES_LOGGED", 1)
    paths = sorted(photos.iterdir())
    for most in (4, 8, 12):
        break_off(options(resnet()), photos, paths, tmp_path, most)
        with pytest.raises(BadIndex, match="half-written: the same `pellucid index` command"):
            Index(tmp_path)
    whole = build(resnet(), options(resnet()), photos, paths, tmp_path)
    assert whole.earlier_count == 12
    assert whole.about == built.about
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "codes.npy",
        "index.sqlite",
        "manifest.json",
    ]


def test_what_is_half_written_is_of_one_run_and_one_kind(photos: Path, tmp_path: Path) -> None:
    settings = {"top_k": 4, "channel_count": 3, "model_version": "aaaaaaaaaaaa"}
    with Progress(tmp_path, photos, settings), pytest.raises(Refused, match="another run writes"):
        Progress(tmp_path, photos, settings)
    other = settings | {"model_version": "bbbbbbbbbbbb"}
    with pytest.raises(Refused, match='whose model version is "aaaaaaaaaaaa", not "bbbbbbbbbbbb"'):
        Progress(tmp_path, photos, other)
    (tmp_path / "progress.sqlite").write_bytes(b"nothing that SQLite knows" * 100)
    with pytest.raises(Refused, match="damaged"):
        Progress(tmp_path, photos, settings)


@pytest.mark.parametrize("amid_the_run", [False, True])
def test_a_photo_that_changes_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amid_the_run: bool
) -> None:
    folder, out, load = tmp_path / "photos", tmp_path / "index", Files.load
    paths, chosen = crops(folder, 6), options(resnet(), layers=("fc",))

    def change() -> None:
        paths[1].write_bytes(paths[2].read_bytes())

    def early(self: Files, model: Model) -> LoadedFiles:
        loaded = load(self, model)
        change()
        return loaded

    if amid_the_run:
        monkeypatch.setattr(Files, "load", early)
    break_off(chosen, folder, paths, out)
    if not amid_the_run:
        change()
    with pytest.raises(Refused, match=r"001\.png has changed since it was indexed"):
        build(resnet(), chosen, folder, paths, out)


def test_a_photo_that_vanishes_during_a_run_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed, and the same command goes on without it."""
    folder, out, load = tmp_path / "photos", tmp_path / "index", Files.load
    paths, chosen = crops(folder, 6), options(resnet(), layers=("fc",))

    def late(self: Files, model: Model) -> LoadedFiles:
        paths[1].unlink(missing_ok=True)
        return load(self, model)

    monkeypatch.setattr(Files, "load", late)
    break_off(chosen, folder, paths, out)
    made = build(resnet(), chosen, folder, sorted(folder.iterdir()), out)
    assert made.failures == (("001.png", "it cannot be read: No such file or directory"),)
    assert made.about["photo_count"] == 5


def test_a_photo_whose_activations_are_not_finite_is_listed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Files.load

    def with_infinity(self: Files, on: object) -> object:
        loaded = load(self, on)
        for place, path in enumerate(self.paths):
            if path.name == "002.png":
                loaded.input[place] = torch.inf
        return loaded

    monkeypatch.setattr(Files, "load", with_infinity)
    on, paths = resnet(), sorted(photos.glob("00[0-4].png"))
    made = build(on, options(on, layers=("fc",)), photos, paths, tmp_path / "out")
    assert [name for name, _ in made.failures] == ["002.png"]
    assert "not finite" in made.failures[0][1]
    assert made.about["photo_count"] == 4


def test_what_the_engine_does_wrong_is_no_photos_fault(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run, and the same command goes on from what was kept."""
    program, on, paths = Peaks.program, resnet(), sorted(photos.glob("00?.png"))
    started: list[int] = []

    def broken(self: Peaks, model: object, image: torch.Tensor, target: object) -> object:
        started.append(len(image))
        if len(started) > 1:
            raise ArithmeticError("a bug")
        return (yield from program(self, model, image, target))

    monkeypatch.setattr(Peaks, "program", broken)
    with pytest.raises(RuntimeError, match="the same command goes on"):
        build(on, options(on, layers=("fc",)), photos, paths, tmp_path)
    with pytest.raises(BadIndex, match="half-written"):
        Index(tmp_path)
    monkeypatch.setattr(Peaks, "program", program)
    made = build(on, options(on, layers=("fc",)), photos, paths, tmp_path)
    assert (made.earlier_count, made.about["photo_count"], made.failures) == (4, 10, ())


@pytest.mark.parametrize("name", ["vit_tiny", "mobilenet_v3_small"])
def test_codes_are_those_of_embed(name: str, photos: Path, tmp_path: Path, runner: Runner) -> None:
    """Where no classifier is: of the last layer with maps, or of patches without the class token.

    A photo finds itself by the same code.
    """
    module = copy.deepcopy(seeded(name))
    head = "head" if name == "vit_tiny" else "classifier"
    setattr(module, head, nn.Identity())
    network = Network(module, height_px=96, width_px=96, dtype=torch.float64, device=CPU)
    on, paths = replace(served(name), network=network), sorted(photos.glob("00[0-3].png"))
    layer = default_layer(network)
    assert network.layer(layer).spatial
    build(on, options(on, layers=(layer,)), photos, paths, tmp_path)
    index, codes = Index(tmp_path), []
    for path in paths:
        image = torch.from_numpy(on.preprocessing.apply(np.asarray(Image.open(path))))
        codes.append(runner.run(on, Embed(layer), image, bucket_size=4).result.code)
        found = runner.run(on, Similar(index, on.preprocessing.normalize, 1, 1), image).result
        assert found.neighbors[0].name == path.name
        assert found.neighbors[0].similarity == pytest.approx(1, abs=1e-6)
    made = np.stack([index.code(photo) for photo in range(len(paths))])
    assert np.array_equal(made, torch.stack(codes).float().numpy())
    assert np.ptp(made, axis=0).max() > 1e-3


def test_layers_are_refused_by_name() -> None:
    on = resnet()
    with pytest.raises(Refused, match="'layer9' is not a layer of resnet18; those with maps are"):
        choose_layers(on, ["conv1", "layer9"])
    with pytest.raises(Refused, match="conv1 is named twice"):
        choose_layers(on, ["conv1", "conv1"])
    assert {layer.kind for layer in choose_layers(on, None)} == {"Conv2d"}
    assert {layer.name for layer in choose_layers(on, ["all"])} > {"relu", "layer2.0", "conv1"}


def test_nothing_to_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(b"no photo")
    on = resnet()
    with pytest.raises(Refused, match="none of the photos could be read"):
        build(on, options(on), tmp_path / "photos", [tmp_path / "photos/a.png"], tmp_path / "out")


def test_names_and_batches_that_cannot_be(photos: Path, tmp_path: Path) -> None:
    on, odd = resnet(), photos / "caf\udce9.png"
    with pytest.raises(Refused, match=r"caf\\udce9\.png: a photo's name must be UTF-8"):
        build(on, options(on), photos, [odd], tmp_path / "out")
    few = replace(on, limits=on.limits.model_copy(update={"max_bucket_size": 2}))
    with pytest.raises(Refused, match="--batch: is 4; resnet18 takes at most 2"):
        build(few, options(on), photos, sorted(photos.iterdir()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def copied(built: Built, to: Path) -> Path:
    to.mkdir()
    for file in built.folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_indices_that_are_not_mounted(built: Built, tmp_path: Path) -> None:
    """Each with its reason; a request is told of it."""
    models = {"resnet18": resnet()}
    whole = copied(built, tmp_path / "whole")
    assert mount([whole], models).find(resnet()).version == built.about["version"]
    with pytest.raises(FailedPrecondition, match="`pellucid index PHOTOS --model resnet18 --out"):
        mount([], models).find(resnet())

    def refused(folder: Path, among: dict = models) -> str:
        found = mount([folder], among)
        assert not found.mounted
        return found.refused[0].reason

    codes = copied(built, tmp_path / "codes")
    changed = bytearray((codes / "codes.npy").read_bytes())
    changed[-1] ^= 1
    (codes / "codes.npy").write_bytes(changed)
    assert refused(codes) == "codes.npy is not the file that the manifest names: it was changed"
    with pytest.raises(FailedPrecondition, match=r"\(codes is not served: codes.npy is not"):
        mount([codes], models).find(resnet())
    rows = copied(built, tmp_path / "rows")
    with sqlite3.connect(rows / "index.sqlite") as file:
        file.execute("UPDATE patches SET activation = 1000 WHERE layer = 'conv1'")
    file.close()
    assert "index.sqlite is not the file" in refused(rows)
    manifest = copied(built, tmp_path / "manifest")
    about = json.loads((manifest / "manifest.json").read_text())
    (manifest / "manifest.json").write_text(json.dumps(about | {"photo_count": 13}))
    assert refused(manifest) == "manifest.json was changed after it was written"
    gone = copied(built, tmp_path / "gone")
    (gone / "index.sqlite").unlink()
    assert refused(gone) == "index.sqlite cannot be read: No such file or directory"
    assert refused(tmp_path) == "it is no index: there is no manifest.json"
    assert refused(whole, {"lite0": model("efficientnet_lite0")}) == (
        "its model, resnet18, is not loaded"
    )
    steps = replace(resnet().preprocessing, mean=(0.5, 0.5, 0.5))
    greyer = {"resnet18": replace(resnet(), preprocessing=steps)}
    assert refused(whole, greyer).endswith("with mean [0.485, 0.456, 0.406], not [0.5, 0.5, 0.5]")
    newer = {"resnet18": replace(resnet(), version="0123456789ab")}
    assert refused(whole, newer) == (
        f"it was made with version {resnet().version} of resnet18; version 0123456789ab is loaded"
    )
    coarser = {"resnet18": replace(resnet(), precision=Precision.BFLOAT16)}
    assert refused(whole, coarser) == (
        "it was made with precision float64 of resnet18; bfloat16 is loaded"
    )
    rebuilt = {"resnet18": replace(resnet(), architecture="resnet19")}
    assert refused(whole, rebuilt).startswith("it was made with architecture ")
    both = mount([whole, built.folder], models)
    assert len(both.mounted) == 1
    assert "another index of resnet18 is mounted" in both.refused[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"files": None}, "manifest.json: files: "),
        ({"files": {}}, "manifest.json: files.index.sqlite: "),
        ({"files": {"../x": "0" * 64}}, "manifest.json: files."),
        ({"layers": None}, "manifest.json: layers: "),
        ({"layers": [{"name": "fc"}]}, "manifest.json: layers.0.channel_count: "),
        ({"photo_count": "12"}, "manifest.json: photo_count: "),
        ({"photo_count": 11}, "codes.npy is float32 (12, 512), not float32 (11, 512)"),
        ({"failed_count": 3}, "index.sqlite has 2 failures, not 3"),
        ({"preprocessing": {}}, "its photos were preprocessed with "),
        ({"more": 1}, "manifest.json: more: "),
    ],
)
def test_a_manifest_that_is_none(
    built: Built, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    """Its version is right: somebody wrote it so."""
    folder = copied(built, tmp_path / "made")
    about = json.loads((folder / "manifest.json").read_text()) | change
    about["version"] = version_of(about)
    (folder / "manifest.json").write_text(json.dumps(about))
    found = mount([folder], {"resnet18": resnet()})
    assert not found.mounted
    assert found.refused[0].reason.startswith(reason)


def test_a_preprocessing_step_that_is_not_known(built: Built, tmp_path: Path) -> None:
    folder = copied(built, tmp_path / "made")
    about = json.loads((folder / "manifest.json").read_text())
    about["preprocessing"]["sharpen"] = 2
    about["version"] = version_of(about)
    (folder / "manifest.json").write_text(json.dumps(about))
    found = mount([folder], {"resnet18": resnet()})
    assert found.refused[0].reason == "its photos were preprocessed with sharpen 2, not None"


def test_a_manifest_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(BadIndex, match="cannot be read: "):
        Index(tmp_path)
