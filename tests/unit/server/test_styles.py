"""Style networks: held against ONNX Runtime, against the published layout, and row by row."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from pellucid_server.models.styles import weights as files
from pellucid_server.models.styles.arbitrary import (
    PREDICT_FILE,
    TRANSFORM_FILE,
    load_arbitrary,
    load_predictor,
    predictor_input,
)
from pellucid_server.models.styles.johnson import load_johnson
from pellucid_server.models.styles.multistyle import MULTISTYLE_FILE, load_multistyle
from pellucid_server.models.styles.network import (
    SMALLEST_SIDE_PX,
    BadStyle,
    StyleNetwork,
    at_strength,
)
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.harness import photo

SIZES = [(64, 64), (96, 132), (45, 101), (33, SMALLEST_SIDE_PX)]


def images(height: int, width: int, count: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Photos at a size, 0-1."""
    made = [
        np.asarray(Image.fromarray(photo(name)[..., :3]).resize((width, height)))
        for name in ("cat", "coffee", "rocket", "astronaut")
    ]
    rows = torch.from_numpy(np.stack([made[i % 4] for i in range(count)]))
    return rows.permute(0, 3, 1, 2).to(dtype) / 255


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    given = model.SerializeToString()
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def by_runtime(runtime: onnxruntime.InferenceSession, *feeds: Any) -> Any:
    names = [value.name for value in runtime.get_inputs()]
    return runtime.run(None, dict(zip(names, feeds, strict=True)))[0]


@pytest.fixture(scope="module")
def multistyle(styles: Path) -> StyleNetwork:
    return load_multistyle(styles / MULTISTYLE_FILE)


@pytest.fixture(scope="module")
def arbitrary(styles: Path) -> StyleNetwork:
    return load_arbitrary(styles / TRANSFORM_FILE)


@pytest.fixture(scope="module")
def reference(styles: Path) -> onnxruntime.InferenceSession:
    return session(onnx.load(styles / MULTISTYLE_FILE))


def as_the_wheel_does(runtime: onnxruntime.InferenceSession, image: Tensor, code: Tensor) -> Any:
    """From 3 × H × W to H × W × 3, both 0-1, not clipped."""
    height, width = image.shape[1:]
    fill = ((0, 0), (0, -height % 4), (0, -width % 4))
    filled = np.pad(image.numpy(), fill, mode="reflect")[None]
    made = by_runtime(runtime, filled, code.numpy())[0]
    return made[:, :height, :width].transpose(1, 2, 0)


# The 26 styles.


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_style_is_as_onnx_runtime_paints_it(
    multistyle: StyleNetwork,
    reference: onnxruntime.InferenceSession,
    height: int,
    width: int,
) -> None:
    image = images(height, width)
    paintings = []
    for weights in [*({i: 1.0} for i in range(26)), {3: 1.0, 12: 3.0}]:
        code = multistyle.code_of(weights)
        painted = multistyle(image, code[None])[0].permute(1, 2, 0).numpy()
        expected = as_the_wheel_does(reference, image[0], code)
        assert np.abs(painted - expected).max() < 1e-4
        as_bytes = [(np.clip(p, 0, 1) * 255 + 0.5).astype(np.uint8) for p in (painted, expected)]
        assert np.abs(as_bytes[0].astype(int) - as_bytes[1]).max() <= 1
        paintings.append(painted)
    apart = [np.abs(a - b).mean() for a, b in pairwise(paintings)]
    assert min(apart) > 0.02  # else any code would do


def test_codes_of_styles(multistyle: StyleNetwork) -> None:
    assert multistyle.styles == tuple(str(i) for i in range(26))
    assert multistyle.code_length == 26
    code = multistyle.code_of({3: 1.0, 12: 3.0})
    assert code[3] == 0.25
    assert code[12] == 0.75
    assert code.sum() == 1


def test_rows_at_a_strength(
    multistyle: StyleNetwork, reference: onnxruntime.InferenceSession
) -> None:
    """Held against Pillow, as the wheel blends, which rounds before it does."""
    image = images(48, 64, 2)
    codes = torch.stack([multistyle.code_of({7: 1.0})] * 2)
    painted = multistyle(image, codes).clip(0, 1)
    strengths = torch.tensor([0.25, 1.0])
    mixed = at_strength(image, painted, strengths)
    assert torch.equal(mixed[1], painted[1])
    assert torch.equal(at_strength(image, painted, torch.zeros(2)), image)
    expected = as_the_wheel_does(reference, image[0], codes[0])
    pictures = [
        Image.fromarray((np.clip(p, 0, 1) * 255 + 0.5).astype(np.uint8))
        for p in (image[0].permute(1, 2, 0).numpy(), expected)
    ]
    blended = np.asarray(Image.blend(*pictures, 0.25), dtype=int)
    own = (mixed[0].permute(1, 2, 0).numpy() * 255 + 0.5).astype(int)
    assert np.abs(own - blended).max() <= 1


# Any picture.


def without_rounding(file: Path, *free: tuple[str, list[str | int]]) -> onnx.ModelProto:
    """The file's own graph, in which only weights are quantized, for pictures of any size."""
    model = onnx.load(file)
    weights = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        rounds = node.op_type == "QuantizeLinear"
        if rounds or (node.op_type == "DequantizeLinear" and node.input[0] not in weights):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for name, axes in free:
            if value.name == name:
                kind = helper.make_tensor_type_proto(TensorProto.FLOAT, axes)
                value.type.CopyFrom(kind)
    return model


def test_the_predictor(styles: Path) -> None:
    predictor = load_predictor(styles / PREDICT_FILE)
    runtime = session(without_rounding(styles / PREDICT_FILE))
    pictures = images(256, 256, 3)
    codes = predictor(pictures)
    assert codes.shape == (3, 100)
    for picture, code in zip(pictures, codes, strict=True):
        expected = by_runtime(runtime, picture.permute(1, 2, 0).numpy()[None])
        assert np.abs(code.numpy() - expected.ravel()).max() < 1e-4
    assert (codes[0] - codes[1]).abs().max() > 0.5


def test_the_predictors_input() -> None:
    picture = np.zeros((256, 400, 3), np.uint8)
    picture[:, 72:328] = np.random.default_rng(0).integers(0, 256, (256, 256, 3))
    taken = predictor_input(picture)
    assert taken.dtype == np.float32
    assert np.array_equal(taken, picture[:, 72:328].transpose(2, 0, 1) / np.float32(255))


@pytest.mark.parametrize(("height", "width"), [(384, 384), *SIZES[1:]])
def test_arbitrary_styles_are_as_onnx_runtime_paints_them(
    styles: Path, arbitrary: StyleNetwork, height: int, width: int
) -> None:
    free = without_rounding(
        styles / TRANSFORM_FILE,
        ("content_image", [1, "h", "w", 3]),
        ("transformer/expand/conv3/conv/Sigmoid", [1, "h", "w", 3]),
    )
    runtime = session(free)
    codes = load_predictor(styles / PREDICT_FILE)(images(256, 256, 4)[1:])
    image = images(height, width)
    fill = ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0))
    filled = np.pad(image.permute(0, 2, 3, 1).numpy(), fill, mode="reflect")
    for code in codes:
        painted = arbitrary(image, code[None])[0].permute(1, 2, 0).numpy()
        made = by_runtime(runtime, filled, code.numpy().reshape(1, 1, 1, 100))
        assert np.abs(painted - made[0, :height, :width]).max() < 1e-4
    assert arbitrary.styles == ()


# Networks that users train.


class PublishedLayer(nn.Module):
    def __init__(self, depth: int, out: int, side: int, stride: int = 1, grow: int = 1) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(depth, out, side, stride)
        self.grow = grow

    def forward(self, rows: Tensor) -> Tensor:
        rows = F.interpolate(rows, scale_factor=self.grow, mode="nearest")
        margin = self.conv2d.kernel_size[0] // 2
        return self.conv2d(F.pad(rows, [margin] * 4, mode="reflect"))


class PublishedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = PublishedLayer(128, 128, 3), nn.InstanceNorm2d(128, affine=True)
        self.conv2, self.in2 = PublishedLayer(128, 128, 3), nn.InstanceNorm2d(128, affine=True)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.in2(self.conv2(F.relu(self.in1(self.conv1(rows)))))


class Published(nn.Module):
    """What the paper's supplement and the published example describe, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = PublishedLayer(3, 32, 9), nn.InstanceNorm2d(32, affine=True)
        self.conv2, self.in2 = PublishedLayer(32, 64, 3, 2), nn.InstanceNorm2d(64, affine=True)
        self.conv3, self.in3 = PublishedLayer(64, 128, 3, 2), nn.InstanceNorm2d(128, affine=True)
        for i in range(1, 6):
            self.add_module(f"res{i}", PublishedBlock())
        self.deconv1 = PublishedLayer(128, 64, 3, grow=2)
        self.in4 = nn.InstanceNorm2d(64, affine=True)
        self.deconv2 = PublishedLayer(64, 32, 3, grow=2)
        self.in5 = nn.InstanceNorm2d(32, affine=True)
        self.deconv3 = PublishedLayer(32, 3, 9)

    def forward(self, rows: Tensor) -> Tensor:
        for i in (1, 2, 3):
            rows = F.relu(getattr(self, f"in{i}")(getattr(self, f"conv{i}")(rows)))
        for i in range(1, 6):
            rows = getattr(self, f"res{i}")(rows)
        rows = F.relu(self.in4(self.deconv1(rows)))
        rows = F.relu(self.in5(self.deconv2(rows)))
        return self.deconv3(rows)


@pytest.fixture(scope="module")
def published() -> Published:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Published().eval()
        for one in made.modules():
            if isinstance(one, nn.InstanceNorm2d):
                nn.init.uniform_(one.weight, 0.5, 1.5)
                nn.init.uniform_(one.bias, -0.5, 0.5)
    return made


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture
def johnson_file(published: Published, tmp_path: Path) -> Path:
    """With the statistics that old checkpoints have."""
    state = state_of(published)
    state |= {
        f"{at}.running_{k}": torch.ones(3) for at in ("in1", "res2.in1") for k in ("mean", "var")
    }
    save_file(state, tmp_path / "mosaic.safetensors")
    return tmp_path / "mosaic.safetensors"


def onnx_of(state: dict[str, Tensor], file: Path) -> Path:
    tensors = [numpy_helper.from_array(t.numpy(), name) for name, t in state.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value], [value], tensors)
    onnx.save(helper.make_model(graph), file)
    return file


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 76)])
def test_a_trained_network_is_as_published(
    published: Published, johnson_file: Path, tmp_path: Path, height: int, width: int
) -> None:
    image = images(height, width, 2, torch.float64)
    with torch.no_grad():
        expected = published.double()(image * 255) / 255
    published.float()
    exact = load_johnson(johnson_file, name="mosaic", dtype=torch.float64)
    codes = torch.zeros(2, 0)
    assert (exact(image, codes.double()) - expected).abs().max() < 1e-12
    single = load_johnson(johnson_file, name="mosaic", licence="CC0-1.0")
    painted = single(image.float(), codes)
    assert (painted - expected).abs().max() < 1e-5
    as_onnx = load_johnson(onnx_of(state_of(published), tmp_path / "m.onnx"), name="mosaic")
    assert torch.equal(as_onnx(image.float(), codes), painted)
    assert (single.styles, single.licence, single.code_length) == (("mosaic",), "CC0-1.0", 0)
    assert single.code_of({0: 1.0}).shape == (0,)
    assert expected.std() > 0.001


# Rows.


def test_a_rows_bits_do_not_depend_on_its_neighbours(
    multistyle: StyleNetwork, arbitrary: StyleNetwork, johnson_file: Path
) -> None:
    """Eight callers with eight styles, and each of them among other rows, elsewhere."""
    generator = torch.Generator().manual_seed(0)
    rows, noise = images(52, 64, 8), torch.rand(8, 3, 52, 64, generator=generator)
    for network in (multistyle, arbitrary, load_johnson(johnson_file, name="mosaic")):
        codes = torch.randn(8, network.code_length, generator=generator)
        together = network(rows, codes)
        for i in range(8):
            others, other_codes, at = noise.clone(), codes.roll(3, 0), (i + 5) % 8
            others[at], other_codes[at] = rows[i], codes[i]
            assert torch.equal(network(others, other_codes)[at], together[i])


def test_what_is_given_stays_as_it_is(multistyle: StyleNetwork) -> None:
    for height in (48, 50):  # with and without filling up
        image = images(height, 48).contiguous(memory_format=torch.channels_last)
        code = multistyle.code_of({7: 1.0})[None]
        kept = image.clone(), code.clone()
        first = multistyle(image, code)
        assert torch.equal(image, kept[0])
        assert torch.equal(code, kept[1])
        assert torch.equal(multistyle(image, code), first)


# What is refused.


def told(load: Callable[[], Any]) -> str:
    with pytest.raises(BadStyle) as caught:
        load()
    return str(caught.value)


def test_files_of_another_layout(published: Published, styles: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    state = state_of(published)

    def refused(**changed: Tensor | None) -> str:
        named = {k.replace("__", "."): t for k, t in changed.items()}
        made = {k: t for k, t in (state | named).items() if t is not None}
        save_file(made, file)
        return told(lambda: load_johnson(file, name="a"))

    assert refused(in4__bias=None) == "a.safetensors lacks 'in4.bias'"
    assert refused(in4__bias=torch.zeros(2)) == "a.safetensors: 'in4.bias' is 2; it must be 64"
    bad = torch.full((64,), torch.nan)
    assert refused(in4__bias=bad) == "a.safetensors: 'in4.bias' has values that are not finite"
    assert refused(more=bad[:1]).startswith("a.safetensors holds 'more', which")
    assert "lacks 'contract.0" in told(lambda: load_multistyle(styles / TRANSFORM_FILE))
    assert "lacks 'transformer/" in told(lambda: load_arbitrary(styles / MULTISTYLE_FILE))
    assert "lacks 'MobilenetV2/" in told(lambda: load_predictor(styles / MULTISTYLE_FILE))


def test_files_that_are_not_read(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> str:
        return told(lambda: load_johnson(tmp_path / name, name="a"))

    for name in ("a.pth", "a.onnx", "a.safetensors"):
        (tmp_path / name).write_bytes(b"nonsense")
    assert refused("a.pth") == "a.pth is neither .safetensors nor .onnx"
    assert "a.onnx is no ONNX file" in refused("a.onnx")
    assert "a.safetensors: is no safetensors file" in refused("a.safetensors")
    onnx_of(state_of(published), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="b")
    assert "keeps tensors outside itself" in refused("a.onnx")
    monkeypatch.setattr(files, "_MOST_BYTES", 5)
    assert refused("a.pth") == "a.pth has 8 bytes; at most 5 are accepted"


def test_codes_that_are_none_are_bugs(multistyle: StyleNetwork) -> None:
    for weights in ({26: 1.0}, {0: -1.0}):
        with pytest.raises(AssertionError):
            multistyle.code_of(weights)
