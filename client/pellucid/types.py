"""What goes into a call besides numbers and strings, and what comes out of it."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import BadArgument, NotRequested, StatusError

if TYPE_CHECKING:
    from PIL.Image import Image

Photo: TypeAlias = (
    "str | os.PathLike[str] | bytes | Image | NDArray[np.uint8] | NDArray[np.float32]"
)
"""An image to look at: a path or the bytes of a JPEG, PNG or WebP file, sent untouched; a PIL
image, of which the pixels are sent as they are (its EXIF orientation is not applied); a uint8
array, height × width × 3, sRGB, 0 to 255; or a float32 array, 3 × height × width, which is an
input already preprocessed to the network's size."""

FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a rendering, "jpeg" or "png", by the name of its file.

    Raises:
        BadArgument: The name ends in neither .jpg, .jpeg nor .png.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise BadArgument(f"{os.fspath(path)}: must end with {', '.join(FORMATS)}")
    return FORMATS[suffix.lower()]


def opened(encoded: bytes) -> "Image":
    """A file's bytes as a PIL image, decoded."""
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image


# What goes in.


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


# What comes out.


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


@dataclass(frozen=True)
class Batch:
    """One batch that rows of a request rode in.

    Attributes:
        bucket_size: Rows that it was padded to.
        row_count: Rows of all callers in it, padding not counted.
        own_row_count: Rows of this request in it.
    """

    bucket_size: int
    row_count: int
    own_row_count: int


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the network's input: resize, crop, (value / 255 - mean) / std.

    Attributes:
        resize_shorter_side_px: What the shorter side is resized to before the centre is
            cropped; 0 where the whole photo is stretched to the input instead.
        height_px: The input's height.
        width_px: The input's width.
        interpolation: "bilinear" or "bicubic".
        mean: For red, green and blue, on a scale of 0 to 1.
        std: For red, green and blue, on a scale of 0 to 1.
    """

    resize_shorter_side_px: int
    height_px: int
    width_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """What a result was computed by, and how long it took.

    Attributes:
        model: The name of the model.
        model_version: The first twelve hexadecimal digits of the SHA-256 of its weights.
        preprocessing: How the photo became the network's input.
        precision: "float32", "tf32", "bfloat16" or "float64".
        device: For example "cpu" or "cuda".
        decode_ms: Milliseconds of decoding and preprocessing.
        queue_ms: Milliseconds of waiting: to be decoded, for the first batch, to be rendered.
        run_ms: Milliseconds from the launch of the first batch to the result.
        render_ms: Milliseconds of rendering and encoding.
        batches: The batches that the request's rows rode in, in order.
    """

    model: str
    model_version: str
    preprocessing: Preprocessing
    precision: str
    device: str
    decode_ms: float
    queue_ms: float
    run_ms: float
    render_ms: float
    batches: tuple[Batch, ...]


@dataclass(frozen=True)
class Prediction:
    """A class, and how much the network believes in it.

    Attributes:
        class_index: From 0.
        label: The class's label.
        probability: Softmax, 0 to 1.
        logit: The score before the softmax.
    """

    class_index: int
    label: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class PredictResult:
    """What the network sees in a photo.

    Attributes:
        predictions: The best classes, best first; at least one.
        logits: All logits by class index, float32, read-only; None unless asked for.
        receipt: All that is needed to make it again: see Client.replay.
        run: What it was computed by.
        explanations: What came of each explanation that was asked for: itself, or why not.
    """

    predictions: tuple[Prediction, ...]
    logits: NDArray[np.float32] | None = field(repr=False)
    receipt: "Receipt" = field(repr=False)
    run: Run = field(repr=False)
    explanations: tuple["ExplainResult | StatusError", ...] = field(default=(), repr=False)

    @property
    def top(self) -> Prediction:
        """The best class."""
        return self.predictions[0]


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


@dataclass(frozen=True)
class Receipt:
    """All that is needed to make a result again, and to see whether it is the same.

    Attributes:
        fields: The contract's Receipt as JSON has it.
    """

    fields: Mapping[str, Any] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a JSON file."""
        text = json.dumps(self.fields, indent=2, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Receipt":
        """Reads it from a JSON file.

        Raises:
            BadArgument: The file holds no receipt.
            OSError: The file cannot be read.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadArgument(f"{os.fspath(path)}: is not JSON: {error}") from None
        if not isinstance(fields, dict) or not {"predict", "explain"} & set(fields):
            raise BadArgument(f"{os.fspath(path)}: is not a receipt")
        return cls(fields)


@dataclass(frozen=True, eq=False)
class Replay:
    """A result made again from its receipt.

    Attributes:
        equal: Whether it is equal to the bit.
        difference: Between the two sketches (see Receipt in the contract), relative: the
            Euclidean norm of their difference by that of the first; 0 where they are equal.
        notes: What is not as it was, or was not promised: what may explain a difference.
        result: What came of it.
    """

    equal: bool
    difference: float
    notes: tuple[str, ...]
    result: "PredictResult | ExplainResult" = field(repr=False)


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

        from .render import dequantize

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


@dataclass(frozen=True)
class ModelSummary:
    """A model, in brief.

    Attributes:
        name: The name that requests use.
        ready: Whether it answers requests.
        version: The first twelve hexadecimal digits of the SHA-256 of its weights.
        reason: Why it is not ready; empty when it is.
    """

    name: str
    ready: bool
    version: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """One layer of a network, at one of its calls.

    Attributes:
        name: Its dotted name; name#1, name#2 for further calls of the same layer.
        type: Its class, for example "Conv2d".
        shape: Its output's for one image, for example channels × height × width.
        targetable: Whether a neuron of it can be a target.
        note: What was changed at load; empty when nothing was.
        layout: What its axes are: "channels", "maps" (channels first), "maps_channels_last" or
            "tokens"; "unspecified" where no neuron of it can be a target.
        grid: Height and width of its maps or of its grid of patches; empty where it has neither.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    targetable: bool
    note: str
    layout: str
    grid: tuple[int, ...]


@dataclass(frozen=True)
class MethodSupport:
    """Whether a method applies to a model.

    Attributes:
        method: The name of the method.
        supported: Whether the model supports it.
        reason: Why not; empty when it does.
        row_count: Rows that it takes by its defaults; 0 where it is not supported.
        anytime: Whether it can be streamed, and ended by an Until.
        evidence: The evidence that it can have: see Evidence.
    """

    method: str
    supported: bool
    reason: str
    row_count: int = 0
    anytime: bool = False
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchCost:
    """What a batch of one size costs on the server's device.

    Attributes:
        lane: "forward"; "gradient", "lrp" or "deeplift" for forward and back.
        bucket_size: Rows in the batch, padding included.
        row_ms: Milliseconds a row.
    """

    lane: str
    bucket_size: int
    row_ms: float


@dataclass(frozen=True)
class Onnx:
    """What is to be known of a model that is an ONNX file.

    Attributes:
        opset: The version of ONNX's own operators.
        provider: The execution provider of ONNX Runtime; empty: the conversion runs everything.
        fixed_batch_size: The number of images that the file fixes; 0: any.
        parity: How far the conversion to torch is from ONNX Runtime, relative; None: there is none.
        white_box_refusal: Why there is none.
        notes: What else is different from what one might think.
    """

    opset: int
    provider: str
    fixed_batch_size: int
    parity: float | None
    white_box_refusal: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Model(ModelSummary):
    """One model in full.

    Attributes:
        architecture: The name of its network.
        preprocessing: How a photo becomes its input.
        precision: "float32", "tf32", "bfloat16" or "float64".
        device: For example "cpu" or "cuda".
        layers: Every layer, in the order of the forward pass.
        methods: Every method, and whether it applies.
        labels: The labels of its classes, by class index.
        costs: What its batches cost.
        gate_count: Rectifier call sites that deconvnet and guided backpropagation act on.
        platform: "torch" or "onnx".
        onnx: Of an ONNX file; None for others.
    """

    architecture: str
    preprocessing: Preprocessing
    precision: str
    device: str
    layers: tuple[Layer, ...] = field(repr=False)
    methods: tuple[MethodSupport, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    costs: tuple[BatchCost, ...] = field(repr=False)
    gate_count: int
    platform: str
    onnx: Onnx | None
