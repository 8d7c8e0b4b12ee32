"""The models of a server."""

from dataclasses import dataclass, field

from .runs import Preprocessing


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
