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
        Batch,
        BatchCost,
        Box,
        Deconvnet,
        ExplainResult,
        Gradient,
        GuidedBackprop,
        Layer,
        Method,
        MethodSupport,
        Model,
        ModelSummary,
        Neuron,
        Occlusion,
        OcclusionDetails,
        Photo,
        Prediction,
        PredictResult,
        Preprocessing,
        ResolvedTarget,
        Run,
    )

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "BadArgument",
    "Batch",
    "BatchCost",
    "Box",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "Deconvnet",
    "ExplainResult",
    "FailedPrecondition",
    "Gradient",
    "GuidedBackprop",
    "Internal",
    "InvalidArgument",
    "Layer",
    "Method",
    "MethodSupport",
    "Model",
    "ModelSummary",
    "Neuron",
    "NotFound",
    "NotRequested",
    "Occlusion",
    "OcclusionDetails",
    "OutOfRange",
    "PellucidError",
    "PermissionDenied",
    "Photo",
    "PhotoNotFound",
    "PredictResult",
    "Prediction",
    "Preprocessing",
    "ResolvedTarget",
    "ResourceExhausted",
    "Run",
    "StatusError",
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
