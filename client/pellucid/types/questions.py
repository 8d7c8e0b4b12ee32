"""What goes into a call besides numbers and strings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Photo: TypeAlias = (
    "str | os.PathLike[str] | bytes | Image | NDArray[np.uint8] | NDArray[np.float32]"
)
"""An image to look at: a path or the bytes of a JPEG, PNG or WebP file, sent untouched; a PIL
image, of which the pixels are sent as they are (its EXIF orientation is not applied); a uint8
array, height × width × 3, sRGB, 0 to 255; or a float32 array, 3 × height × width, which is an
input already preprocessed to the network's size."""


@dataclass(frozen=True)
class Neuron:
    """One neuron of a layer, a whole channel of it, or the whole layer.

    Attributes:
        layer: The name of a layer, as get_model lists it.
        channel: The channel, from 0; the sum over all of them when None.
        y: The row in the channel's map, from 0, top first.
        x: The column in the channel's map, from 0, left first. Without y and x, the target is
            the sum over the channel's map.
    """

    layer: str
    channel: int | None = None
    y: int | None = None
    x: int | None = None


Target: TypeAlias = "int | str | Neuron | Sequence[int | str]"
"""What is explained: a class by index or label, several classes at once, or a neuron."""


Baseline: TypeAlias = "str | Mapping[str, Any] | NDArray[np.float32]"
"""What an image is compared with: a fill ("black", "white", "mean", "blur", "noise"), the fields
of the contract's Baseline, or the baseline itself, float32, 3 × height × width, preprocessed."""


@dataclass(frozen=True)
class Until:
    """When an explanation made of many rows is good enough: as soon as one of these holds.

    For methods of which MethodSupport.anytime says so.

    Attributes:
        tolerance: The error is at most this, in two successive estimates: 0.0001 to 1. See
            Convergence.error.
        row_count: So many rows have been run, those of evidence not counted.
        time_ms: So many milliseconds have passed since the first row was run: 1 to 600,000. The
            first estimate is always made.
    """

    tolerance: float | None = None
    row_count: int | None = None
    time_ms: float | None = None


Evidence: TypeAlias = "Sequence[str] | Mapping[str, Mapping[str, Any]]"
"""What is to be measured of an explanation: names of the contract's Evidence ("completeness",
"curves", "stability", "randomization", "cascade", "agreement"), or a mapping from such names to
their parameters: {"curves": {"step_count": 32}, "agreement": {"methods": ["rise"]}}. An enum is
its short lower-case name; agreement needs methods."""


class Explain:
    """An explanation to send along with a prediction: a method, and how it is to explain.

    Args:
        method: Its name.
        **options: Target, outputs, evidence and so on, and the method's own parameters: the
            keywords of Client.explain less model, bucket_size and timeout_s, which are the
            prediction's.
    """

    def __init__(self, method: str, **options: Any) -> None:
        self.method, self.options = method, options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Explain({self.method!r}{options})"
