"""Fast style through the engine, its requests, and the folder that its networks come from."""

import io
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import data_pb2, stylize_pb2
from pellucid_server import wire
from pellucid_server.engine.costs import Costs
from pellucid_server.engine.job import Done, Job, Spec
from pellucid_server.engine.rows import Lane
from pellucid_server.errors import FailedPrecondition, InvalidArgument, NotFound, PellucidError
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.stylize.fast import _PAINTING_IMAGES
from pellucid_server.models.styles.arbitrary import predictor_input
from pellucid_server.models.styles.library import CHECKPOINT_FILE, Library, style_loads
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.harness import CPU, Runner, photo, running

LIMITS = wire.Limits(10**6, (1, 8), 300 * 300, Buckets(4), b"0123456789abcdef")
HEIGHT, WIDTH = 64, 96


def small(name: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.asarray(Image.fromarray(photo(name)[..., :3]).resize((width, height)))


CONTENT, STYLE = small("cat"), photo("coffee")[::4, ::4]
Styles = Sequence[str | tuple[str, float] | np.ndarray]


def encoded(array: np.ndarray) -> data_pb2.Image:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(data, "PNG")
    return data_pb2.Image(encoded=data.getvalue())


def request(styles: Styles, content: np.ndarray = CONTENT, **fast: Any) -> stylize_pb2.StylizeSpec:
    made = stylize_pb2.StylizeSpec(content=encoded(content), fast={"side_px": WIDTH, **fast})
    for one in styles:
        if isinstance(one, np.ndarray):
            made.styles.add(image=encoded(one))
        elif isinstance(one, str):
            made.fast.styles.add(name=one)
        else:
            made.fast.styles.add(name=one[0], weight=one[1])
    return made


def read(
    library: Library, spec: stylize_pb2.StylizeSpec, caller: str = "", limits: wire.Limits = LIMITS
) -> wire.AskedStylize:
    return wire.read_fast(spec, wire.Call(caller, time.monotonic() + 300), library, limits)


def submit(runner: Runner, library: Library, spec: Any, caller: str = "") -> Job:
    job = runner.engine.submit(read(library, spec, caller).spec)
    runner.submitted.append(job)
    return job


def run(runner: Runner, library: Library, spec: stylize_pb2.StylizeSpec) -> Done:
    return submit(runner, library, spec).future.result(300)


def load(folder: Path) -> Library:
    return Library([load() for load in style_loads(folder, device=CPU)])


@pytest.fixture(scope="module")
def library(styles: Path) -> Library:
    return load(styles)


def pixels(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1).copy()).float() / 255


# Rows.


def test_callers_with_styles_of_their_own_share_a_batch(library: Library) -> None:
    """Eight in one batch, and each alone at the same bucket: the same bits."""
    names = ("cat", "coffee", "rocket", "astronaut")
    asked = [
        request([str(3 * i), ("25", 0.5 * i)] if i % 2 else [str(3 * i)], small(names[i % 4]))
        for i in range(8)
    ]
    asked += [request([small(name)], small("cat")) for name in names[1:]]
    with running(buckets=(8,)) as runner:
        for picture in asked[8:]:
            run(runner, library, picture)  # their codes are predicted once, apart
        with runner.held():
            jobs = [submit(runner, library, spec, str(i)) for i, spec in enumerate(asked)]
        wait([job.future for job in jobs], timeout=300)
        together = [job.future.result() for job in jobs]
        alone = [run(runner, library, spec) for spec in asked]
    assert [ride.row_count for done in together for ride in done.rides] == [8] * 8 + [3] * 3
    assert [ride.row_count for done in alone for ride in done.rides] == [1] * 11
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.result.picture, other.result.picture)
    pictures = [done.result.picture for done in together]
    assert min((a - b).abs().mean() for a in pictures for b in pictures if a is not b) > 0.01


def test_large_images_ride_in_smaller_batches() -> None:
    costs = Costs((1, 2, 4, 8), 100.0)
    for bucket, ms in ((1, 20.0), (2, 36.0), (4, 64.0), (8, 120.0)):
        costs.record(Lane.FORWARD, bucket, ms)
    assert costs.bucket_for(Lane.FORWARD, 8) == 4
    assert costs.bucket_for(Lane.FORWARD, 8, 0.5) == 8
    assert costs.bucket_for(Lane.FORWARD, 8, 2.0) == 2
    assert costs.bucket_for(Lane.FORWARD, 8, 50.0) == 1


def test_codes_of_pictures_are_kept_by_checksum(styles: Path) -> None:
    library = load(styles)
    with running() as runner:
        first, again, other = (
            run(runner, library, request([style])) for style in (STYLE, STYLE, STYLE[:-1])
        )
    assert [len(done.rides) for done in (first, again, other)] == [2, 1, 2]
    assert torch.equal(first.result.picture, again.result.picture)


def test_strength_of_pictures_is_between_codes(library: Library) -> None:
    """Held against the networks themselves."""
    pair = library.arbitrary
    assert pair is not None
    painter, predictor = pair[0].network, pair[1].network
    rocket = small("rocket")
    seen = torch.from_numpy(np.stack([predictor_input(p) for p in (CONTENT, STYLE, rocket)]))
    own, coffee, other = predictor(seen)
    spec = request([STYLE, rocket], strength=0.25)
    spec.styles[1].weight = 3
    with running() as runner:
        made = run(runner, library, spec).result.picture
    code = 0.75 * own + 0.25 * (coffee / 4 + 3 * other / 4)
    expected = painter(pixels(CONTENT)[None], code[None])[0].clip(0, 1)
    assert (made - expected).abs().max() < 1e-3
    assert (own - coffee).abs().max() > 0.5


def test_strength_of_names_is_between_pixels(library: Library) -> None:
    with running() as runner:
        full, half, none = (
            run(runner, library, request(["7"], strength=strength)).result.picture
            for strength in (1, 0.5, 0)
        )
    assert torch.equal(none, pixels(CONTENT))
    assert torch.allclose(half, (full + none) / 2, atol=1e-6)
    assert (full - none).abs().mean() > 0.1


def test_colours_and_masks(library: Library) -> None:
    mask = np.zeros_like(CONTENT)
    mask[:, : WIDTH // 2] = 255
    spec = request(["19"], original_colors=stylize_pb2.ORIGINAL_COLORS_LUMINANCE)
    spec.mask.CopyFrom(encoded(mask))
    with running() as runner:
        done = run(runner, library, spec)
        made, kept = done.result.picture, pixels(CONTENT)
        assert torch.equal(made[:, :, WIDTH // 2 :], kept[:, :, WIDTH // 2 :])
        change = (made - kept)[:, :, : WIDTH // 2]
        inside = ((made > 0) & (made < 1)).all(0)[:, : WIDTH // 2]
        assert change.abs().mean() > 0.02
        assert (change - change.mean(0))[:, inside].abs().max() < 1e-5  # as Cb and Cr are kept
        assert 0 < done.result.clipped_share < 1
        spec.mask.CopyFrom(encoded(np.zeros_like(CONTENT)))
        with pytest.raises(InvalidArgument, match="mask: is black everywhere"):
            run(runner, library, spec)


def test_a_photo_is_made_the_size_that_is_asked_for(library: Library) -> None:
    with running() as runner:
        for side_px, size in ((300, (200, 300)), (64, (43, 64))):
            spec = request(["0"], side_px=side_px)
            assert run(runner, library, spec).result.picture.shape == (3, *size)


# Requests.


def test_what_is_asked_is_filled_in(library: Library) -> None:
    asked = read(library, request(["3", ("12", 3.0)], bucket_size=8))
    assert asked.spec.bucket_size == 8
    assert asked.spec.model.name == "styles/multistyle26"
    fast = asked.settings.fast
    assert (fast.strength, fast.side_px, fast.bucket_size) == (1, WIDTH, 8)
    assert {one.name: one.weight for one in fast.styles} == {"3": 1, "12": 3}
    assert fast.original_colors == stylize_pb2.ORIGINAL_COLORS_OFF


def refused(
    library: Library, spec: stylize_pb2.StylizeSpec, **options: Any
) -> tuple[type[PellucidError], dict[str, str]]:
    with pytest.raises(PellucidError) as raised:
        read(library, spec, **options)
    return type(raised.value), {v.field: v.description for v in raised.value.violations}


WRONG: tuple[tuple[Styles, dict[str, Any], str, str], ...] = (
    ([], {}, "fast.styles", "neither did"),
    (["3", STYLE], {}, "fast.styles", "both came"),
    ([str(i) for i in range(17)], {}, "fast.styles", "has 17; must have at most 16"),
    ([("3", 0.0)], {}, "fast.styles[0].weight", "is 0; must be more than 0"),
    (["1", ("3", float("nan"))], {}, "fast.styles[1].weight", "is nan"),
    (["3", "3"], {}, "fast.styles[1].name", "which is there already"),
    (["3"], {"side_px": 63}, "fast.side_px", "is 63; must be 64 to 2048"),
    (["3"], {"side_px": 512}, "fast.side_px", "at most 90000 fit"),
    (["3"], {"strength": 1.5}, "fast.strength", "is 1.5; must be 0 to 1"),
    (["3"], {"strength": float("nan")}, "fast.strength", "is nan"),
    (["3"], {"bucket_size": 3}, "fast.bucket_size", "is 3; must be one of 1, 8"),
    (["3"], {"original_colors": 3}, "fast.original_colors", "ORIGINAL_COLORS_LUMINANCE"),
    ([STYLE] * 9, {}, "styles", "has 9; must have 1 to 8"),
)


@pytest.mark.parametrize(("which", "fast", "field", "says"), WRONG, ids=lambda one: str(one)[:30])
def test_what_is_wrong_is_named(
    library: Library, which: Styles, fast: dict[str, Any], field: str, says: str
) -> None:
    kind, found = refused(library, request(which, **fast))
    assert kind is InvalidArgument
    assert says in found[field]


def test_a_fixed_bucket_fits_the_image(library: Library) -> None:
    """As many pixels as a batch of optimizations has at 512 px; one image alone may have more."""
    limits = replace(LIMITS, buckets=(1, 2, 4, 8), max_optimize_pixels=2048 * 2048)
    square = small("cat", 512, 512)
    for side_px, bucket_size in ((512, 4), (360, 8), (1024, 1), (2048, 1)):
        spec = request(["3"], square, side_px=side_px, bucket_size=bucket_size)
        assert read(library, spec, limits=limits).spec.bucket_size == bucket_size
    kind, found = refused(
        library, request(["3"], square, side_px=1024, bucket_size=8), limits=limits
    )
    assert kind is InvalidArgument
    assert found == {
        "fast.bucket_size": "is 8; must be one of 1 at 1024 × 1024: a batch has at most 1048576 "
        "pixels"
    }
    found = refused(library, request(["3"], square, side_px=512, bucket_size=8), limits=limits)[1]
    assert "must be one of 1, 2, 4 at 512 × 512" in found["fast.bucket_size"]


def test_padding_and_activations_are_counted(library: Library) -> None:
    limits = replace(LIMITS, buckets=(1, 4), max_optimize_pixels=1024 * 1024)

    def asked(side_px: int, **fast: Any) -> Spec[Any]:
        spec = request(["3"], small("cat", 512, 512), side_px=side_px, **fast)
        return read(library, spec, limits=limits).spec

    with running(buckets=(1, 4)) as runner:
        engine, plain = runner.engine, asked(256)
        costs = engine.costs_of(plain.model)
        costs.record(Lane.FORWARD, 1, 10.0)
        costs.record(Lane.FORWARD, 4, 24.0)
        # Of 256 × 256 px; of twice the side four times as much, which ride as one row.
        assert engine.cost_ms(plain) == 10
        assert engine.cost_ms(asked(512)) == 40
        assert engine.cost_ms(asked(512, bucket_size=4)) == 96
        assert engine.cost_ms(asked(1024)) == 160
    images = [
        asked(side_px, **fast).method.byte_count(plain.model) / (3 * 4 * 512 * 512)
        for side_px, fast in ((512, {}), (512, {"bucket_size": 4}), (1024, {}))
    ]
    assert images[0] < images[1] - 3 * 24  # three rows more, of 24 images each: see below
    assert images[2] > 4 * images[0] + 3 * 24


def test_what_painting_takes(library: Library) -> None:
    """The allowance is that of the network that takes most."""
    found = library.find("3")
    assert found is not None
    images = torch.rand(1, 3, 128, 128)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        found[0].network(images, torch.rand(1, 26))
    held = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0.8 * _PAINTING_IMAGES <= most / images.nbytes <= _PAINTING_IMAGES


def test_what_cannot_be_sent_is_refused_before_it_is_painted(library: Library) -> None:
    limits = replace(LIMITS, max_response_bytes=90_000)
    spec = request(["3"])
    assert read(library, spec, limits=limits)
    spec.include_pixels = True
    kind, found = refused(library, spec, limits=limits)
    assert kind is InvalidArgument
    assert "6144 pixels, as numbers too may take" in found["include_pixels"]
    found = refused(library, spec, limits=replace(limits, max_response_bytes=1000))[1]
    assert "ask for fewer or smaller ones" in found["include_pixels"]


def test_pictures_that_do_not_fit(library: Library) -> None:
    spec = request(["3"], CONTENT[:10])
    assert "at least 32 pixels are needed" in refused(library, spec)[1]["content"]
    spec = request(["3"])
    spec.mask.CopyFrom(encoded(CONTENT[1:]))
    assert "they are 63 × 96 and 64 × 96" in refused(library, spec)[1]["mask"]
    spec.content.encoded = b"no picture"
    assert "content.encoded" in refused(library, spec)[1]


NEURAL_ALONE: tuple[dict[str, Any], ...] = (
    {"model": "resnet18"},
    {"start": data_pb2.Image()},
    {"checkpoint": b"1"},
    {"checkpoint_bytes": 1 << 40},
    {"checkpoint_bytes": -5},
)


@pytest.mark.parametrize("asked", NEURAL_ALONE, ids=str)
def test_what_is_for_neural_is_refused(library: Library, asked: dict[str, Any]) -> None:
    """Whatever it is, and even where it is empty."""
    spec = request(["3"])
    spec.MergeFrom(stylize_pb2.StylizeSpec(**asked))
    kind, found = refused(library, spec)
    assert kind is InvalidArgument
    assert found == dict.fromkeys(asked, "is for neural")


def test_styles_that_are_not_there(library: Library) -> None:
    kind, found = refused(library, request(["3", "mosaic"]))
    assert kind is NotFound
    assert found["fast.styles[1].name"].startswith("is 'mosaic'; styles are: 0, 1, 2, ")
    for styles in (["3"], [STYLE]):
        kind, found = refused(Library(), request(styles))
        assert kind is FailedPrecondition
        assert "`pellucid models pull styles`" in found["fast"]


# Folders.


def state() -> dict[str, Tensor]:
    """A network of the published layout, untrained."""
    generator = torch.Generator().manual_seed(0)
    made: dict[str, Tensor] = {}

    def add(name: str, norm: str, out: int, depth: int, side: int = 3) -> None:
        weight = torch.randn(out, depth, side, side, generator=generator)
        made[f"{name}.conv2d.weight"] = weight / (depth**0.5 * side)
        made[f"{name}.conv2d.bias"] = torch.zeros(out)
        if norm:
            made[f"{norm}.weight"], made[f"{norm}.bias"] = torch.ones(out), torch.zeros(out)

    add("conv1", "in1", 32, 3, 9)
    add("conv2", "in2", 64, 32)
    add("conv3", "in3", 128, 64)
    for i in range(1, 6):
        for k in (1, 2):
            add(f"res{i}.conv{k}", f"res{i}.in{k}", 128, 128)
    add("deconv1", "in4", 64, 128)
    add("deconv2", "in5", 32, 64)
    add("deconv3", "", 3, 32, 9)
    made["deconv3.conv2d.weight"] *= 20
    made["deconv3.conv2d.bias"] += 128
    return made


@pytest.fixture
def trained(styles: Path, tmp_path: Path) -> Callable[..., Library]:
    """Loads a folder of the published networks and of one that a user trained."""
    folder = tmp_path / "styles"
    (folder / "mine").mkdir(parents=True)
    for file in styles.glob("*.onnx"):
        (folder / file.name).symlink_to(file)
    save_file(state(), folder / "mine" / "m.safetensors")

    def loaded(text: str = "kind: johnson\nfile: m.safetensors\nname: mosaic\n") -> Library:
        (folder / "mine" / "style.yaml").write_text(text)
        return load(folder)

    return loaded


def test_networks_of_users_are_served(trained: Callable[..., Library]) -> None:
    library = trained()
    assert library.failed == []
    with running() as runner:
        done = run(runner, library, request(["mosaic"], CONTENT))
    found = library.find("mosaic")
    assert found is not None
    expected = found[0].network(pixels(CONTENT)[None], torch.zeros(1, 0))[0].clip(0, 1)
    assert (done.result.picture - expected).abs().max() < 1e-5
    assert expected.std() > 0.01
    kind, problems = refused(library, request(["3", "mosaic"]))
    assert kind is InvalidArgument
    assert problems["fast.styles[1].name"].startswith(
        "is a style of styles/mine, and fast.styles[0] one of styles/multistyle26; only"
    )
    listed = {one.name: one for one in wire.write_styles(library).networks}
    assert list(listed["styles/mine"].styles) == ["mosaic"]
    assert listed["styles/mine"].ready
    assert listed["styles/arbitrary"].takes_pictures
    assert listed["styles/multistyle26"].licence == "Apache-2.0"


def test_what_is_being_trained_is_no_style_yet(
    trained: Callable[..., Library], styles: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "styles" / "halfway"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKPOINT_FILE).write_bytes(b"")
    (folder / "preview.jpg").write_bytes(b"")
    library = trained()
    assert library.failed == []
    (folder / CHECKPOINT_FILE).unlink()
    assert [one.name for one in trained().failed] == ["styles/halfway"]


FAULTY = {
    "kind: gatys\nfile: m.safetensors\nname: a\n": "style.yaml: kind must be 'johnson'",
    "kind: johnson\nfile: m.safetensors\n": "style.yaml: name is missing",
    "kind: johnson\nfile: n.safetensors\nname: a\n": "style.yaml: file there is no file",
    "kind: johnson\nfile: ../a.onnx\nname: a\n": "style.yaml: file '../a.onnx' leads out",
    "kind: johnson\nfile: m.safetensors\nname: a/b\n": "style.yaml: name must be of 1 to 64",
    "kind: johnson\nfile: m.safetensors\nname: '3'\n": "there is a style '3' already",
    "kind: johnson\nfile: style.yaml\nname: a\n": "style.yaml is neither .safetensors",
    "- kind": "style.yaml is not a mapping",
    "a: *b": "style.yaml is not YAML that is read here",
}


@pytest.mark.parametrize("text", FAULTY)
def test_faulty_folders_are_named(trained: Callable[..., Library], text: str) -> None:
    library = trained(text)
    [failed] = library.failed
    assert failed.name == "styles/mine"
    assert failed.reason.startswith(FAULTY[text])
    assert library.find("3") is not None
    told = wire.write_styles(library).networks[-1]
    assert (told.ready, told.reason) == (False, failed.reason)


def test_parts_of_the_published_files(styles: Path, tmp_path: Path) -> None:
    copy = partial(shutil.copy, dst=tmp_path)
    assert not load(tmp_path)
    copy(styles / "arbitrary_transform.onnx")
    library = load(tmp_path)
    kind, found = refused(library, request([STYLE]))
    assert kind is FailedPrecondition
    assert "`pellucid models pull styles`" in found["styles"]
    (tmp_path / "multistyle26.onnx").write_bytes(b"damaged")
    [failed] = load(tmp_path).failed
    assert failed.name == "styles/multistyle26"
    assert "is no ONNX file" in failed.reason
    assert list(style_loads(None, device=CPU)) == []
