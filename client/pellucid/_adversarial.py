"""From the messages of attacked photos to what a caller gets."""

from collections.abc import Iterable
from typing import Any

from . import types
from ._wire.fields import parameters_of, read
from .adversarial import Adversarial, Attacked, LinearEffect, LinearView, TransferScore
from .v1 import attack_pb2


def linear(views: Iterable[attack_pb2.LinearView]) -> tuple[LinearView, ...]:
    return tuple(
        read(
            LinearView,
            view,
            effects=tuple(read(LinearEffect, effect) for effect in view.effects),
        )
        for view in views
    )


def transfer(scores: Iterable[attack_pb2.TransferScore]) -> tuple[TransferScore, ...]:
    return tuple(
        read(
            TransferScore,
            score,
            before=read(types.Prediction, score.before) if score.HasField("before") else None,
            after=read(types.Prediction, score.after) if score.HasField("after") else None,
            source_before=score.source_before if score.HasField("source_before") else None,
            source_after=score.source_after if score.HasField("source_after") else None,
        )
        for score in scores
    )


def adversarial(message: attack_pb2.Adversarial) -> Adversarial:
    """How an attacked photo fares."""
    return read(
        Adversarial,
        message,
        prediction=read(types.Prediction, message.prediction),
        goal_probability=message.goal_probability if message.HasField("goal_probability") else None,
        picture=message.perturbation.data,
        linear=linear(message.linear),
        transfer=transfer(message.transfer),
    )


def attacked(message: attack_pb2.AttackResult) -> Attacked:
    """The photo that was attacked."""
    return read(
        Attacked,
        message,
        encoded=message.original.data,
        prediction=read(types.Prediction, message.prediction),
    )


def attack_parameters(message: attack_pb2.Attack) -> dict[str, Any]:
    """The method, its parameters, and those of every attack."""
    found = parameters_of(message)
    method = message.WhichOneof("method") or ""
    return {"method": method, **found.pop(method, {}), **found}
