"""Between protobuf messages and what the server works with: Spec in, results out."""

from .checkpoints import Collector, write_checkpoint
from .embed import AskedEmbed, Code, read_embed, write_code, write_embed
from .fast import read_fast, write_fast, write_styles
from .inspect import AskedInspect, read_inspect, write_inspect
from .optimize import AskedOptimize, read_optimize, write_optimize, write_queued
from .requests import (
    METHODS,
    MOST_IMAGES,
    Asked,
    Call,
    Limits,
    View,
    read_explain,
    read_explain_batch,
    read_predict,
    read_predict_batch,
)
from .responses import (
    write_error,
    write_explain,
    write_explain_batch,
    write_model,
    write_models,
    write_predict,
    write_predict_batch,
)
from .stylize import AskedStylize, read_stylize, write_stylize, write_stylize_queued
from .universal import MOST_PHOTOS

__all__ = [
    "METHODS",
    "MOST_IMAGES",
    "MOST_PHOTOS",
    "Asked",
    "AskedEmbed",
    "AskedInspect",
    "AskedOptimize",
    "AskedStylize",
    "Call",
    "Code",
    "Collector",
    "Limits",
    "View",
    "read_embed",
    "read_explain",
    "read_explain_batch",
    "read_fast",
    "read_inspect",
    "read_optimize",
    "read_predict",
    "read_predict_batch",
    "read_stylize",
    "write_checkpoint",
    "write_code",
    "write_embed",
    "write_error",
    "write_explain",
    "write_explain_batch",
    "write_fast",
    "write_inspect",
    "write_model",
    "write_models",
    "write_optimize",
    "write_predict",
    "write_predict_batch",
    "write_queued",
    "write_styles",
    "write_stylize",
    "write_stylize_queued",
]
