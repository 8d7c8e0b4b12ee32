"""The network that is trained: the published TransformerNet, which models/styles/johnson.py loads.

Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155, as PyTorch's example of it has it: instance norms
(Ulyanov and others 2016, arXiv:1607.08022), and pixels doubled before convolutions that expand.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..methods import draws

_BLOCKS = 5
_RANGE = 255.0
"""Of the published network's photos, in and out."""

_GAIN = 1 / 16
"""Of the last convolution, whose weights train as all others do, by steps of one size. At 1, 2592
of them that agree move a pixel by all of its range in a step; at 1/255, which is the published
network's, grey is a hundred steps away from where it starts."""

_START_STD = 0.2
"""Of pixels before the first step, around grey."""


class Layer(nn.Module):
    """A convolution over reflected borders; its bias, if it has one, starts at 0.

    Args:
        depth: Channels in.
        out: Channels out.
        side: Of the kernel, odd.
        stride: Of the convolution.
        grow: How often each pixel is repeated before it, each way.
        biased: Not before a norm, which takes a bias out again: its gradient is rounding alone.
    """

    def __init__(
        self,
        depth: int,
        out: int,
        side: int,
        *,
        stride: int = 1,
        grow: int = 1,
        biased: bool = False,
    ) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(depth, out, side, stride, bias=biased)
        self._margin, self._grow = side // 2, grow

    def forward(self, rows: Tensor) -> Tensor:
        if self._grow > 1:
            rows = F.interpolate(rows, scale_factor=self._grow, mode="nearest")
        made: Tensor = self.conv2d(_reflected(rows, self._margin))
        return made


def _reflected(rows: Tensor, margin: int) -> Tensor:
    """F.pad(mode="reflect"), whose own way back has no deterministic kernel on CUDA."""
    for axis in (3, 2):
        first, last = 1, rows.shape[axis] - 1 - margin
        edges = [rows.narrow(axis, start, margin).flip(axis) for start in (first, last)]
        rows = torch.cat([edges[0], rows, edges[1]], axis)
    return rows


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = Layer(128, 128, 3), _norm(128)
        self.conv2, self.in2 = Layer(128, 128, 3), _norm(128)

    def forward(self, rows: Tensor) -> Tensor:
        made: Tensor = self.in2(self.conv2(F.relu(self.in1(self.conv1(rows)))))
        return rows + made


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)


class Transformer(nn.Module):
    """The network, and its way into the published layout.

    Args:
        seed: Of its first weights: normal, of variance 2 / in (He and others 2015,
            arXiv:1502.01852); of the last convolution so that pixels scatter around grey.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.conv1, self.in1 = Layer(3, 32, 9), _norm(32)
        self.conv2, self.in2 = Layer(32, 64, 3, stride=2), _norm(64)
        self.conv3, self.in3 = Layer(64, 128, 3, stride=2), _norm(128)
        self.blocks = [_Block() for _ in range(_BLOCKS)]
        for number, block in enumerate(self.blocks, 1):
            self.add_module(f"res{number}", block)
        self.deconv1, self.in4 = Layer(128, 64, 3, grow=2), _norm(64)
        self.deconv2, self.in5 = Layer(64, 32, 3, grow=2), _norm(32)
        self.deconv3 = Layer(32, 3, 9, biased=True)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("conv2d.weight"):
                    drawn = draws.named_normal(seed, name, tuple(parameter.shape))
                    parameter.copy_(drawn * math.sqrt(2 / parameter[0].numel()))
            # Half of what goes in is cut off, so that what comes out has a variance of 1.
            self.deconv3.conv2d.weight *= _START_STD / _GAIN
            assert self.deconv3.conv2d.bias is not None
            self.deconv3.conv2d.bias.zero_()
        self.to(memory_format=torch.channels_last)

    def forward(self, photos: Tensor) -> Tensor:
        """Paintings, n × 3 × H × W around 0-1, not clipped, of photos, 0-1, sides by 4."""
        rows = F.relu(self.in1(self.conv1(photos)))
        rows = F.relu(self.in2(self.conv2(rows)))
        rows = F.relu(self.in3(self.conv3(rows)))
        for block in self.blocks:
            rows = block(rows)
        rows = F.relu(self.in4(self.deconv1(rows)))
        rows = F.relu(self.in5(self.deconv2(rows)))
        made: Tensor = self.deconv3(rows)
        return 0.5 + _GAIN * made

    def published(self) -> dict[str, Tensor]:
        """Its state as the published network's, whose photos are 0-255, on the host."""
        state = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        for name in [name for name in state if name.endswith("conv2d.weight")]:
            state.setdefault(name.replace("weight", "bias"), torch.zeros(len(state[name])))
        state["conv1.conv2d.weight"] = state["conv1.conv2d.weight"] / _RANGE
        last = {name: state[f"deconv3.conv2d.{name}"] for name in ("weight", "bias")}
        state["deconv3.conv2d.weight"] = last["weight"] * (_GAIN * _RANGE)
        state["deconv3.conv2d.bias"] = (0.5 + _GAIN * last["bias"]) * _RANGE
        return {name: tensor.contiguous() for name, tensor in state.items()}
