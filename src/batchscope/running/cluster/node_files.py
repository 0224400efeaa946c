"""What a run keeps on each node's disk: data and ready features, made once, and what cannot be shared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from batchscope.data import TrainingData
from batchscope.errors import ClusterError
from batchscope.running.features import room_for_features

__all__ = ["SHARED", "NodeFiles", "files_left", "node_files"]

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

    @property
    def room(self) -> int:
        """Bytes that ready features may take up here, as whoever brought the data found."""
        return int((self.path / "room").read_text(encoding="ascii"))

    def bring(self, fetch: Callable[[], TrainingData], cache_limit: int) -> bool:
        """Has the data on the disk, however many tasks ask for it at once.

        Args:
            fetch: Gets them from elsewhere; called by the first who asks.
            cache_limit: Bytes that ready features may take up beside them, if there is so much.

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
                room = room_for_features(self.path, cache_limit)
                (self.path / "room").write_text(str(room), encoding="ascii")
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


def files_left(node: str, run: str, session: str) -> NodeFiles:
    """What a session has kept on this node, whether there is anything or not; as for `node_files`."""
    return NodeFiles(_of_user() / run / session / node)


def _of_user() -> Path:
    return Path(tempfile.gettempdir()) / f"batchscope-{os.getuid()}"


def node_files(node: str, run: str, session: str) -> NodeFiles:
    """Makes a session's folder of this node, and deletes those that killed sessions of its run left here.

    It lies in one that the user alone may open.

    Args:
        node: Ray's id; several nodes may be one machine.
        run: The run's mark.
        session: The session's own.

    Raises:
        ClusterError: It cannot be written.
    """
    of_user = _of_user()
    path = of_user / run / session / node
    try:
        of_user.mkdir(exist_ok=True, mode=0o700)
        if of_user.stat().st_uid != os.getuid():
            raise PermissionError(f"{of_user} belongs to another user")
        for entry in (of_user / run).glob("*"):
            if entry.name != session:
                shutil.rmtree(entry, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(
            f"{path}: each node must let its data be kept here, but: {error}; set TMPDIR to another folder "
            "before the node's 'ray start'"
        ) from error
    return NodeFiles(path)
