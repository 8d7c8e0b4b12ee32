"""Any picture as a style: a code is predicted of it (Ghiasi et al. 2017).

The published files are quantized: weights in int8, and every intermediate tensor rounded to 256
steps. Weights are taken as they are stored; the rounding of what lies between is left out. It is
noise, and chaotic: a step's difference early on grows into tens of steps in the painting, so that
ONNX Runtime itself, with and without its own optimizations, makes paintings as far apart as the
rounding moves them. Without it, paintings are smoother, and sides are free.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..network import Cache
from .network import (
    Convolution,
    DoubledConvolution,
    Norm,
    RowNetwork,
    SquaresConvolution,
    StyleNetwork,
)
from .weights import Tensors, read_tensors

PREDICT_FILE = "arbitrary_predict.onnx"
TRANSFORM_FILE = "arbitrary_transform.onnx"
"""As they are called where they are published."""
PICTURE_SIDE_PX = 256
"""Of the square of a picture that a code is predicted of."""
_CODE_LENGTH = 100
_BLOCKS = 5
_CACHE_BYTES = 1 << 20
"""Of codes of 400 bytes."""

_MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2's table 2 (Sandler et al. 2018): expansion, channels, blocks, the first's stride."""


def load_arbitrary(file: Path, dtype: torch.dtype = torch.float32) -> StyleNetwork:
    """The network of arbitrary_transform.onnx, which takes the predictor's codes.

    Raises:
        BadStyle: The file is another.
    """
    tensors = read_tensors(file)

    def weight(name: str, out: int, depth: int, side: int) -> Tensor:
        return tensors.take(f"transformer/{name}/weights", out, depth, side, side)

    def contract(name: str, out: int, depth: int, side: int = 3, stride: int = 1) -> Convolution:
        bias = tensors.take(f"transformer/contract/{name}/Conv2D_bias", out)
        return Convolution(weight(f"contract/{name}", out, depth, side), bias, stride=stride)

    def layer(
        kind: type[Convolution], name: str, out: int, depth: int, side: int = 3
    ) -> Convolution:
        at = f"style_params/transformer/{name}/StyleNorm"
        (scales, scale), (shifts, shift) = (
            (
                tensors.take(f"{at}/{conv}/weights", out, _CODE_LENGTH, 1, 1)[:, :, 0, 0].T,
                tensors.take(f"{at}/{conv}/Conv2D_bias", out),
            )
            for conv in ("Conv_1", "Conv")
        )
        return kind(weight(name, out, depth, side), Norm(scales, shifts, scale, shift))

    network = StyleNetwork(
        [
            contract("conv1", 8, 3, 9),
            contract("conv2", 16, 8, stride=2),
            contract("conv3", 32, 16, stride=2),
        ],
        [
            (
                layer(Convolution, f"residual/residual{i}/conv1", 32, 32),
                layer(Convolution, f"residual/residual{i}/conv2", 32, 32),
            )
            for i in range(1, _BLOCKS + 1)
        ],
        [
            layer(DoubledConvolution, "expand/conv1/conv", 16, 32),
            layer(DoubledConvolution, "expand/conv2/conv", 8, 16),
            layer(SquaresConvolution, "expand/conv3/conv", 3, 8, 9),
        ],
        code_length=_CODE_LENGTH,
        squashed=True,
        styles=(),
        licence="Apache-2.0",
    )
    return network.to(dtype).eval()


class Predictor(RowNetwork):
    """From pictures to the codes of their styles: MobileNetV2, its means, one matrix.

    Args:
        tensors: Of arbitrary_predict.onnx.

    Attributes:
        cache: Codes, by the SHA-256 of what they were predicted of.
    """

    side_px = PICTURE_SIDE_PX

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.cache = Cache(_CACHE_BYTES)
        self._first = _Padded(tensors, "MobilenetV2/Conv", 32, 3, 3, stride=2)
        self._blocks = nn.ModuleList()
        depth = 32
        for expansion, out, count, first_stride in _MOBILENET:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                name = f"expanded_conv_{len(self._blocks)}".removesuffix("_0")
                block = _Inverted(tensors, f"MobilenetV2/{name}", depth, expansion, out, stride)
                self._blocks.append(block)
                depth = out
        self._last = _Padded(tensors, "MobilenetV2/Conv_1", 1280, depth, 1)
        self._code = _Padded(tensors, "mobilenet_conv/Conv", _CODE_LENGTH, 1280, 1)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Codes, n × 100, of pictures, n × 3 × PICTURE_SIDE_PX × PICTURE_SIDE_PX, 0-1.

        Codes may be mixed: weighted means are styles between.
        """
        rows = F.relu6(self._first(pictures))
        for block in self._blocks:
            rows = block(rows)
        means = F.relu6(self._last(rows)).mean((2, 3), keepdim=True)
        codes: Tensor = self._code(means)
        return codes[:, :, 0, 0]


class _Padded(nn.Module):
    """A convolution with a bias, padded as TensorFlow's SAME does."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        tensors: Tensors,
        name: str,
        out: int,
        depth: int,
        side: int,
        *,
        stride: int = 1,
        of: tuple[str, str] = ("weights", "Conv2D_bias"),
    ) -> None:
        super().__init__()
        weight, bias = of
        self.register_buffer("weight", tensors.take(f"{name}/{weight}", out, depth, side, side))
        self.register_buffer("bias", tensors.take(f"{name}/{bias}", out))
        self._stride = stride
        # Of an even side, halved: nothing before it and one pixel behind it.
        self._before, self._after = (side - stride) // 2, (side - 1) // 2

    def forward(self, rows: Tensor) -> Tensor:
        groups = rows.shape[1] // self.weight.shape[1]
        padded = F.pad(rows, (self._before, self._after) * 2)
        return F.conv2d(padded, self.weight, self.bias, self._stride, groups=groups)


class _Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(
        self, tensors: Tensors, name: str, depth: int, expansion: int, out: int, stride: int
    ) -> None:
        super().__init__()
        wide = depth * expansion
        self._expand = _Padded(tensors, f"{name}/expand", wide, depth, 1) if wide > depth else None
        self._depthwise = _Padded(
            tensors,
            f"{name}/depthwise",
            wide,
            1,
            3,
            stride=stride,
            of=("depthwise_weights", "depthwise_bias"),
        )
        self._project = _Padded(tensors, f"{name}/project", out, wide, 1)
        self._is_added = stride == 1 and depth == out

    def forward(self, rows: Tensor) -> Tensor:
        wide = rows if self._expand is None else F.relu6(self._expand(rows))
        made: Tensor = self._project(F.relu6(self._depthwise(wide)))
        return rows + made if self._is_added else made


def load_predictor(file: Path, dtype: torch.dtype = torch.float32) -> Predictor:
    """The network of arbitrary_predict.onnx.

    Raises:
        BadStyle: The file is another.
    """
    return Predictor(read_tensors(file)).to(dtype).eval()


def predictor_input(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The middle square of a picture, as the predictor takes it.

    Args:
        picture: H × W × 3.

    Returns:
        3 × PICTURE_SIDE_PX × PICTURE_SIDE_PX, 0-1.
    """
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(picture[top : top + side, left : left + side])
    size = (PICTURE_SIDE_PX, PICTURE_SIDE_PX)
    pixels = np.asarray(square.resize(size, Image.Resampling.LANCZOS), np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
