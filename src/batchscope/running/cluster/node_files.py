"""What a run keeps on each node's disk: data and ready features, made once, and what cannot be shared."""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from batchscope.data import TrainingData
from batchscope.errors import ClusterError

__all__ = ["SHARED", "NodeFiles", "node_files"]

_FOLDERS_ABOVE = 3  # of the session, of the run, of the user
SHARED = "shared-folder"
"""Name of the file in the run's folder by which nodes know whether they see it."""


@dataclass(frozen=True)
class NodeFiles:
    """A session's folder on a node.

    Attributes:
        path: The folder. It is deleted when the session is over.
    """

    path: Path

    @property
    def data(self) -> Path:
        """The examples."""
        return self.path / "data"

    @property
    def features(self) -> Path:
        """Ready features."""
        return self.path / "features"

    @property
    def checkpoints(self) -> Path:
        """States of unfinished trials, where the run's own folder cannot be seen from here."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """What the workers print."""
        return self.path / "logs"

    def bring(self, fetch: Callable[[], TrainingData]) -> bool:
        """Has the data on the disk, however many tasks ask for it at once.

        Args:
            fetch: Gets them from elsewhere; called by the first who asks.

        Returns:
            Whether it was this call that brought them.

        Raises:
            ClusterError: There is no room for them, or no right to write.
        """
        try:
            with FileLock(self.path / "data.lock"):
                if self.data.exists():
                    return False
                partial = self.data.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                fetch().save(partial)
                partial.rename(self.data)
        except OSError as error:
            raise ClusterError(
                f"{self.data}: each node must have room for the data, but: {error}; make room, or set TMPDIR "
                "to another disk before the node's 'ray start'"
            ) from error
        return True

    def delete(self) -> None:
        """Deletes all of it; what the file system will not let go of takes up room and harms nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # another node of this machine, or another run, has something there
            for folder in list(self.path.parents)[:_FOLDERS_ABOVE]:
                folder.rmdir()


def node_files(node: str, run: str, session: str) -> NodeFiles:
    """Makes a session's folder of this node, and deletes those that killed sessions of its run left here.

    Args:
        node: Ray's id; several nodes may be one machine.
        run: The run's mark.
        session: The session's own.

    Raises:
        ClusterError: It cannot be written.
    """
    of_run = Path(tempfile.gettempdir()) / f"batchscope-{getpass.getuser()}" / run
    path = of_run / session / node
    try:
        for entry in of_run.glob("*"):
            if entry.name != session:
                shutil.rmtree(entry, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ClusterError(
            f"{path}: each node must let its data be kept here, but: {error}; set TMPDIR to another folder "
            "before the node's 'ray start'"
        ) from error
    return NodeFiles(path)
