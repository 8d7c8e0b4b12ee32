"""Published weights, fetched beforehand, verified, and written as a model folder.

Only this module and styles/wheel.py fetch anything, and no server runs them.
"""

import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from ..photos import Preprocessing
from .architectures import build_network, imagenet_labels, is_known, training_heads
from .folders import SETTINGS_FILE, BadFolder, build_folder, read_settings, why_not_a_name
from .weights import MOST_WEIGHTS_BYTES, sha256_of

_TIMEOUT_S = 30.0
"""Of a connection, and of each wait for more."""
_CHUNK_BYTES = 1 << 20
_WEIGHTS_FILE = "model.safetensors"
_LABELS_FILE = "labels.txt"

Progress = Callable[[int, int | None], None]
"""Told the bytes fetched, and all of them if the server says how many."""


class PullError(Exception):
    """Weights that cannot be had, or not be trusted; the message says why."""


@dataclass(frozen=True)
class _Published:
    """What a library says of its weights.

    Attributes:
        sha256_start: How their SHA-256 starts, as far as the library says.
        read: From the file to the network with its weights.
        labels: By class index; None: none are known.
    """

    url: str
    sha256_start: str
    read: Callable[[Path], nn.Module]
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None


def pull(
    architecture: str,
    to: Path,
    *,
    base_url: str | None = None,
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Fetches an architecture's published weights and makes a model folder of them.

    Args:
        architecture: torchvision/NAME or timm/NAME; the folder gets its name.
        to: Where the folder is made.
        base_url: Takes the place of the published address's scheme and host.
        sha256: What the fetched file must have. Without it, the file is held against what the
            library or the server's headers say.
        progress: Called as bytes arrive.

    Returns:
        The folder. It is there only once all of it is.

    Raises:
        PullError: There are no such weights, they cannot be fetched, or they are not the
            published ones.
    """
    if not is_known(architecture):
        raise PullError(f"{architecture!r} is no network of torchvision or timm")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.lower()):
        raise PullError("--sha256 must be 64 hexadecimal digits")
    library, _, name = architecture.partition("/")
    folder = to / name
    if fault := why_not_a_name(name):
        raise PullError(fault)
    if folder.exists():
        raise PullError(f"{folder} is there already")
    published = _of_torchvision(name) if library == "torchvision" else _of_timm(name)
    url = published.url
    if base_url is not None:
        url = base_url.rstrip("/") + urlsplit(url).path
    to.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no server takes it for a model; beside the folder, so that it can be moved.
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=to) as scratch:
        file = Path(scratch) / Path(urlsplit(url).path).name
        _fetch(url, file, sha256 or published.sha256_start, progress)
        made = Path(scratch) / name
        made.mkdir()
        _write_folder(made, architecture, published.read(file), published)
        try:
            build_folder(made, read_settings(made))
        except BadFolder as error:
            raise PullError(f"the published weights do not make a model folder: {error}") from None
        made.rename(folder)
    return folder


def _write_folder(
    folder: Path, architecture: str, network: nn.Module, published: _Published
) -> None:
    # Clones: tensors that share memory cannot be saved so.
    tensors = {name: t.clone().contiguous() for name, t in network.state_dict().items()}
    save_file(tensors, folder / _WEIGHTS_FILE)
    steps = published.preprocessing
    resize: dict[str, Any] = {"resize_shorter_side_px": steps.resize_shorter_side_px}
    settings: dict[str, Any] = {
        "architecture": architecture,
        "weights": _WEIGHTS_FILE,
        "sha256": sha256_of(folder / _WEIGHTS_FILE),
        "preprocessing": {
            **(resize if steps.resize_shorter_side_px else {"stretch": True}),
            "height_px": steps.height_px,
            "width_px": steps.width_px,
            "interpolation": steps.interpolation,
            "mean": list(steps.mean),
            "std": list(steps.std),
        },
    }
    if published.labels == imagenet_labels():
        settings["labels"] = "imagenet"
    elif published.labels is not None:
        settings["labels"] = _LABELS_FILE
        (folder / _LABELS_FILE).write_text("\n".join(published.labels) + "\n", encoding="utf-8")
    text = yaml.safe_dump(settings, sort_keys=False)
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


# What the libraries publish.


def _of_torchvision(name: str) -> _Published:
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    if not len(known):
        raise PullError(f"torchvision publishes no weights of {name}")
    weights = known.DEFAULT
    steps, categories = weights.transforms(), weights.meta["categories"]
    (side_px,), (resize_px,) = steps.crop_size, steps.resize_size
    mean, std = tuple(steps.mean), tuple(steps.std)
    if name in ("googlenet", "inception_v3"):
        # With these weights torchvision undoes ImageNet's normalization inside the network
        # (transform_input) and normalizes as TensorFlow does. Here the network stays bare.
        mean = std = (0.5, 0.5, 0.5)

    def read(file: Path) -> nn.Module:
        loaded = _read_pth(file)
        dropped = training_heads(f"torchvision/{name}")
        state = {_renamed(k): t for k, t in loaded.items() if not k.startswith(dropped)}
        network, _ = build_network(f"torchvision/{name}", len(categories), (side_px, side_px))
        _load(network, state)
        return network

    return _Published(
        weights.url,
        _sha256_start(weights.url),
        read,
        Preprocessing(resize_px, side_px, side_px, steps.interpolation.value, mean=mean, std=std),
        tuple(categories),
    )


def _read_pth(file: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PullError(f"the published file is none of weights alone: {error}") from None
    if not isinstance(loaded, dict):
        raise PullError("the published file holds no tensors by name")
    return loaded


def _renamed(name: str) -> str:
    """DenseNet's weights were published under names that torchvision has given up."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name)


def _load(network: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise PullError(f"the published weights do not fit: {error}") from None


def _of_timm(name: str) -> _Published:
    import timm
    from timm.models import get_pretrained_cfg

    about: Any = get_pretrained_cfg(name)
    if about is None or not (about.hf_hub_id or about.url):
        raise PullError(f"timm publishes no weights of {name}")
    if about.num_classes < 1:
        raise PullError(f"the weights that timm publishes of {name} have no classes")
    url = about.url
    if about.hf_hub_id:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(about.hf_hub_id, about.hf_hub_filename or _WEIGHTS_FILE)
    _, height_px, width_px = about.input_size
    resize_px = math.floor(height_px / about.crop_pct)
    stretch = about.crop_mode == "squash" and resize_px == height_px
    cropped = about.crop_mode == "center" and resize_px >= height_px
    if height_px != width_px or not (stretch or cropped):
        raise PullError(
            f"timm prepares photos for {name} in a way that model.yaml has no words for:"
            f" crop_mode {about.crop_mode}, crop_pct {about.crop_pct}"
        )

    def read(file: Path) -> nn.Module:
        try:
            # Published names are not always the network's: timm's own loading maps them. It
            # reads safetensors, and other files with weights_only.
            return timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}
            )
        except Exception as error:
            raise PullError(f"the published weights do not fit: {error}") from None

    return _Published(
        url,
        _sha256_start(url),
        read,
        Preprocessing(
            0 if stretch else resize_px,
            height_px,
            width_px,
            about.interpolation,
            mean=about.mean,
            std=about.std,
        ),
        _labels_by_timm(about),
    )


def _labels_by_timm(about: Any) -> tuple[str, ...] | None:
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(about.to_dict())
    if subset == "imagenet-1k":
        return imagenet_labels()
    if subset is None:
        return None
    info: Any = ImageNetInfo(subset)
    labels = tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return labels if len(labels) == about.num_classes else None


def _sha256_start(url: str) -> str:
    """How the SHA-256 of a .pth starts, which torch's hub has in the file's name."""
    found = re.search(r"-([0-9a-f]{8,64})\.pth$", url)
    return found[1] if found else ""


# Fetching.


class _Redirects(HTTPRedirectHandler):
    """Follows to https and to the same host, and keeps what the first answer says."""

    def __init__(self) -> None:
        self.first: HTTPMessage | None = None

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        self.first = self.first or headers
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and (new.scheme, new.netloc) != (old.scheme, old.netloc):
            fp.close()
            raise PullError(f"{req.full_url} leads to {newurl}, which is neither https nor there")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _opened(url: str) -> Iterator[tuple[HTTPResponse, HTTPMessage]]:
    """The answer, and the headers of the first answer on the way to it."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise PullError(f"{url} is no http or https address")
    redirects = _Redirects()
    try:
        with build_opener(redirects).open(url, timeout=_TIMEOUT_S) as response:
            yield response, redirects.first or response.headers
    except HTTPError as error:
        with error:
            raise PullError(f"{url} answers {error.code} {error.reason}") from None
    except (URLError, OSError, HTTPException) as error:
        raise PullError(f"{url} cannot be fetched: {error}") from None


def _fetch(url: str, file: Path, sha256_start: str, progress: Progress) -> None:
    """Fetches a file and holds it against its SHA-256, or the start of it.

    Raises:
        PullError: It cannot be fetched whole, is too large, or is another file.
    """
    digest, done = hashlib.sha256(), 0
    with _opened(url) as (response, first), file.open("wb") as out:
        sha256_start = sha256_start or _stated_sha256(first)
        if not sha256_start:
            raise PullError(f"{url} does not say its SHA-256: give it with --sha256")
        stated = response.headers.get("Content-Length")
        total = int(stated) if stated is not None and stated.isdecimal() else None
        if total is not None and total > MOST_WEIGHTS_BYTES:
            raise PullError(f"{url} has {total} bytes; at most {MOST_WEIGHTS_BYTES} are fetched")
        while chunk := response.read(_CHUNK_BYTES):
            done += len(chunk)
            if done > MOST_WEIGHTS_BYTES:
                raise PullError(f"{url} has more than {MOST_WEIGHTS_BYTES} bytes")
            digest.update(chunk)
            out.write(chunk)
            progress(done, total)
    if total is not None and done != total:
        raise PullError(f"{url} was cut off after {done} of {total} bytes")
    if not digest.hexdigest().startswith(sha256_start):
        raise PullError(f"{url} has SHA-256 {digest.hexdigest()}; {sha256_start} is expected")


def _stated_sha256(headers: HTTPMessage) -> str:
    """What a hub says of a large file; of others, an ETag is anything."""
    for name in ("X-Linked-ETag", "ETag"):
        value = str(headers.get(name, "")).removeprefix("W/").strip('"')
        if re.fullmatch("[0-9a-f]{64}", value):
            return value
    return ""
