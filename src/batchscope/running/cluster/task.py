"""What runs on a node: a Ray task is a trial, carried out by a worker process that tasks after it take over.

The worker is that of the local executor, so a trial on a cluster does what it does on one machine. It ends
with the Ray process that started it, however that ends.
"""

from __future__ import annotations

import itertools
import os
import platform
import threading
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchscope.errors import BatchscopeError, ClusterError
from batchscope.running.cluster.guard import start_guard
from batchscope.running.cluster.letters import (
    Begun,
    DataReady,
    Errand,
    Lost,
    Order,
    Outcome,
    Seated,
    Told,
    Unfit,
)
from batchscope.running.cluster.node_files import SHARED, NodeFiles, files_left, node_files
from batchscope.running.features import delete_features_of
from batchscope.running.messages import (
    AnySetUp,
    BatchDone,
    CommandSetUp,
    Discarded,
    EpochDone,
    Fatal,
    Message,
    Ready,
    SetUp,
    TrialEnded,
)
from batchscope.running.pool import Pool, Worker
from batchscope.running.recipes import throttled

if TYPE_CHECKING:
    from ray import ObjectRef

__all__ = ["carry_out", "clean_up"]

_STEP_SECONDS = 0.5
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class _Desk:
    """The driver's desk, as one task speaks to it.

    Attributes:
        actor: Ray's handle.
        attempt: Of the task.
    """

    actor: Any
    attempt: int

    def tell(self, message: Told) -> None:
        self.actor.put.remote(self.attempt, message)

    def ask(self, message: Message) -> Message:
        import ray

        answer: Message = ray.get(self.actor.ask.remote(self.attempt, message))
        return answer


@dataclass(frozen=True, eq=False)
class _Seat:
    """The worker that this Ray process has, and what it was started with.

    Attributes:
        key: Of the run and its session; a task of another one starts another worker.
        pool: Of this one worker.
        worker: The worker.
        files: The node's.
        shared: Whether the run's folder is seen from here.
        guard: Of the worker, where it carries out somebody's own code.
    """

    key: tuple[str, str]
    pool: Pool
    worker: Worker
    files: NodeFiles
    shared: bool
    guard: BinaryIO | None

    def checkpoint(self, at_the_driver: Path) -> Path:
        """Where a trial's state is kept."""
        return at_the_driver if self.shared else self.files.checkpoints / at_the_driver.name

    def leave(self) -> None:
        """Ends the worker."""
        self.pool.stop([self.worker])
        if self.guard is not None:
            self.guard.close()


_seats: list[_Seat] = []
"""None or one."""
_numbers = itertools.count(1)


def carry_out(order: Order, refs: tuple[ObjectRef[Any], ObjectRef[Any] | None], actor: Any) -> Outcome:
    """Carries out a trial, and tells the driver's desk of its course.

    Args:
        order: The trial.
        refs: Of the `Errand` and, for Keras, the `TrainingData`; within a tuple, so that Ray does not fetch
            them for tasks that need neither.
        actor: Handle of the `Desk`.

    Returns:
        How it ended.
    """
    import ray

    desk = _Desk(actor, order.attempt)
    errand: Errand = ray.get(refs[0])
    node = ray.get_runtime_context().get_node_id()
    delete_features_of(files_left(node, errand.run, errand.session).features, order.over)
    try:
        seat = _take_seat(errand, refs[1], node, desk)
        outcome = seat if isinstance(seat, Lost) else _relay(seat, order, desk)
    except BatchscopeError as error:
        outcome = Unfit(error)
    except BaseException:  # the driver is gone, or wants no more of this task
        _leave()
        raise
    if not (errand.keep_workers and isinstance(outcome, TrialEnded)):
        _leave()
    return outcome


def clean_up(run: str, session: str) -> None:
    """Deletes what a session has kept on this node."""
    import ray

    files_left(ray.get_runtime_context().get_node_id(), run, session).delete()


def _take_seat(errand: Errand, data: ObjectRef[Any] | None, node: str, desk: _Desk) -> _Seat | Lost:
    """The seat of this process, made ready if it is another session's or nobody's."""
    key = errand.run, errand.session
    for seat in _seats:
        if seat.key == key and seat.worker.is_alive():
            return seat
    _leave()
    _refuse_another_version(errand)
    files = node_files(node, errand.run, errand.session)
    room = 0 if data is None else _bring(files, data, errand.cache_limit, desk)
    shared = _is_shared(errand)
    _enter(errand)
    seat = _seat(errand, files, room, shared=shared)
    if errand.keep_workers:
        _leave_with(desk, seat)
    match _hear(seat.pool):
        case Ready(facts):
            desk.tell(Seated(facts, shared))
            return seat
        case Fatal(error):
            raise error
        case _:
            return Lost(seat.worker.obituary(), seated=False)


def _seat(errand: Errand, files: NodeFiles, room: int, *, shared: bool) -> _Seat:
    """Starts a worker."""
    # A Ray process has many seats, one after the other, where workers are lost or not kept.
    name = f"{files.path.name[:8]}-{os.getpid()}-{next(_numbers)}"
    logs = (errand.folder / "logs" if shared else files.logs) / name
    mark = "" if isinstance(errand.set_up, SetUp) else errand.run
    pool = Pool(_set_up_here(errand, files, room, logs), logs, mark)
    worker = pool.start(errand.threads)
    try:
        guard = start_guard(worker.mark) if worker.mark else None
    except BaseException:
        pool.stop([worker])
        raise
    seat = _Seat((errand.run, errand.session), pool, worker, files, shared, guard)
    _seats.append(seat)
    return seat


def _leave() -> None:
    for seat in _seats.copy():
        _leave_one(seat)


def _leave_one(seat: _Seat) -> None:
    try:
        _seats.remove(seat)
    except ValueError:  # it was left already
        return
    seat.leave()


def _leave_with(desk: _Desk, seat: _Seat) -> None:
    """Has a seat left when the desk is closed: in a notebook the Ray process goes on after the run.

    By then the seat may be another run's, which this must not touch.
    """

    def wait() -> None:
        import ray

        while True:
            try:
                ray.get(desk.actor.closed.remote())
            except ray.exceptions.ActorUnavailableError:  # for a while; a desk that is gone has died
                time.sleep(_AGAIN_SECONDS)
            except ray.exceptions.RayError:
                return _leave_one(seat)

    threading.Thread(target=wait, daemon=True).start()


def _refuse_another_version(errand: Errand) -> None:
    version = metadata.version("batchscope")
    if errand.version != version:
        raise ClusterError(
            f"{platform.node()}: all nodes must have the driver's batchscope {errand.version}, but this one "
            f"has {version}; install the same everywhere"
        )


def _bring(files: NodeFiles, ref: ObjectRef[Any], cache_limit: int, desk: _Desk) -> int:
    """Has the data on this node, and says how much may be kept ready beside them."""
    import ray

    start = time.perf_counter()
    if files.bring(lambda: ray.get(ref), cache_limit):
        size = sum(file.stat().st_size for file in files.data.iterdir())
        desk.tell(DataReady(size, time.perf_counter() - start))
    return files.room


def _is_shared(errand: Errand) -> bool:
    """Whether the run's folder is the driver's, and can be written from here."""
    try:
        seen = (errand.folder / SHARED).read_text(encoding="utf-8") == errand.session
    except OSError:
        return False
    return seen and os.access(errand.folder, os.W_OK)


def _enter(errand: Errand) -> None:
    """Goes where the driver is, for a command and modules are named from there.

    Raises:
        ClusterError: Somebody's own code needs that folder, and it is not here.
    """
    try:
        os.chdir(errand.cwd)
    except OSError as error:
        if not isinstance(errand.set_up, SetUp):
            raise ClusterError(
                f"{errand.cwd}: training code of one's own runs in the folder that the run was started in, "
                f"which must be on every node, but on {platform.node()}: {error}; start the run in a shared "
                "folder"
            ) from error
    for name, value in errand.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _set_up_here(errand: Errand, files: NodeFiles, room: int, logs: Path) -> AnySetUp:
    match errand.set_up:
        case SetUp():
            return replace(errand.set_up, data=files.data, cache=files.features, cache_limit=room)
        case CommandSetUp():
            return replace(errand.set_up, logs=logs)
        case _:
            return errand.set_up


def _relay(seat: _Seat, order: Order, desk: _Desk) -> Outcome:
    """Passes on what the worker says and the driver answers until the trial is over."""
    desk.tell(Begun())
    report = throttled(desk.tell, order.progress_seconds)
    seat.worker.tell(replace(order.command, checkpoint=seat.checkpoint(order.command.checkpoint)))
    while True:
        message = _hear(seat.pool)
        match message:
            case None:
                return Lost(seat.worker.obituary())
            case TrialEnded():
                return message
            case BatchDone():
                report(message)
            case EpochDone() | Discarded():
                seat.worker.tell(desk.ask(message))


def _hear(pool: Pool) -> Message | None:
    """The worker's next message; None where it is gone.

    Ray cancels a task by an exception that enters between two steps of it, so none may take long.
    """
    while True:
        heard = pool.hear_within(_STEP_SECONDS)
        if heard is not None:
            return heard[1]
