"""DeepLIFT's rescale rule, as a backward program."""

from collections.abc import Callable
from typing import Any

from .gates import OutOfPlace, Undefined


class Rescale(OutOfPlace):
    """A forward pass under it passes multipliers back instead of gradients."""

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise Undefined("not built yet")
