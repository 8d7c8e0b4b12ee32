"""Why the network answers as it does."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadArgument, NotRequested
from .files import format_of
from .measures import EvidenceResult
from .questions import Neuron
from .receipts import Receipt
from .runs import Run

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ResolvedTarget:
    """The target that was explained.

    Attributes:
        class_index: The class; None for a neuron and for several classes.
        neuron: The neuron or channel; None for a class.
        label: The label of the class; empty for a neuron and for several classes.
        score: Of the target for the image; a neuron's is its activation.
        top_prediction: Whether the request left the target to the top prediction.
        class_indices: Several classes, whose scores were added; empty for one class or a neuron.
        labels: Theirs.
        against_class_index: The class whose score was subtracted, if one was.
        against_label: Its label.
        score_kind: "logit", "log_probability" or "probability"; None for a neuron.
    """

    class_index: int | None
    neuron: Neuron | None
    label: str
    score: float
    top_prediction: bool
    class_indices: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    against_class_index: int | None = None
    against_label: str = ""
    score_kind: str | None = None


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, which may be fractional; the origin is the top left corner."""

    x_px: float
    y_px: float
    width_px: float
    height_px: float


@dataclass(frozen=True, eq=False)
class OcclusionDetails:
    """What came of occlusion besides the attribution.

    Attributes:
        falls: The score uncovered minus covered for every window, float32, windows down ×
            windows across, read-only.
        largest_fall: The window whose covering lowers the score most, in pixels of the input.
        largest_rise: The window whose covering raises the score most; None when none does.
    """

    falls: NDArray[np.float32] = field(repr=False)
    largest_fall: Box
    largest_rise: Box | None


@dataclass(frozen=True, eq=False)
class SegmentDetails:
    """What came of lime and kernel_shap besides the attribution.

    Attributes:
        segments: The segment of each pixel of the network's input, from 0; int64, height ×
            width, read-only.
        values: The attribution of each segment, float32, read-only.
        baseline_score: The score with all segments hidden.
    """

    segments: NDArray[np.int64] = field(repr=False)
    values: NDArray[np.float32]
    baseline_score: float


@dataclass(frozen=True, eq=False)
class Convergence:
    """How far an explanation that is made of many rows has come.

    Attributes:
        stop: Why it ended: "complete", "tolerance", "row_count" or "time"; "running" of an
            estimate, which more follows.
        row_count: Rows that were run for it, those of evidence not counted.
        error: The norm of the standard errors over that of the attributions; of adaptive
            integrated gradients, the residual over the score's change. 0 where nothing was left
            to chance.
        standard_error: Of each element of the attribution, float32, in its shape, read-only;
            of lime and kernel_shap, of each segment's value. Of few samples it is larger, so that
            1.96 of it are a 95% interval, too, and infinite where they are too few to tell. None
            without the attribution, and for integrated gradients.
        residual: By how much the attributions' sum misses the score's change; None but for
            integrated gradients.
    """

    stop: str
    row_count: int
    error: float
    standard_error: NDArray[np.float32] | None = field(repr=False)
    residual: float | None


@dataclass(frozen=True)
class MapWarning:
    """Why a map may mislead.

    Attributes:
        reason: A short name: SATURATED, ZERO_GRADIENT, ZERO_ATTRIBUTION, CONSTANT_INPUT,
            SAME_FOR_EVERY_CLASS or NOT_CONVERGED.
        description: What is doubtful, in words.
    """

    reason: str
    description: str


@dataclass(frozen=True, eq=False)
class ExplainResult:
    """Why the network answers as it does.

    A part that was not asked for is None.

    Attributes:
        method: The name of the method.
        parameters: Every parameter of it, defaults filled in.
        target: What was explained.
        attribution: As computed, float32, read-only: 3 × height × width of the network's input
            where a method tells colours apart, 1 × height × width elsewhere.
        heatmap_png: The heatmap as it came: an 8-bit grey PNG. See heatmap.
        color_scale: "signed" or "absolute": how heatmap and rendering are to be read.
        limit: The attribution that their strongest value stands for.
        percentile: The percentile of the magnitudes that limit is, 50 to 100.
        rendering: The heatmap in colour on the photo: a file in rendering_format. See image.
        rendering_format: "jpeg" or "png".
        input_box: The part of the upright photo that the network saw, in the photo's pixels.
        occlusion_details: For occlusion only.
        segment_details: For lime and kernel_shap only.
        warnings: Why the map may mislead; empty where nothing was noticed.
        convergence: How far it came: of methods made of many rows, where until was set, in a
            stream, and of adaptive integrated gradients.
        evidence: What was measured of it, where that was asked for.
        receipt: All that is needed to make it again: see Client.replay.
        run: What it was computed by.
    """

    method: str
    parameters: Mapping[str, Any]
    target: ResolvedTarget
    attribution: NDArray[np.float32] | None = field(repr=False)
    heatmap_png: bytes | None = field(repr=False)
    color_scale: str | None
    limit: float | None
    percentile: float | None
    rendering: bytes | None = field(repr=False)
    rendering_format: str | None
    input_box: Box
    occlusion_details: OcclusionDetails | None
    segment_details: SegmentDetails | None
    warnings: tuple[MapWarning, ...]
    convergence: Convergence | None
    evidence: EvidenceResult | None
    receipt: Receipt = field(repr=False)
    run: Run = field(repr=False)

    @cached_property
    def heatmap(self) -> NDArray[np.float32]:
        """One attribution a pixel of the network's input, height × width, read-only.

        From 0 to limit on the absolute scale, about -limit to limit on the signed one, in
        steps of limit / 255 and limit / 127; what lies beyond was clipped.

        Raises:
            NotRequested: The outputs that were asked for leave it out.
        """
        if self.heatmap_png is None or self.limit is None:
            raise NotRequested('no heatmap came: pass outputs=("heatmap", ...)')
        from PIL import Image

        from ..render import dequantize

        with Image.open(io.BytesIO(self.heatmap_png)) as image:
            grey = np.asarray(image)
        signed = self.color_scale == "signed"
        heatmap = dequantize(grey, self.limit, "signed" if signed else "absolute")
        heatmap.flags.writeable = False
        return heatmap

    @cached_property
    def image(self) -> "Image":
        """The rendering as a PIL image.

        Raises:
            NotRequested: The outputs that were asked for leave it out.
        """
        from PIL import Image

        image = Image.open(io.BytesIO(self._rendering()))
        image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the rendering to a file, as it came.

        Raises:
            NotRequested: The outputs that were asked for leave it out.
            BadArgument: The name of the file is of another format than the rendering.
            OSError: The file cannot be written.
        """
        rendering = self._rendering()
        if format_of(path) != self.rendering_format:
            raise BadArgument(
                f"{os.fspath(path)}: the rendering is a {self.rendering_format}; "
                f"pass format={format_of(path)!r} to explain"
            )
        Path(path).write_bytes(rendering)

    def _rendering(self) -> bytes:
        if self.rendering is None:
            raise NotRequested('no rendering came: pass outputs=("rendering", ...)')
        return self.rendering
