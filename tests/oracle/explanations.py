"""What each method's attribution must be, from independent code on the untouched network.

Captum where it is right, pytorch-grad-cam's weighting for the CAMs that Captum lacks, plain
autograd and plain loops elsewhere.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import captum.attr
import numpy as np
import sklearn.linear_model
import torch
import torch.nn.functional as F
from pellucid_server.engine.rows import ClassTarget
from pellucid_server.methods import draws
from pellucid_server.methods.explain import cams, gradients, occlusion, paths, programs, rise
from pellucid_server.methods.explain import segments as by_segments
from pellucid_server.methods.explain.baselines import Baseline
from pellucid_server.models.gates import Rule
from pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus
from pytorch_grad_cam.hirescam import HiResCAM
from pytorch_grad_cam.layer_cam import LayerCAM
from torch import Tensor, nn

from tests.harness import Runner, relative_error
from tests.oracle.graph import hooked_gradient
from tests.oracle.networks import LAYERS, SIDE_PX, image_for, seeded, served
from tests.oracle.zennit_lrp import by_zennit


@dataclass
class Case:
    """One network, one image, and what came of a method on them."""

    name: str
    method: Any
    image: Tensor
    index: int
    result: Any

    @property
    def network(self) -> nn.Module:
        return seeded(self.name)

    def black(self) -> Tensor:
        steps = served(self.name).preprocessing
        pixels = [-mean / std for mean, std in zip(steps.mean, steps.std, strict=True)]
        return torch.tensor(pixels, dtype=torch.float64)[:, None, None].expand_as(self.image)

    def gradient(self, images: Tensor) -> Tensor:
        """Of the logit, at each of several images, one at a time."""
        found = []
        for image in images:
            x = image[None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.network(x)[0, self.index], x)
            found.append(gradient[0])
        return torch.stack(found)

    def probability(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.network(i[None]).softmax(1)[:, self.index] for i in images])

    def logit(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.network(i[None])[:, self.index] for i in images])

    def layer(self, *, rules: str = "gradient") -> tuple[Tensor, Tensor]:
        """A layer's maps and the logit's gradient by them, 1×C×h×w."""
        kept: list[Tensor] = []
        module = self.network.get_submodule(LAYERS[self.name])
        # What comes next may work in place: it gets a copy.
        handle = module.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone())
        logits = self.network(self.image[None].clone().requires_grad_())
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, self.index], kept[0])
        return _as_maps(kept[0].detach()), _as_maps(gradient)


def _as_maps(activation: Tensor) -> Tensor:
    if activation.dim() == 4:
        return activation
    side = SIDE_PX // 16
    return activation[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # all but the class token


def _enlarge(cam: Tensor) -> Tensor:
    return F.interpolate(cam[None, None], (SIDE_PX, SIDE_PX), mode="bilinear")[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _gradient(case: Case) -> Tensor:
    with _quiet():
        x = case.image[None].clone().requires_grad_()
        return captum.attr.Saliency(case.network).attribute(x, target=case.index, abs=False)[0]


def _ruled(rule: str) -> Callable[[Case], Tensor]:
    def expected(case: Case) -> Tensor:
        return hooked_gradient(case.network, case.image, lambda y: y[0, case.index], rule)[0]

    return expected


def _input_x_gradient(case: Case) -> Tensor:
    x = case.image[None].clone().requires_grad_()
    return captum.attr.InputXGradient(case.network).attribute(x, target=case.index)[0].detach()


def _integrated_gradients(case: Case) -> Tensor:
    count, black = case.method.step_count, case.black()
    if case.method.quadrature == "trapezoid":  # Captum's weights sum to (n - 1) / n
        places = torch.linspace(0, 1, count, dtype=torch.float64)
        path = torch.stack([black + place * (case.image - black) for place in places])
        mean = np.trapezoid(case.gradient(path).numpy(), places.numpy(), axis=0)
        return torch.from_numpy(mean) * (case.image - black)
    reference = captum.attr.IntegratedGradients(case.network)
    torch.set_default_dtype(torch.float64)
    try:  # Captum makes its weights float32, whatever the network is
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            return reference.attribute(
                case.image[None], black[None], case.index, n_steps=count, method="gausslegendre"
            )[0]
    finally:
        torch.set_default_dtype(torch.float32)


def _smooth_grad(case: Case) -> Tensor:
    deviation = case.method.noise_level * float(case.image.max() - case.image.min())
    noisy = torch.stack(
        [
            case.image + deviation * draws.normal(case.method.seed, step, tuple(case.image.shape))
            for step in range(case.method.sample_count)
        ]
    )
    found = case.gradient(noisy)
    return {
        "mean": found.mean(0),
        "mean_square": found.square().mean(0),
        "variance": found.var(0, correction=0),
    }[case.method.statistic]


def _expected_gradients(case: Case) -> Tensor:
    count, seed = case.method.sample_count, case.method.seed
    steps = served(case.name).preprocessing
    mean, std = (
        torch.tensor(n, dtype=torch.float64)[:, None, None] for n in (steps.mean, steps.std)
    )
    total = torch.zeros_like(case.image)
    for step in range(count):
        place = float(draws.uniform(seed, step, (2,))[0])
        noise = draws.uniform(case.method.baseline.seed, step, tuple(case.image.shape))
        start = (noise - mean) / std
        (gradient,) = case.gradient((start + place * (case.image - start))[None])
        total += gradient * (case.image - start) / count
    return total


def _grad_cam(case: Case) -> Tensor:
    if case.name == "vit_tiny":  # Captum's averages over the wrong axis of tokens
        maps, gradient = case.layer()
        cam = (maps * gradient.mean((2, 3), keepdim=True)).sum(1)[0]
    else:
        layer = case.network.get_submodule(LAYERS[case.name])
        x = case.image[None].clone().requires_grad_()
        with _quiet():
            cam = captum.attr.LayerGradCam(case.network, layer).attribute(x, target=case.index)
        cam = cam[0, 0].detach()
    return _enlarge(cam.clamp_min(0))


def _grad_cam_plus_plus(case: Case) -> Tensor:
    maps, gradient = (tensor.numpy() for tensor in case.layer())
    # Of maps that are s times smaller the gradient is s times larger, and the constant 1e-6 that
    # the reference adds to a divisor is s² times less.
    scale = 1e12
    weights = GradCAMPlusPlus.get_cam_weights(
        None, None, None, None, maps / scale, gradient * scale
    )
    cam = (weights[:, :, None, None] * maps / scale).sum(1)[0]
    return _enlarge(torch.from_numpy(cam).clamp_min(0))


def _layer_cam(case: Case) -> Tensor:
    maps, gradient = (tensor.numpy() for tensor in case.layer())
    cam = LayerCAM.get_cam_image(None, None, None, None, maps, gradient, False)[0]
    return _enlarge(torch.from_numpy(cam).clamp_min(0))


def _hires_cam(case: Case) -> Tensor:
    maps, gradient = (tensor.numpy() for tensor in case.layer())
    cam = HiResCAM.get_cam_image(None, None, None, None, maps, gradient, False)[0]
    return _enlarge(torch.from_numpy(cam).clamp_min(0))


def _guided_grad_cam(case: Case) -> Tensor:
    return _ruled("guided_backprop")(case) * _grad_cam(case)


def _score_cam(case: Case) -> Tensor:
    maps, _ = case.layer()
    spread = maps.amax((0, 2, 3)) - maps.amin((0, 2, 3))
    tried = torch.argsort(-spread, stable=True)[: case.method.map_count].tolist()
    seen = []
    for channel in tried:
        one = maps[0, channel]
        mask = _enlarge((one - one.min()) / (one.max() - one.min()))
        seen.append(case.image * mask)
    weights = case.probability(torch.stack(seen)).softmax(0)
    cam = sum(w * maps[0, channel] for w, channel in zip(weights, tried, strict=True))
    return _enlarge(cam.clamp_min(0))


def _rise(case: Case) -> Tensor:
    count = case.method.mask_count
    masks = case.method.masks(served(case.name), case.image, range(count))
    total = torch.zeros(1, SIDE_PX, SIDE_PX, dtype=torch.float64)
    scores = [float(case.probability((case.image * mask)[None])) for mask in masks]
    for score, mask in zip(scores, masks, strict=True):
        total += score * mask
    return total / count / case.method.keep_probability - sum(scores) / count


def _occlusion(case: Case) -> Tensor:
    window, stride = case.method.window_px, case.method.stride_px
    reference = captum.attr.Occlusion(case.network)
    reference.use_weights = False  # it would divide by the counts in float32
    with torch.no_grad():
        total = reference.attribute(
            case.image[None],
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            baselines=0,
            target=case.index,
        )[0]
    assert window == stride  # each pixel is covered once
    return total[:1]


def _segment_scores(case: Case, score: Callable[[Tensor], Tensor], seen: Tensor) -> Tensor:
    labels = case.result.segments.labels
    images = [torch.where(row[labels], case.image, 0.0) for row in seen]  # 0 is the mean colour
    return torch.cat([score(image[None]) for image in images])


def _lime(case: Case) -> Tensor:
    method, labels = case.method, case.result.segments.labels
    count = int(labels.max()) + 1
    drawn = [draws.uniform(method.seed, step, (count,)) for step in range(method.sample_count)]
    seen = torch.stack(drawn) < 0.5
    seen[0] = True
    scores = _segment_scores(case, case.probability, seen)
    kept = seen.sum(1).double()
    distance = 1 - kept / (kept.sqrt() * math.sqrt(count))  # cosine, from all of them
    distance = torch.where(kept > 0, distance, 1.0)
    weights = np.exp(-((distance.numpy() / method.kernel_width) ** 2))
    fit = sklearn.linear_model.Ridge(alpha=method.ridge, solver="cholesky")
    fit.fit(seen.double().numpy(), scores.numpy(), sample_weight=weights)
    return torch.from_numpy(fit.coef_)[labels][None]


def _kernel_shap(case: Case) -> Tensor:
    """Shapley's own sum over coalitions."""
    labels = case.result.segments.labels
    count = int(labels.max()) + 1
    every = list(itertools.product((False, True), repeat=count))
    scores = _segment_scores(case, case.logit, torch.tensor(every)).tolist()
    worth = dict(zip(every, scores, strict=True))
    values = torch.zeros(count, dtype=torch.float64)
    for player in range(count):
        for coalition in every:
            if not coalition[player]:
                size = sum(coalition)
                joined = (*coalition[:player], True, *coalition[player + 1 :])
                weight = math.factorial(size) * math.factorial(count - size - 1)
                gain = worth[joined] - worth[coalition]
                values[player] += weight / math.factorial(count) * gain
    return values[labels][None]


def _attention_rollout(case: Case) -> Tensor:
    """From the attention modules themselves, unfused."""
    kept: list[Tensor] = []
    handles = []
    blocks = case.network.blocks
    for block in blocks:
        attention = block.attn
        attention.fused_attn = False
        handles.append(attention.attn_drop.register_forward_hook(lambda _m, _i, y: kept.append(y)))
    case.network(case.image[None])
    for block, handle in zip(blocks, handles, strict=True):
        block.attn.fused_attn = True
        handle.remove()
    rollout = torch.eye(kept[0].shape[-1], dtype=torch.float64)
    for weights in kept:
        mixed = weights[0].mean(0) + torch.eye(len(rollout), dtype=torch.float64)
        rollout = torch.matmul(mixed / mixed.sum(-1, keepdim=True), rollout)
    side = SIDE_PX // 16
    return _enlarge(rollout[0, 1:].view(side, side))


def _lrp(case: Case) -> Tensor:
    return by_zennit(case.name, case.image, case.index, Rule.LRP_COMPOSITE, case.method.epsilon)


def _deep_lift(case: Case) -> Tensor:
    """Its own completeness: the map scaled to the sum that it must have."""
    black = case.black()
    difference = case.logit(case.image[None]) - case.logit(black[None])
    attribution = case.result.attribution
    return attribution * difference / attribution.sum()


ORACLES: dict[str, Callable[[Case], Tensor]] = {
    "gradient": _gradient,
    "deconvnet": _ruled("deconvnet"),
    "guided_backprop": _ruled("guided_backprop"),
    "occlusion": _occlusion,
    "input_x_gradient": _input_x_gradient,
    "integrated_gradients": _integrated_gradients,
    "smooth_grad": _smooth_grad,
    "expected_gradients": _expected_gradients,
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "layer_cam": _layer_cam,
    "hires_cam": _hires_cam,
    "guided_grad_cam": _guided_grad_cam,
    "score_cam": _score_cam,
    "rise": _rise,
    "lime": _lime,
    "kernel_shap": _kernel_shap,
    "lrp": _lrp,
    "deep_lift": _deep_lift,
    "attention_rollout": _attention_rollout,
}

SMALL: dict[str, Any] = {
    "occlusion": lambda _: occlusion.Occlusion(48, 48, "mean"),
    "integrated_gradients": lambda _: paths.IntegratedGradients(
        step_count=4, baseline=Baseline(fill="black")
    ),
    "smooth_grad": lambda _: paths.SmoothGrad(sample_count=3, seed=5),
    "expected_gradients": lambda _: paths.ExpectedGradients(
        sample_count=3, baseline=paths.Baselines(fill="noise", seed=2), seed=7
    ),
    "grad_cam": cams.GradCam,
    "grad_cam_plus_plus": cams.GradCamPlusPlus,
    "layer_cam": cams.LayerCam,
    "hires_cam": cams.HiResCam,
    "guided_grad_cam": cams.GuidedGradCam,
    "score_cam": lambda layer: cams.ScoreCam(layer, map_count=4),
    "rise": lambda _: rise.Rise(mask_count=6, cell_count=5, keep_probability=0.4, seed=3),
    "lime": lambda _: by_segments.Lime(
        segmentation="grid", segment_count=6, sample_count=12, kernel_width=0.5, seed=1
    ),
    "kernel_shap": lambda _: by_segments.KernelShap(
        segmentation="grid", segment_count=4, sample_count=14
    ),
    "gradient": lambda _: gradients.Gradient(),
    "deconvnet": lambda _: gradients.Deconvnet(),
    "guided_backprop": lambda _: gradients.GuidedBackprop(),
    "input_x_gradient": lambda _: gradients.InputXGradient(),
    "lrp": lambda _: programs.Lrp(),
    "deep_lift": lambda _: programs.DeepLift(),
    "attention_rollout": lambda _: programs.AttentionRollout(),
}


def compare(runner: Runner, name: str, method: str, made: Any = None) -> float | str:
    """The relative error of a method on a network, or why the network refuses it."""
    on = served(name)
    made = made or SMALL[method](LAYERS[name])
    refusal = made.refusal(on)
    if refusal is not None:
        return str(refusal)
    image = image_for(name)
    index = int(seeded(name)(image[None]).argmax())
    result = runner.run(on, made, image, ClassTarget(index, made.score)).result
    expected = ORACLES[method](Case(name, made, image, index, result))
    assert result.attribution.shape == expected.shape
    return relative_error(result.attribution, expected.detach())
