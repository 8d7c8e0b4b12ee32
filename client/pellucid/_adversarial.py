"""From the messages of attacked photos to what a caller gets."""

from collections.abc import Iterable

from . import _wire, types
from .adversarial import LinearEffect, LinearView, TransferScore
from .v1 import attack_pb2


def linear(views: Iterable[attack_pb2.LinearView]) -> tuple[LinearView, ...]:
    return tuple(
        _wire._read(
            LinearView,
            view,
            effects=tuple(_wire._read(LinearEffect, effect) for effect in view.effects),
        )
        for view in views
    )


def transfer(scores: Iterable[attack_pb2.TransferScore]) -> tuple[TransferScore, ...]:
    return tuple(
        _wire._read(
            TransferScore,
            score,
            before=_wire._read(types.Prediction, score.before),
            after=_wire._read(types.Prediction, score.after),
            source_before=score.source_before if score.HasField("source_before") else None,
            source_after=score.source_after if score.HasField("source_after") else None,
        )
        for score in scores
    )
