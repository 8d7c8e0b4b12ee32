"""Attacks: specs from requests, results to responses."""

from collections.abc import Mapping

from pellucid.v1 import attack_pb2, optimize_pb2

from ..engine.job import Spec
from ..inputs import Photos
from ..methods.attack.algorithm import Algorithm, Shows
from ..methods.attack.attack import Attack, Attacked
from ..methods.attack.carlini_wagner import CarliniWagner
from ..methods.attack.deep_fool import DeepFool
from ..methods.attack.gradient import Bim, Fgsm, Pgd
from ..models.registry import Model, Registry
from .adversarial import (
    check_format,
    picture_of,
    read_attacked,
    read_layers,
    refuse_others,
    write_linear,
    write_perturbation,
    write_top,
    write_transfer,
)
from .fields import (
    Violations,
    read_parameters,
    write_parameters,
    write_picture,
    write_tensor,
)
from .requests import Limits, read_class

ALGORITHMS: Mapping[str, type[Algorithm]] = {
    kind.name: kind for kind in (Fgsm, Bim, Pgd, DeepFool, CarliniWagner)
}


def read_attack(
    found: Violations,
    request: optimize_pb2.OptimizeSpec,
    model: Model | None,
    registry: Registry,
    limits: Limits,
) -> tuple[Attack, Photos] | None:
    """An attack and its photo; None where something is wrong with it."""
    before = len(found)
    message = request.attack
    name = message.WhichOneof("method") or ""
    kind = ALGORITHMS.get(name)
    algorithm: Algorithm | None = None
    if kind is None:
        found.invalid("attack.method", f"required; one of {', '.join([*ALGORITHMS, 'universal'])}")
    else:
        algorithm = read_parameters(
            found, f"attack.{name}", getattr(message, name), kind, model, None
        )
    shows = read_parameters(found, "attack", message, Shows, model, None)
    source = _read_class(found, message, "source", model)
    goal = _read_class(found, message, "goal", model)
    asked_for = message.WhichOneof("goal")
    if asked_for is not None:
        if kind is not None and not kind.takes_goal:
            found.invalid(f"attack.{asked_for}", f"is set; {name} has none")
        elif goal is not None and goal == source:
            found.invalid(f"attack.{asked_for}", f"is class {goal}, which is the source")
    if model is not None and model.network.class_count < 2:
        found.refused("model", f"{model.name} has one class, and no other to be taken for")
    check_format(found, request)
    refuse_others(found, request, "guide", "photos", "photo_count")
    layers = read_layers(found, message.linear_layers, model)
    photo = None
    if request.HasField("image"):
        photo = read_attacked(found, "image", request.image, model, limits)
    else:
        found.invalid("image", "required: the photo that is attacked")
    if len(found) > before or algorithm is None or shows is None or photo is None:
        return None
    assert model is not None
    models = tuple(registry.values()) if message.transfer else ()
    method = Attack(
        algorithm,
        source,
        goal,
        shows,
        limits.optimize_buckets,
        layers,
        models,
        goal_field=f"attack.{asked_for or 'goal_class_index'}",
    )
    return method, Photos((photo,), (model.network.height_px, model.network.width_px))


def _read_class(
    found: Violations, message: attack_pb2.Attack, oneof: str, model: Model | None
) -> int | None:
    field = message.WhichOneof(oneof)
    if field is None:
        return None
    return read_class(found, f"attack.{field}", getattr(message, field), model)


def write_attack(method: Attack, source: int | None) -> attack_pb2.Attack:
    """What is asked, every parameter filled in, classes by index."""
    made = attack_pb2.Attack()
    write_parameters(method.algorithm, getattr(made, method.algorithm.name), tensors=False)
    write_parameters(method.shows, made, tensors=False)
    if source is not None:
        made.class_index = source
    if method.goal is not None:
        made.goal_class_index = method.goal
    made.linear_layers.extend(method.layers)
    made.transfer = bool(method.models)
    return made


def write_attack_result(
    spec: Spec, result: Attacked, *, include_pixels: bool
) -> optimize_pb2.OptimizeResult:
    """What came of an attack, but for run, progress and notes."""
    method, model, base = spec.method, spec.model, result.base
    assert isinstance(method, Attack)
    before = base.logits.double().softmax(0)
    made = optimize_pb2.OptimizeResult(
        attack=attack_pb2.AttackResult(
            attack=write_attack(method, base.source),
            original=write_picture(picture_of(base.pixels), "png"),
            prediction=write_top(model, base.logits),
            label=model.labels[base.source],
            goal_label="" if base.goal is None else model.labels[base.goal],
            source_probability=float(before[base.source]),
        )
    )
    succeeded = result.succeeded(result.logits)
    unrounded = result.succeeded(result.unrounded_logits)
    for place, pixels in enumerate(result.pixels):
        probabilities = result.logits[place].double().softmax(0)
        change = pixels.double() - base.pixels.double().cpu()
        picture, gain = write_perturbation(change)
        made.images.append(
            optimize_pb2.OptimizedImage(
                image=write_picture(picture_of(pixels), "png"),
                pixels=write_tensor(result.unrounded[place] / 255) if include_pixels else None,
                seed=method.algorithm.first_seed + place,
                adversarial=attack_pb2.Adversarial(
                    success=succeeded[place],
                    success_unrounded=unrounded[place],
                    prediction=write_top(model, result.logits[place]),
                    source_probability=float(probabilities[base.source]),
                    goal_probability=None if base.goal is None else float(probabilities[base.goal]),
                    linf=float(change.abs().max()),
                    l2=float(change.norm()),
                    perturbation=picture,
                    perturbation_gain=gain,
                    linear=write_linear(model, result.linear[place]),
                    transfer=write_transfer(result.transfer[place]),
                ),
            )
        )
    return made
