"""What goes into a call besides numbers and strings, and what comes out of it."""

from .explanations import (
    Box,
    Convergence,
    ExplainResult,
    MapWarning,
    OcclusionDetails,
    ResolvedTarget,
    SegmentDetails,
)
from .files import FORMATS, format_of, opened
from .measures import (
    AgreementResult,
    CascadeResult,
    CascadeStage,
    CompletenessResult,
    Curve,
    CurvesResult,
    EvidenceResult,
    MethodAgreement,
    RandomizationResult,
    StabilityResult,
)
from .models import BatchCost, Layer, MethodSupport, Model, ModelSummary, Onnx
from .predictions import Prediction, PredictResult
from .questions import Baseline, Evidence, Explain, Neuron, Photo, Target, Until
from .receipts import Receipt, Replay
from .runs import Batch, Preprocessing, Run

__all__ = [
    "FORMATS",
    "AgreementResult",
    "Baseline",
    "Batch",
    "BatchCost",
    "Box",
    "CascadeResult",
    "CascadeStage",
    "CompletenessResult",
    "Convergence",
    "Curve",
    "CurvesResult",
    "Evidence",
    "EvidenceResult",
    "Explain",
    "ExplainResult",
    "Layer",
    "MapWarning",
    "MethodAgreement",
    "MethodSupport",
    "Model",
    "ModelSummary",
    "Neuron",
    "OcclusionDetails",
    "Onnx",
    "Photo",
    "PredictResult",
    "Prediction",
    "Preprocessing",
    "RandomizationResult",
    "Receipt",
    "Replay",
    "ResolvedTarget",
    "Run",
    "SegmentDetails",
    "StabilityResult",
    "Target",
    "Until",
    "format_of",
    "opened",
]
