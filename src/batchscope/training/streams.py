"""Seeded, stateless random streams.

Everything random derives from (study seed, replicate, epoch) and a purpose, so a trial that is
resumed draws what it would have drawn, and replicate r draws the same at every batch size.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["Purpose", "generator", "seed_for"]


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every result: never change one."""

    WEIGHTS = 0
    ORDER = 1
    VIEWS = 2
    OWN_CODE = 3


def generator(purpose: Purpose, seed: int, replicate: int, epoch: int = 0) -> np.random.Generator:
    """A generator of its own for each purpose, replicate and epoch.

    Args:
        purpose: What is drawn.
        seed: The study's seed.
        replicate: Counted from 1.
        epoch: Counted from 1 on through the stages; 0 for what is drawn once a trial.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, replicate, epoch)))


def seed_for(purpose: Purpose, seed: int, replicate: int) -> int:
    """A seed below 2**31 for libraries that take one integer."""
    return int(generator(purpose, seed, replicate).integers(2**31))
