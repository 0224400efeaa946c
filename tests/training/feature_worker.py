"""Fills an array of a feature store from a process of its own; says what it computes."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np

from batchscope.errors import TrainingError
from batchscope.training import features
from batchscope.training.features import FeatureStore

CHUNK = 3
SHAPE = (29, 4)


def value(positions: np.ndarray) -> np.ndarray:
    """What the array holds."""
    return (positions[:, None] * 10 + np.arange(SHAPE[1])).astype(np.float32)


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(folder: Path, behaviour: str) -> None:
    """Says the first position of each chunk that it computes, then the array's sum.

    Args:
        folder: The store's.
        behaviour: ``hang`` for ever in the first chunk; wait in the first chunk until so many
            processes are in theirs, given as ``meet-N``; ``work`` at once; or ``small``: no file
            may be larger than 100 bytes.
    """
    features._CHUNK_BYTES = CHUNK * 4 * SHAPE[1]
    features._CHUNK_MULTIPLE = 1
    if behaviour == "small":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    def compute(positions: np.ndarray) -> np.ndarray:
        say(positions[0])
        kind, _, count = behaviour.partition("-")
        if kind == "hang":
            sys.stdin.read()
        if kind == "meet":
            (folder / f"met-{positions[0]}").touch()
            while len(list(folder.glob("met-*"))) < int(count):
                time.sleep(0.01)
        return value(positions)

    try:
        found = FeatureStore(folder, 10**6).ready("all-training", "key", SHAPE, compute)
    except TrainingError as error:
        say(error)
        return
    say(f"sum {found.sum():.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
