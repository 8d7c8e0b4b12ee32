"""Networks that users train, of one style each (Johnson et al. 2016), in the published layout.

That is the TransformerNet of PyTorch's own example, whose names of tensors its checkpoints and its
ONNX files have. It takes and makes photos in 0-255; here both are 0-1, by its outer weights.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from .network import (
    BadStyle,
    Convolution,
    DoubledConvolution,
    Norm,
    SquaresConvolution,
    StyleNetwork,
)
from .weights import read_tensors

_BLOCKS = 5
_RANGE = 255.0
_OLD_STATISTICS = re.compile(r"(res\d\.)?in\d\.(running_(mean|var)|num_batches_tracked)")
"""Of networks trained before 2017, which had them and did not use them."""


def load_johnson(
    file: Path, *, name: str, licence: str = "", dtype: torch.dtype = torch.float32
) -> StyleNetwork:
    """A network trained by the published example.

    Args:
        file: Its state, in safetensors, or as it was exported to ONNX.
        name: Of its style.
        licence: SPDX identifier of the weights'.
        dtype: Of the arithmetic.

    Raises:
        BadStyle: The file is of another layout.
    """
    tensors = read_tensors(file)
    taken: set[str] = set()

    def take(key: str, *shape: int) -> Tensor:
        taken.add(key)
        return tensors.take(key, *shape)

    def layer(
        kind: type[Convolution],
        at: str,
        norm: str,
        out: int,
        depth: int,
        side: int = 3,
        *,
        stride: int = 1,
        times: float = 1.0,
    ) -> Convolution:
        weight = take(f"{at}.conv2d.weight", out, depth, side, side) * times
        take(f"{at}.conv2d.bias", out)  # which the norm takes out again
        scale, shift = (take(f"{norm}.{part}", out) for part in ("weight", "bias"))
        none = scale.new_zeros(0, out)
        return kind(weight, Norm(none, none, scale, shift), stride=stride)

    contracting = [
        layer(Convolution, "conv1", "in1", 32, 3, 9, times=_RANGE),
        layer(Convolution, "conv2", "in2", 64, 32, stride=2),
        layer(Convolution, "conv3", "in3", 128, 64, stride=2),
    ]
    residual = [
        (
            layer(Convolution, f"res{i}.conv1", f"res{i}.in1", 128, 128),
            layer(Convolution, f"res{i}.conv2", f"res{i}.in2", 128, 128),
        )
        for i in range(1, _BLOCKS + 1)
    ]
    last = (take("deconv3.conv2d.weight", 3, 32, 9, 9), take("deconv3.conv2d.bias", 3))
    expanding = [
        layer(DoubledConvolution, "deconv1", "in4", 64, 128),
        layer(DoubledConvolution, "deconv2", "in5", 32, 64),
        SquaresConvolution(last[0] / _RANGE, last[1] / _RANGE),
    ]
    if file.suffix == ".safetensors":
        others = [k for k in tensors.by_name if k not in taken and not _OLD_STATISTICS.fullmatch(k)]
        if others:
            raise BadStyle(f"{file.name} holds {others[0][:200]!r}, which the layout has not")
    network = StyleNetwork(
        contracting,
        residual,
        expanding,
        code_length=0,
        squashed=False,
        styles=(name,),
        licence=licence,
    )
    return network.to(dtype).eval()
