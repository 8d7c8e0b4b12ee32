"""Model folders: what they make, and every way in which they are refused, each alone."""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from pellucid_server.methods.explain.gradients import Gradient
from pellucid_server.methods.predict import Predict
from pellucid_server.models import folders, registry, weights
from pellucid_server.models.architectures import build_network, known_architectures
from pellucid_server.models.folders import BadFolder, why_not_a_name
from pellucid_server.models.network import OUTPUT
from pellucid_server.models.registry import Model, Precision, load_folder, loads
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torchvision.models import get_model

from tests.harness import CPU, Runner, relative_error

SIDE_PX = 64
CLASSES = 5
PREPROCESSING = {
    "resize_shorter_side_px": 72,
    "height_px": SIDE_PX,
    "width_px": SIDE_PX,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
TINY = "timm/test_resnet"
"""timm's own smallest network, for tests."""

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torchvision/resnet18": lambda: get_model("resnet18", weights=None, num_classes=CLASSES),
    "torchvision/mobilenet_v3_small": lambda: get_model(
        "mobilenet_v3_small", weights=None, num_classes=CLASSES
    ),
    "torchvision/googlenet": lambda: get_model(
        "googlenet", weights=None, num_classes=CLASSES, init_weights=False
    ),
    "timm/vit_tiny_patch16_224": lambda: timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, img_size=SIDE_PX
    ),
    "timm/convnext_atto": lambda: timm.create_model("convnext_atto", num_classes=CLASSES),
    TINY: lambda: timm.create_model("test_resnet", num_classes=CLASSES),
}


def seeded(architecture: str) -> nn.Module:
    """A network in eval mode with norms fitted to a batch, whose logits differ by photo."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NETWORKS[architecture]()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
            if isinstance(part, nn.Linear) and part.out_features == CLASSES:
                nn.init.normal_(part.weight, std=0.1)
        with torch.no_grad():
            module.train()(torch.randn(8, 3, SIDE_PX, SIDE_PX))
    return module.eval()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, SIDE_PX, SIDE_PX, generator=generator, dtype=torch.float64)


def write(
    folder: Path,
    tensors: Mapping[str, Tensor] | bytes,
    text: str | bytes | None = None,
    **settings: Any,
) -> Path:
    """Writes a folder; settings that are None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    data = tensors if isinstance(tensors, bytes) else save(dict(tensors))
    (folder / "model.safetensors").write_bytes(data)
    stated = {
        "architecture": TINY,
        "weights": "model.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocessing": PREPROCESSING,
    } | settings
    if text is None:
        text = yaml.safe_dump({k: v for k, v in stated.items() if v is not None})
    (folder / "model.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@pytest.fixture(scope="module")
def tiny() -> dict[str, Tensor]:
    return dict(seeded(TINY).state_dict())


def load(folder: Path) -> Model:
    return load_folder(folder, device=CPU)


def reason(folder: Path) -> str:
    with pytest.raises(BadFolder) as caught:
        load(folder)
    return str(caught.value)


# What loads.


@pytest.mark.parametrize("architecture", NETWORKS)
def test_logits_are_those_of_the_plain_network(architecture: str, tmp_path: Path) -> None:
    module = seeded(architecture)
    folder = write(
        tmp_path / "net", module.state_dict(), architecture=architecture, precision="float64"
    )
    on = load(folder)
    with torch.no_grad():
        expected = module.double()(images())
    actual = on.network.forward(images())[OUTPUT]
    assert relative_error(actual, expected) < 1e-12
    assert relative_error(expected[:1], expected[1:]) > 1e-3
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (on.name, on.weights_sha256, on.version) == ("net", digest, digest[:12])
    assert on.architecture == architecture
    assert on.labels == ("0", "1", "2", "3", "4")
    assert on.preprocessing.resize_shorter_side_px == 72
    assert (on.preprocessing.interpolation, on.network.class_count) == ("bicubic", CLASSES)


BOUNDS = {"float32": 1e-5, "tf32": 1e-5, "bfloat16": 0.05, "float64": 1e-12}


@pytest.mark.parametrize("precision", BOUNDS)
def test_every_precision_predicts_and_explains(
    precision: str, tmp_path: Path, runner: Runner
) -> None:
    module = seeded("torchvision/resnet18")
    folder = write(
        tmp_path / precision,
        module.state_dict(),
        architecture="torchvision/resnet18",
        precision=precision,
    )
    on = load(folder)
    assert on.precision is Precision(precision)
    assert on.network.dtype is on.precision.dtype
    with torch.no_grad():
        expected = module.double()(images())
    image = images()[0]
    done = runner.run(on, Predict(top_k=CLASSES, include_logits=True), image)
    assert relative_error(done.result.logits.double(), expected[0]) < BOUNDS[precision]
    attribution = runner.run(on, Gradient(), image).result.attribution
    assert attribution.shape == (3, SIDE_PX, SIDE_PX)
    assert attribution.double().norm() > 0


def test_float64_weights_stay_float64(tmp_path: Path) -> None:
    module = seeded(TINY).double()
    with torch.no_grad():
        module.fc.bias += 1e-12
        expected = module(images())
    on = load(write(tmp_path / "net", module.state_dict(), precision="float64"))
    assert relative_error(on.network.forward(images())[OUTPUT], expected) < 1e-14


def test_half_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    module = seeded(TINY).half()
    on = load(write(tmp_path / "net", module.state_dict(), precision="float64"))
    with torch.no_grad():
        expected = module.double()(images())
    assert relative_error(on.network.forward(images())[OUTPUT], expected) < 1e-12


def test_a_loaded_network_does_not_hang_on_its_file(tmp_path: Path) -> None:
    module = seeded(TINY).double()
    folder = write(tmp_path / "net", module.state_dict(), precision="float64")
    on = load(folder)
    before = on.network.forward(images())[OUTPUT]
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(bytes((folder / "model.safetensors").stat().st_size))
    assert torch.equal(on.network.forward(images())[OUTPUT], before)


def test_labels_of_a_file(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    folder = write(tmp_path / "net", tiny, labels="labels.txt")
    (folder / "labels.txt").write_bytes("\ufeffcat\r\ndög\r\n a b \r\ncat\r\nlast\r\n".encode())
    on = load(folder)
    assert on.labels == ("cat", "dög", "a b", "cat", "last")
    assert on.classes_labelled("CAT") == [0, 3]


def test_imagenet_labels(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = timm.create_model("test_resnet").state_dict()
    on = load(write(tmp_path / "net", state, labels="imagenet"))
    assert (len(on.labels), on.labels[285]) == (1000, "Egyptian cat")


def test_a_stretched_photo(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    settings = {k: v for k, v in PREPROCESSING.items() if k != "resize_shorter_side_px"}
    settings |= {"stretch": True, "width_px": 96}
    on = load(write(tmp_path / "net", tiny, preprocessing=settings))
    assert (on.preprocessing.resize_shorter_side_px, on.network.width_px) == (0, 96)


def test_counters_that_only_training_reads_may_be_missing(tmp_path: Path) -> None:
    module = seeded(TINY)
    state = {k: t for k, t in module.state_dict().items() if not k.endswith("tracked")}
    assert len(state) < len(module.state_dict())
    assert load(write(tmp_path / "net", state)).network.class_count == CLASSES


def test_files_behind_links_inside_the_folder_are_read(
    tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    """As a ConfigMap is mounted."""
    folder = write(tmp_path / "net", tiny)
    (folder / "..data").mkdir()
    for name in ("model.yaml", "model.safetensors"):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(Path("..data") / name)
    assert load(folder).name == "net"


def test_nothing_is_downloaded_or_unpickled(
    tmp_path: Path, tiny: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    assert load(write(tmp_path / "net", tiny)).name == "net"


def test_a_build_leaves_the_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    build_network(TINY, 3, (32, 32))
    assert torch.equal(torch.get_rng_state(), before)


def test_only_classifiers_are_known() -> None:
    known = known_architectures()
    for name in ("torchvision/vgg19", "timm/resnet18", "timm/resnet18.a1_in1k"):
        assert name in known
    for name in ("torchvision/fasterrcnn_resnet50_fpn", "torchvision/quantized_resnet18"):
        assert name not in known


# model.yaml.


def test_every_problem_of_model_yaml_is_named_at_once(
    tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    settings = PREPROCESSING | {"height_px": True, "interpolation": "nearest", "std": [1, 0, 1]}
    settings |= {"colour": "rgb"}
    del settings["width_px"]
    told = reason(
        write(
            tmp_path / "net",
            tiny,
            architecture="torchvision/resnet19",
            sha256="57ab",
            preprocessing=settings,
            precision="float16",
            pickle="weights.pt",
            limits={"max_bucket_size": 0},
        )
    )
    for part in (
        "architecture must be torchvision/NAME or timm/NAME of a network of theirs, for example"
        " torchvision/resnet",
        "sha256 must match pattern",
        "preprocessing.height_px must be a valid integer, is 'True'",
        "preprocessing.width_px is missing",
        "preprocessing.interpolation must be 'bilinear' or 'bicubic', is 'nearest'",
        "preprocessing.std.1 must be greater than 0, is '0'",
        "preprocessing.colour is unknown; known there are resize_shorter_side_px, stretch",
        "precision must be 'float32', 'tf32', 'bfloat16' or 'float64', is 'float16'",
        "limits.max_bucket_size must be greater than or equal to 1, is '0'",
        "pickle is unknown; known there are weights, sha256, preprocessing, labels, limits,",
    ):
        assert part in told


def deep(key: str, value: Any) -> dict[str, Any]:
    return {"preprocessing": PREPROCESSING | {key: value}}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"architecture": None}, "architecture is missing"),
        ({"architecture": "hf-hub:timm/resnet18"}, "architecture must be torchvision/NAME"),
        ({"architecture": "timm/../../x"}, "architecture must be torchvision/NAME"),
        ({"architecture": "timm/resnet18.no_such_tag"}, "architecture must be torchvision/NAME"),
        ({"weights": 3}, "weights must be a valid string, is '3'"),
        (deep("mean", [0.5, 0.5]), "preprocessing.mean.2 is missing"),
        (deep("mean", [0.5, float("nan"), 0.5]), "preprocessing.mean.1 must be a finite number"),
        (deep("height_px", 10**6), "preprocessing.height_px must be less than or equal to 2048"),
        (deep("resize_shorter_side_px", 32), "resize_shorter_side_px is 32; to crop 64 px"),
        (deep("stretch", True), "must have either resize_shorter_side_px or stretch: true"),
        (deep("resize_shorter_side_px", None), "must have either resize_shorter_side_px or"),
        ({"preprocessing": [1]}, "preprocessing must be a valid dictionary"),
        ({"text": ""}, "model.yaml is not a mapping"),
        ({"text": "- 1\n- 2\n"}, "model.yaml is not a mapping"),
        ({"text": "a: [1\nb: 2\n"}, "model.yaml is not YAML that is read here: line 2"),
        ({"text": "a: &x [1]\nb: *x\n"}, "aliases (*name) are not accepted"),
        ({"text": "sha256: 1\nsha256: 2\n"}, "'sha256' stands there twice"),
        ({"text": "a: !!python/object/apply:os.getcwd []\n"}, "could not determine a constr"),
        ({"text": "a: " + "9" * 5000}, "model.yaml is not YAML that is read here"),
        ({"text": "a: 2020-99-99"}, "model.yaml is not YAML that is read here"),
        ({"text": "? [1]\n: 2\n"}, "model.yaml is not YAML that is read here: line 1"),
        ({"text": "[" * 50_000}, "model.yaml is nested too deeply"),
        ({"text": "a: " + "b" * 70_000}, "model.yaml has more than 65536 bytes"),
        ({"text": b"architecture: \xff\n"}, "model.yaml is not UTF-8, from byte 14 on"),
    ],
)
def test_a_model_yaml_is_refused(
    settings: dict[str, Any], told: str, tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    assert told in reason(write(tmp_path / "net", tiny, **settings))


def test_a_folder_without_model_yaml(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    assert reason(tmp_path / "net") == "there is no file 'model.yaml' in the folder"


@pytest.mark.parametrize("name", ["a:b", ".hidden", "n" * 65, "line\nbreak", "", "a/b"])
def test_names_that_are_none(name: str) -> None:
    assert why_not_a_name(name) is not None


@pytest.mark.parametrize("name", ["vgg19", "my model", "größe", "n" * 64, "resnet18.a1_in1k"])
def test_names(name: str) -> None:
    assert why_not_a_name(name) is None


# Paths.


@pytest.mark.parametrize("field", ["weights", "labels"])
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere", "there is no file 'nowhere' in the folder"),
        ("../outside", "'../outside' leads out of the folder"),
        ("/etc/hostname", "'/etc/hostname' is absolute"),
        ("link", "'link' leads out of the folder"),
        ("linked/outside", "'linked/outside' leads out of the folder"),
        ("loop", "'loop'"),
        ("pipe", "there is no file 'pipe'"),
        (".", "there is no file '.'"),
        ("zero\0byte", "is no path"),
    ],
)
def test_paths_that_lead_elsewhere(
    field: str, path: str, told: str, tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    folder = write(tmp_path / "net", tiny, **{field: path})
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    assert f"{field}: " in reason(folder)
    assert told in reason(folder)
    assert "secret" not in reason(folder)


def test_missing_files_and_a_wrong_checksum_are_named_together(
    tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    told = reason(write(tmp_path / "net", tiny, labels="nowhere.txt", sha256="0" * 64))
    assert told.startswith("labels: there is no file 'nowhere.txt' in the folder; sha256: of ")
    assert told.endswith(f"; {'0' * 64} is stated")


# Labels.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a\n\nb\n", "line 2 of labels.txt is empty"),
        (b"", "line 1 of labels.txt is empty"),
        (b"a\xff\n", "labels.txt is not UTF-8, from byte 1 on"),
        (b"a" * 5_000_000, "labels.txt has more than 4194304 bytes"),
        (b"a\n" * 200_000, "labels.txt has 200000 labels; at most 100000"),
        (b"a\nb\n", "does not fit: fc.weight is 5 × "),
    ],
)
def test_labels_that_are_refused(
    text: bytes, told: str, tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    folder = write(tmp_path / "net", tiny, labels="labels.txt")
    (folder / "labels.txt").write_bytes(text)
    assert told in reason(folder)


# Weights.


def test_a_wrong_checksum(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    folder = write(tmp_path / "net", tiny, sha256="a" * 64)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert reason(folder) == f"sha256: of model.safetensors is {digest}; {'a' * 64} is stated"


def changed(tiny: dict[str, Tensor], **tensors: Tensor | None) -> dict[str, Tensor]:
    """The weights with some tensors of another value, or without them; _ stands for a dot."""
    new = tiny | {name.replace("__", "."): t for name, t in tensors.items()}
    return {name: t for name, t in new.items() if t is not None}


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"fc__bias": None}, "model.safetensors lacks fc.bias"),
        ({"extra__weight": torch.zeros(1)}, "holds what the architecture has not: extra.weight"),
        ({"fc__bias": torch.zeros(7)}, "fc.bias is 7, the architecture's is 1000"),
        ({"fc__bias": torch.zeros(5, 1)}, "fc.bias is 5 × 1, the architecture's is 5"),
        ({"fc__bias": torch.zeros(5).int()}, "dtypes that cannot be used (F64, F32, F16, BF16"),
        (
            {"fc__bias": torch.zeros(5).to(torch.float8_e4m3fn)},
            "holds 'fc.bias' as 'F8_E4M3', which cannot be used",
        ),
        ({"bn1__num_batches_tracked": torch.tensor(1.0)}, "fractions where the architecture cou"),
        ({"fc__bias": torch.full((5,), torch.inf)}, "values that are not finite: fc.bias"),
        ({"fc__bias": torch.full((5,), torch.nan)}, "values that are not finite: fc.bias"),
    ],
)
def test_tensors_that_do_not_fit(
    tensors: dict[str, Tensor | None], told: str, tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    assert told in reason(write(tmp_path / "net", changed(tiny, **tensors)))


def test_many_tensors_that_do_not_fit_are_counted(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    told = reason(write(tmp_path / "net", tiny, architecture="torchvision/resnet18"))
    assert told.count(" more") >= 2
    assert len(told) < 2000


def test_training_heads_are_dropped_where_published_weights_have_them(tmp_path: Path) -> None:
    """And nowhere else."""
    state = seeded("torchvision/googlenet").state_dict()
    assert any(name.startswith("aux1.") for name in state)
    folder = write(tmp_path / "net", state, architecture="torchvision/googlenet")
    assert not any(layer.name.startswith("aux") for layer in load(folder).network.layers)
    tiny = seeded(TINY).state_dict() | {"aux1.fc.weight": torch.zeros(2)}
    assert "aux1.fc.weight" in reason(write(tmp_path / "other", tiny))


def lying(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, and with this length of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, stop: int, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


LIES = {
    "empty": (b"", "cut off"),
    "short": (b"\x02\0\0", "cut off"),
    "a pickle": (b"\x80\x02}q\x00.", "cut off"),
    "header beyond the file": (lying({}, length=10**15), "its header would have 1000000000000000"),
    "header of the largest number": (lying({}, length=2**64 - 1), "its header would have 18446"),
    "no JSON": (lying(b"{nonsense"), "has a header that is no JSON"),
    "no UTF-8": (lying(b'{"\xff": 1}'), "has a header that is no JSON"),
    "nested": (lying(b"[" * 100_000), "has a header that is no JSON"),
    "no object": (lying([1]), "has a header that is no JSON object"),
    "a key twice": (lying(b'{"a": 1, "a": 2}'), "a key stands there twice"),
    "nothing said": (lying({"a": {}}), "does not say what 'a' is"),
    "no entry": (lying({"a": 3}), "does not say what 'a' is"),
    "negative": (lying({"a": entry(-8, 0)}), "does not say what 'a' is"),
    "a fraction": (lying({"a": entry(0, 8, shape=[2.0])}), "does not say what 'a' is"),
    "no shape": (lying({"a": entry(0, 8, shape=2)}), "does not say what 'a' is"),
    "many axes": (lying({"a": entry(0, 4, shape=[1] * 100)}), "does not say what 'a' is"),
    "unknown dtype": (lying({"a": entry(0, 8, dtype="F32x")}), "'F32x', which cannot be used"),
    "another size": (
        lying({"a": entry(0, 4)}, bytes(4)),
        "gives 'a' 4 bytes; 2 of F32 takes 8",
    ),
    "huge shape": (
        lying({"a": entry(0, 8, shape=[2**40, 2**40])}, bytes(8)),
        "gives 'a' 8 bytes",
    ),
    "out of bounds": (lying({"a": entry(0, 8)}, bytes(4)), "'a' ends at byte 8 of 4"),
    "overlapping": (
        lying({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        "'b' overlaps the tensor before it, at byte 4",
    ),
    "a gap": (
        lying({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)),
        "'b' leaves a gap before it, at byte 12",
    ),
    "strange metadata": (
        lying({"__metadata__": {"a": 3}, "a": entry(0, 8)}, bytes(8)),
        "weights: model.safetensors ",
    ),
    "more data": (lying({"a": entry(0, 8)}, bytes(12)), "has 4 bytes behind its last tensor"),
}


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_files_that_lie(lie: str, tmp_path: Path) -> None:
    data, told = LIES[lie]
    found = reason(write(tmp_path / "net", data))
    assert found.startswith("weights: ")
    assert told in found


def test_a_file_that_was_cut_off(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    assert "is cut off, or lies: " in reason(write(tmp_path / "net", save(tiny)[:-1]))


@pytest.mark.parametrize(
    ("cap", "told"),
    [("MOST_WEIGHTS_BYTES", "bytes; at most 100 are"), ("_MOST_HEADER_BYTES", "at most 100")],
)
def test_caps_before_memory(
    cap: str, told: str, tmp_path: Path, tiny: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, cap, 100)
    monkeypatch.setattr(weights, "load_file", lambda _: pytest.fail("loaded"))
    monkeypatch.setattr(folders, "build_network", lambda *_: pytest.fail("built"))
    assert told in reason(write(tmp_path / "net", tiny))


def test_class_counts_that_no_network_has(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    """A bias alone could ask for a layer of terabytes."""
    alone = changed(tiny, fc__weight=None, fc__bias=torch.zeros(200_000))
    found = reason(write(tmp_path / "net", alone))
    assert "lacks fc.weight" in found
    assert "fc.bias is 200000, the architecture's is 1000" in found


# Architectures that do not do.


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("timm/vit_small_patch14_dinov2", "architecture: vit_small_patch14_dinov2 has no classes"),
        ("torchvision/vit_b_16", "architecture: vit_b_16 takes square inputs"),
        ("timm/vit_tiny_patch16_224", "model.safetensors lacks"),
    ],
)
def test_architectures_that_cannot_be_built_so(
    architecture: str, told: str, tmp_path: Path, tiny: dict[str, Tensor]
) -> None:
    wide = PREPROCESSING | {"height_px": 48}
    folder = write(tmp_path / "net", tiny, architecture=architecture, preprocessing=wide)
    assert told in reason(folder)


def test_an_input_that_a_network_does_not_take(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = get_model("alexnet", weights=None, num_classes=2).state_dict()
    small = PREPROCESSING | {"height_px": 16, "width_px": 16}
    write(tmp_path / "net", state, architecture="torchvision/alexnet", preprocessing=small)
    (failed,) = load_all(tmp_path).failed
    assert "it does not run on an input of 3 × 16 × 16" in failed.reason


# Many of them.


def load_all(path: Path, *embedded: str) -> registry.Registry:
    return registry.Registry(
        [
            load()
            for load in loads(embedded, path, device=CPU, precision=Precision.FLOAT32, side_px=64)
        ]
    )


def test_a_bad_folder_harms_no_other(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    write(tmp_path / "b_good", tiny)
    write(tmp_path / "a_lying", b"\xff" * 100)
    write(tmp_path / "c:colon", tiny)
    write(tmp_path / ".hidden", tiny)
    write(tmp_path / "resnet18", tiny)
    (tmp_path / "d_empty").mkdir()
    (tmp_path / "README").write_text("a file")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff")
    write(Path(odd), tiny)
    write(tmp_path / "e_good", tiny)
    found = load_all(tmp_path, "resnet18", "no_such_network")
    assert list(found) == ["resnet18", "b_good", "e_good"]
    assert found.find("").name == "resnet18"
    reasons = {failed.name: failed.reason for failed in found.failed}
    assert set(reasons) == {
        *("no_such_network", "a_lying", "c:colon", "d_empty", "resnet18", "'odd\\udcff'"),
    }
    assert reasons["a_lying"].startswith("weights: is no safetensors file")
    assert reasons["resnet18"] == "an embedded network has that name"
    assert reasons["d_empty"] == "there is no file 'model.yaml' in the folder"
    assert "no :" in reasons["c:colon"]


def test_folders_alone(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    for name in ("second", "first"):
        write(tmp_path / name, tiny)
    assert list(load_all(tmp_path)) == ["first", "second"]


def test_folders_that_cannot_be_read_are_listed(
    tmp_path: Path, tiny: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "net", tiny)

    def fail(_: Path) -> Any:
        raise PermissionError(13, "Permission denied", "model.safetensors")

    monkeypatch.setattr(folders, "read_header", fail)
    (failed,) = load_all(tmp_path).failed
    assert failed.reason == "model.safetensors cannot be read: Permission denied"


def test_limits_are_read(tmp_path: Path, tiny: dict[str, Tensor]) -> None:
    on = load(write(tmp_path / "net", tiny, limits={"max_bucket_size": 2}))
    assert on.limits.max_bucket_size == 2
    (tmp_path / "other").mkdir()
    save_file(tiny, tmp_path / "other" / "model.safetensors")
    assert load(write(tmp_path / "other", tiny)).limits.max_bucket_size is None


def test_the_model_yaml_of_the_readme(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    text = readme.partition("```yaml\n")[2].partition("```")[0]
    assert "0f0a…" in text
    (tmp_path / "model.yaml").write_text(text.replace("0f0a…", "a" * 64), encoding="utf-8")
    settings = folders.read_settings(tmp_path)
    assert settings.architecture == "torchvision/vgg19"
    assert settings.limits.max_bucket_size == 8
