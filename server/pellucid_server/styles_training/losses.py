"""Perceptual losses: what a classifier sees of a painting, beside what it sees of others.

Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155, section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.goals import gram_matrix
from ..models.network import Network
from ..models.registry import Model


@dataclass(frozen=True)
class Weights:
    """Of the three losses.

    Attributes:
        content: Of what is kept of the photo.
        style: Of what is taken from the painting.
        tv: Of smoothness.
    """

    content: float
    style: float
    tv: float


class BlindLayer(ValueError):
    """A layer that does not see the painting; its name."""


class PerceptualLoss:
    """The losses of paintings by one network, which stays as it is.

    With F the maps of a layer, C × P, of an image (C channels at P places), and all as means over
    the images of a batch:

    - content: the mean over layers of ‖F - F of the photo‖² / ‖F of the painting‖², where ‖·‖² are
      means of squares;
    - style: the mean over layers of ‖G - G of the painting‖² / ‖G of the painting‖², where
      G = F·Fᵀ / (C·P);
    - tv: the mean of the squared differences of neighbouring values across and down, 0-1.

    These are the paper's but for a factor of each layer, which does not change in training: that
    of the painting. So a weight means the same in any network, whatever numbers its layers have.

    Args:
        model: Whose network looks.
        painting: 3 × H × W, 0-1, of any size that the network takes.
        content_layers: Names.
        style_layers: Names.
        weights: Of the losses.

    Raises:
        BlindLayer: One of the layers is 0 all over on the painting.
    """

    def __init__(
        self,
        model: Model,
        painting: Tensor,
        content_layers: tuple[str, ...],
        style_layers: tuple[str, ...],
        weights: Weights,
    ) -> None:
        self._network: Network = model.network
        self._content, self._style = content_layers, style_layers
        device, steps = model.network.device, model.preprocessing
        self._mean, self._std, self._weights = (
            torch.tensor(values, dtype=painting.dtype, device=device)
            for values in (steps.mean, steps.std, (weights.content, weights.style, weights.tv))
        )
        with torch.no_grad():
            seen = self._seen(painting[None].to(device), (*content_layers, *style_layers))
            for name, maps in seen.items():
                if not maps.any():
                    raise BlindLayer(name)
            self._grams = {name: gram_matrices(seen[name]) for name in style_layers}
            self._sizes = {name: seen[name].square().mean() for name in content_layers}
            self._gram_sizes = {name: g.square().mean() for name, g in self._grams.items()}

    def __call__(self, paintings: Tensor, photos: Tensor) -> Tensor:
        """The weighted sum, content, style and tv: four numbers, attached to the graph.

        Args:
            paintings: n × 3 × H × W around 0-1, on the network's device.
            photos: What they were painted of.
        """
        with torch.no_grad():
            kept = self._seen(photos, self._content)
        seen = self._seen(paintings, (*self._content, *self._style))
        content = [F.mse_loss(seen[name], kept[name]) / s for name, s in self._sizes.items()]
        style = [
            (gram_matrices(seen[name]) - gram).square().mean() / self._gram_sizes[name]
            for name, gram in self._grams.items()
        ]
        across, down = paintings.diff(dim=3).square().mean(), paintings.diff(dim=2).square().mean()
        means = [torch.stack(losses).mean() for losses in (content, style)]
        each = torch.stack([*means, across + down])
        return torch.cat([(self._weights * each).sum()[None], each])

    def _seen(self, images: Tensor, layers: tuple[str, ...]) -> Mapping[str, Tensor]:
        """Maps of images by layer, n × C × H × W, in their own dtype."""
        rows = (images - self._mean[:, None, None]) / self._std[:, None, None]
        rows = rows.to(self._network.dtype, memory_format=torch.channels_last)
        found = self._network.forward(rows, tuple(dict.fromkeys(layers)))
        kinds = {name: self._network.layer(name) for name in found}
        return {name: kind.maps(found[name]).to(images) for name, kind in kinds.items() if kind}


def gram_matrices(maps: Tensor) -> Tensor:
    """F·Fᵀ / (C·P) of each image, n × C × C, of n × C × H × W."""
    return torch.stack([gram_matrix(one) for one in maps]) / maps.shape[1]
