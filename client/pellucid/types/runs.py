"""What a result was computed by."""

from dataclasses import dataclass


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
