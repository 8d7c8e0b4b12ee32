"""What a network is held to before it is served: it runs, rows are apart, it stays what it was."""

import torch
from torch import Tensor, nn

from .gates import GateReport, Gates, report_gates


class UnservableNetwork(ValueError):
    """A network that cannot be served truthfully, and why."""


def example_of(height_px: int, width_px: int) -> Tensor:
    """Two seeded inputs, 2×3×H×W, float64, standard normal."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, height_px, width_px, generator=generator, dtype=torch.float64)


def untouched(module: nn.Module, example: Tensor) -> tuple[Tensor, GateReport]:
    """The logits and the gates of the network before anything is changed.

    Raises:
        UnservableNetwork: It does not run on that input, its output is not one row of logits an
            image, or rows of a batch touch each other.
    """
    try:
        with torch.enable_grad():
            together = module(example.clone().requires_grad_())
        alone = [module(image[None]) for image in example]
    except Exception as error:  # whatever a network raises, it does not run
        size = " × ".join(map(str, example.shape[1:]))
        raise UnservableNetwork(f"it does not run on an input of {size}: {error}") from error
    for output, count in ((together, len(example)), *((one, 1) for one in alone)):
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != count:
            raise UnservableNetwork("its output is not one row of logits an image")
    expected = torch.cat(alone).detach()
    expect_close(
        together.detach(),
        expected,
        torch.float64,
        "rows of a batch touch each other: alone, their logits differ by {}",
    )
    gates = Gates()
    with torch.no_grad(), gates:
        module(example)
    return expected, report_gates(together, gates.site_count)


_BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.05}
"""How far logits may move when a network is prepared, relative, in the norm.

That of bfloat16 is its rounding, not a margin: at 96 and 224 px, trained Lite0 moves by 0.034
and 0.016; seeded ResNets, VGG, GoogLeNet, DenseNet, ViT, Swin and ConvNeXt by 0.005 to 0.012;
MobileNetV3 by 0.07 to 0.13 and EfficientNet-B0 by 0.6: the last two would be other networks.
"""


def expect_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, complaint: str) -> None:
    """Raises UnservableNetwork, with the complaint, where logits are too far apart."""
    bound = _BOUNDS[dtype]
    error = float((actual - expected).norm() / expected.norm())
    if not error <= bound:
        moved = complaint.format(f"{error:.2g}")
        raise UnservableNetwork(f"{moved} (relative); at most {bound} is accepted")
