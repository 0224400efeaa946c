"""The Ray executor: trials as tasks of a cluster, whose driver alone writes the store."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchscope.errors import ClusterError, HistoryError
from batchscope.records import EpochRecord, Trial
from batchscope.running.cluster.desk import Desk
from batchscope.running.cluster.flights import Flight, bound_to, outcome_of
from batchscope.running.cluster.letters import (
    Begun,
    DataReady,
    Errand,
    Letter,
    Lost,
    Order,
    Parcel,
)
from batchscope.running.cluster.nodes import Node, alive, refuse_too_small
from batchscope.running.cluster.placing import Queue
from batchscope.running.cluster.task import carry_out, clean_up
from batchscope.running.layout import Layout
from batchscope.running.local import More, Sink
from batchscope.running.messages import (
    BatchDone,
    Discarded,
    EpochDone,
    Fatal,
    Message,
    Ready,
    Refused,
    Stored,
    TrialEnded,
)
from batchscope.running.options import ClusterOptions
from batchscope.running.pool import Job

if TYPE_CHECKING:
    from ray import ObjectRef

__all__ = ["TRIES", "Session", "Work", "execute"]

TRIES = 3
"""Tasks that a trial may lose in a session before it has failed."""
_LOOK_SECONDS = 2.0
_PATIENCE_SECONDS = 120.0
_CANCELLING_SECONDS = 5.0
_CLEANING_SECONDS = 5.0
_TASKS_AT_A_TIME = 100_000


@dataclass(frozen=True)
class Work:
    """What is to be carried out.

    Attributes:
        jobs: In the order in which to start them.
        more: Gives jobs that come up while others are carried out.
        again: Gives the job of a trial as it stands now, once its task was lost.
    """

    jobs: Sequence[Job]
    more: More
    again: Callable[[Trial], Job]


@dataclass(frozen=True)
class Session:
    """What is sent to the nodes, and what is asked of them.

    Attributes:
        errand: Common to all tasks.
        parcel: The data; None for somebody's own code.
        options: What a trial asks of the cluster.
        most: Trials at a time; None for as many as there is room for.
    """

    errand: Errand
    parcel: Parcel | None
    options: ClusterOptions
    most: int | None


def execute(session: Session, work: Work, sink: Sink) -> None:
    """Carries out jobs, each as a Ray task, until none is left and no more come.

    This process must be connected to the cluster. A job that fails is told to the sink and the others go
    on. One whose worker or node is lost is carried out again, as it stands then, on whatever node has room
    first, until `TRIES` of its tasks have been lost; then it has failed. Nodes that join are used.

    Args:
        session: What the nodes are told.
        work: The jobs.
        sink: Told of everything, from this thread only.

    Raises:
        ClusterError: No node has room for a trial, or the cluster is gone.
        BatchscopeError: A node refuses what it is told.
    """
    import ray

    try:
        nodes = alive(session.options)
        refuse_too_small(nodes, session.options)
        sink.chosen(_layout(session, nodes, len(work.jobs)), {})
        execution = _Execution(session, work, sink)
        try:
            execution.carry_out(nodes)
        finally:
            execution.tidy()
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"the Ray cluster must stay reachable while a run goes on, but: {error}; the same command goes "
            "on from what is stored"
        ) from error


def _layout(session: Session, nodes: Iterable[Node], jobs: int) -> Layout:
    room = sum(node.slots for node in nodes)
    most = room if session.most is None else min(room, session.most)
    return Layout(min(most, jobs), session.errand.threads)


class _Execution:
    """The jobs that wait, and the tasks that are under way."""

    def __init__(self, session: Session, work: Work, sink: Sink) -> None:
        import ray

        self._session, self._work, self._sink = session, work, sink
        self._queue = Queue(work.jobs)
        self._nodes: tuple[Node, ...] = ()
        self._looked = -math.inf
        self._alone_since: float | None = None
        self._flights: dict[ObjectRef[Any], Flight] = {}
        self._attempts: dict[int, Flight] = {}
        self._numbers = itertools.count()
        self._tries: Counter[str] = Counter()
        self._answers: dict[int, Message] = {}
        self._refs = ray.put(session.errand), None if session.parcel is None else ray.put(session.parcel)
        here = bound_to(ray.get_runtime_context().get_node_id())
        remote: Any = ray.remote  # whose types know neither methods of actors nor all options
        actor = remote(num_cpus=0, max_concurrency=_TASKS_AT_A_TIME)(Desk)
        self._desk: Any = actor.options(scheduling_strategy=here).remote()
        self._mail: ObjectRef[Any] = self._desk.exchange.remote({})
        # Without max_calls a task with a GPU would end its process, and the worker with it.
        self._task = remote(max_retries=0, max_calls=0)(carry_out)

    def carry_out(self, nodes: tuple[Node, ...]) -> None:
        """Submits tasks, and takes what they say until all are done."""
        self._nodes, self._looked = nodes, time.monotonic()
        self._submit()
        while self._flights or len(self._queue):
            if self._flights:
                self._listen()
            else:
                self._wait_for_a_node()
            self._look()
            self._submit()

    def tidy(self) -> None:
        """Ends the tasks that are under way, and has the nodes delete what was kept for this session."""
        import ray

        with suppress(ray.exceptions.RayError):
            self._cancel(list(self._flights))
            ray.kill(self._desk)
            task: Any = ray.remote(clean_up)
            errand = self._session.errand
            cleaning = [
                task.options(num_cpus=0, max_retries=0, scheduling_strategy=bound_to(node.id)).remote(
                    errand.run, errand.session
                )
                for node in alive(self._session.options)
            ]
            ray.wait(cleaning, num_returns=len(cleaning), timeout=_CLEANING_SECONDS)

    def _cancel(self, refs: list[ObjectRef[Any] | Any]) -> None:
        """Lets tasks end their workers, then ends those that do not come to it."""
        import ray

        for ref in refs:
            ray.cancel(ref)
        _, left = ray.wait(refs, num_returns=len(refs), timeout=_CANCELLING_SECONDS) if refs else ([], [])
        for ref in left:
            ray.cancel(ref, force=True)

    def _submit(self) -> None:
        """Fills the nodes' slots, emptiest node first, so that few trials are spread over all of them."""
        if not len(self._queue):
            self._queue.add(self._work.more())
        busy = Counter(flight.node for flight in self._flights.values())
        while len(self._queue) and (self._session.most is None or len(self._flights) < self._session.most):
            free = [node for node in self._nodes if busy[node.id] < node.slots]
            if not free:
                return
            node = min(free, key=lambda each: busy[each.id] / each.slots)
            self._launch(self._queue.take(node.id), node)
            busy[node.id] += 1

    def _launch(self, job: Job, node: Node) -> None:
        self._alone_since = None
        flight = Flight(next(self._numbers), job, node.id)
        flying = {each.job.trial.replicate for each in self._flights.values()}
        order = Order(
            attempt=flight.attempt,
            trial=job.trial,
            checkpoint=job.checkpoint.absolute(),
            stored=job.stored,
            replicates=frozenset({job.trial.replicate} | flying | self._queue.replicates),
        )
        options = self._session.options
        task = self._task.options(
            num_cpus=options.cpus_per_trial,
            num_gpus=options.gpus_per_trial,
            scheduling_strategy=bound_to(node.id),
            name=job.trial.name,
        )
        self._flights[task.remote(order, self._refs, self._desk)] = flight
        self._attempts[flight.attempt] = flight

    def _look(self) -> None:
        """Sees from time to time which nodes have come and gone."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        before, self._nodes = self._nodes, alive(self._session.options)
        there = {node.id for node in self._nodes}
        for node in before:
            if node.id not in there:
                self._queue.lost(node.id)
                self._sink.note(f"node {node.name} has left the cluster")
        for node in set(self._nodes) - set(before):
            self._sink.note(f"node {node.name} has joined the cluster")

    def _wait_for_a_node(self) -> None:
        """Waits where all nodes that had room are gone.

        Raises:
            ClusterError: None has come for `_PATIENCE_SECONDS`.
        """
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            self._sink.note(f"no node has room for a trial; waiting {_PATIENCE_SECONDS:g} s for one")
        if time.monotonic() - self._alone_since > _PATIENCE_SECONDS:
            raise ClusterError(
                "some node of the cluster must have room for a trial, but none had for "
                f"{_PATIENCE_SECONDS:g} s, and {len(self._queue)} trials wait; add nodes, then the same "
                "command goes on"
            )
        time.sleep(_LOOK_SECONDS)

    def _listen(self) -> None:
        """Waits for letters or the end of a task, and takes all that are there."""
        import ray

        waited: list[ObjectRef[Any]] = [self._mail, *self._flights]
        done, _ = ray.wait(waited, num_returns=1, timeout=_LOOK_SECONDS)
        if done:
            done, _ = ray.wait(waited, num_returns=len(waited), timeout=0)
        if self._mail in done:
            for letter in ray.get(self._mail):
                self._take(letter)
            answers, self._answers = self._answers, {}
            self._mail = self._desk.exchange.remote(answers)
        for ref in done:
            if ref in self._flights:
                self._land(ref)

    def _take(self, letter: Letter) -> None:
        flight = self._attempts.get(letter.attempt)
        match letter.message:
            case Ready(facts):
                self._sink.ready(facts)
            case DataReady(node, size, seconds):
                self._sink.note(f"the data are on node {node}: {size / 1e6:.1f} MB in {seconds:.1f} s")
            case _ if flight is None:
                self._answer(letter, Refused("another task carries out this trial by now"))
            case Begun(node):
                self._begin(flight, node)
            case BatchDone(progress):
                self._sink.batch(flight.job.trial, progress)
            case EpochDone(record):
                self._answer(letter, self._stored(flight.job.trial, record))
            case Discarded(epoch, replaced):
                self._sink.discarded(flight.job.trial, epoch, replaced=replaced)
                self._answer(letter, Stored())

    def _answer(self, letter: Letter, answer: Message) -> None:
        if letter.ticket is not None:
            self._answers[letter.ticket] = answer

    def _begin(self, flight: Flight, node: str) -> None:
        if not flight.begun:
            flight.begun, flight.node = True, node
            self._sink.started(flight.job.trial)

    def _stored(self, trial: Trial, record: EpochRecord) -> Stored | Refused:
        try:
            self._sink.epoch(trial, record)
        except HistoryError as error:
            return Refused(str(error))
        return Stored()

    def _land(self, ref: ObjectRef[Any]) -> None:
        flight = self._flights.pop(ref)
        del self._attempts[flight.attempt]
        outcome = outcome_of(ref)
        if outcome is None:
            self._looked = -math.inf
            self._queue.put_back(self._work.again(flight.job.trial))
            return
        self._begin(flight, flight.node)
        match outcome:
            case Fatal(error):
                raise error
            case TrialEnded(error):
                self._sink.ended(flight.job.trial, error)
            case Lost(reason):
                self._lose(flight.job.trial, reason)

    def _lose(self, trial: Trial, reason: str) -> None:
        """Has a trial carried out again, unless it was lost too often."""
        self._looked = -math.inf
        self._tries[trial.name] += 1
        lost = self._tries[trial.name]
        if lost == TRIES:
            self._sink.ended(trial, f"{reason}\nits worker or node was lost {lost} times")
            return
        last = reason.strip().splitlines()[-1]
        self._sink.note(
            f"{trial.name} lost its worker or node ({last}); it goes on elsewhere from what is kept"
        )
        self._queue.put_back(self._work.again(trial))
