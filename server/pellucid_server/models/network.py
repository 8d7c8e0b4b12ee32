"""A network as it is served: frozen, folded, its layers tapped and its gates ruled."""

import copy
import functools
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .attention import Attention
from .fields import Field
from .fold import FoldedNorm, fold_batch_norms
from .gates import Gates, Rule, Undefined
from .layers import Layer, Layout, Layouts
from .relevance import Relevance
from .rescale import Rescale
from .sizes import Shapes, Sizes
from .trials import example_of, expect_close, untouched

OUTPUT = ""
"""The tap of the network's own output: the logits."""

PENULTIMATE = "(penultimate)"
"""The tap of what the classifier gets: the features that logits are weighted sums of."""


class Cache:
    """Tensors that several requests use, on the device: those used last. One thread's own."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable) -> Tensor | None:
        """What was put there, unless it had to make room."""
        if key not in self._tensors:
            return None
        self._tensors.move_to_end(key)
        return self._tensors[key]

    def put(self, key: Hashable, tensor: Tensor) -> Tensor:
        self._tensors[key] = tensor
        while sum(kept.nbytes for kept in self._tensors.values()) > self._most_bytes:
            self._tensors.popitem(last=False)
        return tensor


CACHE_BYTES = 64 << 20
"""Masks and segments of each model."""


class NeuronLike(Protocol):
    """What says where a neuron is."""

    @property
    def layer(self) -> str: ...
    @property
    def channel(self) -> int | None: ...
    @property
    def y(self) -> int | None: ...
    @property
    def x(self) -> int | None: ...


class Runtime(Protocol):
    """What computes logits in a network's stead where nothing goes back."""

    def __call__(self, images: Tensor) -> Tensor:
        """N×classes for N×3×H×W, on their device and in their dtype."""
        ...


@dataclass(frozen=True)
class Classifier:
    """The dense layer that makes the logits.

    Attributes:
        name: Its dotted name.
        weight: Classes × features.
        bias: Of each class; None where it has none.
    """

    name: str
    weight: Tensor
    bias: Tensor | None


class _DeepestTapReached(Exception):
    """Ends a forward pass: nobody in the batch asked for anything deeper."""


class Network:
    """A network in eval mode, never changed again once it is made.

    Args:
        module: The network as it was built or loaded, float32 or float64. It is taken
            over: frozen, folded and cast.
        height_px: Height of its input.
        width_px: Width of its input.
        dtype: The precision that it computes in.
        device: Where it computes.
        tf32: Whether a CUDA device may round the factors of products to TF32.
        runtime: What the network was converted from, which computes the logits of rows that
            only go forward; the network itself where there is none.

    Attributes:
        white_box_refusal: Why nothing can be asked of its inside, if so.

    Raises:
        UnservableNetwork: It does not run on that input, its output is not one row of
            logits an image, rows of a batch touch each other, or it does not give the same
            logits once prepared.
    """

    white_box_refusal: str | None = None

    def __init__(
        self,
        module: nn.Module,
        *,
        height_px: int,
        width_px: int,
        dtype: torch.dtype,
        device: torch.device,
        tf32: bool = False,
        runtime: Runtime | None = None,
    ) -> None:
        self._runtime: Runtime | None = None  # until the network itself has been tried
        self.height_px, self.width_px = height_px, width_px
        self.dtype, self.device, self.tf32 = dtype, device, tf32
        self.cache = Cache(CACHE_BYTES)
        module = module.eval().double().requires_grad_(False)
        example = example_of(height_px, width_px)
        expected, self.gates = untouched(module, example)
        self.class_count = expected.shape[1]
        folded = fold_batch_norms(module, example)
        _open_in_place(module)
        self._module = module.to(device, dtype)
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.contiguous(memory_format=torch.channels_last)
        example = example.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self.layers = tuple(self._list_layers(example, folded))
        self._spreads = {
            name: (float(weights.mean()), float(weights.std(correction=0)))
            for layer in self.weighted_layers
            for name, weights in self.parameters_of(layer).items()
        }
        self.classifier = self._find_classifier(example)
        self._order: dict[str, float] = {y.name: place for place, y in enumerate(self.layers)}
        self._order[OUTPUT] = len(self.layers)
        if self.classifier is not None:
            self._order[PENULTIMATE] = self._order[self.classifier.name] - 0.5
        for mode in (None, Gates([Rule.GUIDED] * len(example))):
            actual = self.forward(example, mode=mode)[OUTPUT].double().cpu()
            expect_close(actual, expected, dtype, "its logits moved by {} when it was prepared")
        patches = next((y.grid for y in self.layers if y.layout is Layout.TOKENS), None)
        self.attention_refusal = self._why_no_attention(example, patches)
        epsilons = torch.full((len(example),), 1e-6, dtype=dtype, device=device)
        self.lrp_refusal = self._why_not(
            Relevance([Rule.LRP_EPSILON, Rule.LRP_COMPOSITE], epsilons), example
        )
        self.deeplift_refusal = self._why_not(Rescale(), example)
        names = [layer.name for layer in self.layers]
        self._sizes = Sizes(self._module, names, self.class_count, dtype)
        self._runtime = runtime

    @property
    def pixel_count(self) -> int:
        return self.height_px * self.width_px

    def shapes_at(self, height_px: int, width_px: int) -> Shapes:
        """The shapes of all layers at an input's size; computes nothing, on any thread.

        Raises:
            UnfitSize: The network does not take it.
        """
        if (height_px, width_px) == (self.height_px, self.width_px):
            return {layer.name: layer.shape for layer in self.layers}
        return self._sizes.at(height_px, width_px)

    @functools.cached_property
    def fields(self) -> Mapping[str, Field]:
        """What the places of each layer see of an input of the network's own size."""
        axes = {layer.name: layer.axes for layer in self.layers}
        return self._sizes.fields(self.height_px, self.width_px, axes)

    def layer(self, name: str) -> Layer | None:
        """The layer of that name, or None."""
        place = self._order.get(name)
        taps = (OUTPUT, PENULTIMATE)
        return None if place is None or name in taps else self.layers[int(place)]

    def precedes(self, name: str, tap: str) -> bool:
        """Whether a layer ends before a tap does, or is it."""
        return self._order[name] <= self._order[tap]

    def place_of(self, neuron: NeuronLike) -> tuple[int | None, ...]:
        """Where a neuron is along each axis of its layer's activation."""
        layer = self.layer(neuron.layer)
        assert layer is not None
        return layer.place(neuron.channel, neuron.y, neuron.x)

    def first_place(self, tap: str) -> tuple[int | None, ...]:
        """Where along each axis of a tap's activation its first place is, and -1: its channels."""
        layer = self.layer(tap)
        return (-1,) if layer is None else layer.place(-1, 0, 0)

    def spatial_layers(self, before: str) -> tuple[Layer, ...]:
        """The layers with maps that end before another one does, in the order of their ends."""
        ended = self.layers[: math.ceil(self._order[before])]
        return tuple(layer for layer in ended if layer.spatial)

    @property
    def weighted_layers(self) -> tuple[str, ...]:
        """Names of the layers with weights of their own, in the order of the forward pass."""
        names = dict.fromkeys(layer.name.partition("#")[0] for layer in self.layers)
        return tuple(name for name in names if self.parameters_of(name))

    def filters_of(self, name: str) -> Tensor | None:
        """The weights of a convolution, O×I×h×w, or of a dense layer, O×I; None of any other."""
        module = self._module.get_submodule(name.partition("#")[0])
        return module.weight if isinstance(module, nn.Conv2d | nn.Linear) else None

    def upper_bound_of(self, name: str) -> float | None:
        """Where the activation function that a layer is, or ends in, is cut off; None: nowhere."""
        return _upper_bound(self._module.get_submodule(name.partition("#")[0]))

    def parameters_of(self, layer: str) -> Mapping[str, Tensor]:
        """The weights of a layer with their biases, by full names; norms have none."""
        own = dict(self._module.get_submodule(layer).named_parameters(recurse=False))
        if all(parameter.dim() < 2 for parameter in own.values()):
            return {}
        return {f"{layer}.{name}": parameter for name, parameter in own.items()}

    @property
    def has_runtime(self) -> bool:
        """Whether rows that only go forward have their logits from elsewhere than others."""
        return self._runtime is not None

    def like(self, full_name: str, numbers: Tensor) -> Tensor:
        """Standard normal numbers with a parameter's mean and deviation, on the host, as it lies.

        Args:
            full_name: Of the parameter.
            numbers: Of its shape, on the host; overwritten.
        """
        mean, deviation = self._spreads[full_name]
        numbers = numbers.to(self.dtype).mul_(deviation).add_(mean)
        four = numbers.dim() == 4
        return numbers.contiguous(memory_format=torch.channels_last) if four else numbers

    def redrawn(self, drawn: Mapping[str, Tensor]) -> "Network":
        """A twin that shares all weights but those that are drawn anew.

        Args:
            drawn: What parameters become, by their full names.
        """
        twin = self._twin()
        for full_name, numbers in drawn.items():
            layer, _, name = full_name.rpartition(".")
            new = nn.Parameter(numbers.to(self.device), requires_grad=False)
            setattr(twin._module.get_submodule(layer), name, new)
        if self.classifier is not None:
            twin.classifier = _classifier(twin._module, self.classifier.name)
        return twin

    @property
    def pools_by_maximum(self) -> bool:
        """Whether averaged is another network."""
        return any(_can_average(part) for part in self._module.modules())

    @functools.cached_property
    def averaged(self) -> "Network":
        """A twin that shares all weights, and pools by the average where this one by the maximum.

        What lies beyond a map's edge does not count. Gatys, Ecker and Bethge 2015,
        arXiv:1508.06576.
        """
        twin = self._twin()
        pooling = [name for name, part in twin._module.named_modules() if _can_average(part)]
        for name in pooling:
            path, _, last = name.rpartition(".")
            part = twin._module.get_submodule(name)
            assert isinstance(part, nn.MaxPool2d)
            sizes = (part.kernel_size, part.stride, part.padding)
            average = nn.AvgPool2d(*sizes, part.ceil_mode, count_include_pad=False)
            setattr(twin._module.get_submodule(path), last, average)
        return twin

    def _twin(self) -> "Network":
        """It shares all weights."""
        shared = [*self._module.parameters(), *self._module.buffers()]
        twin = copy.copy(self)
        vars(twin).pop("averaged", None)
        twin._runtime = None
        twin._module = copy.deepcopy(self._module, {id(tensor): tensor for tensor in shared})
        return twin

    def forward(
        self,
        images: Tensor,
        taps: Sequence[str] = (OUTPUT,),
        mode: TorchFunctionMode | None = None,
    ) -> dict[str, Tensor]:
        """One forward pass, ended at the deepest tap.

        Args:
            images: N×3×H×W, on the network's device and in its dtype.
            taps: Names of layers to keep, and OUTPUT for the logits.
            mode: What rules the way back: Gates, Relevance, Rescale; None for plain
                backpropagation.

        Returns:
            The activation of each tap, N×…, attached to the graph of images.
        """
        kept: dict[str, Tensor] = {}
        inner = {name for name in taps if name != OUTPUT}
        if self._runtime is not None and OUTPUT in taps and not images.requires_grad:
            # Whatever else rides in the batch: logits of one model are made in one way.
            kept[OUTPUT] = self._runtime(images)
            if mode is None:
                taps = tuple(inner)
                if not taps:
                    return kept
        deepest = max(taps, key=self._order.__getitem__)
        if mode is None and inner:
            mode = Gates()
        with ExitStack() as attached:
            attached.enter_context(self._tapping(inner, deepest, kept))
            if mode is not None:
                attached.enter_context(mode)
            with suppress(_DeepestTapReached):
                kept.setdefault(OUTPUT, self._module(images))
        return kept

    def _find_classifier(self, example: Tensor) -> Classifier | None:
        """The dense layer whose output the logits are, if there is one."""
        outputs: dict[str, Tensor | None] = {}

        def hook_for(name: str) -> Any:
            def note(_module: nn.Module, inputs: Any, output: Any) -> None:
                usable = inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() == 2
                outputs[name] = output if usable and name not in outputs else None

            return note

        with torch.no_grad(), ExitStack() as hooks:
            for name, module in self._module.named_modules():
                if name and isinstance(module, nn.Linear):
                    hooks.callback(module.register_forward_hook(hook_for(name)).remove)
            logits = self._module(example)
        for name, output in outputs.items():
            if output is not None and output.data_ptr() == logits.data_ptr():
                return _classifier(self._module, name)
        return None

    def _why_not(self, mode: TorchFunctionMode, example: Tensor) -> str | None:
        """Why a backward program is not defined on the network, if so."""
        try:
            with torch.enable_grad():
                images = example.clone().requires_grad_()
                output = self.forward(images, mode=mode)[OUTPUT]
                torch.autograd.grad(output.sum(), images)
        except Undefined as error:
            return str(error)
        return None

    def _why_no_attention(self, example: Tensor, patches: tuple[int, int] | None) -> str | None:
        """Why there are no weights of global attention to look at, if so."""
        attention = Attention()
        try:
            with torch.no_grad():
                self.forward(example, mode=attention)
        except Undefined as error:
            return str(error)
        return attention.refusal(len(example), patches)

    @contextmanager
    def _tapping(self, taps: set[str], deepest: str, kept: dict[str, Tensor]) -> Iterator[None]:
        calls: dict[str, int] = {}

        def hook_for(module_name: str) -> Any:
            def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
                name = _call_name(module_name, calls)
                if name in taps:
                    kept[name] = output
                    if name == deepest:
                        raise _DeepestTapReached

            return keep

        def keep_features(_module: nn.Module, inputs: Any) -> None:
            kept[PENULTIMATE] = inputs[0]
            if deepest == PENULTIMATE:
                raise _DeepestTapReached

        with ExitStack() as hooks:
            if PENULTIMATE in taps:
                assert self.classifier is not None
                module = self._module.get_submodule(self.classifier.name)
                hooks.callback(module.register_forward_pre_hook(keep_features).remove)
            for module_name in {name.partition("#")[0] for name in taps - {PENULTIMATE}}:
                module = self._module.get_submodule(module_name)
                hooks.callback(module.register_forward_hook(hook_for(module_name)).remove)
            yield

    def _list_layers(self, example: Tensor, folded: dict[str, str]) -> Iterator[Layer]:
        calls: dict[str, int] = {}
        outputs: list[tuple[str, nn.Module, Tensor, int]] = []

        def hook_for(module_name: str) -> Any:
            def note(module: nn.Module, _inputs: Any, output: Any) -> None:
                name = _call_name(module_name, calls)
                if isinstance(output, Tensor) and output.dim():
                    outputs.append((name, module, output, output._version))

            return note

        images = example.clone().requires_grad_()
        with torch.enable_grad(), ExitStack() as hooks:
            for module_name, module in self._module.named_modules():
                if module_name:
                    hooks.callback(module.register_forward_hook(hook_for(module_name)).remove)
            hooks.enter_context(Gates())
            logits = self._module(images)
        generator = torch.Generator().manual_seed(1)
        weights = torch.randn(logits.shape, generator=generator).to(logits)
        attached = {place: y for place, (_, _, y, _) in enumerate(outputs) if y.requires_grad}
        gradients: dict[int, Tensor | None] = {}
        if attached:
            found = torch.autograd.grad(logits, list(attached.values()), weights, allow_unused=True)
            gradients = dict(zip(attached, found, strict=True))
        layouts = Layouts(self.height_px, self.width_px)
        for place, (name, module, output, version) in enumerate(outputs):
            gradient = gradients.get(place)
            notes = []
            if name in folded:
                notes.append(f"the normalization {folded[name]} is folded in: this is its output")
            truthful = output._version == version
            if not truthful:
                notes.append("overwritten in place later in the forward pass")
            shape = tuple(output.shape[1:])
            layout, grid = layouts.of(module, shape)
            by_row = len(output) == len(example) and layout is not Layout.OTHER
            note = "; ".join(notes)
            layer = Layer(
                name, type(module).__name__, shape, truthful and by_row, note, layout, grid
            )
            if layer.spatial and (gradient is None or not layer.maps(gradient).any()):
                layer = replace(layer, decisive=False)
            yield layer


def _classifier(module: nn.Module, name: str) -> Classifier:
    dense = module.get_submodule(name)
    assert isinstance(dense, nn.Linear)
    return Classifier(name, dense.weight, dense.bias)


def _upper_bound(module: nn.Module) -> float | None:
    match module:
        case nn.Hardtanh():  # ReLU6 is one
            return float(module.max_val)
        case nn.Hardsigmoid():
            return 1.0
        case nn.Sequential() if len(module):
            return _upper_bound(module[-1])
        case FoldedNorm():
            return _upper_bound(module.act)
    return None


def _call_name(module_name: str, calls: dict[str, int]) -> str:
    call = calls.get(module_name, 0)
    calls[module_name] = call + 1
    return module_name if call == 0 else f"{module_name}#{call}"


def _can_average(part: nn.Module) -> bool:
    return isinstance(part, nn.MaxPool2d) and part.dilation in (1, (1, 1))


def _open_in_place(module: nn.Module) -> None:
    """Autograd keeps a rectifier's input: in place, it would have to be copied first."""
    for part in module.modules():
        if getattr(part, "inplace", None) is True:
            vars(part)["inplace"] = False
