"""What is said of replicates that were added until means were known well enough."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_samples import made_history
from scipy import stats

from batchscope.analysis import RecipeFacts, Sentence, analyze
from batchscope.spec import UntilCi

HALF_WIDTH, MOST = 0.01, 20


def test_the_note_tells_what_was_asked_for_and_how_many_it_took():
    history = made_history(batch_sizes=(16, 64), replicates=5, epochs=4)
    fewer = history[(history["batch_size"] == 64) | (history["replicate"] <= 2)]
    until_ci = UntilCi(half_width=HALF_WIDTH, max_replicates=MOST)
    [note] = [note for note in analyze(fewer, None, RecipeFacts(until_ci=until_ci)).notes if is_it(note)]
    assert dict(note.figures) == {"half_width": 0.01, "fewest": 2, "most": 5, "max_replicates": 20}
    assert "was known to \u00b10.010 (95% interval) or it had 20; there are from 2 to 5." in note.text
    assert not [note for note in analyze(fewer).notes if is_it(note)]


def is_it(note: Sentence) -> bool:
    return note.rule == "replicates_added"


@pytest.mark.parametrize("spread", [0.01, 0.02])
def test_an_interval_that_ends_such_a_search_covers_less_often_than_it_says(spread: float):
    drawn = np.random.default_rng(1).normal(0, spread, (3_000, MOST))
    covered = [abs(mean) <= half for mean, half in map(searched, drawn)]
    share = np.mean(covered)
    assert 0.85 < share < 0.95 - 3 * np.sqrt(0.95 * 0.05 / len(covered))


def searched(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width where the search stops; the true mean is 0."""
    for count in range(2, MOST + 1):
        seen = values[:count]
        half = seen.std(ddof=1) / count**0.5 * QUANTILES[count]
        if half <= HALF_WIDTH:
            break
    return float(seen.mean()), float(half)


QUANTILES = {count: float(stats.t.ppf(0.975, count - 1)) for count in range(2, MOST + 1)}
