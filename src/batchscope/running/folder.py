"""A run's folder: where things lie in it, and whether it holds the study that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchscope.errors import RunFolderError
from batchscope.loading import difference, dump_study, parse_study, read_toml
from batchscope.running.store import Store
from batchscope.spec import Study

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
        """The study as resolved, frozen when the run began."""
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
    def logs(self) -> Path:
        """What the workers printed."""
        return self.path / "logs"

    @property
    def report(self) -> Path:
        """Page, pictures and history, rebuilt from the database at any time."""
        return self.path / "report"

    def claim(self, study: Study) -> Store:
        """Opens the folder for a study, new or begun before.

        Raises:
            RunFolderError: It holds another study or something else, or cannot be written.
        """
        if self.study_file.exists():
            changes = difference(self.study(), study)
            if changes:
                listed = "\n".join(f"  {line}" for line in changes)
                raise RunFolderError(
                    f"{self.path}: holds a run of a study that differs from this one:\n{listed}\n"
                    "Give --out another folder, or repeat the command that began the run."
                )
        else:
            self._begin(study)
        return Store(self.database, create=True)

    def study(self) -> Study:
        """The study that the folder holds.

        Raises:
            RunFolderError: The folder holds no run.
            StudyError: The frozen study file was changed into something invalid.
        """
        try:
            text = self.study_file.read_text(encoding="utf-8")
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: holds no run (its study.toml cannot be read: {error.strerror})"
            ) from error
        return parse_study(read_toml(text, str(self.study_file)), str(self.study_file))

    def _begin(self, study: Study) -> None:
        try:
            if self.path.exists() and any(self.path.iterdir()):
                raise RunFolderError(
                    f"{self.path}: must be empty or hold a run, but holds other files; "
                    "give --out another folder"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            partial = self.study_file.with_suffix(".partial")
            partial.write_text(dump_study(study), encoding="utf-8")
            partial.replace(self.study_file)
        except OSError as error:
            raise RunFolderError(f"{self.path}: must be a folder that can be written: {error}") from error
