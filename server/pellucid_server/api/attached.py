"""A prediction with explanations sent along, none of which can make it fail."""

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from .. import wire
from ..engine.job import Done, Spec
from ..engine.rows import Target
from ..errors import (
    Cancelled,
    DeadlineExpired,
    DeadlineTooShort,
    Overloaded,
    PellucidError,
    Unavailable,
    failure_of,
)
from ..inputs import Kept
from ..methods.attached import Attached
from ..methods.explain.explain import Explain

_BUDGET_SHARE = 0.9
"""Of a request's time, for explanations: the rest is left for rendering, or to predict alone."""

_OF_ALL = (DeadlineExpired, Overloaded, Unavailable)
"""What keeps every explanation that is left from being made, not only the one under way."""


async def run_attached(
    asked: wire.Asked,
    arrived_s: float,
    run: Callable[[Spec, Callable[[Done], None] | None], Awaitable[Done]],
    cost_ms: Callable[[Spec], float],
) -> tuple[Done, list[Done | PellucidError]]:
    """The prediction, and an explanation or an error for each that is attached.

    Args:
        asked: What is asked.
        arrived_s: When, by time.monotonic().
        run: Runs a spec; what it shows meanwhile goes to the callable.
        cost_ms: Device time that a spec is predicted to take, by which run refuses it.

    Raises:
        PellucidError: There is no prediction.
    """
    spec, attached = asked.spec, asked.attached
    if attached:  # whoever tries again has it decoded already
        spec = replace(spec, source=Kept(spec.source))
    prediction: Done | None = None
    outcomes: dict[int, Done | PellucidError] = {}  # by their place
    while left := [place for place in range(len(attached)) if place not in outcomes]:
        parts = tuple((attached[place].method, attached[place].target) for place in left)
        top = None if prediction is None else int(prediction.result.logits.argmax())
        method = Attached(parts, top)
        together = replace(spec, method=method, deadline_s=_until_s(asked, arrived_s))
        shown: list[Done] = []
        failed: PellucidError | None = None
        try:
            await run(together, shown.append)
        except Cancelled:
            raise
        except DeadlineTooShort as error:
            late = failure_of(error)
            beyond = {left[i]: one for i, one in _beyond(together, method, cost_ms)}
            # Or each would fit, but not with the other images of the request.
            outcomes |= beyond if beyond else dict.fromkeys(left, late)
            continue
        except PellucidError as error:
            failed = failure_of(error)
        before: Done | None = None
        if prediction is None and shown:
            prediction = shown.pop(0)
            before = prediction if method.predicts_apart(spec.model) else None
        for place, done in zip(left, shown, strict=False):
            outcomes[place] = done if before is None else _since(before, done)
            before = done
        if failed is not None:
            rest = left[len(shown) :]
            outcomes |= dict.fromkeys(rest if isinstance(failed, _OF_ALL) else rest[:1], failed)
    if prediction is None:
        prediction = await run(spec, None)
    return prediction, [outcomes[place] for place in range(len(attached))]


def _beyond(
    spec: Spec, method: Attached, cost_ms: Callable[[Spec], float]
) -> Iterator[tuple[int, DeadlineTooShort]]:
    """The explanations, by their index, for which those that fit before them leave no time."""
    left_ms = max(0.0, (spec.deadline_s - time.monotonic()) * 1e3)
    fitting: list[tuple[Explain, Target]] = []
    spent_ms = 0.0
    for index, part in enumerate(method.parts):
        tried = replace(method, parts=(*fitting, part))
        with_it_ms = cost_ms(replace(spec, method=tried))
        if with_it_ms <= left_ms:
            fitting.append(part)
            spent_ms = with_it_ms
        else:
            yield (
                index,
                DeadlineTooShort(
                    f"this explanation needs about {with_it_ms - spent_ms:.0f} ms of device time; "
                    f"the budget of explanations leaves {left_ms - spent_ms:.0f} ms"
                ),
            )


def _until_s(asked: wire.Asked, arrived_s: float) -> float:
    deadline_s, budget_ms = asked.spec.deadline_s, asked.explain_budget_ms
    if budget_ms is None:
        return arrived_s + _BUDGET_SHARE * (deadline_s - arrived_s)
    return min(deadline_s, arrived_s + budget_ms / 1e3)


def _since(before: Done, done: Done) -> Done:
    """What a job has shown, less what it had shown before."""
    timing = replace(done.timing, launched_s=before.timing.finished_s)
    return replace(done, rides=done.rides[len(before.rides) :], timing=timing)
