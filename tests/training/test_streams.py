"""Seeded streams: apart from each other, and the same for ever."""

from __future__ import annotations

import itertools

import numpy as np

from batchscope.training.streams import Purpose, generator, seed_for


def test_streams_of_different_origin_differ():
    keys = itertools.product(Purpose, (1, 2), (1, 2), (0, 1))
    firsts = [generator(p, seed, replicate, epoch).integers(2**62) for p, seed, replicate, epoch in keys]
    assert len(set(firsts)) == len(firsts)


def test_a_stream_is_the_same_whenever_it_is_asked_for():
    first = generator(Purpose.ORDER, 2019, 1, 5).permutation(100)
    np.testing.assert_array_equal(first, generator(Purpose.ORDER, 2019, 1, 5).permutation(100))


def test_the_numbers_do_not_change_between_versions():
    # A change here breaks the resumption and the repetition of every run ever made.
    assert generator(Purpose.ORDER, 2019, 1, 1).integers(1000, size=5).tolist() == PINNED_ORDER
    assert seed_for(Purpose.WEIGHTS, 2019, 1) == PINNED_SEED


PINNED_ORDER = [891, 700, 697, 485, 271]
PINNED_SEED = 1728230963
