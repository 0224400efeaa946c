"""A run's folder: where things lie in it, and whether it holds the study that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from batchscope.errors import RunFolderError, StudyError
from batchscope.loading import EXTENDED, difference, dump_study, parse_study, read_toml
from batchscope.masking import masked
from batchscope.own.leftovers import end_all, run_mark
from batchscope.own_study import AnyStudy, CommandStudy
from batchscope.records import Trial
from batchscope.replacing import replacing
from batchscope.running.lock import sole_writer
from batchscope.running.store import Store

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def study_file(self) -> Path:
        """The study as resolved, frozen when the run began but for what `extend` takes over."""
        return self.path / "study.toml"

    @property
    def database(self) -> Path:
        """The results."""
        return self.path / "results.sqlite"

    @property
    def checkpoints(self) -> Path:
        """States of unfinished trials."""
        return self.path / "checkpoints"

    @property
    def cache(self) -> Path:
        """May be deleted at any time."""
        return self.path / "cache"

    @property
    def features(self) -> Path:
        """Ready features, shared by the workers; may be deleted while nothing runs."""
        return self.cache / "features"

    @property
    def logs(self) -> Path:
        """What the workers printed."""
        return self.path / "logs"

    @property
    def report(self) -> Path:
        """Page, pictures and history, rebuilt from the database at any time."""
        return self.path / "report"

    @property
    def export(self) -> Path:
        """What was exported to files, made anew from the database at any time."""
        return self.path / "export"

    def checkpoint(self, trial: Trial) -> Path:
        """State of a trial while it is unfinished."""
        return self.checkpoints / f"{trial.name}.npz"

    def trial_folder(self, trial: Trial) -> Path:
        """Where code of one's own keeps a trial's state while it is unfinished."""
        return self.checkpoints / trial.name

    def mark(self, store: Store) -> str:
        """Begins the marks of workers that carry out code of one's own; empty ahead of the first session.

        Args:
            store: The run's results.
        """
        identity = store.identity()
        return "" if identity is None else run_mark(identity, self.path)

    def forget(self, trial: Trial) -> None:
        """Deletes the state of a finished trial; where the file system will not, it harms nothing."""
        with suppress(OSError):
            self.checkpoint(trial).unlink()
        shutil.rmtree(self.trial_folder(trial), ignore_errors=True)

    @contextmanager
    def claim(self, study: AnyStudy) -> Iterator[Store]:
        """Opens the folder for a study, new or begun before, and keeps other processes out of it.

        Raises:
            RunFolderError: It holds another study or something else, another process runs in it,
                or it cannot be written.
            StudyError: Its frozen study file was changed into something invalid.
        """
        self._admit(study)
        with sole_writer(self.path / "running.lock"):
            self._admit(study)  # again: another run may have stored epochs before the lock was free
            if self.study() != study and not self._holds_results():
                self._begin_again(study)
            with Store(self.database, create=True) as store:
                yield store

    def _admit(self, study: AnyStudy) -> None:
        if self.study_file.is_file():
            changes = difference(self.study(), study)
            if changes and self._holds_results():
                secrets = [*_secrets(self.study()), *_secrets(study)]
                listed = "\n".join(f"  {masked(line, secrets)}" for line in changes)
                raise RunFolderError(
                    f"{self.path}: holds a run of a study that differs from this one:\n{listed}\n"
                    "Give --out another folder, or repeat the command that began the run."
                )
        else:
            self._begin(study)

    def extend(self, study: AnyStudy) -> None:
        """Takes over what `batchscope.loading.extension` lists; all else stays as it was frozen.

        Raises:
            RunFolderError: The study file cannot be written.
        """
        taken = {key: getattr(study, key) for key in EXTENDED}
        self._write(self.study().model_copy(update=taken))

    def study(self) -> AnyStudy:
        """The study that the folder holds.

        Raises:
            RunFolderError: The folder holds no run.
            StudyError: The frozen study file was changed into something invalid.
        """
        try:
            text = self.study_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunFolderError(
                f"{self.path}: holds no run (its study.toml cannot be read: {reason})"
            ) from error
        try:
            return parse_study(read_toml(text, str(self.study_file)), str(self.study_file))
        except StudyError:
            if self.database.exists():
                Store(self.database).close()  # a newer folder is refused for its version, not for its keys
            raise

    def _holds_results(self) -> bool:
        """Whether any epoch is stored; a run that was refused its images or weights has none."""
        if not self.database.exists():
            return False
        with Store(self.database) as store:
            return any(status.epochs for status in store.trials())

    def _begin_again(self, study: AnyStudy) -> None:
        """Puts another study in the place of one that never stored an epoch.

        The other's checkpoints go with it: an epoch may be in one that never reached the store. So does
        what a session of it that was killed has left running, which would write into them.
        """
        if self.database.exists():
            with Store(self.database) as store:
                end_all(self.mark(store))
        try:
            for folder in (self.checkpoints, self.cache):
                if folder.exists():
                    shutil.rmtree(folder)
            for suffix in ("", "-wal", "-shm"):
                self.database.with_name(f"{self.database.name}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: what another study began must be deleted, but: {error}"
            ) from error
        self._write(study)

    def _begin(self, study: AnyStudy) -> None:
        partial = self.study_file.with_suffix(".partial")
        try:
            if self.path.exists() and any(entry != partial for entry in self.path.iterdir()):
                raise RunFolderError(
                    f"{self.path}: must be empty or hold a run, but holds other files; "
                    "give --out another folder"
                )
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"{self.path}: must be a folder that can be written: {error}") from error
        self._write(study)

    def _write(self, study: AnyStudy) -> None:
        partial = self.study_file.with_suffix(".partial")
        try:
            with replacing(self.study_file, partial) as file:
                file.write(dump_study(study).encode())
        except OSError as error:
            raise RunFolderError(f"{self.path}: must be a folder that can be written: {error}") from error


def _secrets(study: AnyStudy) -> list[str]:
    return study.secrets if isinstance(study, CommandStudy) else []
