"""A command that trains: started for a trial, heard line by line, and gone when the trial is over."""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, cast

from batchscope.errors import HistoryError, TrainingError
from batchscope.masking import masked
from batchscope.own.handle import TrialValues
from batchscope.own.ledger import Ledger
from batchscope.own.leftovers import ask_to_end, end_all
from batchscope.own.records_file import RecordsFile
from batchscope.own_study import CommandStudy, study_name

__all__ = ["CommandTrials", "check_program", "command_name"]

_LONGEST_LINE = 1_000_000
_WAITING_LINES = 1000
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0
_LOG_TAIL = 2000

Line = tuple[bool, bytes | None]
"""Whether it is of the standard output, and its bytes; None where that stream has ended."""


def command_name(command: str) -> str:
    """A name for the command's study: its script's, else its program's."""
    try:
        words = shlex.split(command)
    except ValueError:  # which the study's checks will tell
        words = []
    scripts = [word for word in words if word.endswith(".py")]
    return study_name(Path([*scripts, *words, "own"][0]).stem)


def check_program(study: CommandStudy) -> None:
    """Refuses a command whose program is not there.

    Raises:
        TrainingError: Neither a file nor on the path.
    """
    program = shlex.split(study.command)[0]
    if "{" not in program and shutil.which(program) is None:
        raise TrainingError(
            f"the command's program must be an executable file or be found on PATH, but {program} is not; "
            f"the command is: {masked(study.command, study.secrets)}"
        )


@dataclass(frozen=True)
class CommandTrials:
    """Runs a study's command for its trials.

    The command runs where this process does, in its process group, with an empty standard input.

    Attributes:
        study: The study.
        logs: Folder for what the command prints.
        mark: Borne by what this process starts.
    """

    study: CommandStudy
    logs: Path
    mark: str

    def run(self, values: TrialValues, ledger: Ledger, *, begun: bool) -> None:
        """Carries out a trial.

        Args:
            values: Of the trial.
            ledger: Takes the records.
            begun: Whether the trial has begun before.

        Raises:
            TrainingError: The command cannot be started, says something that is no record, or fails.
            TrialOverError: The trial has diverged.
        """
        known = _placeholder_values(values)
        words = [word.format_map(known) for word in shlex.split(self.study.command)]
        source = None if self.study.records is None else Path(self.study.records.format_map(known))
        if source is not None and not begun:
            _move_aside(source)
        log = self.logs / f"{values.trial.name}.log"
        with _opened(log) as sink:
            sink.write(f"$ {self._told(words)}\n".encode())
            file = None if source is None else RecordsFile(source)
            heard = _Heard(ledger, file, sink, self.study.secrets)
            heard.look_back()
            code = self._carry_out(words, known, heard)
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise TrainingError(f"the end of {log}:\n{_tail(log)}\nthe command {how}: {self._told(words)}")

    def _told(self, words: list[str]) -> str:
        return masked(shlex.join(words), self.study.secrets)

    def _carry_out(self, words: list[str], known: Mapping[str, str], heard: _Heard) -> int:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **_variables(known), "BATCHSCOPE_EPOCHS": str(heard.stored)},
            )
        except OSError as error:
            raise TrainingError(
                f"the command must be startable, but: {error}: {self._told(words)}"
            ) from error
        lines = _lines_of(process)
        try:
            for line in _until_ended(process, lines, self.mark):
                heard.hear(line)
            heard.look(at_end=True)
        finally:
            self._end(process)
            heard.drain(lines)
        return process.returncode

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends the command and what it started; it may be over already."""
        ask_to_end(self.mark)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_all(self.mark, _GRACE_SECONDS)


@dataclass
class _Heard:
    """Takes lines: to the log, and those that are records to the ledger."""

    ledger: Ledger
    file: RecordsFile | None
    log: FileIO
    secrets: Collection[str]
    looked: float = 0.0

    @property
    def stored(self) -> int:
        """Epochs that are stored."""
        return len(self.ledger.records)

    def hear(self, line: Line | None) -> None:
        """Takes a line that was printed, or none for a while; then the file of records may have grown."""
        if line is not None and line[1] is not None:
            is_output, content = line[0], line[1]
            text = content.decode("utf-8", errors="replace")
            self.log.write(masked(text, self.secrets).encode())
            if is_output and self.file is None:
                record = _object_in(text)
                if record is not None:
                    self._take(record, text)
        if line is None or time.monotonic() - self.looked > _POLL_SECONDS:
            self.look(at_end=False)

    def look(self, *, at_end: bool) -> None:
        """Takes the records that were written to the file, if there is to be one."""
        if self.file is None:
            return
        self.looked = time.monotonic()
        begun_again, lines = self.file.new_lines(complete=at_end)
        if begun_again:
            self.ledger.begin()
        for text in lines:
            self._take(_object_in(text), text)

    def look_back(self) -> None:
        """Takes what earlier processes wrote to the file; each of them may have begun anew."""
        if self.file is not None:
            for text in self.file.new_lines()[1]:
                try:
                    self._take(_object_in(text), text)
                except TrainingError:
                    self.ledger.begin()
                    self._take(_object_in(text), text)
        self.ledger.begin()

    def drain(self, lines: queue.Queue[Line]) -> None:
        """Writes what was printed and not heard any more to the log."""
        until = time.monotonic() + _GRACE_SECONDS
        ended = 0
        with suppress(queue.Empty):
            while ended < 2 and time.monotonic() < until:
                _, content = lines.get(timeout=_POLL_SECONDS)
                ended += content is None
                text = (content or b"").decode("utf-8", errors="replace")
                self.log.write(masked(text, self.secrets).encode())

    def _take(self, record: Mapping[str, object] | None, text: str) -> None:
        try:
            if record is None:
                raise HistoryError("it is none")  # noqa: TRY301  # told as the ledger's own
            self.ledger.take(record)
        except HistoryError as error:
            raise TrainingError(
                f"each JSON object on a line of its own must be an epoch's record, but: {error}; "
                f"the line is: {masked(text.strip(), self.secrets)[:500]}"
            ) from error


def _object_in(text: str) -> dict[str, object] | None:
    """The JSON object that a line is; None where it is something else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value: dict[str, object] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _placeholder_values(values: TrialValues) -> Mapping[str, str]:
    known = {
        "batch_size": values.trial.batch_size,
        "replicate": values.trial.replicate,
        "seed": values.seed,
        "folder": values.folder,
        "trial": values.trial.name,
    }
    rate = {} if values.learning_rate is None else {"learning_rate": repr(values.learning_rate)}
    return {name: str(value) for name, value in known.items()} | rate


def _variables(known: Mapping[str, str]) -> Mapping[str, str]:
    return {f"BATCHSCOPE_{name.upper()}": value for name, value in known.items()}


def _move_aside(path: Path) -> None:
    """Records of another run must not become this one's, nor take the place of those moved before."""
    try:
        if path.exists():
            endings = chain(["before"], (f"before-{number}" for number in count(2)))
            names = (path.with_name(f"{path.name}.{ending}") for ending in endings)
            path.replace(next(name for name in names if not os.path.lexists(name)))
    except OSError as error:
        raise TrainingError(
            f"{path}: the records of another run must be moved aside, but: {error}"
        ) from error


def _opened(log: Path) -> FileIO:
    """The trial's log, of all its sessions, to write on."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab", buffering=0)
    except OSError as error:
        raise TrainingError(f"{log}: what the command prints must be kept here, but: {error}") from error


def _lines_of(process: subprocess.Popen[bytes]) -> queue.Queue[Line]:
    """What both streams hold, as it comes; their end is told for each."""
    lines: queue.Queue[Line] = queue.Queue(_WAITING_LINES)

    def read(stream: BinaryIO, *, is_output: bool) -> None:
        with stream:
            while line := stream.readline(_LONGEST_LINE):
                lines.put((is_output, line))
        lines.put((is_output, None))

    for stream, is_output in ((process.stdout, True), (process.stderr, False)):
        arguments = {"stream": cast("BinaryIO", stream), "is_output": is_output}
        threading.Thread(target=read, kwargs=arguments, daemon=True).start()
    return lines


def _until_ended(
    process: subprocess.Popen[bytes], lines: queue.Queue[Line], mark: str
) -> Iterator[Line | None]:
    """Lines until the command has ended and its streams with it; None where there is none for a while.

    What it started and left behind may hold the streams open: that is asked to end, and waited for
    no longer than `_GRACE_SECONDS`.
    """
    open_streams, until = 2, 0.0
    while open_streams or process.poll() is None:
        if process.poll() is not None and not until:
            ask_to_end(mark)
            until = time.monotonic() + _GRACE_SECONDS
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if until and time.monotonic() > until:
                return
            yield None
            continue
        open_streams -= line[1] is None
        yield line


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip()
