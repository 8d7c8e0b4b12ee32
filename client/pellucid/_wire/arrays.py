"""Tensors of the contract as arrays."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..v1 import data_pb2

DTYPES = {
    data_pb2.DATA_TYPE_UINT8: "u1",
    data_pb2.DATA_TYPE_FLOAT32: "<f4",
    data_pb2.DATA_TYPE_FLOAT64: "<f8",
    data_pb2.DATA_TYPE_INT64: "<i8",
    data_pb2.DATA_TYPE_FLOAT16: "<f2",
}


def array_of(tensor: data_pb2.Tensor) -> NDArray[Any]:
    """A read-only view of the tensor's bytes."""
    return np.frombuffer(tensor.data, DTYPES[tensor.data_type]).reshape(tensor.shape)


def doubles_of(values: Iterable[float]) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    array.flags.writeable = False
    return array
