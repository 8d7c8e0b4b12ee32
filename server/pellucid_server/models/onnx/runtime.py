"""ONNX Runtime, as it is held: deterministic, on torch's threads and torch's memory."""

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor

from .file import BadOnnx, OnnxFile

_MOST_REASON = 300


class Runtime:
    """A graph in a session of ONNX Runtime: images in, logits out. One thread's own.

    Where the graph takes a fixed number of images, others are run in parts of that many, the
    last one filled up with zeros.

    Args:
        file: The graph.
        device: Where images come from. On CUDA its provider is used where it can be had, and
            the CPU's otherwise.
        tf32: Whether a CUDA device may round the factors of products to TF32.

    Attributes:
        provider: The execution provider in use.
        batch_size: The number of images that the graph takes; None: any.

    Raises:
        BadOnnx: ONNX Runtime does not take the graph, or cannot be used.
    """

    def __init__(self, file: OnnxFile, device: torch.device, *, tf32: bool = False) -> None:
        import onnxruntime

        _expect_one_distribution()
        self.batch_size = file.batch_size
        self._channels_last = file.expected.layout == "NHWC"
        self._input_name, self._output_name = file.input_name, file.output_name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        # A thread that spins takes the core of those that decode and render.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            onnxruntime.preload_dlls()  # of torch's wheels
            about = {
                "device_id": str(device.index or 0),
                "use_tf32": str(int(tf32)),
                "cudnn_conv_algo_search": "HEURISTIC",  # timings would choose the bits
            }
            providers.insert(0, ("CUDAExecutionProvider", about))
        try:
            self._session = onnxruntime.InferenceSession(
                file.model.SerializeToString(), options, providers=providers
            )
        except Exception as error:  # of many types, all of them its own
            raise BadOnnx(f"is not taken by ONNX Runtime: {reason_of(error)}") from None
        self.provider: str = self._session.get_providers()[0]
        self._on = torch.device("cuda" if self.provider.startswith("CUDA") else "cpu")
        try:
            self.class_count = self._count_classes(file)
        except Exception as error:
            raise BadOnnx(f"cannot be run by ONNX Runtime: {reason_of(error)}") from None

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of images.

        Args:
            images: N×3×H×W.

        Returns:
            N×classes, on the images' device and in their dtype.
        """
        given = images.detach().to(self._on, torch.float32)
        if self._channels_last:
            given = given.permute(0, 2, 3, 1)
        given = given.contiguous()
        logits = given.new_empty((len(given), self.class_count))
        step = self.batch_size or len(given)
        for start in range(0, len(given), step):
            part = given[start : start + step]
            filled = step - len(part)
            if filled:
                part = torch.cat([part, part.new_zeros(filled, *part.shape[1:])])
            logits[start : start + step] = self._run(part)[: step - filled]
        return logits.to(images.device, images.dtype)

    def _run(self, images: Tensor) -> Tensor:
        logits = images.new_empty((len(images), self.class_count))
        binding = self._session.io_binding()
        for bind, name, tensor in (
            (binding.bind_input, self._input_name, images),
            (binding.bind_output, self._output_name, logits),
        ):
            bind(
                name=name,
                device_type=self._on.type,
                device_id=tensor.device.index or 0,
                element_type=np.float32,
                shape=tuple(tensor.shape),
                buffer_ptr=tensor.data_ptr(),
            )
        if self._on.type == "cuda":  # it computes in a stream of its own, and waits for it
            torch.cuda.current_stream(images.device).synchronize()
        self._session.run_with_iobinding(binding)
        return logits

    def _count_classes(self, file: OnnxFile) -> int:
        """Runs zeros: what comes out must be a row of logits an image."""
        expected, count = file.expected, self.batch_size or 2
        shape = (count, 3, expected.height_px, expected.width_px)
        if self._channels_last:
            shape = (count, *shape[2:], 3)
        (logits,) = self._session.run(
            [self._output_name], {self._input_name: np.zeros(shape, np.float32)}
        )
        if logits.ndim != 2 or len(logits) != count or not logits.shape[1]:
            found = " × ".join(map(str, logits.shape))
            raise ValueError(f"for {count} images its output is {found}, not a row of logits each")
        return int(logits.shape[1])


def reason_of(error: Exception) -> str:
    """What ONNX Runtime says, without its codes and the places in its source."""
    text = str(error).split("] : ", 1)[-1].split(" : ", 2)[-1]
    return next(iter(text.strip().splitlines()), type(error).__name__)[:_MOST_REASON]


def _expect_one_distribution() -> None:
    """Two distributions of ONNX Runtime overwrite each other's files.

    Raises:
        BadOnnx: Both are installed.
    """
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(found) > 1:
        raise BadOnnx(
            f"cannot be run: {' and '.join(found)} are installed side by side and overwrite each "
            "other; uninstall both, then install onnxruntime-gpu alone"
        )
