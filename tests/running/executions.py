"""Jobs carried out by the local executor with workers that train nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchscope.records import Trial
from batchscope.running import pool
from batchscope.running.layout import Layout
from batchscope.running.local import Job, More, execute
from batchscope.running.messages import SetUp
from run_samples import FIRST, SECOND, STUB, Events, children, small_study

__all__ = ["Execution"]


class Execution:
    """Runs jobs with stub workers and holds that none of them outlives it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.logs = folder, folder / "logs"
        self.sink: Events = Events()
        self._monkeypatch = monkeypatch

    def run(
        self,
        *misbehaviour: str,
        jobs: tuple[Trial, ...] = (FIRST, SECOND),
        workers: int = 1,
        layouts: tuple[Layout, ...] = (),
        pace: str = "",
        more: More = list,
    ) -> None:
        """Takes `workers` of one thread, or `layouts`; `pace` is that of a worker with 1, 2, ... threads."""
        command = (sys.executable, str(STUB), *misbehaviour)
        self._monkeypatch.setattr(pool, "_COMMAND", command)
        self._monkeypatch.setenv("STUB_PACE", pace)
        listed = [Job(trial, self.folder / f"{trial.name}.npz") for trial in jobs]
        before = children()
        try:
            execute(self.set_up, listed, self.sink, self.logs, layouts or (Layout(workers, 1),), more)
        finally:
            assert children() == before

    @property
    def set_up(self) -> SetUp:
        return SetUp(small_study(), self.folder, self.folder / "features", 1_000)

    @property
    def outcome(self) -> list[tuple[str | None, bool]]:
        """The trials in the order of their ends, and whether they went well."""
        return [(name, error is None) for name, error in self.sink.ends]
