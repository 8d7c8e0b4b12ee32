"""Between protobuf messages and what the server works with: Spec in, results out."""

from .checkpoints import Collector, write_checkpoint
from .embed import AskedEmbed, Code, read_embed, write_code, write_embed
from .events import write_optimize, write_queued
from .failures import write_error
from .fast import read_fast, write_fast, write_styles
from .index import read_similar, read_top_patches, write_similar, write_top_patches
from .inspect import AskedInspect, read_inspect, write_inspect
from .limits import Call, Limits
from .models import write_model, write_models
from .optimize import AskedOptimize, read_optimize
from .project import (
    AskedProject,
    Embeddings,
    Problem,
    check_next,
    code_of,
    parts_of,
    read_codes,
    read_photo,
    read_problem,
    read_project,
    write_progress,
    write_project,
)
from .requests import (
    METHODS,
    MOST_IMAGES,
    Asked,
    View,
    read_explain,
    read_explain_batch,
    read_predict,
    read_predict_batch,
)
from .responses import (
    write_explain,
    write_explain_batch,
    write_predict,
    write_predict_batch,
)
from .stylize import AskedStylize, read_stylize, write_stylize, write_stylize_queued
from .universal import MOST_PHOTOS
from .video import (
    AskedVideo,
    FrameReader,
    code_spec,
    named_code,
    read_video,
    write_failed,
    write_frame,
    write_started,
)

__all__ = [
    "METHODS",
    "MOST_IMAGES",
    "MOST_PHOTOS",
    "Asked",
    "AskedEmbed",
    "AskedInspect",
    "AskedOptimize",
    "AskedProject",
    "AskedStylize",
    "AskedVideo",
    "Call",
    "Code",
    "Collector",
    "Embeddings",
    "FrameReader",
    "Limits",
    "Problem",
    "View",
    "check_next",
    "code_of",
    "code_spec",
    "named_code",
    "parts_of",
    "read_codes",
    "read_embed",
    "read_explain",
    "read_explain_batch",
    "read_fast",
    "read_inspect",
    "read_optimize",
    "read_photo",
    "read_predict",
    "read_predict_batch",
    "read_problem",
    "read_project",
    "read_similar",
    "read_stylize",
    "read_top_patches",
    "read_video",
    "write_checkpoint",
    "write_code",
    "write_embed",
    "write_error",
    "write_explain",
    "write_explain_batch",
    "write_failed",
    "write_fast",
    "write_frame",
    "write_inspect",
    "write_model",
    "write_models",
    "write_optimize",
    "write_predict",
    "write_predict_batch",
    "write_progress",
    "write_project",
    "write_queued",
    "write_similar",
    "write_started",
    "write_styles",
    "write_stylize",
    "write_stylize_queued",
    "write_top_patches",
]
