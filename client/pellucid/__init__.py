"""The client of Pellucid, which serves vision networks and explains their answers.

with pellucid.Client("localhost:8001") as client:
    print(client.predict("cat.jpg").top)
    client.explain("cat.jpg", "guided_backprop").save("cat-why.jpg")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adversarial import (
        Adversarial,
        Attacked,
        LinearEffect,
        LinearView,
        TransferScore,
    )
    from .aio import AsyncClient
    from .client import Client
    from .compare import Compared, Comparison
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
    from .optimizing import (
        AsyncOptimization,
        Checkpoint,
        Code,
        Direction,
        Diversity,
        Energy,
        Guide,
        Objective,
        Objectives,
        Optimization,
        OptimizedImage,
        OptimizeResult,
        Preview,
        Progress,
        Queued,
        ScoreSpread,
    )
    from .stylizing import AsyncStylization, StyleProgress, Stylization, Stylized
    from .types import (
        AgreementResult,
        Baseline,
        Batch,
        BatchCost,
        Box,
        CascadeResult,
        CascadeStage,
        CompletenessResult,
        Convergence,
        Curve,
        CurvesResult,
        Evidence,
        EvidenceResult,
        Explain,
        ExplainResult,
        Layer,
        MapWarning,
        MethodAgreement,
        MethodSupport,
        Model,
        ModelSummary,
        Neuron,
        OcclusionDetails,
        Onnx,
        Photo,
        Prediction,
        PredictResult,
        Preprocessing,
        RandomizationResult,
        Receipt,
        Replay,
        ResolvedTarget,
        Run,
        SegmentDetails,
        StabilityResult,
        Target,
        Until,
    )
    from .universal import PhotoOutcome, Universal

__all__ = [
    "Aborted",
    "Adversarial",
    "AgreementResult",
    "AlreadyExists",
    "AsyncClient",
    "AsyncOptimization",
    "AsyncStylization",
    "Attacked",
    "BadArgument",
    "Baseline",
    "Batch",
    "BatchCost",
    "Box",
    "Cancelled",
    "CascadeResult",
    "CascadeStage",
    "Checkpoint",
    "Client",
    "Code",
    "Compared",
    "Comparison",
    "CompletenessResult",
    "Convergence",
    "Curve",
    "CurvesResult",
    "DataLoss",
    "DeadlineExceeded",
    "Direction",
    "Diversity",
    "Energy",
    "Evidence",
    "EvidenceResult",
    "Explain",
    "ExplainResult",
    "FailedPrecondition",
    "Guide",
    "Internal",
    "InvalidArgument",
    "Layer",
    "LinearEffect",
    "LinearView",
    "MapWarning",
    "MethodAgreement",
    "MethodSupport",
    "Model",
    "ModelSummary",
    "Neuron",
    "NotFound",
    "NotRequested",
    "Objective",
    "Objectives",
    "OcclusionDetails",
    "Onnx",
    "Optimization",
    "OptimizeResult",
    "OptimizedImage",
    "OutOfRange",
    "PellucidError",
    "PermissionDenied",
    "Photo",
    "PhotoNotFound",
    "PhotoOutcome",
    "PredictResult",
    "Prediction",
    "Preprocessing",
    "Preview",
    "Progress",
    "Queued",
    "RandomizationResult",
    "Receipt",
    "Replay",
    "ResolvedTarget",
    "ResourceExhausted",
    "Run",
    "ScoreSpread",
    "SegmentDetails",
    "StabilityResult",
    "StatusError",
    "StyleProgress",
    "Stylization",
    "Stylized",
    "Target",
    "TransferScore",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Universal",
    "Unknown",
    "Until",
    "Violation",
]

__version__ = version("pellucid")


_HOMES = (
    *("errors", "types", "adversarial", "optimizing", "stylizing"),
    *("compare", "client", "aio"),
)
"""The modules that the names above are in."""


def __getattr__(name: str) -> Any:
    # The command line and the server import this package too, and need no gRPC of it.
    if name in __all__:
        for home in (
            "errors",
            "types",
            "adversarial",
            "optimizing",
            "stylizing",
            "universal",
            "compare",
            "client",
            "aio",
        ):
            members = vars(import_module(f".{home}", __name__))
            if name in members:
                return members[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
