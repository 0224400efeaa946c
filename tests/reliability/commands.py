"""Processes of the command line, started, watched and killed by the tests of reliability."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from batchscope.loading import dump_study
from batchscope.spec import Study
from run_samples import is_alive, python_path

HERE = Path(__file__).parent


def written(study: Study, folder: Path) -> Path:
    """The study as a file."""
    path = folder / "study.toml"
    path.write_text(dump_study(study), encoding="utf-8")
    return path


@contextmanager
def stubbed(stub: str, point: str, *arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command line, see `stubbed_run`; what is left of its group is killed at the end."""
    with started([sys.executable, HERE / "stubbed_run.py", stub, point, *arguments], cwd=cwd) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def started(
    command: Sequence[str | Path], *, cwd: Path, import_from: Sequence[Path] = (), **settings: str
) -> subprocess.Popen[str]:
    """A process in a group of its own, of which everything that it prints can be read.

    Args:
        command: Program and arguments.
        cwd: Where it runs.
        import_from: Further folders on its path.
        settings: Further environment variables.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": python_path(*import_from)} | settings,
        start_new_session=True,
    )


def await_end(pids: Sequence[int]) -> None:
    """Waits until processes are gone; one that stays makes the test hang until its time is up."""
    while any(is_alive(pid) for pid in pids):
        time.sleep(0.01)


def first_epochs(process: subprocess.Popen[str], trials: Sequence[str] = ("b8-r1", "b16-r1")) -> None:
    """Waits until these trials' first epochs were told."""
    assert process.stdout is not None
    awaited = set(trials)
    while awaited:
        name, *rest = process.stdout.readline().split()
        awaited -= {name} if rest[:2] == ["epoch", "1"] else set()


def line_beginning(process: subprocess.Popen[str], start: str) -> None:
    """Waits until a line that begins so was printed."""
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith(start):
        assert line, f"the command ended without a line that begins with {start!r}"
