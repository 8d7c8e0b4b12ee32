"""The client of Pellucid, which serves vision networks and explains their answers.

with pellucid.Client("localhost:8001") as client:
    print(client.predict("cat.jpg").top)
    client.explain("cat.jpg", "guided_backprop").save("cat-why.jpg")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio import AsyncClient
    from .client import Client
    from .errors import (
        Aborted,
        AlreadyExists,
        BadArgument,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        NotRequested,
        OutOfRange,
        PellucidError,
        PermissionDenied,
        PhotoNotFound,
        ResourceExhausted,
        StatusError,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Unknown,
        Violation,
    )
    from .types import (
        Baseline,
        Batch,
        BatchCost,
        Box,
        ExplainResult,
        Layer,
        MapWarning,
        MethodSupport,
        Model,
        ModelSummary,
        Neuron,
        OcclusionDetails,
        Photo,
        Prediction,
        PredictResult,
        Preprocessing,
        Receipt,
        Replay,
        ResolvedTarget,
        Run,
        SegmentDetails,
        Target,
    )

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "BadArgument",
    "Baseline",
    "Batch",
    "BatchCost",
    "Box",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "ExplainResult",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Layer",
    "MapWarning",
    "MethodSupport",
    "Model",
    "ModelSummary",
    "Neuron",
    "NotFound",
    "NotRequested",
    "OcclusionDetails",
    "OutOfRange",
    "PellucidError",
    "PermissionDenied",
    "Photo",
    "PhotoNotFound",
    "PredictResult",
    "Prediction",
    "Preprocessing",
    "Receipt",
    "Replay",
    "ResolvedTarget",
    "ResourceExhausted",
    "Run",
    "SegmentDetails",
    "StatusError",
    "Target",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Violation",
]

__version__ = version("pellucid")


def __getattr__(name: str) -> Any:
    # The command line and the server import this package too, and need no gRPC of it.
    if name in __all__:
        for home in ("errors", "types", "client", "aio"):
            members = vars(import_module(f".{home}", __name__))
            if name in members:
                return members[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
