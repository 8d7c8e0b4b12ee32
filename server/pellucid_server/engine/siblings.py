"""What the several images of a job were like a step before, for those that keep apart."""

from collections.abc import Mapping

import torch
from torch import Tensor


def state_names(layer: str) -> tuple[str, str]:
    """What the matrices of an image's last step, and of the one before it, are called."""
    return f"gram of {layer}", f"gram before of {layer}"


class Siblings:
    """The normalized Gram matrices of one layer, of a job's images at their last two steps.

    Each image is compared with the others as they were a step before, never as they are: so its
    bits depend neither on the batches that they share nor on their order. What is of a step may be
    put down more than once; that of a step before stays as it was until every image has made the
    step, which the job sees to: see Climb.rounds.

    Args:
        count: Of images.
        layer: Its name.
        channel_count: Of the layer.
        dtype: Of the matrices.
        device: Where they are.
    """

    def __init__(
        self, count: int, layer: str, channel_count: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._names = state_names(layer)
        shape = (2, count, channel_count, channel_count)
        self._grams = torch.zeros(shape, dtype=dtype, device=device)  # of even steps, and of odd
        self._steps: list[list[int | None]] = [[None] * count for _ in range(2)]
        self._total = -1, torch.zeros_like(self._grams[0, 0])

    def others(self, place: int, step: int) -> Tensor:
        """The mean over the others of what they were at the step before this one, C×C.

        An image that had ended by then counts as 0, as one does that was not finite; at first
        all do.
        """
        before = step - 1
        if self._total[0] != before:
            at = [k for k, made in enumerate(self._steps[before % 2]) if made == before]
            self._total = before, _finite(self._grams[before % 2, at]).sum(0)
        own = self._gram(place, before)
        return (self._total[1] - _finite(own)) / (self._grams.shape[1] - 1)

    def keep(self, place: int, step: int, gram: Tensor) -> None:
        """Puts down what an image is like at a step, C×C."""
        self._grams[step % 2, place] = gram
        self._steps[step % 2][place] = step

    def state(self, place: int, step: int) -> Mapping[str, Tensor]:
        """What an image that is about to make a step was like at the two before it."""
        return {
            name: self._gram(place, step - back).clone() for back, name in enumerate(self._names, 1)
        }

    def restore(self, place: int, step: int, state: Mapping[str, Tensor]) -> None:
        """The way back of state."""
        for back, name in enumerate(self._names, 1):
            if step >= back:
                self.keep(place, step - back, state[name].to(self._grams))

    def _gram(self, place: int, step: int) -> Tensor:
        gram = self._grams[step % 2, place]
        return gram if self._steps[step % 2][place] == step else torch.zeros_like(gram)


def _finite(grams: Tensor) -> Tensor:
    """Where a matrix is not finite, zeros."""
    return torch.where(grams.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), grams, 0)
