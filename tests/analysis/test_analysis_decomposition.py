from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchscope.analysis import Analysis, Plan, RecipeFacts, Sentence, Settings, analyze
from batchscope.analysis.decomposition import ACCURACIES, gap_terms
from batchscope.analysis.estimates import TERMS, DecompositionRow, Estimate
from batchscope.analysis.gap_finding import GapFinding, decomposition_sentence, gap_finding, term_phrase
from batchscope.errors import HistoryError
from probed import Terms, lagging, probed_history

FEW = Settings(resamples=100)
PARTS = ("observed", *TERMS, "batchnorm_training", "batchnorm_validation")


def _only(name: str, amount: float = 0.2) -> Callable[[int, int, int], Terms]:
    """One term planted, half of it at batch 16 and all of it at the others."""
    return lambda size, replicate, epoch: Terms(**{name: amount / 2 if size == 16 else amount})


def _rules(history: pd.DataFrame) -> list[str]:
    return [sentence.rule for sentence in analyze(history, FEW).verdict]


def _told(history: pd.DataFrame) -> Sentence:
    found = [s for s in analyze(history, FEW).verdict if s.rule.startswith(("gap_is_small", "gap_is_"))]
    assert len(found) == 1
    return found[0]


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.booleans())
def test_the_terms_add_up_to_the_observed_gap(values: list[float], inference: bool) -> None:
    arrays = {name: np.array([value]) for name, value in zip(ACCURACIES, values, strict=True)}
    found = gap_terms(arrays, np.array([inference]))
    assert sum(float(found[name][0]) for name in TERMS) == pytest.approx(
        values[0] - values[-1], abs=1e-12, rel=0
    )
    halves = found["batchnorm_training"] + found["batchnorm_validation"]
    assert halves[0] == pytest.approx(found["batchnorm"][0], abs=1e-12, rel=0)


@pytest.mark.parametrize("every", [False, True])
def test_planted_terms_come_back_at_every_probed_epoch(every: bool) -> None:
    decomposition = analyze(probed_history(every=every), FEW).decomposition
    assert decomposition.reason is None
    epochs = list(range(1, 7)) if every else [3, 6]
    assert [(row.epoch, row.batch_size) for row in decomposition.rows] == [
        (epoch, size) for epoch in epochs for size in (16, 32, 64, 128)
    ]
    for row in decomposition.rows:
        planted = [lagging(row.batch_size, replicate, row.epoch) for replicate in (1, 2, 3)]
        for name in PARTS:
            expected = stats.ttest_1samp([getattr(terms, name) for terms in planted], 0.0)
            bounds = expected.confidence_interval(0.95)
            found = row.term(name)
            mean = np.mean([getattr(terms, name) for terms in planted])
            assert found.n == 3
            assert found.mean == pytest.approx(mean, abs=1e-12, rel=0)
            assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), abs=1e-10)
        assert sum(row.term(name).mean for name in TERMS) == pytest.approx(row.observed.mean, abs=1e-12)
        assert row.stage == ("feature_extraction" if row.epoch <= 3 else "fine_tuning")
        assert row.ends_stage == (row.epoch in (3, 6))


@pytest.mark.parametrize("name", ["averaging", "augmentation", "batchnorm_training", "batchnorm_validation"])
def test_one_planted_cause_shows_in_its_term_alone(name: str) -> None:
    rows = analyze(probed_history(_only(name, 0.02)), FEW).decomposition.rows
    whole = "batchnorm" if name.startswith("batchnorm") else name
    for row in rows:
        planted = 0.01 if row.batch_size == 16 else 0.02
        for other in PARTS:
            expected = planted if other in (name, whole, "observed") else 0.0
            assert row.term(other).mean == pytest.approx(expected, abs=1e-12)


def test_lag_is_averaged_over_replicates() -> None:
    row = analyze(probed_history(), FEW).decomposition.rows[-1]
    stale = 0.999 ** (109 * 6)
    assert row.stale_weight is not None
    assert row.lag_mean is not None
    assert row.lag_max is not None
    assert row.stale_weight.mean == pytest.approx(stale)
    assert row.lag_mean.mean == pytest.approx(0.9 * stale + 0.02)
    assert row.lag_max.mean == pytest.approx(2.5 * stale + 0.05)
    assert analyze(probed_history(lag=False), FEW).decomposition.rows[-1].lag_mean is None


def test_one_replicate_has_terms_and_no_interval() -> None:
    analysis = analyze(probed_history(replicates=1), FEW)
    row = analysis.decomposition.ends[-1]
    assert (row.batchnorm.n, row.batchnorm.mean) == (1, pytest.approx(lagging(128, 1, 6).batchnorm))
    assert math.isnan(row.batchnorm.low)
    told = next(s for s in analysis.verdict if s.rule == "gap_is_batchnorm")
    assert "(95%" not in told.text
    assert told.text.endswith("without more, chance cannot be ruled out.")
    assert analysis.verdict[0].rule != "gap_is_batchnorm"


def test_diverged_trials_are_left_out_of_all_terms_alike() -> None:
    history = probed_history()
    lost = (history.batch_size == 128) & (history.replicate == 2)
    history.loc[lost & (history.epoch >= 5), ["val_loss", "train_loss"]] = np.nan
    row = analyze(history, FEW).decomposition.ends[-1]
    assert {row.term(name).n for name in PARTS} == {2}
    expected = np.mean([lagging(128, replicate, 6).batchnorm for replicate in (1, 3)])
    assert row.batchnorm.mean == pytest.approx(expected, abs=1e-12)
    history = history[~(lost & (history.epoch > 5))]
    assert analyze(history, FEW).decomposition.ends[-1].epoch == 6


def test_a_trial_without_its_probe_does_not_count() -> None:
    history = probed_history()
    history.loc[(history.batch_size == 64) & (history.replicate == 1), "probe_train_clean_accuracy"] = np.nan
    ends = analyze(history, FEW).decomposition.ends
    assert [row.observed.n for row in ends] == [3, 3, 2, 3] * 2


@pytest.mark.parametrize("name", ACCURACIES[1:-1])
def test_a_missing_column_is_named(name: str) -> None:
    analysis = analyze(probed_history().drop(columns=name), FEW)
    assert analysis.decomposition.rows == ()
    reason = f"the decomposition of the gap needs the column {name}, which this history lacks"
    assert analysis.decomposition.reason == reason
    notes = {note.rule: note.text for note in analysis.notes}
    assert notes["decomposition_missing"] == f"T{reason[1:]}."


def test_a_history_without_probes_or_with_empty_ones_says_so() -> None:
    plain = probed_history()
    plain = plain.drop(columns=[name for name in plain.columns if name.startswith("probe_")])
    analysis = analyze(plain, FEW)
    assert (
        analysis.decomposition.reason
        == "the decomposition of the gap needs probe columns, which this history lacks"
    )
    assert "decomposition_missing" not in {note.rule for note in analysis.notes}
    empty = probed_history().assign(probe_val_recalibrated_accuracy=np.nan)
    assert "no trial has finite figures" in (analyze(empty, FEW).decomposition.reason or "")


def test_other_columns_of_probes_change_nothing() -> None:
    history = probed_history()
    extra = history.assign(probe_sharpness=1.0, mood=3.0)
    assert analyze(extra, FEW).decomposition == analyze(history, FEW).decomposition


def test_probed_accuracies_must_be_shares() -> None:
    history = probed_history()
    history["probe_train_clean_accuracy"] *= 100
    with pytest.raises(HistoryError, match="probe_train_clean_accuracy must lie between 0 and 1"):
        analyze(history, FEW)


def test_stages_may_end_at_different_epochs() -> None:
    history = probed_history(every=True)
    history = history[(history.batch_size > 16) | (history.epoch <= 5)]
    ends = analyze(history, FEW).decomposition.ends
    assert [(row.stage, row.batch_size, row.epoch) for row in ends][4:] == [
        ("fine_tuning", 16, 5),
        ("fine_tuning", 32, 6),
        ("fine_tuning", 64, 6),
        ("fine_tuning", 128, 6),
    ]


def test_the_end_is_where_most_trials_have_been() -> None:
    history = probed_history(every=True)
    ahead = (history.batch_size == 128) & (history.replicate == 1)
    history = history[(history.batch_size < 128) | ahead | (history.epoch <= 5)]
    assert analyze(history, FEW).decomposition.ends[-1].epoch == 5


@pytest.mark.parametrize("every", [False, True])
def test_the_end_of_a_stage_is_each_trials_own_where_trials_have_ends_of_their_own(every: bool) -> None:
    """Replicates 1 to 4 end at epochs 5 to 8; a fifth, at epoch 8 too, goes on, and a sixth diverged."""
    history = probed_history(replicates=6, stages=(("all", 8),), every=True)
    last = (history.replicate + 4).clip(upper=8)
    history = history[history.epoch <= last].copy()
    history.loc[(history.replicate == 6) & (history.epoch == 8), ["train_loss", "val_loss"]] = np.nan
    if not every:
        probes = [name for name in history.columns if name.startswith("probe_")]
        history.loc[history.epoch < history.replicate + 4, probes] = np.nan
        history.loc[history.replicate == 5, probes] = np.nan
    names = {f"b{size}-r{replicate}" for size in (16, 32, 64, 128) for replicate in (1, 2, 3, 4, 6)}
    plan = Plan({"all": "seconds"}, None, ended=frozenset(names))
    ends = analyze(history, FEW, RecipeFacts(plan=plan)).decomposition.ends
    assert [(row.batch_size, row.epoch) for row in ends] == [(size, 8) for size in (16, 32, 64, 128)]
    for row in ends:
        planted = [lagging(row.batch_size, replicate, replicate + 4) for replicate in (1, 2, 3, 4)]
        for name in PARTS:
            found = row.term(name)
            mean = np.mean([getattr(terms, name) for terms in planted])
            assert (found.n, found.mean) == (4, pytest.approx(mean, abs=1e-12))
        stale = [0.999 ** (14_000 // row.batch_size * epoch) for epoch in (5, 6, 7, 8)]
        assert row.stale_weight is not None
        assert row.stale_weight.mean == pytest.approx(np.mean(stale))


def test_a_stages_end_is_kept_where_another_trial_is_in_the_next_stage_by_then() -> None:
    """Replicates leave the first stage after epochs 3, 4 and 5, the second two epochs later."""
    history = probed_history(stages=(("one", 7),), every=True)
    history = history[history.epoch <= history.replicate + 4].copy()
    history.loc[history.epoch > history.replicate + 2, "stage"] = "two"
    plan = Plan({"one": "seconds", "two": "epochs"}, None, ended=frozenset(history.trial))
    ends = analyze(history, FEW, RecipeFacts(plan=plan)).decomposition.ends
    assert [(row.stage, row.epoch) for row in ends] == [("one", 5)] * 4 + [("two", 7)] * 4
    for row in ends:
        planted = [lagging(row.batch_size, replicate, row.epoch + replicate - 3) for replicate in (1, 2, 3)]
        mean = np.mean([terms.batchnorm for terms in planted])
        assert (row.batchnorm.n, row.batchnorm.mean) == (3, pytest.approx(mean, abs=1e-12))


@pytest.mark.parametrize(
    ("name", "rule", "phrase"),
    [
        ("averaging", "gap_is_averaging", "averaging over the epoch"),
        ("augmentation", "gap_is_augmentation", "augmentation"),
        ("batchnorm_validation", "gap_is_batchnorm", "BatchNorm statistics that have not caught up"),
        ("batchnorm_training", "gap_is_batchnorm", "BatchNorm statistics on the training side"),
        ("generalization", "gap_is_generalization", "generalization"),
    ],
)
def test_the_largest_term_words_the_sentence(name: str, rule: str, phrase: str) -> None:
    amount = 0.03
    told = _told(probed_history(_only(name, amount)))
    assert told.rule == rule
    assert f"0.030 (95% interval 0.030 to 0.030) of the 0.030 gap at epoch 6 is {phrase}; " in told.text
    assert dict(told.figures)["largest_term"] == rule.removeprefix("gap_is_")
    assert "At batch size 16 the gap is 0.015: " in told.text


def test_the_sentence_of_lagging_averages_word_for_word() -> None:
    # Batch 128 after 436 updates: 0.45 * 0.999 ** 218 = 0.362, and 0.004 on the training side.
    told = _told(probed_history(stages=(("head", 4),)))
    assert told.text == (
        "At batch size 128, BatchNorm statistics that have not caught up would alone open a gap of 0.366 "
        "(95% interval 0.341 to 0.391) at epoch 4, more than the 0.346 observed, as other terms close some "
        "of it; 0.012 (0.002 to 0.022) is generalization. The rest: averaging over the epoch \u22120.012, "
        "augmentation \u22120.020. At batch size 16 the gap is 0.062: averaging over the epoch \u22120.012, "
        "augmentation \u22120.020, BatchNorm 0.082, generalization 0.012."
    )


def test_a_term_within_chance_is_not_told_apart_from_zero() -> None:
    def terms(size: int, replicate: int, epoch: int) -> Terms:
        return Terms(batchnorm_validation=0.2, generalization=0.01 * (replicate - 2))

    told = _told(probed_history(terms))
    assert "; 0.000 (\u22120.025 to 0.025, not told apart from zero) is generalization." in told.text
    assert "cannot tell the gap itself" not in told.text


def test_a_gap_within_chance_is_said() -> None:
    def terms(size: int, replicate: int, epoch: int) -> Terms:
        return Terms(generalization=0.02 + 0.04 * (replicate - 2))

    told = _told(probed_history(terms))
    assert "cannot tell the gap itself from zero (95% interval \u22120.079 to 0.119)" in told.text


def _row_with(row: DecompositionRow, **means: float) -> DecompositionRow:
    def sure(mean: float) -> Estimate:
        return Estimate(3, mean, 0.001, mean - 0.001, mean + 0.001)

    zero = dict.fromkeys(PARTS, 0.0)
    return dataclasses.replace(row, **{name: sure(mean) for name, mean in (zero | means).items()})


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(probed_history(stages=(("head", 1),), batch_sizes=(16, 128)), FEW)


def _finding(analysis: Analysis, margin: float = 0.005, **means: float) -> GapFinding:
    small, large = analysis.decomposition.rows
    rows = (_row_with(small), _row_with(large, **means))
    found = gap_finding(dataclasses.replace(analysis.decomposition, rows=rows), margin)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("means", "rule"),
    [
        ({"observed": 0.005, "batchnorm": 0.005}, "gap_is_batchnorm"),
        ({"observed": 0.00499, "batchnorm": 0.00499}, "gap_is_small"),
        ({"observed": -0.2, "batchnorm": 0.1, "augmentation": -0.3}, "gap_is_small"),
        ({"observed": 0.2, "batchnorm": 0.1, "generalization": 0.099}, "gap_is_batchnorm"),
        ({"observed": 0.2, "batchnorm": 0.0999, "generalization": 0.09}, "gap_is_mixed"),
        ({"observed": 0.2, "batchnorm": 0.1, "generalization": 0.101}, "gap_is_generalization"),
        ({"observed": 0.1, "generalization": 0.3, "averaging": -0.2}, "gap_is_generalization"),
    ],
)
def test_edges_of_the_finding(analysis: Analysis, means: dict[str, float], rule: str) -> None:
    assert _finding(analysis, **means).rule == rule


def test_sentences_of_mixed_and_small_gaps(analysis: Analysis) -> None:
    mixed = _finding(analysis, observed=0.2, batchnorm=0.08, generalization=0.07, averaging=0.05)
    text = decomposition_sentence(mixed, analysis.facts).text
    assert text.startswith(
        "At batch size 128, no single cause makes up half of the 0.200 gap at epoch 1: 0.080 (95% interval "
        "0.079 to 0.081), the largest part, is BatchNorm statistics that have not caught up; 0.070 (0.069 to "
        "0.071) is generalization. The rest: averaging over the epoch 0.050, augmentation 0.000."
    )
    cancelled = _finding(analysis, observed=0.002, batchnorm=0.1, augmentation=-0.098)
    text = decomposition_sentence(cancelled, analysis.facts).text
    assert "the largest is 0.002 at batch size 128, epoch 1, where larger terms cancel: " in text
    assert "augmentation \u22120.098, BatchNorm 0.100" in text
    small = _finding(analysis, observed=0.002, batchnorm=0.002)
    assert "and none of its terms is larger" in decomposition_sentence(small, analysis.facts).text


def test_the_smallest_batch_size_is_not_held_against_itself(analysis: Analysis) -> None:
    small, large = analysis.decomposition.rows
    rows = (_row_with(small, observed=0.3, generalization=0.3), _row_with(large))
    found = gap_finding(dataclasses.replace(analysis.decomposition, rows=rows), 0.005)
    assert found is not None
    assert found.smallest is None
    assert "At batch size 16 the gap is" not in decomposition_sentence(found, analysis.facts).text


@pytest.mark.parametrize(
    ("train", "val", "side"), [(0.1, 0.1, "not caught up"), (0.1001, 0.1, "training side")]
)
def test_edge_between_the_halves_of_batchnorm(
    analysis: Analysis, train: float, val: float, side: str
) -> None:
    row = _row_with(analysis.decomposition.rows[0], batchnorm_training=train, batchnorm_validation=val)
    assert side in term_phrase(row, "batchnorm")


def test_the_first_sentence_is_the_cause_where_it_is_not_generalization() -> None:
    assert _rules(probed_history())[0] == "gap_is_batchnorm"
    assert _rules(probed_history(_only("generalization")))[1] == "gap_is_generalization"


@pytest.mark.parametrize(("low", "first"), [(1e-6, True), (0.0, False), (math.nan, False)])
def test_an_unsure_cause_does_not_come_first(analysis: Analysis, low: float, first: bool) -> None:
    found = _finding(analysis, observed=0.2, batchnorm=0.2)
    unsure = dataclasses.replace(found.row, batchnorm=dataclasses.replace(found.row.batchnorm, low=low))
    assert dataclasses.replace(found, row=unsure).measured_away is first
    assert not _finding(analysis, observed=0.2, generalization=0.2).measured_away


def test_a_measured_gap_is_not_called_one_of_generalization() -> None:
    verdict = analyze(probed_history(every=True), FEW).verdict
    headline = next(s for s in verdict if s.rule in ("gap_follows_updates", "gap_may_follow_updates"))
    assert headline.text.startswith("The growth of the observed gap with batch size ")
    assert "generalization gap" not in " ".join(sentence.text for sentence in verdict)


def test_a_network_without_batchnorm_has_that_term_zero_and_it_is_said() -> None:
    history = probed_history(_only("generalization"), lag=False)
    analysis = analyze(history, FEW)
    assert {row.batchnorm.mean for row in analysis.decomposition.rows} == {0.0}
    assert "no_batchnorm_term" in {note.rule for note in analysis.notes}
    moved = history.copy()
    moved.loc[moved.index[2], "probe_val_recalibrated_accuracy"] += 2e-6
    assert "no_batchnorm_term" not in {note.rule for note in analyze(moved, FEW).notes}


def test_every_figure_in_the_sentence_is_carried_by_it() -> None:
    told = _told(probed_history())
    values = {f"{abs(value):.3f}" for _, value in told.figures if isinstance(value, float)}
    shown = {word.strip("(),;:.\u2212") for word in told.text.split()}
    figures = {word for word in shown if word.replace(".", "", 1).isdigit() and "." in word}
    assert len(figures) >= 8
    assert figures <= values
