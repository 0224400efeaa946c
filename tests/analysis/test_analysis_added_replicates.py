"""What is said of replicates that were added until means were known well enough."""

from __future__ import annotations

import numpy as np
import pytest

from analysis_samples import made_history
from batchscope.analysis import RecipeFacts, Sentence, analyze
from batchscope.analysis.estimates import Estimate
from batchscope.analysis.moments import estimate
from batchscope.analysis.narrowing import CI_CONFIDENCE
from batchscope.spec import UntilCi

HALF_WIDTH, MOST = 0.01, 20


def test_the_note_tells_what_was_asked_for_and_how_many_it_took():
    history = made_history(batch_sizes=(16, 64), replicates=5, epochs=4)
    fewer = history[(history["batch_size"] == 64) | (history["replicate"] <= 2)]
    until_ci = UntilCi(half_width=HALF_WIDTH, max_replicates=MOST)
    [note] = [note for note in analyze(fewer, None, RecipeFacts(until_ci=until_ci)).notes if is_it(note)]
    assert dict(note.figures) == {"half_width": 0.01, "fewest": 2, "most": 5, "max_replicates": 20}
    assert "is known to \u00b10.010 (95% interval) or it has 20; there are from 2 to 5." in note.text
    assert not [note for note in analyze(fewer).notes if is_it(note)]


def is_it(note: Sentence) -> bool:
    return note.rule == "replicates_added"


@pytest.mark.parametrize("spread", [0.01, 0.02])
def test_an_interval_that_ends_such_a_search_holds_the_truth_in_90_to_95_percent(spread: float):
    """Of accuracies on 200 examples, which tie often."""
    drawn = np.random.default_rng(1).normal(0.9, spread, (3_000, MOST))
    ends = [searched(values) for values in (drawn * 200).round() / 200]
    covered = np.mean([end.low <= 0.9 <= end.high for end in ends])
    assert 0.89 < covered < 0.95


def searched(values: np.ndarray) -> Estimate:
    """Where the search stops that begins with the fewest replicates that a study with `UntilCi` may have."""
    for count in range(3, MOST + 1):
        found = estimate(values[:count], CI_CONFIDENCE)
        if 0 < found.high - found.low <= 2 * HALF_WIDTH:
            break
    return found
