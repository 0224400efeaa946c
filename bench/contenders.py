"""The three contenders, each started as its user starts it and brought into the common form."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

import batchscope
from batchscope.errors import RunFolderError
from batchscope.history import read_history
from batchscope.records import TrialState
from batchscope.spec import Study
from protocol import Event, Protocol, Work, emitted
from timeline import Stamped, Timeline, assemble
from watching import ContenderError, watch

__all__ = ["CONTENDERS", "Setting", "batchscope_events", "moved_back", "run_batchscope", "run_plain"]

CONTENDERS = ("batchscope", "plain Keras", "plain PyTorch")
_HERE = Path(__file__).parent
_EPOCH = re.compile(r"b(\d+)-r(\d+) epoch (\d+) ")
_ENDED = re.compile(rf"b(\d+)-r(\d+) ({'|'.join(TrialState)})\b")


@dataclass(frozen=True)
class Setting:
    """Where a protocol's material lies.

    Attributes:
        study: The reduced study.
        protocol: What the plain scripts are told of it.
        images: Number of training and of validation images.
        folder: Filled by `prepare`.
        torch_python: The Python that has PyTorch.
    """

    study: Study
    protocol: Protocol
    images: tuple[int, int]
    folder: Path
    torch_python: str = sys.executable

    def work(self, batch_size: int) -> Work:
        """One epoch of every contender at a batch size."""
        return Work.of(self.protocol, batch_size, *self.images)


def run_plain(contender: str, setting: Setting) -> Timeline:
    """Runs one of the plain scripts."""
    script, python = {
        "plain Keras": ("plain_keras.py", sys.executable),
        "plain PyTorch": ("plain_torch.py", setting.torch_python),
    }[contender]
    command = [python, str(_HERE / script), str(setting.folder)]
    seen = watch(command, setting.folder / f"{script}.log")
    stamped = [Stamped(at, event) for at, line in seen.lines if (event := emitted(line)) is not None]
    return assemble(stamped, seen.wall, seen.peak.whole)


def run_batchscope(setting: Setting) -> Timeline:
    """Runs ``batchscope run`` on the reduced study, in a new folder, with its defaults."""
    out = setting.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    starts = _Starts(out)
    seen = watch(_command(setting, out), setting.folder / "batchscope.log", starts.look)
    starts.look(seen.wall)
    history = read_history(out / "report" / "history.csv")
    validated = {size: setting.work(size).validated for size in setting.protocol.batch_sizes}
    events = list(batchscope_events(seen.lines, history, validated))
    stamped = [*moved_back(starts.stamped, events), *events]
    return assemble(sorted(stamped, key=lambda item: item.at), seen.wall, seen.peak.whole)


def _command(setting: Setting, out: Path) -> list[str]:
    study = setting.study
    changes = [f"probe_images={study.probe_images}"]
    changes += [f"stages.{stage.name}.epochs={stage.epochs}" for stage in study.stages]
    return [
        *(sys.executable, "-m", "batchscope", "run", study.name),
        *("--data", str(setting.folder / "data"), "--out", str(out)),
        *("--weights", str(setting.folder / "backbone.weights.h5")),
        *("--replicates", str(study.replicates)),
        *(word for change in changes for word in ("--set", change)),
    ]


@dataclass
class _Starts:
    """Looks into a run's folder for trials that have begun."""

    folder: Path
    stamped: list[Stamped] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def look(self, at: float) -> None:
        """Notes trials that have begun since the last look."""
        try:
            statuses = batchscope.load(self.folder).trials
        except RunFolderError:
            return  # it is not made yet
        for status in statuses:
            trial = (status.trial.batch_size, status.trial.replicate)
            if status.state is not TrialState.WAITING and trial not in self._seen:
                self._seen.add(trial)
                self.stamped.append(Stamped(at, Event("started", trial)))


def moved_back(starts: Sequence[Stamped], events: Sequence[Stamped]) -> list[Stamped]:
    """Starts, which are seen at the next look only, moved to where the first epoch began at the latest."""
    began: dict[tuple[int, int], float] = {}
    for item in events:
        before = item.at - item.event.training_seconds - item.probe_seconds
        began.setdefault(item.event.trial, before)
    return [replace(start, at=min(start.at, began[start.event.trial])) for start in starts]


def batchscope_events(
    lines: Sequence[tuple[float, str]], history: pd.DataFrame, validated: dict[int, int]
) -> Iterator[Stamped]:
    """What batchscope's lines and its history say together: moments from the one, figures from the other.

    Args:
        lines: Of its standard output, each with its moment.
        history: The run's.
        validated: Validation images by batch size.

    Raises:
        ContenderError: A trial did not complete.
    """
    rows = _by_epoch(history)
    for at, line in lines:
        if found := _EPOCH.match(line):
            row = rows[int(found[1]), int(found[2]), int(found[3])]
            trial = (int(found[1]), int(found[2]))
            work = Work(int(row["updates"]), int(row["examples"]), validated[trial[0]])
            event = Event(
                "epoch", trial, str(row["stage"]), int(row["stage_epoch"]), work, float(row["seconds"])
            )
            yield Stamped(at, event, probe_seconds=float(row["probe_seconds"]))
        elif found := _ENDED.match(line):
            if found[3] != TrialState.COMPLETE:
                raise ContenderError(f"every trial must complete, but: {line}")
            yield Stamped(at, Event("ended", (int(found[1]), int(found[2]))))


def _by_epoch(history: pd.DataFrame) -> dict[tuple[int, int, int], pd.Series]:
    """The history's rows with updates, examples and seconds of the epoch alone."""
    keys = ["batch_size", "replicate"]
    table = history.copy()
    for name in ("updates", "examples", "seconds"):
        table[name] = table.groupby(keys)[name].diff().fillna(table[name])
    table["stage_epoch"] = table.groupby([*keys, "stage"]).cumcount() + 1
    table["probe_seconds"] = table["probe_seconds"].fillna(0.0) if "probe_seconds" in table else 0.0
    return {
        (int(row["batch_size"]), int(row["replicate"]), int(row["epoch"])): row for _, row in table.iterrows()
    }
