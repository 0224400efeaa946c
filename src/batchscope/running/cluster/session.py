"""A session on a Ray cluster, from the run's folder and what workers are told."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from batchscope.data import TrainingData
from batchscope.errors import RunFolderError
from batchscope.running.cluster.connection import connected
from batchscope.running.cluster.executor import Session, Work, execute
from batchscope.running.cluster.letters import Errand
from batchscope.running.cluster.node_files import SHARED
from batchscope.running.folder import RunFolder
from batchscope.running.local import Sink
from batchscope.running.messages import AnySetUp, SetUp
from batchscope.running.options import ClusterOptions, RunOptions
from batchscope.running.stopping import named

__all__ = ["ClusterRun"]

# What decides how workers train; the rest of the environment is each node's own.
_TRAINED_BY = ("KERAS_BACKEND", "TF_DETERMINISTIC_OPS", "XLA_FLAGS")
# Ray shows all GPUs to tasks that ask for none, and nobody would count these.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
# So that TensorFlow and JAX do not take all of a GPU's memory where several trials share it.
_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclass(frozen=True)
class ClusterRun:
    """A run that a cluster is to carry out.

    Attributes:
        place: Its folder.
        mark: What tells it from all others.
        options: Trials at a time, and each node's room for ready features.
        cluster: What a trial asks of the cluster.
    """

    place: RunFolder
    mark: str
    options: RunOptions
    cluster: ClusterOptions

    def execute(self, set_up: AnySetUp, work: Work, sink: Sink) -> None:
        """Carries out jobs, as `batchscope.running.cluster.executor.execute` does.

        Args:
            set_up: What workers are told first, with the driver's folders.
            work: The jobs; without any nothing is connected to.
            sink: Told of everything.

        Raises:
            BatchscopeError: As there; or the run's folder cannot be written.
        """
        if not work.jobs:
            return
        with named(), connected(self.cluster.address), _token_in(self.place.path / SHARED) as token:
            data = _in_memory(set_up.data) if isinstance(set_up, SetUp) else None
            session = Session(self._errand(set_up, token), data, self.cluster, self.options.workers)
            execute(session, work, sink)

    def _errand(self, set_up: AnySetUp, token: str) -> Errand:
        return Errand(
            run=self.mark,
            session=token,
            version=metadata.version("batchscope"),
            set_up=set_up,
            folder=self.place.path.absolute(),
            cwd=Path.cwd(),
            environment=self._environment(),
            cache_limit=self.options.cache_limit,
            threads=self.cluster.threads,
            keep_workers=self.cluster.gpus_per_trial == 0,
        )

    def _environment(self) -> dict[str, str | None]:
        settings = {name: os.environ.get(name) for name in _TRAINED_BY}
        if self.cluster.gpus_per_trial == 0:
            return settings | _NO_GPU
        return settings | (_SHARED_GPU if self.cluster.gpus_per_trial < 1 else {})


def _in_memory(folder: Path) -> TrainingData:
    """The examples as an array that Ray sends as it is; one mapped from a file it would copy first."""
    data = TrainingData.load(folder)
    plain: Any = np.asarray(data.inputs)
    return replace(data, inputs=plain)


@contextmanager
def _token_in(path: Path) -> Iterator[str]:
    """Writes what tells nodes that they see the run's folder, and takes it away again."""
    token = uuid.uuid4().hex
    try:
        path.write_text(token, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path}: must be a file that can be written, but: {error}") from error
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)
