"""What is told of the server and its models: as plain values, which both faces write."""

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.v1 import model_pb2

from ...models.registry import Model
from ...observe import Counts, Total
from ...versions import VERSIONS
from ...wire import MOST_IMAGES
from .requests import INPUTS, OUTPUTS, Port

PLATFORM = "pellucid"

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)
NO_LOADING = "models are loaded when the server starts: change its settings and start it again"

_TYPES = {"FP32": "TYPE_FP32", "UINT8": "TYPE_UINT8", "BYTES": "TYPE_STRING"}


def server_metadata() -> dict[str, Any]:
    return {
        "name": "pellucid",
        "version": VERSIONS["pellucid"],
        "extensions": list(EXTENSIONS),
    }


def model_metadata(model: Model) -> dict[str, Any]:
    def tensors(ports: Mapping[str, Port]) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": port.datatype, "shape": _shape(name, port, model)}
            for name, port in ports.items()
        ]

    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": tensors(INPUTS),
        "outputs": tensors(OUTPUTS),
    }


def model_config(model: Model) -> dict[str, Any]:
    def tensor(name: str, port: Port) -> dict[str, Any]:
        _, *dims = _shape(name, port, model)
        return {"name": name, "data_type": _TYPES[port.datatype], "dims": dims}

    # The first input is what a load generator makes up; the others stand in for it.
    first = next(iter(INPUTS))
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": MOST_IMAGES,
        "input": [tensor(n, port) | {"optional": n != first} for n, port in INPUTS.items()],
        "output": [tensor(name, port) for name, port in OUTPUTS.items()],
        "model_transaction_policy": {"decoupled": False},
    }


def model_statistics(model: Model, counts: Counts) -> dict[str, Any]:
    batches = sorted(counts.batches.items())
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": counts.last_success_ms,
        "inference_count": counts.success.count,
        "execution_count": sum(total.count for _, total in batches),
        "inference_stats": {
            "success": _duration(counts.success),
            "fail": _duration(counts.fail),
            "queue": _duration(counts.queue),
            "compute_input": _duration(counts.decode),
            "compute_infer": _duration(counts.compute),
        },
        "batch_stats": [
            {"batch_size": bucket_size, "compute_infer": _duration(total)}
            for bucket_size, total in batches
        ],
    }


def index(models: Sequence[model_pb2.ModelSummary], *, ready: bool) -> list[dict[str, Any]]:
    """Each model.

    Args:
        models: All of them.
        ready: Whether only those are wanted that answer requests.
    """
    return [
        {
            "name": model.name,
            "version": model.version,
            "state": "READY" if model.ready else "UNAVAILABLE",
            "reason": model.reason,
        }
        for model in models
        if model.ready or not ready
    ]


def _shape(name: str, port: Port, model: Model) -> list[int]:
    """Length of each axis of a tensor of a model; -1 where it varies."""
    known = {"classes": model.network.class_count}
    if name in ("input", "explanation"):
        known |= {"height": model.network.height_px, "width": model.network.width_px}
    return [axis if isinstance(axis, int) else known.get(axis, -1) for axis in port.axes]


def _duration(total: Total) -> dict[str, int]:
    return {"count": total.count, "ns": round(total.seconds * 1e9)}
