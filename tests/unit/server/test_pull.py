"""Weights fetched from a local file server: what becomes a folder, and what never does."""

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import timm
import torch
import torchvision.models
import yaml
from pellucid.cli import app
from pellucid_server.models import pull as pulling
from pellucid_server.models.folders import build_folder, read_settings
from pellucid_server.models.network import OUTPUT
from pellucid_server.models.pull import PullError, pull
from pellucid_server.models.registry import load_folder
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from typer.testing import CliRunner

from tests.harness import CPU, relative_error

SQUEEZE = "torchvision/squeezenet1_1"
TINY = "timm/test_resnet.r160_in1k"
TINY_PATH = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Files:
    """A file server: paths and how they are answered."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, body: bytes, length: int | None = None, **headers: str) -> None:
        def answer(to: BaseHTTPRequestHandler) -> None:
            to.send_response(200)
            if length != -1:
                to.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in headers.items():
                to.send_header(name.replace("_", "-"), value)
            to.end_headers()
            to.wfile.write(body)

        self.answers[path] = answer

    def redirect(self, path: str, to_url: str, **headers: str) -> None:
        def answer(to: BaseHTTPRequestHandler) -> None:
            to.send_response(302)
            for name, value in {"Location": to_url, "Content_Length": "0", **headers}.items():
                to.send_header(name.replace("_", "-"), value)
            to.end_headers()

        self.answers[path] = answer


@pytest.fixture
def files() -> Iterator[Files]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            if self.path in served.answers:
                served.answers[self.path](self)
            else:
                self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Files(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def pth(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def squeeze() -> nn.Module:
    return seeded(lambda: get_model("squeezenet1_1", weights=None))


@pytest.fixture(scope="module")
def squeeze_file(squeeze: nn.Module) -> bytes:
    return pth(squeeze.state_dict())


def path_of(architecture: str) -> str:
    url: str = get_model_weights(architecture.partition("/")[2]).DEFAULT.url
    return urlsplit(url).path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def publish(monkeypatch: pytest.MonkeyPatch, architecture: str, data: bytes) -> str:
    """Has torchvision say that its weights are these; returns their path."""
    real = get_model_weights(architecture.partition("/")[2]).DEFAULT
    path = f"/models/weights-{sha(data)[:8]}.pth"

    class Weights(list[Any]):
        DEFAULT = SimpleNamespace(
            url=f"https://nowhere.invalid{path}", transforms=real.transforms, meta=real.meta
        )

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: Weights([1]))
    return path


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(PullError) as caught:
        pull(*args, **options)
    return str(caught.value)


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_a_network_of_torchvisions(
    files: Files,
    squeeze: nn.Module,
    squeeze_file: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files.put(publish(monkeypatch, SQUEEZE, squeeze_file), squeeze_file)
    told: list[tuple[int, int | None]] = []
    folder = pull(
        SQUEEZE,
        tmp_path / "new" / "models",
        base_url=files.url,
        progress=lambda done, total: told.append((done, total)),
    )
    assert folder == tmp_path / "new" / "models" / "squeezenet1_1"
    assert [path.name for path in folder.parent.iterdir()] == ["squeezenet1_1"]
    assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors", "model.yaml"]
    assert told[-1] == (len(squeeze_file), len(squeeze_file))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    settings = yaml.safe_load((folder / "model.yaml").read_text())
    assert settings == {
        "architecture": SQUEEZE,
        "weights": "model.safetensors",
        "sha256": sha((folder / "model.safetensors").read_bytes()),
        "preprocessing": {
            "resize_shorter_side_px": 256,
            "height_px": 224,
            "width_px": 224,
            "interpolation": "bilinear",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "labels": "imagenet",
    }
    on = load_folder(folder, device=CPU)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = squeeze(image)
    assert relative_error(on.network.forward(image)[OUTPUT], expected) < 1e-5
    assert on.labels[285] == "Egyptian cat"


def tiny_state() -> dict[str, Tensor]:
    return dict(seeded(lambda: timm.create_model("test_resnet")).state_dict())


def test_a_network_of_timms_from_a_hub(files: Files, tmp_path: Path) -> None:
    """A hub redirects, and says the checksum where it does."""
    state = tiny_state()
    data = save(state)
    files.redirect(TINY_PATH, "/elsewhere/on/the/host", X_Linked_ETag=f'"{sha(data)}"')
    files.put("/elsewhere/on/the/host", data, ETag='"another"')
    folder = pull(TINY, tmp_path, base_url=f"{files.url}/")
    assert files.asked == [TINY_PATH, "/elsewhere/on/the/host"]
    assert folder.name == "test_resnet.r160_in1k"
    built = build_folder(folder, read_settings(folder))
    assert built.preprocessing.height_px == 160
    assert built.preprocessing.interpolation == "bilinear"
    assert built.labels is not None
    assert len(built.labels) == 1000
    for name, tensor in built.module.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("header", ["ETag", "X-Linked-ETag"])
def test_a_hub_that_answers_at_once(header: str, files: Files, tmp_path: Path) -> None:
    data = save(tiny_state())
    files.put(TINY_PATH, data, **{header: f'"{sha(data)}"'})
    assert pull(TINY, tmp_path, base_url=files.url).is_dir()


def test_without_any_checksum_one_must_be_given(files: Files, tmp_path: Path) -> None:
    data = save(tiny_state())
    files.put(TINY_PATH, data, ETag='"1234-abc"')
    told = refused(TINY, tmp_path, base_url=files.url)
    assert told.endswith("does not say its SHA-256: give it with --sha256")
    assert nothing_in(tmp_path)
    assert pull(TINY, tmp_path, base_url=files.url, sha256=sha(data).upper()).is_dir()


def test_googlenet_takes_photos_as_its_weights_were_trained(files: Files, tmp_path: Path) -> None:
    """torchvision undoes ImageNet's normalization inside; and the training heads are dropped."""
    module = seeded(
        lambda: get_model("googlenet", weights=None, transform_input=True, init_weights=False)
    )
    data = pth(module.state_dict())
    files.put(path_of("torchvision/googlenet"), data)
    folder = pull("torchvision/googlenet", tmp_path, base_url=files.url, sha256=sha(data))
    built = build_folder(folder, read_settings(folder))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    steps = built.preprocessing
    own_mean, own_std = (torch.tensor(v).double()[:, None, None] for v in (steps.mean, steps.std))
    with torch.no_grad():
        expected = module.double()((pixels - mean) / std)
        actual = built.module.eval().double()((pixels - own_mean) / own_std)
    assert relative_error(actual, expected) < 1e-9
    assert not [name for name in built.module.state_dict() if name.startswith("aux")]


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def test_densenets_old_names(files: Files, tmp_path: Path) -> None:
    module = seeded(lambda: get_model("densenet121", weights=None))
    old = {
        re.sub(r"(denselayer\d+\.)(norm|conv)([12])", r"\1\2.\3", name): tensor
        for name, tensor in module.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    data = pth(old)
    files.put(path_of("torchvision/densenet121"), data)
    folder = pull("torchvision/densenet121", tmp_path, base_url=files.url, sha256=sha(data))
    built = build_folder(folder, read_settings(folder))
    for name, tensor in module.state_dict().items():
        assert torch.equal(built.module.state_dict()[name], tensor)


# What never becomes a folder.


def test_another_file_than_the_published_one(
    files: Files, squeeze_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read before it is checked"))
    files.put(path_of(SQUEEZE), squeeze_file)
    told = refused(SQUEEZE, tmp_path, base_url=files.url)
    assert f"has SHA-256 {sha(squeeze_file)}; " in told
    assert nothing_in(tmp_path)
    told = refused(SQUEEZE, tmp_path, base_url=files.url, sha256="0" * 64)
    assert told.endswith(f"{'0' * 64} is expected")
    assert nothing_in(tmp_path)


def test_a_given_checksum_is_the_whole_check(files: Files, tmp_path: Path) -> None:
    data = save(tiny_state())
    files.put(TINY_PATH, data, ETag=f'"{"0" * 64}"')
    assert "is expected" in refused(TINY, tmp_path, base_url=files.url)
    assert pull(TINY, tmp_path, base_url=files.url, sha256=sha(data)).is_dir()


@pytest.mark.parametrize("keep", [0, 1000])
def test_a_body_that_is_cut_off(
    keep: int, files: Files, squeeze_file: bytes, tmp_path: Path
) -> None:
    files.put(path_of(SQUEEZE), squeeze_file[:keep], length=len(squeeze_file))
    told = refused(SQUEEZE, tmp_path, base_url=files.url)
    assert told.endswith(f"was cut off after {keep} of {len(squeeze_file)} bytes")
    assert nothing_in(tmp_path)


def test_a_body_without_a_length(
    files: Files, squeeze_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.put(publish(monkeypatch, SQUEEZE, squeeze_file), squeeze_file, length=-1)
    told: list[tuple[int, int | None]] = []
    pull(SQUEEZE, tmp_path, base_url=files.url, progress=lambda *now: told.append(now))
    assert told[-1] == (len(squeeze_file), None)


@pytest.mark.parametrize("length", [None, -1])
def test_a_body_that_is_too_large(
    length: int | None,
    files: Files,
    squeeze_file: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulling, "MOST_WEIGHTS_BYTES", 1000)
    files.put(path_of(SQUEEZE), squeeze_file[:5000], length=length)
    assert re.search(
        "has (more than 1000|5000) bytes", refused(SQUEEZE, tmp_path, base_url=files.url)
    )
    assert nothing_in(tmp_path)


@pytest.mark.parametrize("code", [404, 500])
def test_answers_that_are_errors(code: int, files: Files, tmp_path: Path) -> None:
    files.answers[path_of(SQUEEZE)] = lambda to: to.send_error(code)
    assert f"answers {code} " in refused(SQUEEZE, tmp_path, base_url=files.url)
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(
    "target", ["http://localhost:9/x", "http://127.0.0.1:9/x", "ftp://127.0.0.1/x", "file:///x"]
)
def test_redirects_elsewhere(target: str, files: Files, tmp_path: Path) -> None:
    files.redirect(path_of(SQUEEZE), target)
    told = refused(SQUEEZE, tmp_path, base_url=files.url)
    assert target in told
    assert nothing_in(tmp_path)


def test_a_redirect_to_https_is_followed(files: Files, tmp_path: Path) -> None:
    files.redirect(path_of(SQUEEZE), "https://127.0.0.1:1/x")
    assert "cannot be fetched" in refused(SQUEEZE, tmp_path, base_url=files.url)  # but tried


def test_redirects_without_end(files: Files, tmp_path: Path) -> None:
    files.redirect(path_of(SQUEEZE), path_of(SQUEEZE))
    assert "answers 302" in refused(SQUEEZE, tmp_path, base_url=files.url)


def test_nobody_there(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be fetched" in refused(SQUEEZE, tmp_path, base_url="http://127.0.0.1:1")
    assert "no http or https" in refused(SQUEEZE, tmp_path, base_url="file:///etc")
    monkeypatch.setattr(pulling, "_TIMEOUT_S", 0.05)
    files.answers[path_of(SQUEEZE)] = lambda _: threading.Event().wait(0.5) and None
    assert "cannot be fetched" in refused(SQUEEZE, tmp_path, base_url=files.url)
    assert nothing_in(tmp_path)


class Evil:
    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


def test_a_pickle_of_more_than_weights(files: Files, tmp_path: Path) -> None:
    for data, told in (
        (pth({"a": Evil()}), "is none of weights alone"),
        (b"nonsense", "is none of weights alone"),
        (pth([1]), "holds no tensors by name"),
        (pth({"a": torch.zeros(1)}), "do not fit"),
    ):
        files.put(path_of(SQUEEZE), data)
        found = refused(SQUEEZE, tmp_path, base_url=files.url, sha256=sha(data))
        assert told in found
        assert nothing_in(tmp_path)


def test_timms_weights_that_do_not_fit(files: Files, tmp_path: Path) -> None:
    data = save({"a": torch.zeros(1)})
    files.put(TINY_PATH, data)
    told = refused(TINY, tmp_path, base_url=files.url, sha256=sha(data))
    assert "do not fit" in told
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("torchvision/nothing", "is no network of torchvision or timm"),
        ("../../etc", "is no network of torchvision or timm"),
        ("timm/vit_small_patch14_dinov2", "have no classes"),
        ("timm/test_vit4", "timm publishes no weights"),
    ],
)
def test_networks_without_published_weights(
    architecture: str, told: str, files: Files, tmp_path: Path
) -> None:
    if "no weights" in told:
        architecture = "timm/" + next(
            name for name in timm.list_models() if not timm.is_model_pretrained(name)
        )
    assert told in refused(architecture, tmp_path / "models", base_url=files.url)
    assert not (tmp_path / "models").exists()
    assert files.asked == []


def test_a_checksum_that_is_none(files: Files, tmp_path: Path) -> None:
    told = refused(SQUEEZE, tmp_path, base_url=files.url, sha256="abc")
    assert told == "--sha256 must be 64 hexadecimal digits"


def test_a_folder_that_is_there_already(files: Files, tmp_path: Path) -> None:
    (tmp_path / "squeezenet1_1").mkdir()
    assert "is there already" in refused(SQUEEZE, tmp_path, base_url=files.url)
    assert files.asked == []


# The command.


def test_the_command(
    files: Files, squeeze_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.put(publish(monkeypatch, SQUEEZE, squeeze_file), squeeze_file)
    arguments = ["models", "pull", SQUEEZE, "--to", str(tmp_path), "--from", files.url]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'squeezenet1_1'}\n"
    assert (tmp_path / "squeezenet1_1" / "model.yaml").is_file()
    assert SQUEEZE in done.stderr  # the progress bar's
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
    assert "Traceback" not in again.stderr


def test_the_commands_help() -> None:
    done = CliRunner().invoke(app, ["models", "pull", "--help"])
    assert done.exit_code == 0
    for option in ("--to", "--from", "--sha256"):
        assert option in done.stdout


def test_help_of_models_names_its_commands() -> None:
    done = CliRunner().invoke(app, ["models", "--help"])
    assert done.exit_code == 0
    for command in ("show", "pull"):
        assert command in done.stdout
