"""Universal perturbations: specs from requests, results to responses."""

from pellucid.v1 import attack_pb2, optimize_pb2

from ..engine.job import Spec
from ..inputs import PhotoSet, PhotoSource
from ..methods.attack.algorithm import Shows
from ..methods.attack.universal import (
    Universal,
    UniversalAttack,
    Universalized,
)
from ..models.registry import Model
from .adversarial import (
    check_format,
    picture_of,
    read_attacked,
    refuse_others,
    write_perturbation,
    write_top,
)
from .fields import (
    Fields,
    Violations,
    read_parameters,
    write_parameters,
    write_picture,
    write_tensor,
)
from .requests import Limits

MOST_PHOTOS = 1024
"""Photos of a set."""

_OF_ONE_PHOTO = ("source", "goal", "linear_layers", "transfer")
"""Fields of an attack that are of one photo."""


def read_universal(
    found: Violations,
    request: optimize_pb2.OptimizeSpec,
    model: Model | None,
    limits: Limits,
    *,
    follows: bool,
) -> tuple[UniversalAttack, PhotoSet] | None:
    """A universal perturbation, and its photos; None where something is wrong with it.

    Args:
        found: Where violations are noted.
        request: What is asked.
        model: None where there is none of that name.
        limits: The server's.
        follows: Whether more photos come, as many as the request says.
    """
    before, message = len(found), request.attack
    universal = read_parameters(
        found, "attack.universal", message.universal, Universal, model, None
    )
    shows = read_parameters(found, "attack", message, Shows, model, None)
    for name in _OF_ONE_PHOTO:
        field = message.WhichOneof(name) if name in ("source", "goal") else name
        if field is not None and Fields(found, "", message).has(field):
            found.invalid(f"attack.{field}", "is not for Universal")
    refuse_others(found, request, "image", "guide")
    check_format(found, request)
    sources: tuple[PhotoSource, ...] = ()
    following, most = request.photo_count, max(0, MOST_PHOTOS - len(request.photos))
    if following and not follows:
        found.invalid(
            "photo_count", "is for streams, in which photos follow; here all are in photos"
        )
    elif not 0 <= following <= most:
        found.invalid("photo_count", f"is {following}; must be 0 to {most}, with those of photos")
    if 0 <= following <= most:
        sources = _read_photos(found, request, model, limits)
    if len(found) > before or universal is None or shows is None or model is None:
        return None
    photos = PhotoSet(sources, (model.network.height_px, model.network.width_px))
    return UniversalAttack(universal, shows, photos, limits.optimize_buckets), photos


def _read_photos(
    found: Violations, request: optimize_pb2.OptimizeSpec, model: Model | None, limits: Limits
) -> tuple[PhotoSource, ...]:
    count = len(request.photos) + request.photo_count
    if not 1 <= count <= MOST_PHOTOS:
        found.invalid("photos", f"has {count}; must have 1 to {MOST_PHOTOS}")
        return ()
    byte_count = sum(image.ByteSize() for image in request.photos)
    if byte_count > limits.max_photo_set_bytes:
        found.invalid("photos", f"take more than {limits.max_photo_set_bytes} bytes")
        return ()
    sources = []
    for place, image in enumerate(request.photos):
        source = read_attacked(found, f"photos[{place}]", image, model, limits)
        if source is not None:
            sources.append(source)
    return tuple(sources)


def write_universal(method: UniversalAttack) -> attack_pb2.Attack:
    """What is asked, every parameter filled in."""
    made = attack_pb2.Attack()
    write_parameters(method.universal, made.universal, tensors=False)
    write_parameters(method.shows, made, tensors=False)
    return made


def write_universal_result(
    spec: Spec, result: Universalized, *, include_pixels: bool
) -> optimize_pb2.OptimizeResult:
    """What came of a set of photos, but for run and notes."""
    method, model = spec.method, spec.model
    assert isinstance(method, UniversalAttack)
    change, fooled = result.perturbation, result.fooled
    picture, gain = write_perturbation(change)
    universal = attack_pb2.UniversalResult(
        perturbation=write_tensor(change),
        picture=picture,
        picture_gain=gain,
        fooling_rate=float(fooled.double().mean()),
        pass_count=result.pass_count,
        linf=float(change.abs().max()),
        l2=float(change.double().norm()),
    )
    for before, after in zip(result.before, result.after, strict=True):
        universal.photos.add(before=write_top(model, before), after=write_top(model, after))
    made = optimize_pb2.OptimizeResult(
        attack=attack_pb2.AttackResult(attack=write_universal(method), universal=universal)
    )
    for place, (photo, image) in enumerate(zip(result.photos, result.perturbed, strict=True)):
        source, of = int(result.before[place].argmax()), image.double() - photo.double()
        made.images.append(
            optimize_pb2.OptimizedImage(
                image=write_picture(picture_of(image), "png"),
                pixels=write_tensor(image / 255) if include_pixels else None,
                adversarial=attack_pb2.Adversarial(
                    success=bool(fooled[place]),
                    success_unrounded=bool(fooled[place]),
                    prediction=write_top(model, result.after[place]),
                    source_probability=float(result.after[place].double().softmax(0)[source]),
                    linf=float(of.abs().max()),
                    l2=float(of.norm()),
                ),
            )
        )
    return made
