"""TensorBoard: a folder of event files for each trial, in one folder for each run.

TensorBoard's charts have one horizontal axis, the step. Whether batch sizes differ at equal epochs or
at equal updates is what a study asks, so each figure is there by epochs (``by_epoch/``, every column),
at which all batch sizes have seen the same examples, and losses and accuracies by updates too
(``by_updates/``). A point's time is the start of the run's first session and the trial's seconds of
training, so TensorBoard's relative time is training time.

A trial's file depends on the stored history alone. What is there already is a beginning of it, or is
replaced: so nothing is there twice, and the torn end that a kill left is mended.

Simplified: TensorBoard keeps numbers in 32 bits, about 7 digits.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscope.errors import ExportError
from batchscope.export.content import Point, RunContent, TrialSeries
from batchscope.history import METRICS
from batchscope.replacing import replacing
from batchscope.running.folder import RunFolder

__all__ = ["TensorboardTracker"]


@dataclass(frozen=True)
class _Written:
    """What this process wrote of a trial.

    Attributes:
        path: The file.
        epoch: The last one in it.
        seconds: Of that epoch.
    """

    path: Path
    epoch: int
    seconds: float


class TensorboardTracker:
    """Writes a run as TensorBoard's event files.

    Args:
        folder: Takes a folder for the run, named by the study and eight digits of the run's identity.
            It can be given to TensorBoard as ``--logdir``.
    """

    tool = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, _Written] = {}

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def update(self, run: RunContent) -> None:
        """Adds the epochs that are not there yet."""
        with self._translated():
            for series in run.trials:
                if series.points:
                    self._bring_up_to_date(run, series)

    def conclude(self, run: RunContent, folder: RunFolder) -> None:
        """Nothing: TensorBoard has no place for files."""

    def _bring_up_to_date(self, run: RunContent, series: TrialSeries) -> None:
        known, last = self._written.get(series.name), series.points[-1]
        if known is None or known.seconds != series.seconds_at(known.epoch):
            path = self._file(run, series)
            _complete(path, _head(run, series) + _records(run, series.points))
        elif known.epoch < last.epoch:
            path = known.path
            with path.open("ab") as file:
                file.write(_records(run, [point for point in series.points if point.epoch > known.epoch]))
        else:
            return
        self._written[series.name] = _Written(path, last.epoch, last.seconds)

    def _file(self, run: RunContent, series: TrialSeries) -> Path:
        name = f"events.out.tfevents.{int(run.started):010d}.batchscope"
        return self._folder / f"{run.study.name}-{run.identity[:8]}" / series.name / name

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ExportError(
                f"{error.filename or self._folder} must be writable, but: {error.strerror or error}; "
                "choose another folder or make room"
            ) from error


def _complete(path: Path, content: bytes) -> None:
    """Makes a file hold this content, by adding what is missing where the rest is there."""
    there = path.read_bytes() if path.exists() else None
    if there is None or not content.startswith(there):
        with replacing(path) as file:
            file.write(content)
    elif len(there) < len(content):
        with path.open("ab") as file:
            file.write(content[len(there) :])


def _head(run: RunContent, series: TrialSeries) -> bytes:
    """Version and parameters.

    The replicate is none of them: it is no choice, and TensorBoard's table of parameters takes the
    trials of equal ones together.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import plugin_data_pb2, summary_v2

    values = {**run.parameters, **series.parameters}
    del values["replicate"]
    summary = summary_v2.hparams_pb(values, start_time_secs=run.started)
    for value in summary.value:  # a map, which otherwise comes in any order
        data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        value.metadata.plugin_data.content = data.SerializeToString(deterministic=True)
    return _encoded(
        Event(wall_time=run.started, file_version="brain.Event:2"),
        Event(wall_time=run.started, summary=summary),
    )


def _records(run: RunContent, points: Sequence[Point]) -> bytes:
    return _encoded(*(event for point in points for event in _events(run, point)))


def _events(run: RunContent, point: Point) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    def event(group: str, step: int, names: list[str]) -> Any:
        values = [Summary.Value(tag=f"{group}/{name}", simple_value=point.figures[name]) for name in names]
        return Event(wall_time=run.started + point.seconds, step=step, summary=Summary(value=values))

    yield event("by_epoch", point.epoch, list(point.figures))
    if "updates" in point.figures:
        metrics = [name for name in point.figures if name in METRICS]
        yield event("by_updates", int(point.figures["updates"]), metrics)


def _encoded(*events: Any) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()
