"""Maps: specs from requests, photos and codes as they come, results to responses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pellucid.v1 import codes_pb2, data_pb2, inference_pb2

from ..engine.job import Done, Priority, Spec
from ..engine.rows import TopTarget
from ..errors import InvalidArgument, Violation
from ..methods.inspect.embed import Embed, code_length, default_layer
from ..methods.parameters import MOST_SEED
from ..models.network import PENULTIMATE
from ..models.registry import Model, Registry
from ..projection.plan import Method, Pca, Placing, Plan, Progress, TSne, Umap
from ..projection.result import Map
from .fields import (
    Fields,
    Violations,
    find_layer,
    number_of,
    outside,
    read_plain,
    read_tensor,
    times,
    why_not,
    write_parameters,
    write_tensor,
)
from .images import read_image
from .limits import Call, Limits
from .requests import find_model
from .responses import write_run

MOST_POINTS = 20_000
MOST_PLACES = 2_000
"""Of a grid: an assignment takes the third power of them, about ten seconds of so many."""

_MOST_COMPONENTS = 1000
_OF_PHOTOS = ("model", "layer", "pooling")
_METHODS: dict[str, type[Method]] = {kind.name: kind for kind in (TSne, Umap, Pca)}

Codes = NDArray[np.float32]


@dataclass(frozen=True)
class AskedProject:
    """A validated spec, before photos and codes are there.

    Attributes:
        model: Of photos.
        embed: How photos become codes; None where they cannot, or need not.
        map: n×2: the points of a map that there is, whose codes come first.
        of_photos: The fields that were set which are for photos.
    """

    plan: Plan
    model: Model
    embed: Embed | None
    map: NDArray[np.float64] | None
    of_photos: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """What a process is to solve: the arguments of projection.solve.project.

    Attributes:
        codes: n×D, all different.
        which: Of each point, which of the codes it has.
        plan: With everything filled in.
        reference: Of a map: its codes, all different, and its points.
        notes: What is worth knowing.
    """

    codes: Codes
    which: NDArray[np.int64]
    plan: Plan
    reference: tuple[Codes, NDArray[np.float64]] | None
    notes: tuple[str, ...]


def read_project(request: codes_pb2.ProjectSpec, registry: Registry) -> AskedProject:
    """A ProjectSpec, but for its photos and codes.

    Raises:
        InvalidArgument, NotFound: With every violation.
    """
    found = Violations()
    fields = Fields(found, "", request)
    model = find_model(found, request.model, registry)
    name = request.WhichOneof("method") or TSne.name
    method = _read_method(found, request, name)
    components = fields.number("component_count", None, 0, _MOST_COMPONENTS)
    if components == 1:
        fields.invalid("component_count", f"is 1; must be 2 to {_MOST_COMPONENTS}, or 0")
    metric = fields.choice("metric", "euclidean")
    if name == Pca.name:
        if components is not None:
            fields.invalid("component_count", "is not for pca, which has two")
        if metric == "manhattan":
            fields.invalid("metric", "METRIC_MANHATTAN is not for pca")
    seed = fields.number("seed", 0, 0, MOST_SEED)
    of_map = _read_map(found, request, name) if request.HasField("map") else None
    if len(request.photos) and request.HasField("codes"):
        found.invalid("codes", "given beside photos; only one may be")
    embed = None if model is None else _read_embed(found, request, model)
    found.raise_any()
    assert method is not None
    assert model is not None
    given = tuple(field for field in _OF_PHOTOS if getattr(request, field))
    plan = Plan(method, components, metric, seed, request.grid)
    return AskedProject(plan, model, embed, of_map, given)


def _read_method(found: Violations, request: codes_pb2.ProjectSpec, name: str) -> Method | None:
    message = getattr(request, name)
    if not (name == TSne.name and request.HasField("map")):
        return read_plain(found, name, message, _METHODS[name])
    for field, _ in message.ListFields():
        if field.name not in Placing.__dataclass_fields__:
            found.invalid(f"{name}.{field.name}", "is not for placing points on a map")
    return read_plain(found, name, message, Placing)


def _read_map(
    found: Violations, request: codes_pb2.ProjectSpec, method: str
) -> NDArray[np.float64] | None:
    array = read_tensor(found, "map", request.map)
    if array is None:
        return None
    if method == Umap.name:
        found.invalid("map", "is not for umap, which places nothing")
    if array.dtype != np.float32:
        found.invalid("map.data_type", f"is {array.dtype.name}; must be float32")
    elif array.ndim != 2 or array.shape[1] != 2:
        found.invalid("map.shape", f"is {times(array.shape)}; must be points × 2")
    elif (bad := _first_bad(array)) is not None:
        found.invalid("map.data", f"row {bad} is not finite")
    elif len(array) > MOST_POINTS:
        found.invalid("map.shape", f"has {len(array)} points; at most {MOST_POINTS}")
    else:
        return array.astype(np.float64)
    return None


def _read_embed(found: Violations, request: codes_pb2.ProjectSpec, model: Model) -> Embed | None:
    """How photos become codes; None where something is wrong, or the model cannot."""
    network, name = model.network, request.layer
    pooling: Any = Fields(found, "", request).choice("pooling", "mean")
    if not name or (name == PENULTIMATE and network.classifier is not None):
        if network.white_box_refusal is not None:
            return None
        return Embed(default_layer(network), pooling, Priority.OPTIMIZE)
    layer = find_layer(found, "layer", name, model)
    if layer is not None and not layer.targetable:
        found.refused("layer", f"{layer.name} has no codes: {why_not(layer)}")
    return Embed(name, pooling, Priority.OPTIMIZE)


def parts_of(request: codes_pb2.ProjectSpec) -> Iterator[codes_pb2.ProjectRequest]:
    """The photos and codes that came with a spec, as if they followed it; it is left without."""
    for image in request.photos:
        yield codes_pb2.ProjectRequest(image=image)
    if request.HasField("codes"):
        yield codes_pb2.ProjectRequest(codes=request.codes)
    for field in ("photos", "codes", "map"):
        request.ClearField(field)


def check_next(
    asked: AskedProject,
    part: codes_pb2.ProjectRequest,
    count: int,
    width: int,
    of_photos: bool,
    limits: Limits,
) -> None:
    """Refuses what may not come next, before it is read.

    Args:
        asked: What is asked.
        part: What comes.
        count: Points that there are already.
        width: Numbers in a code; 0: not known yet.
        of_photos: Whether the points before are photos.
        limits: The server's.

    Raises:
        InvalidArgument, FailedPrecondition: It is of another kind than those before, there are too
            many of them, or photos make no codes here.
    """
    found, kind = Violations(), part.WhichOneof("part")
    if kind not in ("image", "codes"):
        found.invalid(kind or "part", "only the first message has a spec; an image or codes follow")
    elif count and of_photos != (kind == "image") and (of_photos or asked.map is None):
        before = "photos" if of_photos else "codes, and no map has them"
        found.invalid(kind, f"must not come after {before}")
    elif kind == "image" and asked.embed is None:
        found.refused("photos", asked.model.network.white_box_refusal or "make no codes here")
    elif kind == "codes" and asked.map is None:
        for field in asked.of_photos:
            found.invalid(field, "is for photos; these codes come from elsewhere")
    found.raise_any()
    more, field = 1, "photos"
    if kind == "image":
        assert asked.embed is not None
        length = code_length(asked.model.network, asked.embed.layer, asked.embed.pooling)
        if width and width != length:
            why = f"make codes of {length} numbers by {asked.embed.layer}; the map's have {width}"
            raise _invalid(field, why)
        width = length
    else:
        more, field = (*part.codes.shape, 0)[0], "codes"
    if count + more > MOST_POINTS:
        found.invalid(field, f"are {count + more}; at most {MOST_POINTS}")
    elif 4 * width * (count + more) > limits.max_photo_set_bytes:
        found.invalid(
            field,
            f"make {count + more} codes of {width} numbers, which take more than "
            f"{limits.max_photo_set_bytes} bytes",
        )
    found.raise_any()


def read_photo(
    asked: AskedProject, number: int, image: data_pb2.Image, call: Call, limits: Limits
) -> Spec:
    """What makes a code of a photo, which is named by its number among the photos.

    Raises:
        InvalidArgument: With every violation.
    """
    found = Violations()
    source = read_image(found, image, asked.model, limits, None, f"photos[{number}]")
    found.raise_any()
    assert source is not None
    assert asked.embed is not None
    return Spec(asked.model, asked.embed, source, TopTarget(), call.deadline_s, call.caller)


def read_codes(tensor: data_pb2.Tensor, count: int, width: int) -> Codes:
    """The next codes, n×D.

    Args:
        tensor: They.
        count: Codes that there are already.
        width: Numbers in each of them; 0: there is none.

    Raises:
        InvalidArgument: With every violation.
    """
    found = Violations()
    array = read_tensor(found, "codes", tensor)
    if array is not None and array.dtype not in (np.float32, np.float16):
        found.invalid("codes.data_type", f"is {array.dtype.name}; must be float32 or float16")
    elif array is not None and array.ndim != 2:
        found.invalid("codes.shape", f"is {times(array.shape)}; must be codes × numbers")
    elif array is not None and width and array.shape[1] != width:
        found.invalid(
            "codes.shape",
            f"is {times(array.shape)}; must be codes × {width}, as the ones before",
        )
    elif array is not None and (bad := _first_bad(array)) is not None:
        found.invalid("codes.data", f"row {count + bad} is not finite; all numbers must be")
    found.raise_any()
    assert array is not None
    return array.astype(np.float32)


def _first_bad(array: NDArray[Any]) -> int | None:
    """The first row that is not finite."""
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    return int(bad[0]) if len(bad) else None


def code_of(done: Done) -> Codes:
    """The code that came of a photo, 1×D."""
    code: torch.Tensor = done.result.code
    return code.float().numpy()[None]


def read_problem(asked: AskedProject, parts: Sequence[Codes], *, of_photos: bool) -> Problem:
    """What is to be solved, once all codes are there.

    Raises:
        InvalidArgument: With everything in which the set and the spec do not fit.
    """
    found, what = Violations(), "photos" if of_photos else "codes"
    plan, old = asked.plan, 0 if asked.map is None else len(asked.map)
    count = sum(map(len, parts))
    if count == 0:
        raise _invalid(what if of_photos else "photos", "required; or codes")
    codes = np.concatenate(parts) + np.float32(0)  # -0 equals 0, and its bits do, too
    if plan.metric == "cosine":
        codes = _of_length_one(codes, what)
    if count <= old:
        why = f"are {count}, and the map has {old} points, whose codes come first: none is new"
        raise _invalid(what, why)
    if plan.grid and count - old > MOST_PLACES:
        found.invalid("grid", f"is for at most {MOST_PLACES} points; there are {count - old}")
    axes = codes[:old] if old else codes
    of_axes, first = _distinct(axes)
    different = len(first)
    notes: list[str] = []
    if different < len(axes):
        beside = " of the map" if old else ""
        notes.append(
            f"{len(axes) - different} of {len(axes)} codes{beside} equal another one: equal codes "
            "share a point"
        )
    least = plan.method.least_points
    if different < least:
        raise _invalid("map" if old else what, _too_few(plan, len(axes), different, least))
    filled = plan.filled(different, codes.shape[1])
    most = min(different, codes.shape[1])
    if (plan.component_count or 0) > most:
        why = f"{outside(plan.component_count or 0, 2, most)}: of codes and numbers the fewer"
        found.invalid("component_count", why)
    rows = len(codes) if old else different
    for field, why in plan.method.refusals(different, rows).items():
        found.invalid(f"{plan.method.name}.{field}", why)
    found.raise_any()
    if asked.map is None:
        return Problem(codes[first], of_axes, filled, None, tuple(notes))
    points = np.zeros((different, 2))
    np.add.at(points, of_axes, asked.map)
    points /= np.bincount(of_axes)[:, None]
    new = codes[old:]
    return Problem(new, np.arange(len(new)), filled, (codes[:old][first], points), tuple(notes))


def _too_few(plan: Plan, count: int, different: int, least: int) -> str:
    name = plan.method.name
    if count == 1:
        return f"is 1: there is no map to make; {name} needs at least {least}"
    if different == 1:
        return f"are {count}, and all codes are equal: there is no map to make"
    equal = "" if different == count else f", with {different} different codes"
    return f"are {count}{equal}; {name} needs at least {least}"


def _of_length_one(codes: Codes, what: str) -> Codes:
    lengths = np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    zeros = np.flatnonzero(lengths == 0)
    if len(zeros):
        why = f"{what}: code {zeros[0]} is 0, which has no direction to compare"
        raise _invalid("metric", f"METRIC_COSINE is not for these {why}")
    made: Codes = (codes / lengths).astype(np.float32)
    return made


def _distinct(codes: Codes) -> tuple[NDArray[np.int64], list[int]]:
    """Of each code which of the different ones it is, and where each of these is met first."""
    numbers: dict[bytes, int] = {}
    which = [numbers.setdefault(row.tobytes(), len(numbers)) for row in codes]
    first: list[int] = []
    for place, number in enumerate(which):
        if number == len(first):
            first.append(place)
    return np.array(which, np.int64), first


def _invalid(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {why}", violations=[Violation(field, why)])


# Responses.


def write_progress(progress: Progress) -> codes_pb2.ProjectResponse:
    return codes_pb2.ProjectResponse(
        progress=codes_pb2.ProjectProgress(
            stage=progress.stage,
            step=progress.step,
            step_count=progress.step_count,
            divergence=progress.divergence,
        )
    )


@dataclass(frozen=True)
class Embeddings:
    """What photos became.

    Attributes:
        codes: n×D.
        done: One of their jobs, and of all of them the longest times, in milliseconds.
    """

    codes: Codes
    spec: Spec
    done: Done
    decode_ms: float
    queue_ms: float
    run_ms: float


def write_project(
    asked: AskedProject,
    problem: Problem,
    result: Map,
    embedded: Embeddings | None,
    most_bytes: int,
) -> codes_pb2.ProjectResponse:
    """A map.

    Args:
        asked: What was asked.
        problem: What was solved.
        result: What came of it.
        embedded: Of photos.
        most_bytes: Of a response.
    """
    notes = list(problem.notes)
    if problem.reference is not None and result.fit < _GOOD_FIT:
        notes.append(
            f"the map is not one of these codes' two first principal components: they explain "
            f"{result.fit:.0%} of it"
        )
    made = codes_pb2.ProjectResult(
        points=write_tensor(torch.from_numpy(result.points)),
        grid_shape=result.grid_shape if problem.plan.grid else (),
        spec=_write_spec(asked, problem.plan, of_photos=embedded is not None),
        kept_variance=result.kept_variance,
        divergence=result.divergence,
    )
    if result.places is not None:
        made.places.CopyFrom(write_tensor(torch.from_numpy(result.places)))
    if embedded is not None:
        made.run.CopyFrom(_write_run(embedded))
        if made.ByteSize() + embedded.codes.nbytes + _BESIDE_BYTES <= most_bytes:
            made.codes.CopyFrom(write_tensor(torch.from_numpy(embedded.codes)))
        else:
            notes.append(
                f"the codes take {embedded.codes.nbytes} bytes, which is more than is sent: they "
                "are left out"
            )
    made.notes.extend(notes)
    return codes_pb2.ProjectResponse(result=made)


_GOOD_FIT = 0.99
_BESIDE_BYTES = 4 << 10


def _write_spec(asked: AskedProject, plan: Plan, *, of_photos: bool) -> codes_pb2.ProjectSpec:
    metric = number_of(codes_pb2.Metric.DESCRIPTOR, plan.metric)
    made = codes_pb2.ProjectSpec(
        metric=cast(codes_pb2.Metric, metric),
        seed=plan.seed,
        grid=plan.grid,
    )
    write_parameters(plan.method, getattr(made, plan.method.name), tensors=False)
    if not isinstance(plan.method, Pca):
        made.component_count = plan.component_count or 0
    if of_photos:
        assert asked.embed is not None
        made.model, made.layer = asked.model.name, asked.embed.layer
        pooling = number_of(codes_pb2.CodePooling.DESCRIPTOR, asked.embed.pooling)
        made.pooling = cast(codes_pb2.CodePooling, pooling)
    return made


def _write_run(embedded: Embeddings) -> inference_pb2.Run:
    run = write_run(embedded.spec, embedded.done)
    run.ClearField("batches")
    run.decode_ms, run.queue_ms = embedded.decode_ms, embedded.queue_ms
    run.run_ms = embedded.run_ms
    return run
