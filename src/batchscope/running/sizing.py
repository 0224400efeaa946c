"""Which batch sizes fit in memory, and how fast each trains: each is tried in a process of its own."""

from __future__ import annotations

import math
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from batchscope.data import TrainingData, load_dataset, selection_of, split_of
from batchscope.errors import Problem, StudyError, TrainingError
from batchscope.loading import parse_study
from batchscope.model_spec import BUILT_IN
from batchscope.records import SizesTried, Trial, TriedSize
from batchscope.running.features import room_for_features
from batchscope.running.machine import look_around
from batchscope.running.messages import Fatal, Message, Ready, Rehearse, Rehearsed, SetUp, TooLarge
from batchscope.running.plan import check_warmup, over_before_warm
from batchscope.running.pool import Pool, Worker
from batchscope.running.progress import Watcher
from batchscope.running.provenance import surroundings
from batchscope.spec import NOISE_BATCHES, Stage, Study

__all__ = ["Bound", "SizingOptions", "at_batch_size", "bound_of", "search", "try_sizes"]

_CLOSE = 16
"""The search ends when the first size that fails is no more than a sixteenth above one that trained."""
_ROOM = 8_000_000_000
"""Bytes of disk that ready features may take, as those of a run by default."""


@dataclass(frozen=True)
class SizingOptions:
    """What to try.

    Attributes:
        low: The smallest batch size.
        high: The largest.
        most: No larger one is tried either; None for no other bound.
        seconds: To train each stage at each batch size, about.

    Raises:
        StudyError: A value lies outside its range.
    """

    low: int = 16
    high: int = 1024
    most: int | None = None
    seconds: float = 3.0

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.low <= self.high:
            rule = "must be a range from a number of at least 1 to one that is no smaller"
            problems.append(Problem("batch_sizes", rule, f"{self.low}..{self.high}"))
        if self.most is not None and self.most < self.low:
            rule = f"must be no less than the smallest batch size, {self.low}"
            problems.append(Problem("max", rule, str(self.most)))
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            problems.append(Problem("seconds", "must be a number above 0", str(self.seconds)))
        if problems:
            raise StudyError("probe", problems)


@dataclass(frozen=True)
class Bound:
    """The largest batch size that may be tried.

    Attributes:
        size: Examples per update.
        reason: What it is.
        step: Batch sizes must be multiples of this.
    """

    size: int
    reason: str
    step: int = 1


def try_sizes(study: Study, options: SizingOptions, watcher: Watcher) -> SizesTried:
    """Tries doubled batch sizes until one does not fit, then those between it and the last that did.

    Nothing is kept: data and features lie in a temporary folder. Memory that runs out, as Python, NumPy or
    the backend say, or as SIGKILL and SIGABRT say of a worker that was set up, means "does not fit"; any
    other end is an error.

    Args:
        study: With its data source; its batch sizes do not matter.
        options: What to try.
        watcher: Told of each batch size.

    Raises:
        BatchscopeError: The study cannot be trained at all.
        TrainingError: The temporary folder cannot hold the data.
    """
    watcher.note(f"reading the data of {study.data.source}")
    dataset = load_dataset(study.data, study.model.image_size, study.model.interpolation)
    split = split_of(dataset, study.data.validation_share, study.data.split_seed)
    choosing = selection_of(study, dataset.labels, split.validation)
    bound = bound_of(study, options, len(split.training), len(split.validation) - len(choosing))
    with _bench(study, options.seconds, watcher) as bench:
        try:
            TrainingData(dataset.inputs, dataset.labels, split, dataset.classes).save(bench.data)
        except OSError as error:
            raise _no_room(bench.place, error) from error
        tried = search(options.low, bound, bench.try_size)
    facts = {**surroundings(), "threads": str(bench.threads), **bench.facts}
    return SizesTried(study.name, tuple(tried), bound.size, bound.reason, facts)


def bound_of(study: Study, options: SizingOptions, training: int, validation: int) -> Bound:
    """The largest batch size that was asked for and that the study's data and stages allow.

    Args:
        study: The study.
        options: What was asked for.
        training: Number of training examples.
        validation: Number of those that validation rests on.

    Raises:
        StudyError: It is smaller than the smallest that was asked for.
        DataError: At that a stage would be over before its learning rate is warmed up.
    """
    bounds = [(options.high, "the end of the range that was asked for")]
    bounds += [] if options.most is None else [(options.most, "the largest that was allowed")]
    bounds += _bounds_of_data(study, training, validation)
    size, reason = min(bounds, key=lambda bound: bound[0])
    if size < options.low:
        rule = f"must begin at no more than {reason}, {size}"
        raise StudyError("probe", [Problem("batch_sizes", rule, str(options.low))])
    check_warmup(study, options.low, training)
    if over_before_warm(study, size, training) is not None:
        above = range(options.low + 1, size)
        size = options.low + bisect_left(
            above, x=True, key=lambda one: over_before_warm(study, one, training) is not None
        )
        reason = "the largest batch size at which no stage is over before its learning rate is warmed up"
    step = math.lcm(*(stage.ghost_batch or 1 for stage in study.stages))
    return Bound(size, reason, step)


def _bounds_of_data(study: Study, training: int, validation: int) -> list[tuple[int, str]]:
    """Batch sizes that the numbers of examples allow, each with what it is."""
    bounds = [(training, "the number of training examples")]
    if study.last_batch == "drop":
        bounds.append((validation, 'the number of validation examples, with last_batch = "drop"'))
    for stage in study.stages:
        if stage.examples is not None:
            bounds.append((stage.examples, f"the examples that the stage {stage.name} presents"))
        if _takes_noise_of_batches(study, stage) and stage.ghost_batch is None:
            told = f'a third of the training examples, for extra_probes = ["gradient_noise"] in {stage.name}'
            bounds.append((training // NOISE_BATCHES, told))
    return bounds


def _takes_noise_of_batches(study: Study, stage: Stage) -> bool:
    """Whether the probe of gradient noise takes the trial's batches in a stage, and not smaller ones.

    Simplified: a backbone and a network of one's own are taken to have BatchNorm, which only a process
    with Keras knows; the built-in ones have none.
    """
    has_batchnorm = study.model.network not in BUILT_IN
    return has_batchnorm and "gradient_noise" in study.extra_probes and stage.batchnorm == "batch"


def search(low: int, bound: Bound, try_size: Callable[[int], TriedSize]) -> list[TriedSize]:
    """Doubles from the smallest size to the bound, then halves the way between what fitted and what did not.

    Args:
        low: The smallest size, at most that of the bound.
        bound: The largest; it is tried too.
        try_size: Tries one.

    Returns:
        All that were tried, ascending. Of those that fitted the largest is at least 16/17 of the smallest
        that did not, or next to it among the multiples of the bound's step.
    """
    tried: list[TriedSize] = []
    size = low
    while True:
        tried.append(try_size(size))
        if not tried[-1].fits or 2 * size > bound.size:
            break
        size *= 2
    top = bound.size - bound.size % bound.step
    if tried[-1].fits and top > size:
        tried.append(try_size(top))
    if not tried[-1].fits and len(tried) > 1:
        tried += _between(tried[-2].batch_size, tried[-1].batch_size, bound.step, try_size)
    return sorted(tried, key=lambda one: one.batch_size)


def _between(fits: int, fails: int, step: int, try_size: Callable[[int], TriedSize]) -> list[TriedSize]:
    tried = []
    while fails - fits > max(step, fits // _CLOSE):
        middle = (fits + fails) // 2
        middle = max(middle - middle % step, fits + step)
        tried.append(try_size(middle))
        fits, fails = (middle, fails) if tried[-1].fits else (fits, middle)
    return tried


@dataclass
class _Bench:
    """Tries batch sizes of a study, one worker with all threads at a time.

    Attributes:
        study: The study.
        seconds: To train each stage.
        place: Folder for data, features and logs.
        watcher: Told of each batch size.
        threads: Of a worker.
        facts: What workers tell when they are set up; empty before the first is.
    """

    study: Study
    seconds: float
    place: Path
    watcher: Watcher
    threads: int = field(init=False)
    facts: Mapping[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.threads = look_around().cores

    @property
    def data(self) -> Path:
        """Folder of the prepared examples."""
        return self.place / "data"

    def try_size(self, batch_size: int) -> TriedSize:
        """Trains with a batch size, in a process that ends with it."""
        features = self.place / "features"
        room = room_for_features(self.place, _ROOM)
        set_up = SetUp(at_batch_size(self.study, batch_size), self.data, features, room)
        rate = None if self.study.grid is None else self.study.grid[0]
        with Pool(set_up, self.place / "logs" / str(batch_size)) as pool:
            memory = look_around().memory
            worker = pool.start(self.threads)
            answer = self._heard(pool, worker)
            if isinstance(answer, Ready):
                self.facts = answer.facts
                worker.tell(Rehearse(Trial(batch_size, 1, rate), self.seconds, memory))
                answer = self._heard(pool, worker)
        tried = _as_tried(batch_size, answer)
        told = "trained" if tried.fits else f"does not fit in memory ({tried.reason})"
        self.watcher.note(f"batch size {batch_size:,}: {told}")
        return tried

    def _heard(self, pool: Pool, worker: Worker) -> Message:
        """The worker's next message; where memory may have ended it, that it was too large."""
        _, message = pool.hear()
        if isinstance(message, Fatal):
            raise message.error
        if message is not None:
            return message
        told = worker.obituary()
        if worker.ended_for_memory() and self.facts:
            return TooLarge(told.splitlines()[-1])
        raise TrainingError(f"a worker is gone that was to try a batch size; {told}")


def _as_tried(batch_size: int, answer: Message) -> TriedSize:
    match answer:
        case Rehearsed(stages):
            return TriedSize(batch_size, stages)
        case TooLarge(reason):
            return TriedSize(batch_size, (), reason)
    raise TypeError(f"a worker must say what it measured, but said {answer!r}")


@contextmanager
def _bench(study: Study, seconds: float, watcher: Watcher) -> Iterator[_Bench]:
    """A bench with a folder that is there as long as it is."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="batchscope-probe-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room("the temporary folder", error) from error
    with folder as place:
        yield _Bench(study, seconds, Path(place), watcher)


def _no_room(where: object, error: OSError) -> TrainingError:
    return TrainingError(
        f"{where}: the data must find room here, but: {error}; make room, use fewer (--limit) or set TMPDIR "
        "to another folder"
    )


def at_batch_size(study: Study, batch_size: int) -> Study:
    """The study as it would have to be to train with this batch size alone.

    Probes by the batch need as many images as a batch has, and that of gradient noise those of three
    batches, so there are no fewer.

    Raises:
        StudyError: It cannot be.
    """
    raw = study.model_dump(mode="json", exclude_none=True)
    by_noise = [
        NOISE_BATCHES * (stage.ghost_batch or batch_size)
        for stage in study.stages
        if _takes_noise_of_batches(study, stage)
    ]
    probe_images = max(study.probe_images, batch_size, *by_noise)
    changed = {"batch_sizes": [batch_size], "probe_images": probe_images}
    resolved = parse_study(raw | changed, study.name)
    if not isinstance(resolved, Study):
        raise TypeError(f"a study of Keras must stay one, but became {resolved!r}")
    return resolved
