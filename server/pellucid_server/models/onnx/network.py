"""From an ONNX file to a network that is served: proven white, or black with the reason."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..gates import GateReport
from ..network import CACHE_BYTES, OUTPUT, Cache, Network
from ..sizes import Shapes, UnfitSize
from ..trials import UnservableNetwork
from .convert import convert
from .file import BadOnnx, OnnxFile
from .operators import Unconvertible
from .runtime import Runtime, reason_of

PARITY = 1e-4
"""How far logits of the converted network may be from ONNX Runtime's, relative to what sets the
logits of seeded images apart, in the norm.

Measured on the CPU: 3e-6 to 3e-5 for ResNet-18, GoogLeNet, DenseNet-121, VGG-11, MobileNetV3,
EfficientNet-Lite0 and a ViT (tests/oracle/TABLES.md).
"""
_PARITY_TF32 = 1e-2

_IMAGE_COUNT = 5


@dataclass(frozen=True)
class AboutOnnx:
    """What is to be known of a model that is an ONNX file.

    Attributes:
        opset: The version of ONNX's own operators.
        provider: ONNX Runtime's, that computes what only goes forward; None: the converted
            network computes everything, in a precision that the file has not.
        batch_size: The number of images that the file fixes; None: any.
        parity: How far the converted network is from ONNX Runtime, as PARITY has it; None:
            there is no converted network.
        notes: What else is different from what one might think.
    """

    opset: int
    provider: str | None
    batch_size: int | None
    parity: float | None
    notes: tuple[str, ...]


class BlackBox(Network):
    """A network that only ONNX Runtime can run: images in, logits out, and nothing besides.

    Args:
        runtime: What runs it.
        refusal: Why it cannot be looked into.
        height_px: Height of its input.
        width_px: Width of its input.
        device: Where images come from.
    """

    def __init__(
        self,
        runtime: Runtime,
        refusal: str,
        *,
        height_px: int,
        width_px: int,
        device: torch.device,
        tf32: bool,
    ) -> None:  # nothing of it is torch's, so that there is nothing to prepare
        self.height_px, self.width_px = height_px, width_px
        self.dtype, self.device, self.tf32 = torch.float32, device, tf32
        self.cache = Cache(CACHE_BYTES)
        self.class_count = runtime.class_count
        self.layers = ()
        self.classifier = None
        self.gates = GateReport(0, 0, ())
        self.white_box_refusal = self.attention_refusal = refusal
        self.lrp_refusal = self.deeplift_refusal = refusal
        self._runtime = runtime
        self._order = {OUTPUT: 0.0}

    def shapes_at(self, height_px: int, width_px: int) -> Shapes:
        """As a network's: its size is the file's, and it has no layers."""
        if (height_px, width_px) != (self.height_px, self.width_px):
            raise UnfitSize
        return {}


def build_onnx(
    file: OnnxFile, *, dtype: torch.dtype, device: torch.device, tf32: bool
) -> tuple[Network, AboutOnnx]:
    """A network whose logits are ONNX Runtime's, and whose inside is torch's where it is proven.

    In float64 the converted network computes everything: ONNX Runtime, which is float32, is what
    it is held against.

    Raises:
        BadOnnx: It cannot be served, or not in that precision.
    """
    runtime = Runtime(file, device, tf32=tf32)
    images = _images(file).to(device, torch.float32)
    logits, notes = _tried(runtime, images)
    if file.cut is not None:
        notes.append(f"the file's final {file.cut} is cut off: logits are what goes into it")
    own = dtype is torch.float64
    sizes = {"height_px": file.expected.height_px, "width_px": file.expected.width_px}
    parity = None
    try:
        network = Network(
            convert(file),
            dtype=dtype,
            device=device,
            tf32=tf32,
            runtime=None if own else runtime,
            **sizes,
        )
        bound = _PARITY_TF32 if tf32 and device.type == "cuda" else PARITY
        parity = _parity(network, images.to(dtype), logits, bound)
    except (Unconvertible, UnservableNetwork) as error:
        if own:
            raise BadOnnx(f"can be had in float64 by conversion only, but: {error}") from None
        refusal = f"the network is an ONNX file that only ONNX Runtime can run: {error}"
        network = BlackBox(runtime, refusal, device=device, tf32=tf32, **sizes)
    provider = None if own else runtime.provider
    return network, AboutOnnx(file.opset, provider, file.batch_size, parity, tuple(notes))


def _images(file: OnnxFile) -> Tensor:
    """Seeded inputs, n×3×H×W, float64, from coarse to fine."""
    expected = file.expected
    generator = torch.Generator().manual_seed(0)
    shape = (_IMAGE_COUNT, 3, expected.height_px, expected.width_px)
    fine = torch.randn(shape, generator=generator, dtype=torch.float64)
    coarse = torch.randn((_IMAGE_COUNT, 3, 7, 7), generator=generator, dtype=torch.float64)
    return 0.2 * fine + torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")


def _tried(runtime: Runtime, images: Tensor) -> tuple[Tensor, list[str]]:
    """The logits of images, float64, once they are known to be logits.

    Raises:
        BadOnnx: They are not finite, are probabilities, or depend on the run or on other rows.
    """
    try:
        raw = runtime(images)
        again = runtime(images)
        alone = torch.cat([runtime(image[None]) for image in images])
        # The first image, in another place and beside others.
        mixed = runtime(torch.cat([-images[1:], images[:1]]))
    except Exception as error:  # of many types, all of them ONNX Runtime's
        raise BadOnnx(f"cannot be run by ONNX Runtime: {reason_of(error)}") from None
    logits = raw.double()
    if not logits.isfinite().all():
        raise BadOnnx("gives logits that are not finite, of seeded images")
    if not torch.equal(raw, again):
        raise BadOnnx("gives other logits when it is run again: something in it is random")
    off = _relative(alone.double(), logits)
    if not off <= 1e-3:
        raise BadOnnx(f"lets rows of a batch touch each other: alone, logits differ by {off:.2g}")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        raise BadOnnx("gives probabilities; logits are needed, or a softmax, which is cut off")
    notes = []
    if not torch.equal(mixed[-1], raw[0]):
        notes.append("the bits of a row depend on the other rows of its batch")
    return logits, notes


def _parity(network: Network, images: Tensor, expected: Tensor, bound: float) -> float:
    """How far the converted network's logits are from those expected.

    Raises:
        UnservableNetwork: Farther than the bound, or nothing is proven.
    """
    spread = expected - expected.mean(0)
    if not spread.any():
        raise UnservableNetwork("its logits are the same for all seeded images: nothing is proven")
    parts = [images[:1], images[1:]]
    made = [network.forward(part.requires_grad_())[OUTPUT].detach().double() for part in parts]
    error = float((torch.cat(made) - expected).norm() / spread.norm())
    if not error <= bound:
        raise UnservableNetwork(
            f"converted to torch, its logits differ by {error:.2g} (relative); at most {bound} is "
            "accepted"
        )
    return error


def _relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())
