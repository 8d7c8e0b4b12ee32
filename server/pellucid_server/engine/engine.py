"""The engine: one thread that packs rows of many jobs into batches and runs them."""

import bisect
import functools
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import (
    Cancelled,
    DeadlineExpired,
    Internal,
    InvalidArgument,
    OutOfMemory,
    PellucidError,
    Unavailable,
    Violation,
    failure_of,
)
from ..models.gates import Rule
from ..models.registry import Model
from ..models.styles.library import StyleModel
from ..workers import Workers
from .admission import Admission, QueueLimits
from .costs import Costs
from .device import Device, Flight
from .job import Done, Job, Ride, Served, Spec, Timing, Work
from .lockstep import Climb, Climbing, Group, Moved, Stepper, rows_of
from .memory import is_out_of_memory
from .rows import Ask, Chore, Event, Lane, Rows, State, StyleRows, TopTarget, Want
from .schedule import Batch, Schedule, Ticket

log = logging.getLogger(__name__)

_WARM_UP_RUNS = 3
"""The best of them counts: the first builds kernels."""

_STOPPING = "the server is stopping; another replica will answer"

_FITTING = 0.9
"""The share of its time that what is advised takes: time passes until it is asked for."""

_TOO_LITTLE_MEMORY = "the device has too little memory for this request"

_Returned = TypeVar("_Returned")
Outcome = Done | PellucidError
_Launched = tuple[Batch, Flight, list[Any], Any]
"""A batch on its way, what was picked for it, which is kept until then, and what was looked at."""


class Observer(Protocol):
    """Who is told what the engine does; called on the engine thread."""

    def batch(self, batch: Batch, batch_ms: float) -> None: ...
    def ended(self, job: Job, outcome: Outcome) -> None: ...


class Unobserved:
    """Nobody looks."""

    def batch(self, batch: Batch, batch_ms: float) -> None: ...
    def ended(self, job: Job, outcome: Outcome) -> None: ...


class Engine:
    """Admits specs, runs them as jobs, ends every job exactly once.

    Args:
        device: Where batches run.
        workers: Threads that decode images, and do what else methods want done on the host.
        buckets: The batch sizes that are padded to, ascending.
        iteration_budget_ms: Longer batches are not chosen, see Costs.
        limits: The bound of the queue.
        observer: Who is told.
        notify: Runs a callable that resolves futures; a server passes its loop's
            call_soon_threadsafe. Called once an iteration.
    """

    def __init__(
        self,
        device: Device,
        workers: Workers,
        *,
        buckets: tuple[int, ...] = (1, 2, 4, 8, 16),
        iteration_budget_ms: float = 250.0,
        limits: QueueLimits | None = None,
        observer: Observer | None = None,
        notify: Callable[[Callable[[], None]], object] = lambda resolve: resolve(),
    ) -> None:
        self.buckets = buckets
        self.admission = Admission(limits or QueueLimits())
        self._device = device
        self._workers = workers
        self._iteration_budget_ms = iteration_budget_ms
        self._observer = observer or Unobserved()
        self._notify = notify
        self._costs: dict[str, Costs] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._schedule = Schedule()
        self._groups: dict[Hashable, Group] = {}
        self._flying: _Launched | None = None
        self._shown: list[tuple[Job, Done]] = []
        self._finished: list[tuple[Job, Outcome]] = []
        self._numbers = itertools.count()
        self._stopping = self._handing_over = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # What other threads call.

    @property
    def device_kind(self) -> str:
        """Cpu or cuda."""
        return self._device.kind

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def call(self, function: Callable[[], _Returned]) -> _Returned:
        """Runs a function on the engine thread, between two iterations, and waits for it."""
        future: Future[_Returned] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._inbox.put(run)
        return future.result()

    def costs_of(self, model: Served) -> Costs:
        return self._costs.setdefault(model.name, Costs(self.buckets, self._iteration_budget_ms))

    def warm_up(self, model: Served) -> None:
        """Runs every bucket of every lane and measures it."""
        self.call(lambda: self._measure(model))

    def cost_ms(self, spec: Spec[Any]) -> float:
        """Device time that a spec is predicted to take, in milliseconds."""
        return self._predict(spec)[0]

    def submit(
        self,
        spec: Spec[Any],
        arrived_s: float | None = None,
        outlet: Callable[[Done], None] | None = None,
    ) -> Job:
        """Admits a spec, before its image is decoded.

        Args:
            spec: What to run.
            arrived_s: When its request arrived, by time.monotonic(); now by default.
            outlet: Gets what the method shows before it is done, where futures are resolved.

        Raises:
            Overloaded, DeadlineExpired, DeadlineTooShort, Unavailable: It is not admitted.
        """
        cost_ms, queued_ms, row_count = self._predict(spec)
        timing = Timing(submitted_s=time.monotonic() if arrived_s is None else arrived_s)
        number = next(self._numbers)
        job = Job(spec, cost_ms, queued_ms, timing, number, row_count, outlet)
        if not self.alive:
            raise Unavailable("the engine has stopped; another replica will answer")
        self.admission.admit(job, functools.partial(self._what_fits, spec))
        try:
            self._offload(job, lambda: self._load(job), functools.partial(self._begin, job))
        except PellucidError:
            self.admission.release(job)
            raise
        return job

    def cancel(self, job: Job) -> None:
        """Its caller went away: no further row of it is run."""
        job.cancel()
        self._inbox.put(lambda: self._end(job, Cancelled("the request was cancelled")))

    def hand_over(self) -> None:
        """Ends the jobs that can go on elsewhere, after a last look at their whole state."""

        def hand_over() -> None:
            self._handing_over = True
            self._land()  # what is on its way has begun to change the state of its jobs
            with self._device.aside():
                for job in self.admission.jobs():
                    self._guarded([job], functools.partial(self._hand_over, job))

        self._inbox.put(hand_over)

    def join(self) -> None:
        """Waits for the thread to end, by stop or by a bug."""
        self._thread.join()

    def stop(self) -> None:
        """Ends the thread; what is still in flight ends as Unavailable."""

        def stop() -> None:
            self._stopping = True

        self._inbox.put(stop)
        self._thread.join()

    def _predict(self, spec: Spec[Any]) -> tuple[float, float, int]:
        """Milliseconds of device time, alone and in a queue, and how many rows they are of."""
        costs, pace = self.costs_of(spec.model), spec.method.pace(spec.model)
        cost_ms = queued_ms = 0.0
        rows = spec.method.row_counts(spec.model, spec.target)
        asks = [Ask(*one) for one in rows.items()] if pace is None else pace.asks
        if isinstance(spec.model, StyleModel):  # pieces of one image, which rides as one row
            asks = [Ask(lane, 1, count) for lane, count in rows.items()]
        for ask in asks:
            asked_ms = costs.predict_ms(ask.lane, ask.row_count, spec.bucket_size)
            shared_ms = costs.shared_ms(ask.lane, spec.bucket_size)
            cost_ms += ask.times * asked_ms
            queued_ms += ask.times * ask.row_count * shared_ms
        row_count = max(1, sum(rows.values()))  # a method may ask for none
        most_ms = spec.method.most_ms(spec.model, cost_ms / row_count)
        cost_ms, queued_ms = min(cost_ms, most_ms), min(queued_ms, most_ms)
        for other in spec.elsewhere:
            costs, lane, bucket_size = self.costs_of(other.model), other.lane, other.bucket_size
            cost_ms += costs.predict_ms(lane, other.row_count, bucket_size)
            queued_ms += other.row_count * costs.shared_ms(lane, bucket_size)
            row_count += other.row_count
        return cost_ms, queued_ms, row_count

    def _what_fits(self, spec: Spec[Any], left_ms: float) -> str:
        """What to ask for in place of a spec whose own cost exceeds its time, as words to append.

        The most that is predicted to fit, found by bisection; nothing is said where nothing does.
        """
        pace = spec.method.pace(spec.model)
        if pace is None or pace.scale is None:
            return ""
        scale = pace.scale

        def cost_ms(count: int) -> float:
            return self.cost_ms(replace(spec, method=scale.at(count)))

        fitting = bisect.bisect_right(range(1, scale.count), _FITTING * left_ms, key=cost_ms)
        if not fitting:
            return ""
        return f": {scale.field} of {fitting}, not {scale.count}, would fit"

    def _offload(
        self, job: Job, function: Callable[[], _Returned], then: Callable[[_Returned], None]
    ) -> None:
        """Has a worker run a function of a job; what it returns is taken on the engine thread.

        Raises:
            Overloaded: Too much waits for the workers.
        """
        spec = job.spec
        future = self._workers.submit(function, spec.method.priority, spec.deadline_s)
        job.chore = future

        def go_on(done: Future[_Returned]) -> None:
            if not job.ended:
                with self._device.aside():
                    self._guarded([job], lambda: then(done.result()))

        # A future keeps its callbacks: one that names it would keep all that the job has.
        future.add_done_callback(lambda done: self._inbox.put(functools.partial(go_on, done)))

    def _load(self, job: Job) -> Any:
        """In a worker: decodes and preprocesses."""
        job.timing.decode_started_s = time.monotonic()
        try:
            return job.spec.source.load(job.spec.model)
        finally:
            job.timing.ready_s = time.monotonic()

    # The engine thread.

    def _run(self) -> None:
        try:
            self._loop()
        except Exception:
            log.exception("the engine thread failed")
        finally:
            for job in self.admission.jobs():
                self._end(job, Unavailable(_STOPPING))
            self._deliver()

    def _loop(self) -> None:
        while not self._stopping:
            self._read_inbox(wait=self._flying is None and not len(self._schedule))
            self._drop_dead()
            self._turn()
            self._deliver()

    def _turn(self) -> None:
        """Launches a batch and settles the one before it, or the same where that has run.

        Nothing of them is held once it returns: the engine may wait long for its next.
        """
        batch = self._schedule.next_batch(self._costs)
        launched = self._launch(batch) if batch else None
        self._land()
        self._flying = launched
        if not self._device.pipelined:
            self._land()

    def _land(self) -> None:
        """Settles what is on its way."""
        flying, self._flying = self._flying, None
        if flying:
            self._settle(*flying)

    def _read_inbox(self, *, wait: bool) -> None:
        try:
            while True:
                self._inbox.get(block=wait)()
                wait = False
        except queue.Empty:
            pass

    def _drop_dead(self) -> None:
        now_s = time.monotonic()
        for job in self._schedule:
            if job.cancelled:
                self._end(job, Cancelled("the request was cancelled"))
            elif job.spec.deadline_s <= now_s:
                self._end(job, DeadlineExpired("the deadline passed before the result was ready"))

    def _begin(self, job: Job, loaded: Any) -> None:
        job.loaded = loaded
        self._advance(job)

    def _launch(self, batch: Batch) -> _Launched | None:
        now_s = time.monotonic()
        for ticket in batch.tickets:
            timing = ticket.job.timing
            timing.launched_s = timing.launched_s or now_s
        out_of_memory = False
        try:
            return batch, *self._fly(batch)
        except Exception as error:
            out_of_memory = is_out_of_memory(error)
            if not out_of_memory:
                log.exception("a batch of %d rows failed", len(batch.tickets))
        # Recovered from here, where the exception's tensors are gone.
        if out_of_memory:
            log.warning("out of memory at bucket size %d", batch.bucket_size)
            self._device.release_memory()
            if batch.key.scale <= 1 and batch.key.group is None:
                self._costs[batch.key.model.name].cap(batch.key.lane, batch.bucket_size)
        self._isolate(batch, out_of_memory)
        return None

    def _fly(self, batch: Batch) -> tuple[Flight, list[Any], Any]:
        """Launches a batch; also returns what it runs, and what its group's stepper needs again."""
        model, bucket_size, looked = batch.key.model, batch.bucket_size, None
        works = [(ticket.work, ticket.index) for ticket in batch.tickets]
        rows = [(work.rows, index) for work, index in works if isinstance(work, Work)]
        if isinstance(model, StyleModel):
            styled = [(one, index) for one, index in rows if isinstance(one, StyleRows)]
            return self._device.paint(model.network, styled, bucket_size), styled, None
        with self._device.ahead():
            picks = [(one, index) for one, index in rows if isinstance(one, Rows)]
            if batch.key.group is not None:
                slots = [work.slot(index) for work, index in works if isinstance(work, Climbing)]
                picks, looked = rows_of(batch.key.group.stepper, slots)
        return self._device.launch(model.network, picks, bucket_size), picks, looked

    def _isolate(self, batch: Batch, out_of_memory: bool) -> None:
        """Runs parts of a batch that failed; a row that fails alone fails its job.

        Where memory ran out, parts are the next smaller bucket. Otherwise, and in a bucket that a
        request fixed, they are halves: it may be one row's own target that takes too much.
        """
        count = len(batch.tickets)
        part = (count + 1) // 2 if count > 1 else 0
        if out_of_memory and not batch.key.bucket_size:
            part = max((b for b in self.buckets if b < batch.bucket_size), default=0)
        if not part:
            for ticket in batch.tickets:
                error = OutOfMemory(_TOO_LITTLE_MEMORY) if out_of_memory else Internal()
                self._end(ticket.job, error)
            return
        for start in range(0, count, part):
            tickets = batch.tickets[start : start + part]
            if all(ticket.job.ended for ticket in tickets):
                continue
            bucket_size = batch.key.bucket_size or next(
                b for b in self.buckets if b >= len(tickets)
            )
            launched = self._launch(Batch(batch.key, bucket_size, tickets))
            if launched:
                self._settle(*launched)

    def _settle(self, batch: Batch, flight: Flight, picks: list[Any], looked: Any) -> None:
        """Hands results to their jobs, and goes on with those that have all they waited for.

        What was picked is not let go of before the flight has landed.
        """
        batch_ms = self._device.land(flight)
        key, model = batch.key, batch.key.model
        if key.scale == 1 or isinstance(model, StyleModel):  # which has no size of its own
            self._costs[model.name].record(key.lane, batch.bucket_size, batch_ms / key.scale)
        self.admission.ran([ticket.job for ticket in batch.tickets], batch_ms)
        self._observer.batch(batch, batch_ms)
        with self._device.aside(flight):
            if batch.key.group is not None:
                move = functools.partial(
                    self._move, batch.key.group.stepper, batch.tickets, flight, looked
                )
                self._guarded({ticket.job for ticket in batch.tickets}, move)
                return
            for work, places in _by_work(batch.tickets).items():
                job = batch.tickets[places[0]].job
                job.rides.append(Ride(batch.bucket_size, len(batch.tickets), len(places)))
                if job.ended:
                    continue
                assert isinstance(work, Work)
                before = work.unsettled
                settle = functools.partial(
                    self._settle_work, job, work, batch.tickets, flight, places
                )
                self._guarded([job], settle)
                self.admission.progress(job, (before - work.unsettled) * job.row_ms)

    def _move(
        self, stepper: Stepper, tickets: Sequence[Ticket], flight: Flight, looked: Any
    ) -> None:
        """Moves the slots of a batch by their gradients, all of them at once."""
        count, finite = len(tickets), flight.finite.tolist()
        live = [place for place, ticket in enumerate(tickets) if not ticket.job.ended]
        moved = {place for place in live if finite[place]}
        assert flight.gradient is not None
        assert flight.terms is not None
        told = stepper.step(
            looked, flight.gradient, flight.scores[:count].tolist(), flight.terms[:count], moved
        )
        for place in live:
            job, work, index = tickets[place].job, tickets[place].work, tickets[place].index
            assert isinstance(work, Climbing)
            here = told.get(place, Moved())
            if place not in moved and count > 1:
                work.suspects.append(index)  # see _settle_work
                continue
            if place not in moved:
                here = stepper.stop(work.slot(index))
            for value in here.shown:
                self._show(job, value)
            self.admission.progress(job, job.row_ms * work.scale(job.spec.model.network))
            work.settle(index, here.end)
            if work.ended:
                self._guarded([job], functools.partial(self._advance, job))

    def _guarded(self, jobs: Collection[Job], step: Callable[[], None]) -> None:
        """Takes a step of jobs: what goes wrong in it ends these jobs, and nothing else."""
        ending: PellucidError | None = None
        try:
            step()
        except PellucidError as error:
            ending = failure_of(error)
        except Exception as error:
            names = ", ".join({job.spec.method.name for job in jobs})
            short = is_out_of_memory(error)
            ending = OutOfMemory(_TOO_LITTLE_MEMORY) if short else failure_of(error, names)
            error.__traceback__ = None
        if isinstance(ending, OutOfMemory):  # recovered from here, where no traceback has tensors
            self._device.release_memory()
        for job in jobs if ending is not None else ():
            assert ending is not None
            self._end(job, ending)

    def _settle_work(
        self,
        job: Job,
        work: Work,
        tickets: Sequence[Ticket],
        flight: Flight,
        places: list[int],
    ) -> None:
        brought = flight.brought(work.rows)
        finite = flight.finite.tolist()
        for place in places:
            index = tickets[place].index
            if finite[place] or (len(tickets) == 1 and work.rows.may_fail):
                work.settle(
                    index,
                    flight.scores[place],
                    flight.classes[place],
                    {name: tensor[place] for name, tensor in brought.items()},
                    finite=finite[place],
                )
            elif len(tickets) > 1:
                # Neighbours can have sent it further than it needed, to where it overflows.
                work.suspects.append(index)
            else:
                whose = "the network" if work.model is None else work.model.name
                found = Violation("image", f"{whose}'s output for it is not finite")
                self._end(job, InvalidArgument(f"image: {found.description}", violations=[found]))
                return
        if not work.unsettled:
            self._advance(job)

    def _advance(self, job: Job, answer: Any = None) -> None:
        """Lets a job's method go on until it wants something or is done."""
        if isinstance(job.work, Work):
            answer = job.work.traces()
        elif job.work is not None:
            answer = job.work.ends
        try:
            wanted = self._next(job, answer)
            while isinstance(wanted, Event | State):
                if isinstance(wanted, Event):
                    self._show(job, wanted.value)
                else:
                    job.state = wanted.value
                wanted = self._next(job, None)
        except StopIteration as stop:
            self._end(job, self._done(job, stop.value))
            return
        self._close_work(job)
        if isinstance(wanted, Rows | StyleRows):
            self.costs_of(wanted.model or job.spec.model)
            job.work = Work(wanted)
            self._schedule.add(job)
        elif isinstance(wanted, Climb):
            try:
                job.work = Climbing(self._group(job.spec.model, wanted), wanted)
            finally:
                self._close_groups()  # one that nobody could join
            self._schedule.add(job)
        else:
            do = wanted.do
            self._schedule.remove(job)
            self._offload(job, lambda: do(job.loaded.input), lambda got: self._advance(job, got))
        if self._handing_over:
            self._hand_over(job)

    def _group(self, model: Model, climb: Climb) -> Group:
        """The group that a job joins; the first one of its kind makes it."""
        key = (model.name, climb.size, climb.bucket_size, climb.kind)
        if key not in self._groups:
            self._groups[key] = Group(climb.make())
        return self._groups[key]

    def _hand_over(self, job: Job) -> None:
        """Ends a job whose state is enough to go on elsewhere, and shows it."""
        shown = [] if job.state is None else [job.state]
        if isinstance(job.work, Climbing):
            shown = job.work.snapshots()
        for snapshot in shown:
            self._show(job, snapshot)
        if shown:
            self._end(job, Unavailable(_STOPPING))

    def _close_work(self, job: Job) -> None:
        if job.work is not None:
            job.work.close()
            if job.work.group is not None:
                self._close_groups()
        job.work = None

    def _close_groups(self) -> None:
        """The last one out ends a group."""
        self._groups = {key: group for key, group in self._groups.items() if group.slot_count}

    def _show(self, job: Job, value: Any) -> None:
        if job.outlet is not None:
            self._shown.append((job, self._done(job, value)))

    def _done(self, job: Job, result: Any) -> Done:
        """What came of a job, or has come of it so far."""
        job.timing.finished_s = time.monotonic()
        result = self._device.download(result)
        launched_s = job.timing.launched_s or job.timing.finished_s  # it may have had no rows
        timing = replace(job.timing, launched_s=launched_s)
        return Done(result, job.loaded, tuple(job.rides), timing)

    def _next(self, job: Job, answer: Any) -> Rows | StyleRows | Chore | Event | State | Climb:
        if job.program is not None:
            return job.program.send(answer)
        spec = job.spec
        image = self._device.upload(job.loaded.input, spec.model.network.dtype)
        job.program = spec.method.program(spec.model, image, spec.target)
        return next(job.program)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if job.ended:
            return
        job.ended = True
        if job.chore is not None:
            job.chore.cancel()
        if job.program is not None:
            job.program.close()
        self._close_work(job)
        job.program = job.chore = job.state = None
        self._schedule.remove(job)
        self._finished.append((job, outcome))

    def _deliver(self) -> None:
        """Hands over all that was shown or ended in this iteration, with one call."""
        shown, self._shown = self._shown, []
        finished, self._finished = self._finished, []
        if not shown and not finished:
            return
        for job, outcome in finished:
            self._observer.ended(job, outcome)
            self.admission.release(job)

        def resolve() -> None:
            for job, done in shown:
                assert job.outlet is not None
                job.outlet(done)
            for job, outcome in finished:
                if isinstance(outcome, Done):
                    job.future.set_result(outcome)
                else:
                    job.future.set_exception(outcome)

        self._notify(resolve)

    def _measure(self, model: Served) -> None:
        costs = self.costs_of(model)
        for lane, launch in self._trials(model):
            for bucket in self.buckets:
                try:
                    taken_ms = [self._device.land(launch(bucket)) for _ in range(_WARM_UP_RUNS)]
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    costs.cap(lane, bucket)
                    break
                costs.record(lane, bucket, min(taken_ms))
                if min(taken_ms) > self._iteration_budget_ms:
                    break
        self._device.release_memory()

    def _trials(self, model: Served) -> Iterator[tuple[Lane, Callable[[int], Flight]]]:
        """Each lane that is defined on a network, and what launches so many rows of it."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.buckets[-1], 3, model.network.height_px, model.network.width_px)
        images = torch.randn(shape, generator=generator)
        uploaded = self._device.upload(images, model.network.dtype)
        if isinstance(model, StyleModel):
            codes = None
            if (code_length := model.network.code_length) is not None:
                codes = uploaded.new_zeros(len(uploaded), code_length)
            style_rows = StyleRows(uploaded, model, codes)

            def paint(count: int) -> Flight:
                picks = [(style_rows, index) for index in range(count)]
                return self._device.paint(model.network, picks, count)

            yield Lane.FORWARD, paint
            return
        network = model.network

        def launch(rows: Rows, count: int) -> Flight:
            picks = [(rows, index) for index in range(count)]
            return self._device.launch(network, picks, count)

        for rows in _of_every_lane(model, uploaded):
            yield rows.lane, functools.partial(launch, rows)


def _of_every_lane(model: Model, images: Tensor) -> Iterator[Rows]:
    """Rows of each lane that is defined on a network."""
    network = model.network
    yield Rows(images, TopTarget())
    if network.white_box_refusal is None:
        yield Rows(images, TopTarget(), Want.GRADIENT)
    if network.lrp_refusal is None:
        yield Rows(images, TopTarget(), Want.GRADIENT, Rule.LRP_COMPOSITE, epsilon=1e-6)
    if network.deeplift_refusal is None:
        yield Rows(images, TopTarget(), Want.GRADIENT, references=torch.zeros_like(images))


def _by_work(tickets: Sequence[Ticket]) -> Mapping[Work | Climbing, list[int]]:
    places: dict[Work | Climbing, list[int]] = {}
    for place, ticket in enumerate(tickets):
        places.setdefault(ticket.work, []).append(place)
    return places
