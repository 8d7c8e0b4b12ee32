"""What an index keeps of every channel while photos go by: its best patches, and a histogram."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF = 32
"""Bins on either side of 0."""

_LEAST_EXPONENT = -40
"""Of bins of a channel that is 0 everywhere."""


@dataclass
class Tally:
    """Of C channels, over all photos so far.

    The result does not depend on how photos come in batches: of equal activations the earlier
    photo's stands first, and a histogram's bins follow from the largest magnitude alone. They are
    2^e wide, for the least e at which all values lie within 32 bins on either side of 0; where
    one does not, neighbouring bins are merged two by two, which keeps counts exact.

    Attributes:
        values: float32 C×k, the largest first; -inf where there are fewer photos.
        photos: int64 C×k: whose they are; -1 where there are fewer.
        places: int32 C×k: where in the channel's map, row by row.
        counts: int64 C×64: photos by their largest activation, the bins of negative ones first.
        exponents: int32 C: e.
    """

    values: NDArray[np.float32]
    photos: NDArray[np.int64]
    places: NDArray[np.int32]
    counts: NDArray[np.int64]
    exponents: NDArray[np.int32]

    @classmethod
    def empty(cls, channel_count: int, top_k: int) -> "Tally":
        """Of no photo yet."""
        shape = (channel_count, top_k)
        return cls(
            np.full(shape, -np.inf, np.float32),
            np.full(shape, -1, np.int64),
            np.zeros(shape, np.int32),
            np.zeros((channel_count, 2 * HALF), np.int64),
            np.full(channel_count, _LEAST_EXPONENT, np.int32),
        )

    def add(
        self,
        values: NDArray[np.float32],
        places: NDArray[np.int32],
        photos: NDArray[np.int64],
    ) -> None:
        """Takes in n photos, later than those before.

        Args:
            values: n×C, the largest activation of each channel's map; finite.
            places: n×C, where it is.
            photos: n, ascending.
        """
        self._rank(values, places, photos)
        self._count(values.astype(np.float64))

    def histogram(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges and counts of a channel, from the first bin that has a photo to the last."""
        counts = self.counts[channel]
        used = np.flatnonzero(counts)
        first, last = (int(used[0]), int(used[-1])) if len(used) else (HALF, HALF)
        steps = np.arange(first - HALF, last - HALF + 2, dtype=np.float64)
        return np.ldexp(steps, int(self.exponents[channel])), counts[first : last + 1]

    def to_bytes(self) -> dict[str, bytes]:
        """Each of its arrays."""
        return {field.name: getattr(self, field.name).tobytes() for field in fields(self)}

    @classmethod
    def from_bytes(cls, top_k: int, of: Callable[[str], bytes]) -> "Tally":
        """From what to_bytes made, by the arrays' names."""
        like = cls.empty(0, top_k)

        def array(name: str) -> NDArray[Any]:
            empty: NDArray[Any] = getattr(like, name)
            flat = np.frombuffer(bytearray(of(name)), empty.dtype)
            return flat.reshape(-1, *empty.shape[1:])

        return cls(**{field.name: array(field.name) for field in fields(cls)})

    def _rank(
        self,
        values: NDArray[np.float32],
        places: NDArray[np.int32],
        photos: NDArray[np.int64],
    ) -> None:
        better = np.flatnonzero(values.max(0) > self.values[:, -1])
        all_values = np.hstack([self.values[better], values[:, better].T])
        order = np.argsort(-all_values, axis=1, kind="stable")[:, : self.values.shape[1]]
        same = np.broadcast_to(photos, (len(better), len(photos)))
        for kept, new in (
            (self.photos, same),
            (self.places, places[:, better].T),
        ):
            both = np.hstack([kept[better], new])
            kept[better] = np.take_along_axis(both, order, 1)
        self.values[better] = np.take_along_axis(all_values, order, 1)

    def _count(self, values: NDArray[np.float64]) -> None:
        magnitudes = np.abs(values).max(0)
        # magnitude < 2^exponent = 32·2^(exponent - 5)
        needed = np.frexp(magnitudes)[1] - (HALF.bit_length() - 1)
        needed = np.where(magnitudes > 0, needed, _LEAST_EXPONENT)
        while len(small := np.flatnonzero(needed > self.exponents)):
            if self.counts[small].any():
                halved = self.counts[small].reshape(len(small), HALF, 2).sum(2)
                self.counts[small] = 0
                self.counts[small, HALF // 2 : HALF + HALF // 2] = halved
                self.exponents[small] += 1
            else:
                self.exponents[small] = needed[small]
        channels = np.arange(values.shape[1])
        bins = np.floor(np.ldexp(values, -self.exponents)).astype(np.int64) + HALF
        for of_photo in bins:
            self.counts[channels, of_photo] += 1
