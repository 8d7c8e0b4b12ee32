"""Ascents: their objectives, sizes and photos from requests."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from pellucid.v1 import data_pb2, inference_pb2, optimize_pb2

from ..engine.rows import (
    ClassTarget,
    CodeTarget,
    DirectionTarget,
    EnergyTarget,
    GuideTarget,
    NeuronTarget,
    Score,
)
from ..inputs import Photos
from ..methods.optimize.ascent import MOST_STEPS, Ascent
from ..methods.optimize.optimize import Apart, FromPhoto, Objective, Optimize
from ..models.layers import Layout
from ..models.registry import Model
from ..models.sizes import Shapes, UnfitSize
from .adversarial import refuse_others
from .fields import (
    Fields,
    Violations,
    find_layer,
    number_of,
    read_parameters,
    times,
    why_not,
    write_parameters,
)
from .images import read_image
from .limits import Limits
from .targets import read_class, read_neuron

MOST_OBJECTIVES = 16
MOST_CHANNELS_APART = 512
"""Of a layer in which images are unlike each other: each keeps two matrices of channels²."""


def read_ascend(
    found: Violations, request: optimize_pb2.OptimizeSpec, model: Model | None, limits: Limits
) -> tuple[Optimize, Photos] | None:
    """An ascent and its photos; None where something is wrong."""
    before = len(found)
    ascent = read_parameters(found, "ascend", request.ascend, Ascent, model, None)
    shapes: Mapping[tuple[int, int], Shapes] | None = None
    if ascent is not None and model is not None:
        shapes = _shapes(found, ascent, model, limits)
    restarts = None if ascent is None else ascent.restart_count
    objectives = tuple(_read_objectives(found, request, model, shapes, restarts))
    photos = tuple(_read_photos(found, request, model, limits, ascent))
    refuse_others(found, request, "photos", "photo_count")
    if ascent is None or len(found) > before:
        return None
    method = Optimize(objectives, ascent, limits.optimize_buckets)
    assert model is not None
    _check_memory(found, method, model, limits.max_optimize_bytes)
    return method, Photos(photos, (ascent.height_px, ascent.width_px))


def _shapes(
    found: Violations, ascent: Ascent, model: Model, limits: Limits
) -> Mapping[tuple[int, int], Shapes] | None:
    """The shapes of all layers at the smallest octave's size, and at the largest.

    Trying a size takes a while: those in between are tried by the job itself, before its steps.
    """
    fields = Fields(found, "ascend", optimize_pb2.Ascend())
    most = limits.max_optimize_pixels
    height_px, width_px = size = (ascent.height_px, ascent.width_px)
    if math.prod(size) > most:
        fields.invalid(
            "height_px",
            f"times width_px is {height_px} × {width_px}, {math.prod(size)} pixels; at most {most}"
            f" fit, such as {math.isqrt(most)} × {math.isqrt(most)}",
        )
        return None
    if ascent.step_total > MOST_STEPS:
        fields.invalid(
            "step_count",
            f"times octave_count is {ascent.step_total}; must be at most {MOST_STEPS}",
        )
    shapes: dict[tuple[int, int], Shapes] = {}
    for size in dict.fromkeys((ascent.octave_sizes[0], ascent.octave_sizes[-1])):
        try:
            shapes[size] = model.network.shapes_at(*size)
        except UnfitSize as unfit:
            own = f"{model.network.height_px} × {model.network.width_px}"
            why = f"it takes no other size than {own}"
            if unfit.layer is not None:
                why = (
                    f"it gets no further than {unfit.layer}, whose output is {times(unfit.shape)}: "
                    f"the next layer would be empty, or {why}"
                )
            found.refused(
                "ascend.height_px",
                f"{model.name} does not run on an image of {times(size)}: {why}",
            )
            return None
    return shapes


def _check_memory(found: Violations, method: Optimize, model: Model, most_bytes: int) -> None:
    """What a job holds by itself is to fit; beside others', the queue sees to that."""
    byte_count, ascent = method.byte_count(model), method.ascent
    if byte_count <= most_bytes:
        return
    plain = replace(method, ascent=replace(ascent, checkpoint_every=0)).byte_count(model)
    if plain <= most_bytes:
        found.invalid(
            "ascend.checkpoint_every",
            f"makes it hold {byte_count} bytes; must be at most {most_bytes}: no checkpoints would "
            "fit",
        )
        return
    size, each = (ascent.height_px, ascent.width_px), byte_count // ascent.restart_count
    fitting = most_bytes // each
    side_px = math.isqrt(math.prod(size) * most_bytes // each)
    fit = f"{fitting} such images fit" if fitting else f"one of about {side_px} × {side_px} fits"
    found.invalid(
        "ascend.restart_count" if fitting else "ascend.height_px",
        f"is too much for memory: an image of {times(size)} takes {each} bytes on its way; in the "
        f"server's {most_bytes}, {fit}",
    )


def _read_objectives(
    found: Violations,
    request: optimize_pb2.OptimizeSpec,
    model: Model | None,
    shapes: Mapping[tuple[int, int], Shapes] | None,
    restart_count: int | None,
) -> Iterator[tuple[Objective, float]]:
    objectives = request.ascend.objectives
    if not 1 <= len(objectives) <= MOST_OBJECTIVES:
        found.invalid(
            "ascend.objectives", f"has {len(objectives)}; must have 1 to {MOST_OBJECTIVES}"
        )
    for place, objective in enumerate(objectives[:MOST_OBJECTIVES]):
        inside = found.inside(f"ascend.objectives[{place}]")
        goal = _read_goal(inside, objective, model, shapes)
        if isinstance(goal, Apart) and restart_count == 1:
            inside.invalid(
                "diversity", "is of several images: needs ascend.restart_count of 2 or more"
            )
        weight = objective.weight if objective.HasField("weight") else 1.0
        if not math.isfinite(weight) or weight == 0:
            inside.invalid("weight", f"is {weight:g}; must be finite and not 0")
        if goal is not None:
            yield goal, weight


def _read_goal(
    found: Violations,
    objective: optimize_pb2.Objective,
    model: Model | None,
    shapes: Mapping[tuple[int, int], Shapes] | None,
) -> Objective | None:
    kind = objective.WhichOneof("kind")
    fields = Fields(found, "", objective)
    score = Score[fields.choice("score", "logit").upper()]
    if objective.score and kind not in ("class_index", "label"):
        found.invalid("score", "is for classes")
    match kind:
        case None:
            names = [f.name for f in objective.DESCRIPTOR.oneofs_by_name["kind"].fields]
            found.invalid("kind", f"required; one of {', '.join(names)}")
        case "class_index" | "label":
            index = read_class(found, kind, getattr(objective, kind), model)
            return None if index is None else ClassTarget(index, score)
        case "neuron":
            return _read_place(found, kind, objective.neuron, model, shapes)
        case "direction":
            return _read_direction(found, objective.direction, model, shapes)
        case "code":
            if _read_layer(found, kind, objective.code.layer, model):
                return FromPhoto(CodeTarget, objective.code.layer, 0)
        case "energy":
            if _read_layer(found, kind, objective.energy.layer, model):
                return EnergyTarget(objective.energy.layer)
        case "diversity":
            return _read_diversity(found, objective.diversity.layer, model)
        case _:
            layer = objective.guide.layer
            if _read_layer(found, kind, layer, model, maps=True):
                return FromPhoto(GuideTarget, layer, -1)
    return None


def _read_place(
    found: Violations,
    kind: str,
    neuron: inference_pb2.Neuron | optimize_pb2.Direction,
    model: Model | None,
    shapes: Mapping[tuple[int, int], Shapes] | None,
) -> NeuronTarget:
    """A neuron, or the place of a direction, which every octave is to have."""
    of_octaves = list(shapes.items()) if shapes else [((0, 0), None)]
    before = len(found)
    at = read_neuron(found, kind, neuron, model, of_octaves[-1][1])
    size, smallest = of_octaves[0]
    layer = None if model is None else model.network.layer(at.layer)
    if len(found) > before or smallest is None or layer is None or at.y is None or at.x is None:
        return at
    grid = layer.at(smallest[at.layer]).grid
    assert grid is not None
    for name, place, length in zip(("y", "x"), (at.y, at.x), grid, strict=True):
        if place >= length:
            found.invalid(
                f"{kind}.{name}",
                f"is {place}; must be at most {length - 1}: in the smallest octave, of "
                f"{times(size)}, {at.layer} is {times(grid)}",
            )
    return at


def _read_layer(
    found: Violations, kind: str, name: str, model: Model | None, *, maps: bool = False
) -> bool:
    """Whether a layer is one whose activation can be looked at."""
    if model is None:
        return False
    layer = find_layer(found, f"{kind}.layer", name, model)
    if layer is None:
        return False
    if not layer.targetable:
        found.refused(f"{kind}.layer", f"{name} cannot be a target: {why_not(layer)}")
    elif maps and layer.layout is not Layout.MAPS:
        found.refused(f"{kind}.layer", f"{name} has no maps: its output is {times(layer.shape)}")
    else:
        return True
    return False


def _read_diversity(found: Violations, name: str, model: Model | None) -> Apart | None:
    if not _read_layer(found, "diversity", name, model, maps=True):
        return None
    assert model is not None
    layer = model.network.layer(name)
    assert layer is not None
    assert layer.channel_count is not None
    if layer.channel_count > MOST_CHANNELS_APART:
        found.invalid(
            "diversity.layer",
            f"{name} has {layer.channel_count} channels; must have at most {MOST_CHANNELS_APART}",
        )
        return None
    return Apart(name, layer.channel_count)


def _read_direction(
    found: Violations,
    direction: optimize_pb2.Direction,
    model: Model | None,
    shapes: Mapping[tuple[int, int], Shapes] | None,
) -> DirectionTarget | None:
    at = _read_place(found, "direction", direction, model, shapes)
    layer = None if model is None else model.network.layer(direction.layer)
    vector = np.array(direction.vector)
    if not (np.isfinite(vector).all() and vector.any()):
        found.invalid("direction.vector", "must be finite, and not 0 everywhere")
    if model is None or layer is None or not layer.targetable:
        return None
    if len(vector) != layer.channel_count:
        found.invalid(
            "direction.vector",
            f"has {len(vector)} numbers; {layer.name} has {layer.channel_count} channels",
        )
        return None
    return DirectionTarget(layer.name, torch.from_numpy(vector), at.y, at.x)


def _read_photos(
    found: Violations,
    request: optimize_pb2.OptimizeSpec,
    model: Model | None,
    limits: Limits,
    ascent: Ascent | None,
) -> Iterator[Any]:
    """The image and the guide, where there is something to do with them."""
    kinds = {objective.WhichOneof("kind") for objective in request.ascend.objectives}
    from_photo = ascent is not None and ascent.start == "photo"
    own = None if model is None else (model.network.height_px, model.network.width_px)
    uses = {
        "image": ("code" in kinds or from_photo, "START_PHOTO and Code"),
        "guide": ("guide" in kinds, "Guide"),
    }
    for name, (wanted, what) in uses.items():
        image = getattr(request, name)
        if not request.HasField(name):
            if wanted:
                found.invalid(name, f"required for {what}")
            continue
        if not wanted and ascent is not None:
            found.invalid(name, f"is for {what}, which are not asked for")
        if (
            ascent is not None
            and image.tensor.data_type == data_pb2.DATA_TYPE_FLOAT32
            and own != (ascent.height_px, ascent.width_px)
        ):
            found.invalid(
                f"{name}.tensor",
                "is already preprocessed, for the network's own size; at another, send a photo",
            )
        source = read_image(found, image, model, limits, None, name)
        if source is not None:
            yield source


def write_ascend(request: optimize_pb2.OptimizeSpec, method: Optimize) -> optimize_pb2.Ascend:
    """What is asked, every parameter filled in, classes by index."""
    made = optimize_pb2.Ascend()
    write_parameters(method.ascent, made, tensors=False)
    for objective, (goal, weight) in zip(request.ascend.objectives, method.objectives, strict=True):
        written = made.objectives.add()
        written.CopyFrom(objective)
        written.weight = weight
        if isinstance(goal, ClassTarget):
            written.class_index = goal.index
            number = number_of(inference_pb2.Score.DESCRIPTOR, goal.score.name.lower())
            written.score = cast(inference_pb2.Score, number)
    return made
