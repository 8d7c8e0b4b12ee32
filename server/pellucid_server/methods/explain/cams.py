"""Class activation maps: a layer's maps, weighted by what they mean to a target."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Score, Target, Want
from ...models.gates import Rule
from ...models.layers import Layer
from ...models.registry import Model
from ..parameters import flag, layer_name, number
from .explanation import ExplainMethod, Explanation, chunks, resolved


def no_maps(model: Model) -> str | None:
    """Why there is nothing to weight, if so."""
    if any(layer.spatial for layer in model.network.layers):
        return None
    return "the network has no layer with maps or patches"


def enlarged(maps: Tensor, image: Tensor) -> Tensor:
    """Maps, n×h×w, in the frame of an image: n×H×W, bilinear."""
    return F.interpolate(maps[:, None], image.shape[1:], mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class _Cam(ExplainMethod):
    """A map made of a layer and of the target's gradient by it.

    Attributes:
        layer: A layer with maps or patches, on the way to the target.
        relu: Whether places that speak against the target are set to 0.
    """

    layer: str = layer_name()
    relu: bool = flag(True)

    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"

    @staticmethod
    def refusal(model: Model) -> str | None:
        return no_maps(model)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        want = Want.ACTIVATION | Want.LAYER_GRADIENT
        traces = yield Rows(image[None], target, want, layers=(self.layer,))
        layer = model.network.layer(self.layer)
        assert layer is not None
        maps, gradients = (
            layer.maps(tensors[self.layer])[0].double()
            for tensors in (traces.activations, traces.layer_gradients)
        )
        cam = self.weigh(maps, gradients)
        if self.relu:
            cam = cam.clamp_min(0)
        return Explanation(
            enlarged(cam[None], image), resolved(target, traces), float(traces.scores[0])
        )

    @abstractmethod
    def weigh(self, maps: Tensor, gradients: Tensor) -> Tensor:
        """The map of a target from a layer's maps and its gradient by them, both C×h×w."""


@dataclass(frozen=True)
class GradCam(_Cam):
    """Maps, weighted by the mean gradient of each (Selvaraju and others, arXiv:1610.02391)."""

    name: ClassVar[str] = "grad_cam"

    def weigh(self, maps: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.mean((1, 2), keepdim=True) * maps).sum(0)


@dataclass(frozen=True)
class GradCamPlusPlus(_Cam):
    """Grad-CAM with places weighted by higher derivatives.

    Chattopadhyay and others 2017, arXiv:1710.11063, whose score is the exponential of ours:
    its second and third derivatives are powers of the first.
    """

    name: ClassVar[str] = "grad_cam_plus_plus"

    def weigh(self, maps: Tensor, gradients: Tensor) -> Tensor:
        squares = gradients.square()
        divisor = 2 * squares + maps.sum((1, 2), keepdim=True) * squares * gradients
        alpha = torch.where(divisor != 0, squares / divisor, 0)
        weights = (alpha * gradients.clamp_min(0)).sum((1, 2), keepdim=True)
        return (weights * maps).sum(0)


@dataclass(frozen=True)
class LayerCam(_Cam):
    """Maps, each place weighted by its own positive gradient.

    Jiang and others 2021, doi:10.1109/TIP.2021.3089943.
    """

    name: ClassVar[str] = "layer_cam"

    def weigh(self, maps: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.clamp_min(0) * maps).sum(0)


@dataclass(frozen=True)
class HiResCam(_Cam):
    """Maps, each place times its own gradient (Draelos and Carin 2020, arXiv:2011.08891)."""

    name: ClassVar[str] = "hires_cam"

    def weigh(self, maps: Tensor, gradients: Tensor) -> Tensor:
        return (gradients * maps).sum(0)


@dataclass(frozen=True)
class GuidedGradCam(ExplainMethod):
    """Guided backpropagation times Grad-CAM (Selvaraju and others, arXiv:1610.02391).

    Attributes:
        layer: A layer with maps or patches, on the way to the target.
    """

    layer: str = layer_name()

    name: ClassVar[str] = "guided_grad_cam"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "absolute"

    @staticmethod
    def refusal(model: Model) -> str | None:
        return model.network.gates.refusal or no_maps(model)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 2}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        cam = yield from GradCam(self.layer, relu=True).program(model, image, target)
        traces = yield Rows(image[None], cam.target, Want.GRADIENT, Rule.GUIDED)
        assert traces.gradient is not None
        return Explanation(traces.gradient[0] * cam.attribution, cam.target, cam.score)


@dataclass(frozen=True)
class ScoreCam(ExplainMethod):
    """Maps, weighted by the softmax over the scores of the image seen through each of them.

    Wang and others 2019, arXiv:1910.01279.

    Attributes:
        layer: A layer with maps or patches.
        map_count: How many maps to try: those that vary most.
    """

    layer: str = layer_name()
    map_count: int = number(
        lambda known: _channel_count(known.model, known.values["layer"]),
        1,
        lambda known: _channel_count(known.model, known.values["layer"]),
    )

    name: ClassVar[str] = "score_cam"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    score: ClassVar[Score] = Score.PROBABILITY

    @staticmethod
    def refusal(model: Model) -> str | None:
        return no_maps(model)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1 + self.map_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target, Want.ACTIVATION, layers=(self.layer,))
        target, score = resolved(target, traces), float(traces.scores[0])
        layer = model.network.layer(self.layer)
        assert layer is not None
        maps = layer.maps(traces.activations[self.layer])[0].double()
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        spread = high - low
        tried = spread.flatten().argsort(descending=True, stable=True)[: self.map_count]
        maps, low, spread = maps[tried], low[tried], spread[tried]
        masks = torch.where(spread > 0, (maps - low) / spread, 0)
        scores = torch.empty(self.map_count, dtype=torch.float64)
        for chunk in chunks(self.map_count):
            seen = image * enlarged(masks[chunk], image)[:, None].to(image)
            traces = yield Rows(seen, target)
            scores[chunk] = traces.scores
        weights = scores.softmax(0).to(maps.device)[:, None, None]
        cam = (weights * maps).sum(0).clamp_min(0)
        return Explanation(enlarged(cam[None], image), target, score)


def _channel_count(model: Model | None, name: str | None) -> int | None:
    layer = None if model is None or name is None else model.network.layer(name)
    return None if not isinstance(layer, Layer) or not layer.spatial else layer.channel_count
