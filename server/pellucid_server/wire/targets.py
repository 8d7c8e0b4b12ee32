"""Targets of requests: classes and neurons, by names that the model knows."""

from pellucid.v1 import inference_pb2, optimize_pb2

from ..engine.rows import ClassesTarget, ClassTarget, NeuronTarget, Score, Target, TopTarget
from ..errors import quoted
from ..methods.explain.explanation import ExplainMethod
from ..models.registry import Model
from ..models.sizes import Shapes
from .fields import (
    Fields,
    Violations,
    find_layer,
    like,
    outside,
    why_not,
)


def read_target(
    found: Violations,
    target: inference_pb2.Target,
    model: Model | None,
    method: type[ExplainMethod] | None,
) -> Target | None:
    """The target; None where it is wrong, or cannot be told without a model."""
    fields = Fields(found, "target", target)
    before = len(found)
    default = Score.LOGIT if method is None else method.score
    score = Score[fields.choice("score", default.name.lower()).upper()]
    if method is not None and method.logits_only and score is not Score.LOGIT:
        fields.invalid("score", f"is SCORE_{score.name}; {method.name} explains SCORE_LOGIT only")
    against = _read_against(found, target, model)
    if target.WhichOneof("kind") == "neuron":
        for name in ("score", "against_class_index", "against_label"):
            if fields.has(name):
                fields.invalid(name, "is for classes; the target is a neuron")
        neuron = read_neuron(found, "target.neuron", target.neuron, model)
        return neuron if len(found) == before else None
    if target.WhichOneof("kind") is None:
        return TopTarget(score, against) if len(found) == before else None
    classes = _read_classes(found, target, model)
    if against is not None and against in classes:
        fields.invalid(str(target.WhichOneof("against")), "is the class itself")
    if len(found) > before or model is None:
        return None
    if len(classes) == 1 and against is None:
        return ClassTarget(classes[0], score)
    weights = [(index, 1.0) for index in classes]
    weights += [] if against is None else [(against, -1.0)]
    return ClassesTarget(tuple(weights), score)


def _read_classes(
    found: Violations, target: inference_pb2.Target, model: Model | None
) -> list[int]:
    """The classes that a target names."""
    named: list[tuple[str, int | str]] = []
    match target.WhichOneof("kind"):
        case "class_index":
            named = [("target.class_index", target.class_index)]
        case "label":
            named = [("target.label", target.label)]
        case _:
            several = target.classes
            named += [("target.classes.class_indices", index) for index in several.class_indices]
            named += [("target.classes.labels", label) for label in several.labels]
            if not named:
                found.invalid("target.classes", "required; at least one class")
    classes: list[int] = []
    for field, name in named:
        index = read_class(found, field, name, model)
        if index is not None and index in classes:
            found.invalid(field, f"names class {index} twice")
        classes += [] if index is None else [index]
    return classes


def _read_against(
    found: Violations, target: inference_pb2.Target, model: Model | None
) -> int | None:
    kind = target.WhichOneof("against")
    return (
        None if kind is None else read_class(found, f"target.{kind}", getattr(target, kind), model)
    )


def read_class(found: Violations, field: str, name: int | str, model: Model | None) -> int | None:
    """A class by its index or its label."""
    if isinstance(name, int):
        last = None if model is None else model.network.class_count - 1
        if name < 0 or (last is not None and name > last):
            found.invalid(field, outside(name, 0, last))
        return name
    if model is None:
        return None
    classes = model.classes_labelled(name)
    if not classes:
        close = like(name, model.labels)
        found.missing(field, f"{quoted(name)} is not a label of {model.name}{close}")
    elif len(classes) > 1:
        shared = ", ".join(map(str, classes))
        found.invalid(
            field, f"{quoted(name)} is shared by the classes {shared}; name one by class_index"
        )
    return classes[0] if classes else None


def read_neuron(
    found: Violations,
    field: str,
    neuron: inference_pb2.Neuron | optimize_pb2.Direction,
    model: Model | None,
    shapes: Shapes | None = None,
) -> NeuronTarget:
    """A neuron, or the place that a direction is at.

    Args:
        found: Where all that is wrong is noted.
        field: Its path in the request.
        neuron: What is read.
        model: None where the request names one that is not there.
        shapes: Of layers, where the input's size is not the network's own.
    """
    layer = None if model is None else find_layer(found, f"{field}.layer", neuron.layer, model)
    if layer is not None and not layer.targetable:
        found.refused(f"{field}.layer", f"{layer.name} cannot be a target: {why_not(layer)}")
        layer = None
    if layer is not None and shapes is not None and layer.grid is not None:
        layer = layer.at(shapes[layer.name])
    fields = Fields(found, field, neuron)
    grid = (None, None) if layer is None else (layer.grid or (0, 0))
    lengths = {"y": grid[0], "x": grid[1]}
    if isinstance(neuron, inference_pb2.Neuron):
        lengths["channel"] = None if layer is None else layer.channel_count
    for name, length in lengths.items():
        if layer is not None and length == 0 and fields.has(name):
            fields.invalid(name, f"{layer.name} has no map: it is {layer.channel_count} long")
        else:
            fields.number(name, 0, 0, length - 1 if length else None)
    if fields.has("y") != fields.has("x"):
        fields.invalid("x" if fields.has("y") else "y", "required where the other one is set")
    given = {name: getattr(neuron, name) for name in lengths if fields.has(name)}
    return NeuronTarget(neuron.layer, **given)
