"""What an optimization shows, and what came of it, as messages."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pellucid.v1 import optimize_pb2
from PIL import Image
from torch import Tensor

from ..engine.job import Done, Spec
from ..methods.attack.algorithm import Crafted
from ..methods.attack.attack import Attacked
from ..methods.attack.universal import Universalized
from ..methods.optimize.optimize import Optimize, Optimized
from ..methods.optimize.stepper import End, Preview, Progress
from .attack import write_attack_result
from .fields import (
    write_picture,
    write_tensor,
)
from .optimize import AnyOptimize, AskedOptimize
from .responses import write_run
from .universal import write_universal_result

_PREVIEW_PX = 512


def write_queued(spec: Spec, cost_ms: float, others_ms: float) -> optimize_pb2.OptimizeResponse:
    """The job was admitted."""
    return optimize_pb2.OptimizeResponse(
        queued=optimize_pb2.OptimizeQueued(
            cost_ms=cost_ms, others_ms=others_ms, bucket_size=spec.bucket_size
        )
    )


def write_optimize(asked: AskedOptimize, done: Done) -> optimize_pb2.OptimizeResponse:
    """What a job shows, or what came of it."""
    method = asked.spec.method
    assert isinstance(method, AnyOptimize)
    match done.result:
        case Progress() as progress:
            return optimize_pb2.OptimizeResponse(
                progress=_write_progress(method.step_total, progress)
            )
        case Preview() as preview:
            picture = Image.fromarray(_pixels(preview.picture))
            picture.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
            return optimize_pb2.OptimizeResponse(
                preview=optimize_pb2.OptimizePreview(
                    restart=preview.restart,
                    step=preview.step,
                    image=write_picture(picture, "jpeg"),
                )
            )
        case result:
            return optimize_pb2.OptimizeResponse(result=_write_result(asked, done, result))


def _write_progress(step_total: int, progress: Progress) -> optimize_pb2.OptimizeProgress:
    return optimize_pb2.OptimizeProgress(
        restart=progress.restart,
        step=progress.step,
        step_count=step_total,
        score=progress.score,
        terms=progress.terms,
        lp_penalty=progress.lp_penalty,
        tv_penalty=progress.tv_penalty,
    )


def _write_result(asked: AskedOptimize, done: Done, result: Any) -> optimize_pb2.OptimizeResult:
    """What came of a job."""
    started_s, pixels = time.monotonic(), asked.request.include_pixels
    match result:
        case Universalized():
            made = write_universal_result(asked.spec, result, include_pixels=pixels)
        case Attacked():
            made = write_attack_result(asked.spec, result, include_pixels=pixels)
            _write_ends(asked, made, result)
        case _:
            assert isinstance(result, Optimized)
            made = _write_optimized(asked, result)
            _write_ends(asked, made, result)
    made.notes.extend(asked.notes)
    made.run.CopyFrom(write_run(asked.spec, done, (time.monotonic() - started_s) * 1e3))
    return made


def _write_ends(
    asked: AskedOptimize, made: optimize_pb2.OptimizeResult, result: Attacked | Optimized
) -> None:
    """How far the images came, how far their scores lie apart, and which is the best."""
    method = asked.spec.method
    assert isinstance(method, AnyOptimize)
    scores = []
    ends: Sequence[Crafted | End] = result.ends
    for written, end in zip(made.images, ends, strict=True):
        written.progress.CopyFrom(_write_progress(method.step_total, end.progress))
        if not end.finite:
            step = end.progress.step
            written.stop_reason = f"its score or gradient was not finite after step {step}"
        scores.append(end.progress.score)
    if isinstance(result, Attacked):
        for written, known in zip(made.images, result.known, strict=True):
            if not known and not written.stop_reason:
                written.stop_reason = "at 8 bits its output was not finite: this is the photo"
    finite = np.array([score for score in scores if math.isfinite(score)])
    if len(scores) > 1 and len(finite):
        made.spread.least, made.spread.largest = float(finite.min()), float(finite.max())
        made.spread.mean = float(finite.mean())
        made.spread.standard_deviation = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    made.best = _best(made.images)


def _write_optimized(asked: AskedOptimize, result: Optimized) -> optimize_pb2.OptimizeResult:
    method = asked.spec.method
    assert isinstance(method, Optimize)
    images = [
        optimize_pb2.OptimizedImage(
            image=write_picture(Image.fromarray(_pixels(picture)), asked.format),
            pixels=write_tensor(picture) if asked.request.include_pixels else None,
            seed=method.ascent.seed + place,
        )
        for place, picture in enumerate(result.pictures)
    ]
    assert isinstance(asked.settings, optimize_pb2.Ascend)
    return optimize_pb2.OptimizeResult(ascend=asked.settings, images=images)


def _best(images: Sequence[optimize_pb2.OptimizedImage]) -> int:
    """The image of the highest score; those that were not made to the end come last.

    Of an attack, one that succeeded at 8 bits comes before one that did not.
    """
    keys = [
        (
            one.adversarial.success,
            not one.stop_reason,
            score if math.isfinite(score := one.progress.score) else -math.inf,
        )
        for one in images
    ]
    return keys.index(max(keys))


def _pixels(picture: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Red, green and blue from 0 to 1, 3×H×W, as a photo."""
    scaled = (picture * 255).round().byte()
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())
