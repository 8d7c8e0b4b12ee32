"""What was measured of an explanation."""

import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class CompletenessResult:
    """Whether attributions sum to what they should (axiom of completeness, arXiv:1703.01365).

    Attributes:
        attribution_sum: The sum of all attributions; of kernel_shap, of the segments' values.
        expected_sum: What it should be: the score less that of the baseline; of lrp, the score.
        relative_error: |attribution_sum - expected_sum| / |expected_sum|; where expected_sum is 0,
            |attribution_sum|.
    """

    attribution_sum: float
    expected_sum: float
    relative_error: float


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores as pixels are taken away, or brought in, by one order.

    Attributes:
        order: "map" (highest first), "random", or "center" (outwards).
        deletion: The score after each step, float64, read-only; the first is the image's own.
        insertion: The score after each step, float64, read-only; the last is the image's own.
        deletion_area: The area under deletion over the share of pixels: the lower, the better.
        insertion_area: The area under insertion: the higher, the better.
    """

    order: str
    deletion: NDArray[np.float64] = field(repr=False)
    insertion: NDArray[np.float64] = field(repr=False)
    deletion_area: float
    insertion_area: float


@dataclass(frozen=True, eq=False)
class CurvesResult:
    """Deletion and insertion (Petsiuk, Das and Saenko 2018, arXiv:1806.07421).

    Attributes:
        shares: The share of pixels after each step, 0 to 1, float64, read-only.
        curves: By the map, at random and from the centre.
        chart_png: A small chart of them, a PNG. See chart.
    """

    shares: NDArray[np.float64] = field(repr=False)
    curves: tuple[Curve, ...]
    chart_png: bytes = field(repr=False)

    @cached_property
    def chart(self) -> "Image":
        """The chart as a PIL image."""
        from PIL import Image

        image = Image.open(io.BytesIO(self.chart_png))
        image.load()
        return image

    @property
    def map(self) -> Curve:
        """The curve by the map."""
        return next(curve for curve in self.curves if curve.order == "map")

    @property
    def gain(self) -> float:
        """How much better the map orders pixels than the better of the other orders does.

        The insertion area less the deletion area, of the map, less the same of the yardstick
        for which it is the largest: at most 0 for a map that tells nothing of the score.
        """
        yardsticks = [curve for curve in self.curves if curve.order != "map"]
        return _spread(self.map) - max(map(_spread, yardsticks), default=0.0)


def _spread(curve: Curve) -> float:
    return curve.insertion_area - curve.deletion_area


@dataclass(frozen=True)
class StabilityResult:
    """Whether the map stays when the image hardly changes (after arXiv:1806.08049).

    Attributes:
        correlations: Spearman's rank correlation with the map of each noisy image, -1 to 1.
        mean: Theirs.
        least: The smallest.
    """

    correlations: tuple[float, ...]
    mean: float
    least: float


@dataclass(frozen=True)
class RandomizationResult:
    """Whether the map changes with the classifier's weights (after arXiv:1810.03292).

    Attributes:
        correlation: Spearman's rank correlation of the two maps, -1 to 1: close to 1 is bad.
        absolute_correlation: The same of their magnitudes.
    """

    correlation: float
    absolute_correlation: float


@dataclass(frozen=True)
class CascadeStage:
    """The network with some of its last layers redrawn.

    Attributes:
        layer: The first one, in the order of the forward pass, that was.
        layer_count: How many were.
        correlation: Spearman's rank correlation of the two maps, -1 to 1: close to 1 is bad.
        absolute_correlation: The same of their magnitudes.
    """

    layer: str
    layer_count: int
    correlation: float
    absolute_correlation: float


@dataclass(frozen=True)
class CascadeResult:
    """Whether the map changes with the network's weights (arXiv:1810.03292).

    Attributes:
        stages: From the fewest layers to all.
    """

    stages: tuple[CascadeStage, ...]


@dataclass(frozen=True)
class MethodAgreement:
    """Whether one other method says the same.

    Attributes:
        method: The other one.
        correlation: Spearman's rank correlation of the two maps, -1 to 1.
        top_overlap: Of the twentieth of the pixels that rank highest in one map, the share that
            do so in the other; 0.05 by chance.
    """

    method: str
    correlation: float
    top_overlap: float


@dataclass(frozen=True)
class AgreementResult:
    """Whether other methods say the same.

    Attributes:
        methods: One for each, in the order of the request.
    """

    methods: tuple[MethodAgreement, ...]


@dataclass(frozen=True)
class EvidenceResult:
    """What was measured of an explanation; None for what was not asked for.

    Attributes:
        completeness: Whether attributions sum to what they should.
        curves: How the score changes as pixels are taken away, or brought in, by rank.
        stability: Whether the map stays when the image hardly changes.
        randomization: Whether the map changes with the classifier.
        cascade: Whether the map changes when layers are redrawn at random.
        agreement: Whether other methods say the same.
        row_count: Rows that were run for all of it.
    """

    completeness: CompletenessResult | None
    curves: CurvesResult | None
    stability: StabilityResult | None
    randomization: RandomizationResult | None
    cascade: CascadeResult | None
    agreement: AgreementResult | None
    row_count: int
