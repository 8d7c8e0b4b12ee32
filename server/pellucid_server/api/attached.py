"""A prediction with explanations sent along, none of which can make it fail."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from .. import wire
from ..engine.job import Done, Spec
from ..errors import (
    Cancelled,
    DeadlineExpired,
    DeadlineTooShort,
    Overloaded,
    PellucidError,
    Unavailable,
)
from ..inputs import Kept
from ..methods.attached import Attached

_BUDGET_SHARE = 0.9
"""Of a request's time, for explanations: the rest is left for rendering, or to predict alone."""

_OF_ALL = (DeadlineExpired, Overloaded, Unavailable)
"""What keeps every explanation that is left from being made, not only the one under way."""


async def run_attached(
    asked: wire.Asked,
    arrived_s: float,
    run: Callable[[Spec, Callable[[Done], None] | None], Awaitable[Done]],
) -> tuple[Done, list[Done | PellucidError]]:
    """The prediction, and an explanation or an error for each that is attached.

    Args:
        asked: What is asked.
        arrived_s: When, by time.monotonic().
        run: Runs a spec; what it shows meanwhile goes to the callable.

    Raises:
        PellucidError: There is no prediction.
    """
    spec, attached = asked.spec, list(asked.attached)
    if attached:  # whoever tries again has it decoded already
        spec = replace(spec, source=Kept(spec.source))
    prediction: Done | None = None
    outcomes: list[Done | PellucidError] = []
    beyond: list[PellucidError] = []  # of the last ones, which cannot be done in time
    while len(outcomes) < len(attached):
        left = attached[len(outcomes) :]
        top = None if prediction is None else int(prediction.result.logits.argmax())
        method = Attached(tuple((one.method, one.target) for one in left), top)
        shown: list[Done] = []
        failed: PellucidError | None = None
        try:
            await run(
                replace(spec, method=method, deadline_s=_until_s(asked, arrived_s)), shown.append
            )
        except Cancelled:
            raise
        except DeadlineTooShort as error:
            beyond.insert(0, error)
            attached.pop()
        except PellucidError as error:
            failed = error
        before: Done | None = None
        if prediction is None and shown:
            prediction = shown.pop(0)
            before = prediction if method.predicts_apart(spec.model) else None
        for done in shown:
            outcomes.append(done if before is None else _since(before, done))
            before = done
        if failed is not None:
            count = len(attached) - len(outcomes) if isinstance(failed, _OF_ALL) else 1
            outcomes += [failed] * count
    if prediction is None:
        prediction = await run(spec, None)
    return prediction, [*outcomes, *beyond]


def _until_s(asked: wire.Asked, arrived_s: float) -> float:
    deadline_s, budget_ms = asked.spec.deadline_s, asked.explain_budget_ms
    if budget_ms is None:
        return arrived_s + _BUDGET_SHARE * (deadline_s - arrived_s)
    return min(deadline_s, arrived_s + budget_ms / 1e3)


def _since(before: Done, done: Done) -> Done:
    """What a job has shown, less what it had shown before."""
    timing = replace(done.timing, launched_s=before.timing.finished_s)
    return replace(done, rides=done.rides[len(before.rides) :], timing=timing)
