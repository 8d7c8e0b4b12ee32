"""A network as it is served: frozen, folded, its layers tapped and its gates ruled."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .fold import fold_batch_norms
from .gates import GateReport, Gates, Rule, report_gates

OUTPUT = ""
"""The tap of the network's own output: the logits."""


class UnservableNetwork(ValueError):
    """A network that cannot be served truthfully, and why."""


@dataclass(frozen=True)
class Layer:
    """One call of one layer; see the contract's Layer message."""

    name: str
    kind: str
    shape: tuple[int, ...]
    targetable: bool
    note: str


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

    Raises:
        UnservableNetwork: It does not run on that input, its output is not one row of
            logits an image, rows of a batch touch each other, or it does not give the same
            logits once prepared.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        height_px: int,
        width_px: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.height_px, self.width_px = height_px, width_px
        self.dtype, self.device = dtype, device
        module = module.eval().double().requires_grad_(False)
        example = _example(height_px, width_px)
        expected, self.gates = _untouched(module, example)
        self.class_count = expected.shape[1]
        folded = fold_batch_norms(module, example)
        _open_in_place(module)
        self._module = module.to(device, dtype).to(memory_format=torch.channels_last)
        example = example.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self.layers = tuple(self._list_layers(example, folded))
        self._order = {layer.name: place for place, layer in enumerate(self.layers)}
        self._order[OUTPUT] = len(self.layers)
        for rules in ((), (Rule.GUIDED,) * len(example)):
            actual = self.forward(example, rules=rules)[OUTPUT].double().cpu()
            _expect_close(actual, expected, dtype, "its logits moved by {} when it was prepared")

    def layer(self, name: str) -> Layer | None:
        """The layer of that name, or None."""
        place = self._order.get(name)
        return None if place is None or name == OUTPUT else self.layers[place]

    def forward(
        self,
        images: Tensor,
        taps: Sequence[str] = (OUTPUT,),
        rules: Sequence[Rule] = (),
    ) -> dict[str, Tensor]:
        """One forward pass, ended at the deepest tap.

        Args:
            images: N×3×H×W, on the network's device and in its dtype.
            taps: Names of layers to keep, and OUTPUT for the logits.
            rules: A rule for each row, sorted; empty for plain backpropagation.

        Returns:
            The activation of each tap, N×…, attached to the graph of images.
        """
        kept: dict[str, Tensor] = {}
        inner = {name for name in taps if name != OUTPUT}
        deepest = max(taps, key=self._order.__getitem__)
        plain = not inner and all(rule is Rule.GRADIENT for rule in rules)
        with ExitStack() as attached:
            attached.enter_context(self._tapping(inner, deepest, kept))
            if not plain:
                attached.enter_context(Gates(rules))
            with suppress(_DeepestTapReached):
                kept[OUTPUT] = self._module(images)
        return kept

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

        with ExitStack() as hooks:
            for module_name in {name.partition("#")[0] for name in taps}:
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

        with torch.no_grad(), ExitStack() as attached:
            for module_name, module in self._module.named_modules():
                if module_name:
                    attached.callback(module.register_forward_hook(hook_for(module_name)).remove)
            attached.enter_context(Gates())
            self._module(example)
        for name, module, output, version in outputs:
            notes = []
            if name in folded:
                notes.append(f"the normalization {folded[name]} is folded in: this is its output")
            truthful = output._version == version
            if not truthful:
                notes.append("overwritten in place later in the forward pass")
            targetable = truthful and output.dim() in (2, 4) and len(output) == len(example)
            yield Layer(
                name, type(module).__name__, tuple(output.shape[1:]), targetable, "; ".join(notes)
            )


def _call_name(module_name: str, calls: dict[str, int]) -> str:
    call = calls.get(module_name, 0)
    calls[module_name] = call + 1
    return module_name if call == 0 else f"{module_name}#{call}"


def _open_in_place(module: nn.Module) -> None:
    """Autograd keeps a rectifier's input: in place, it would have to be copied first."""
    for part in module.modules():
        if getattr(part, "inplace", None) is True:
            vars(part)["inplace"] = False


def _example(height_px: int, width_px: int) -> Tensor:
    """Two seeded inputs, 2×3×H×W, float64, standard normal."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, height_px, width_px, generator=generator, dtype=torch.float64)


def _untouched(module: nn.Module, example: Tensor) -> tuple[Tensor, GateReport]:
    """The logits and the gates of the network before anything is changed."""
    try:
        with torch.enable_grad():
            together = module(example.clone().requires_grad_())
        alone = [module(image[None]) for image in example]
    except RuntimeError as error:
        size = " × ".join(map(str, example.shape[1:]))
        raise UnservableNetwork(f"it does not run on an input of {size}: {error}") from error
    for output, count in ((together, len(example)), *((one, 1) for one in alone)):
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != count:
            raise UnservableNetwork("its output is not one row of logits an image")
    expected = torch.cat(alone).detach()
    _expect_close(
        together.detach(),
        expected,
        torch.float64,
        "rows of a batch touch each other: alone, their logits differ by {}",
    )
    gates = Gates()
    with torch.no_grad(), gates:
        module(example)
    return expected, report_gates(together, gates.site_count)


def _expect_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, complaint: str) -> None:
    bound = 1e-9 if dtype is torch.float64 else 1e-3
    error = float((actual - expected).norm() / expected.norm())
    if not error <= bound:
        moved = complaint.format(f"{error:.2g}")
        raise UnservableNetwork(f"{moved} (relative); at most {bound} is accepted")
