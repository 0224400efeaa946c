"""The Ray executor: trials as tasks of a cluster, whose driver alone writes the store."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchscope.errors import ClusterError, HistoryError
from batchscope.records import EpochRecord, Trial
from batchscope.running.cluster.desk import Desk
from batchscope.running.cluster.fleet import LOOK_SECONDS, Fleet
from batchscope.running.cluster.flights import Flight, bound_to, outcome_of, progress_seconds
from batchscope.running.cluster.letters import (
    Begun,
    DataReady,
    Errand,
    Letter,
    Lost,
    Order,
    Seated,
    Unfit,
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
    Message,
    Refused,
    RunTrial,
    Stored,
    TrialEnded,
)
from batchscope.running.options import ClusterOptions
from batchscope.running.pool import Job

if TYPE_CHECKING:
    from ray import ObjectRef

    from batchscope.data import TrainingData

__all__ = ["TRIES", "Session", "Work", "execute"]

TRIES = 3
"""Tasks that a trial may lose in a row, without a record stored between, before it has failed."""
_CANCELLING_SECONDS = 5.0
_CLEANING_SECONDS = 60.0
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
        data: The examples; None for somebody's own code.
        options: What a trial asks of the cluster.
        most: Trials at a time; None for as many as there is room for.
    """

    errand: Errand
    data: TrainingData | None
    options: ClusterOptions
    most: int | None


def execute(session: Session, work: Work, sink: Sink) -> None:
    """Carries out jobs, each as a Ray task, until none is left and no more come.

    This process must be connected to the cluster. A job that fails is told to the sink and the others go
    on. One whose worker or node is lost is carried out again, as it stands then, on whatever node has room
    first, other than where it was lost if there is one, until `TRIES` of its tasks have been lost in a row;
    then it has failed. A node that refuses what it is told, on which no worker can be set up, or which loses
    what goes well elsewhere, is given up. Nodes that join are used.

    Args:
        session: What the nodes are told.
        work: The jobs.
        sink: Told of everything, from this thread only.

    Raises:
        ClusterError: No node has room for a trial, or none has for a while, or the cluster is gone.
        BatchscopeError: All nodes with room refuse what they are told; the last one's refusal.
    """
    import ray

    try:
        nodes = alive(session.options)
        refuse_too_small(nodes, session.options)
        sink.chosen(_layout(session, nodes, len(work.jobs)), {})
        execution = _Execution(session, work, sink, nodes)
        try:
            execution.carry_out()
        finally:
            execution.tidy()
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"the Ray cluster must stay reachable while a run goes on, but: {error}; the same command goes "
            "on from what is stored"
        ) from error


def _layout(session: Session, nodes: Iterable[Node], jobs: int) -> Layout:
    return Layout(min(_at_once(session, nodes), jobs), session.errand.threads)


def _at_once(session: Session, nodes: Iterable[Node]) -> int:
    room = sum(node.slots for node in nodes)
    return room if session.most is None else min(room, session.most)


class _Execution:
    """The jobs that wait, and the tasks that are under way."""

    def __init__(self, session: Session, work: Work, sink: Sink, nodes: tuple[Node, ...]) -> None:
        import ray

        self._session, self._work, self._sink = session, work, sink
        self._queue = Queue(work.jobs)
        self._fleet = Fleet(session.options, sink, nodes)
        self._may_be_more = True
        self._flights: dict[ObjectRef[Any], Flight] = {}
        self._attempts: dict[int, Flight] = {}
        self._numbers = itertools.count()
        self._tries: Counter[str] = Counter()
        self._blind: set[str] = set()
        self._answers: dict[int, Message] = {}
        self._refs = ray.put(session.errand), None if session.data is None else ray.put(session.data)
        here = bound_to(ray.get_runtime_context().get_node_id())
        remote: Any = ray.remote  # whose types know neither methods of actors nor all options
        actor = remote(num_cpus=0, max_concurrency=_TASKS_AT_A_TIME)(Desk)
        self._desk: Any = actor.options(scheduling_strategy=here).remote()
        self._mail: ObjectRef[Any] = self._desk.exchange.remote({})
        # Without max_calls a task with a GPU would end its process, and the worker with it.
        self._task = remote(max_retries=0, max_calls=0)(carry_out)

    def carry_out(self) -> None:
        """Submits tasks, and takes what they say until all are done."""
        self._submit()
        while self._flights or len(self._queue):
            if self._flights:
                self._listen()
            else:
                self._fleet.wait(len(self._queue))
            for node in self._fleet.look():
                self._queue.lost(node)
            self._submit()

    def tidy(self) -> None:
        """Ends the tasks that are under way, and has the nodes delete what was kept for this session."""
        import ray

        with suppress(ray.exceptions.RayError):
            try:
                self._cancel(list(self._flights))
            finally:  # also at a second Ctrl-C: workers that are kept leave with the desk
                ray.kill(self._desk)
            task: Any = ray.remote(clean_up)
            errand = self._session.errand
            cleaning = [
                task.options(num_cpus=0, max_retries=0, scheduling_strategy=bound_to(node.id)).remote(
                    errand.run, errand.session
                )
                for node in alive(self._session.options)
            ]
            _, left = ray.wait(cleaning, num_returns=len(cleaning), timeout=_CLEANING_SECONDS)
            if left:
                self._sink.note(f"{len(left)} nodes have not deleted what the run kept on their disks")
            for ref in left:
                ray.cancel(ref, force=True)

    def _cancel(self, refs: list[ObjectRef[Any] | Any]) -> None:
        """Lets tasks end their workers, then ends those that do not come to it."""
        import ray

        for ref in refs:
            ray.cancel(ref)
        _, left = ray.wait(refs, num_returns=len(refs), timeout=_CANCELLING_SECONDS) if refs else ([], [])
        for ref in left:
            ray.cancel(ref, force=True)

    def _submit(self) -> None:
        """Fills the nodes' slots."""
        if not len(self._queue) and self._may_be_more:
            self._queue.add(self._work.more())
            self._may_be_more = len(self._queue) > 0
        while len(self._queue) and (self._session.most is None or len(self._flights) < self._session.most):
            if not self._submit_one():
                return

    def _submit_one(self) -> bool:
        busy = Counter(flight.node for flight in self._flights.values())
        nodes = {node.id for node in self._fleet.with_room}
        for node in self._fleet.free(busy):
            job = self._queue.take(node.id, nodes)
            if job is not None:
                self._launch(job, node)
                return True
        return False

    def _launch(self, job: Job, node: Node) -> None:
        flight = Flight(next(self._numbers), job, node.id)
        flying = {each.job.trial.replicate for each in self._flights.values()} | {job.trial.replicate}
        order = Order(
            attempt=flight.attempt,
            command=RunTrial(job.trial, job.checkpoint.absolute(), job.stored),
            over=frozenset(self._queue.begun - self._queue.replicates - flying),
            progress_seconds=progress_seconds(_at_once(self._session, self._fleet.with_room)),
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

    def _listen(self) -> None:
        """Waits for letters or the end of a task, and takes all that are there."""
        import ray

        waited: list[ObjectRef[Any]] = [self._mail, *self._flights]
        done, _ = ray.wait(waited, num_returns=1, timeout=LOOK_SECONDS)
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
            case _ if flight is None:
                self._answer(letter, Refused("another task carries out this trial by now"))
            case Begun():
                self._begin(flight)
            case DataReady(size, seconds):
                node = self._fleet.name(flight.node)
                self._sink.note(f"the data are on node {node}: {size / 1e6:.1f} MB in {seconds:.1f} s")
            case Seated(facts, shared):
                self._seat(flight.node, facts, shared=shared)
            case BatchDone(progress):
                self._sink.batch(flight.job.trial, progress)
            case EpochDone(record):
                self._answer(letter, self._stored(flight, record))
            case Discarded(epoch, replaced):
                self._sink.discarded(flight.job.trial, epoch, replaced=replaced)
                self._answer(letter, Stored())

    def _answer(self, letter: Letter, answer: Message) -> None:
        if letter.ticket is not None:
            self._answers[letter.ticket] = answer

    def _begin(self, flight: Flight) -> None:
        if not flight.begun:
            flight.begun = True
            self._fleet.begun()
            self._sink.started(flight.job.trial)

    def _seat(self, node: str, facts: Mapping[str, str], *, shared: bool) -> None:
        self._fleet.ready(node, facts)
        self._sink.ready(facts)
        if not shared and node not in self._blind:
            self._blind.add(node)
            self._sink.note(
                f"node {self._fleet.name(node)} does not see {self._session.errand.folder}: trials that are "
                "lost there, and all that are unfinished when the run is stopped, begin anew"
            )

    def _stored(self, flight: Flight, record: EpochRecord) -> Stored | Refused:
        trial = flight.job.trial
        try:
            self._sink.epoch(trial, record)
        except HistoryError as error:
            return Refused(str(error))
        self._tries.pop(trial.name, None)
        self._fleet.stored(flight.node)
        return Stored()

    def _land(self, ref: ObjectRef[Any]) -> None:
        flight = self._flights.pop(ref)
        del self._attempts[flight.attempt]
        self._may_be_more = True
        trial = flight.job.trial
        match outcome_of(ref):
            case None:
                self._fleet.lost(flight.node)
                self._queue.put_back(self._work.again(trial))
            case Unfit(error):
                self._queue.put_back(self._work.again(trial))
                self._fleet.bar(flight.node, error)
            case Lost(reason, seated=False):
                self._queue.put_back(self._work.again(trial), flight.node)
                self._fleet.unready(flight.node, reason)
            case Lost(reason):
                self._begin(flight)
                self._lose(trial, flight.node, reason)
            case TrialEnded(error):
                self._begin(flight)
                self._sink.ended(trial, error)

    def _lose(self, trial: Trial, node: str, reason: str) -> None:
        """Has a trial carried out again, unless it was lost too often without getting further."""
        self._fleet.broke(node, trial.name, reason)
        self._tries[trial.name] += 1
        lost = self._tries[trial.name]
        if lost == TRIES:
            self._sink.ended(trial, f"{reason}\nits worker or node was lost {lost} times in a row")
            return
        last = reason.strip().splitlines()[-1]
        self._sink.note(
            f"{trial.name} lost its worker or node {self._fleet.name(node)} ({last}); it goes on from "
            "what is kept, elsewhere if there is another node"
        )
        self._queue.put_back(self._work.again(trial), node)
