"""Between Python arguments and the messages of maps: the core that both clients share."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import maps
from ._wire.arrays import array_of
from ._wire.fields import check_names, parameters_of, parse, read, set_fields
from ._wire.photos import image_of, listed
from ._wire.responses import run_of
from .errors import BadArgument, PellucidError
from .v1 import codes_pb2, data_pb2

METHODS = ("t_sne", "umap", "pca")

_CHUNK_BYTES = 1 << 20


class Course:
    """What is sent for one map, read as it is sent, and what comes back.

    Args:
        items: Photos, or codes.
        method: Which.
        onto: A map that they are placed on; None: they make one.
        options: Fields of the contract's ProjectSpec.
        parameters: Fields of the method's message.

    Attributes:
        failure: What went wrong in reading a photo.

    Raises:
        BadArgument: An argument is of no use.
    """

    def __init__(
        self,
        items: "maps.Many",
        method: str,
        onto: "maps.Onto | None",
        options: Mapping[str, Any],
        parameters: Mapping[str, Any],
    ) -> None:
        if method not in METHODS:
            raise BadArgument(f"method: is {method!r}; must be {', '.join(METHODS)}")
        self._spec = codes_pb2.ProjectSpec()
        set_fields(self._spec, **options)
        message = getattr(self._spec, method)
        check_names(method, message, parameters)
        message.SetInParent()
        set_fields(message, **parameters)
        self._codes: list[NDArray[np.floating]] = []
        self._photos: list[Any] = []
        if onto is not None:
            codes, points = (onto.codes, onto.points) if isinstance(onto, maps.SavedMap) else onto
            self._codes.append(_checked(codes))
            set_fields(self._spec, map=_plane(points))
        if isinstance(items, np.ndarray):
            self._codes.append(_checked(items))
        else:
            self._photos = listed(items)
        widths = [part.shape[1] for part in self._codes]
        if len(set(widths)) > 1:
            was, now = widths
            raise BadArgument(f"codes: have {now} numbers each; the map's have {was}")
        self.failure: PellucidError | None = None

    def __iter__(self) -> Iterator[codes_pb2.ProjectRequest]:
        """The messages; they end early where a photo cannot be read."""
        yield codes_pb2.ProjectRequest(spec=self._spec)
        for codes in self._codes:
            rows = max(1, _CHUNK_BYTES // max(1, codes[:1].nbytes))
            for start in range(0, len(codes), rows):
                yield codes_pb2.ProjectRequest(codes=_tensor(codes[start : start + rows]))
        for photo in self._photos:
            try:
                image = image_of(photo)
            except PellucidError as error:
                self.failure = error
                raise
            yield codes_pb2.ProjectRequest(image=image)


def event(response: codes_pb2.ProjectResponse) -> Any:
    """An event of a stream, or its result; None: of a kind that came later than this client."""
    match response.WhichOneof("event"):
        case "progress":
            return read(maps.MapProgress, response.progress)
        case "result":
            return _result(response.result)
    return None


def _result(message: codes_pb2.ProjectResult) -> "maps.CodeMap":
    rows, columns = message.grid_shape or (0, 0)
    return maps.CodeMap(
        points=array_of(message.points),
        places=array_of(message.places) if message.HasField("places") else None,
        grid_shape=(rows, columns),
        codes=array_of(message.codes) if message.HasField("codes") else None,
        parameters=_parameters(message.spec),
        kept_variance=message.kept_variance,
        divergence=message.divergence,
        notes=tuple(message.notes),
        run=run_of(message.run) if message.HasField("run") else None,
    )


def _parameters(spec: codes_pb2.ProjectSpec) -> dict[str, Any]:
    """Those of the method beside all others, as they are given."""
    method = spec.WhichOneof("method") or ""
    made = {name: value for name, value in parameters_of(spec).items() if name != method}
    return {"method": method, **made, **parameters_of(getattr(spec, method))}


def _checked(codes: Any) -> NDArray[np.floating]:
    """Codes as they are sent: float16 stays, all others become float32."""
    array = np.asarray(codes)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        shape = " × ".join(map(str, array.shape)) or "without axes"
        raise BadArgument(
            f"codes: are {array.dtype.name} {shape}; must be numbers, codes × numbers"
        )
    kind = np.dtype("<f2") if array.dtype == np.float16 else np.dtype("<f4")
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        raise BadArgument(f"codes: row {bad[0]} is not finite; all numbers must be")
    return np.ascontiguousarray(array, kind)


def _plane(points: Any) -> NDArray[np.float32]:
    array = np.asarray(points, np.float32)
    if array.ndim != 2 or array.shape[1] != 2:
        shape = " × ".join(map(str, array.shape)) or "a scalar"
        raise BadArgument(f"onto: its points are {shape}; must be points × 2")
    return array


def _tensor(codes: NDArray[np.floating]) -> data_pb2.Tensor:
    half = codes.dtype == np.float16
    kind = data_pb2.DATA_TYPE_FLOAT16 if half else data_pb2.DATA_TYPE_FLOAT32
    return data_pb2.Tensor(data_type=kind, shape=codes.shape, data=codes.tobytes())


def parameters(method: str) -> dict[str, Callable[[str], Any]]:
    """What reads each of a method's parameters from a text."""
    fields = getattr(codes_pb2.ProjectSpec(), method).DESCRIPTOR.fields_by_name
    return {name: functools.partial(parse, name, field) for name, field in fields.items()}
