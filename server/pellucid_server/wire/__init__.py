"""Between protobuf messages and what the server works with: Spec in, results out."""

from .requests import METHODS, Call, Limits, View, read_explain, read_predict
from .responses import write_error, write_explain, write_model, write_models, write_predict

__all__ = [
    "METHODS",
    "Call",
    "Limits",
    "View",
    "read_explain",
    "read_predict",
    "write_error",
    "write_explain",
    "write_model",
    "write_models",
    "write_predict",
]
