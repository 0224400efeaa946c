"""The datasets of ``keras.datasets`` by name.

Fetching them is left to Keras, in a process of its own: nothing here imports it, and whoever only
looks at data never waits for TensorFlow. What that process writes is read like any other archive.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platformdirs

from batchscope.errors import DataError
from batchscope.masking import masked
from batchscope.spec import KERAS_PREFIX

__all__ = ["fetch_keras_dataset"]

_COMMAND = (sys.executable, "-m", "batchscope.training.keras_dataset")
_TIMEOUT_SECONDS = 1_800


def fetch_keras_dataset(source: str, cache: Path | None = None) -> Path:
    """Brings a dataset into the cache as an archive of arrays, once.

    Args:
        source: ``keras:`` and a name that the study file's validation knows.
        cache: Folder to keep archives in; default: the user's cache folder.

    Returns:
        An archive as `read_npz` takes it.

    Raises:
        DataError: Keras is not installed, does not get the data, or there is no room for them.
    """
    name = source.removeprefix(KERAS_PREFIX)
    target = (cache or platformdirs.user_cache_path("batchscope") / "datasets") / f"{name}.npz"
    if target.exists():
        return target
    try:
        done = subprocess.run(
            [*_COMMAND, name, str(target)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"{source}: Keras must bring it within {_TIMEOUT_SECONDS} s, but did not; {_ELSE}"
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
        raise DataError(f"{source}: Keras must be able to fetch it, but: {masked(said[-1])}; {_ELSE}")
    return target


_ELSE = (
    "check the connection, or bring the arrays yourself as a .npz archive with x_train, y_train, x_test and "
    "y_test and give its path"
)
