"""Layer-wise relevance propagation, as a backward program."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .gates import OutOfPlace, Rule, Undefined


class Relevance(OutOfPlace):
    """A forward pass under it passes relevance back instead of gradients."""

    def __init__(self, rules: Sequence[Rule], epsilons: Tensor) -> None:
        super().__init__()

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise Undefined("not built yet")
