"""Updates to a target: held against a slow loop, NumPy and planted truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis_samples import made_history
from batchscope.analysis import Analysis, Settings, TargetSpec, analyze
from batchscope.analysis.measurements import trial_courses
from batchscope.analysis.to_target import updates_to_target
from batchscope.analysis.to_target_findings import misfit_text
from batchscope.analysis.to_target_results import UpdatesToTarget
from batchscope.errors import HistoryError
from batchscope.history import check_history
from to_target_samples import EXAMPLES, RATES, SIZES, TARGET, planted_history

ACCURACY = TargetSpec(metric="val_accuracy", value=TARGET)


def found(history: pd.DataFrame, target: TargetSpec = ACCURACY) -> UpdatesToTarget:
    return updates_to_target(check_history(history), target, 0.95)


def said(analysis: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in (*analysis.verdict, *analysis.notes)}


def slow_first(history: pd.DataFrame, trial: str, parts: int) -> tuple[float, float] | None:
    """The first updates at which a trial is at the target, and those of the measurement before."""
    before = 0.0
    for _, row in history[history["trial"] == trial].sort_values("epoch").iterrows():
        marks = [(row[f"within_{k}_updates"], row[f"within_{k}_val_accuracy"]) for k in range(1, parts)]
        for updates, value in [*marks, (row["updates"], row["val_accuracy"])]:
            if value >= TARGET:
                return updates, before
            before = updates
    return None


@pytest.mark.parametrize("parts", [1, 4])
def test_first_measurements_are_those_of_a_slow_loop(parts: int) -> None:
    history = planted_history(parts=parts)
    trials = found(history).trials
    assert len(trials) == len(SIZES) * len(RATES) * 3
    for trial in trials:
        first = slow_first(history, trial.trial, parts)
        assert trial.outcome == ("censored" if first is None else "reached")
        if first is None:
            assert trial.updates == history.loc[history["trial"] == trial.trial, "updates"].max()
            assert trial.examples is not None
            assert trial.examples == pytest.approx(trial.updates * trial.batch_size)
            assert trial.seconds == pytest.approx(trial.updates * (0.01 + trial.batch_size * 1e-4))
        else:
            assert (trial.updates, trial.updates_before) == first
            assert trial.examples == pytest.approx(trial.updates * trial.batch_size)
            assert trial.seconds == pytest.approx(trial.updates * (0.01 + trial.batch_size * 1e-4))
            assert trial.resolution == EXAMPLES // trial.batch_size / parts or parts > 1
    assert {trial.outcome for trial in trials} == {"reached", "censored"}


def test_a_loss_must_be_at_most_the_target_and_gives_the_same_as_the_accuracy() -> None:
    history = planted_history(parts=2)
    loss = found(history, TargetSpec(metric="val_loss", value=1 - TARGET + 1e-12))
    assert [trial.updates for trial in loss.trials] == [trial.updates for trial in found(history).trials]


def test_medians_count_censored_and_diverged_trials_as_latest() -> None:
    history = planted_history(sizes=(64,), rates=(0.1,), replicates=5, epochs=40, sd=0.25)
    trials = found(history).trials
    updates = np.sort([trial.updates for trial in trials])
    row = found(history).rates[0]
    assert row.updates.value == np.median(updates)
    assert (row.updates.low, row.updates.high) == (updates[0], updates[-1])
    # The range of five misses the median where all five lie on one side.
    assert row.updates.coverage == pytest.approx(1 - 2 * 0.5**5)
    last = sorted(trials, key=lambda trial: trial.updates)
    ends = {trial.trial: last[2].updates // 200 for trial in last[3:]}
    cut = history[history["epoch"] <= history["trial"].map(ends).fillna(40)]
    row = found(cut).rates[0]
    assert (row.n_reached, row.n_censored, row.updates.value) == (3, 2, updates[2])
    assert math.isnan(row.updates.high)
    epochs = last[1].updates // 200
    cut = history[history["epoch"] <= epochs]
    row = found(cut).rates[0]
    assert math.isnan(row.updates.value)
    # Three of five had taken as many updates without, so the median lies above.
    assert row.updates.more_than == last[1].updates
    gone = cut.copy()
    ends = gone["trial"].isin([trial.trial for trial in last[2:]]) & (gone["epoch"] == epochs)
    gone.loc[ends, ["val_loss", "val_accuracy"]] = np.nan
    row = found(gone).rates[0]
    assert (row.n_reached, row.n_censored, row.n_diverged) == (2, 0, 3)
    assert math.isnan(row.updates.more_than)


def test_a_trial_that_diverges_behind_the_target_has_reached_it() -> None:
    history = planted_history(sizes=(64,), rates=(0.1,))
    history.loc[history["epoch"] == history["epoch"].max(), "val_loss"] = np.inf
    assert {trial.outcome for trial in found(history).trials} == {"reached"}


@pytest.mark.parametrize(("n", "rank"), [(5, 1), (6, 1), (8, 1), (9, 2), (12, 3)])
def test_the_medians_interval_is_the_narrowest_of_order_statistics(n: int, rank: int) -> None:
    """SciPy's quantile test has the same interval for the median."""
    row = found(planted_history(sizes=(64,), rates=(0.1,), replicates=n, epochs=40)).rates[0]
    trials = np.sort(
        [t.updates for t in found(planted_history(sizes=(64,), rates=(0.1,), replicates=n, epochs=40)).trials]
    )
    assert (row.updates.low, row.updates.high) == (trials[rank - 1], trials[n - rank])
    exact = 1 - 2 * scipy.stats.binom.cdf(rank - 1, n, 0.5)
    assert row.updates.coverage == pytest.approx(exact)
    if n >= 6:
        interval = scipy.stats.quantile_test(trials).confidence_interval(0.95)
        assert (interval.low, interval.high) == (row.updates.low, row.updates.high)


def test_each_batch_size_stands_at_the_rate_with_the_least_median() -> None:
    result = found(planted_history(epochs=60, parts=4))
    best = {row.batch_size: row for row in result.best}
    for size in SIZES:
        medians = {
            rate: np.median(
                [t.updates for t in result.trials if (t.batch_size, t.learning_rate) == (size, rate)]
            )
            for rate in RATES
        }
        assert best[size].learning_rate == min(RATES, key=lambda rate, found=medians: (found[rate], rate))
    assert [size for size, row in best.items() if row.at_edge] == [128, 256, 512, 1024]
    assert {t.learning_rate for t in result.best_trials if t.batch_size <= 64} == {0.1}


def test_equal_medians_go_to_the_smallest_rate() -> None:
    history = planted_history(sizes=(64,), rates=(0.1,), epochs=20)
    both = [
        history.assign(grid_learning_rate=rate, trial=history["trial"] + f"-{rate}") for rate in (0.2, 0.1)
    ]
    row = found(pd.concat(both)).best[0]
    assert (row.learning_rate, row.at_edge) == (0.1, True)
    slower = planted_history(sizes=(64,), rates=(0.05, 0.4), epochs=20)
    row = found(pd.concat([slower[slower["grid_learning_rate"] == 0.4], *both])).best[0]
    assert (row.learning_rate, row.at_edge) == (0.1, False)  # 0.2 is as good, and within
    row = found(pd.concat([slower, *both])).best[0]
    assert (row.learning_rate, row.at_edge) == (0.1, False)


def test_other_analyses_do_not_lose_trials_to_the_choice_by_selection() -> None:
    """The history is cut to the chosen rates for the others, and whole for targets."""
    history = planted_history(epochs=30)
    history["selection_accuracy"] = (history["grid_learning_rate"] == 0.01).astype(float)
    analysis = analyze(history, Settings(resamples=100, targets=(ACCURACY,)))
    assert {point.learning_rate for point in analysis.learning_rates.chosen} == {0.01}
    [target] = analysis.updates_to_target
    assert target.best[0].learning_rate == 0.1
    assert target == found(history)


def test_where_medians_leave_perfect_scaling() -> None:
    """Planted efficiencies of (8 + 200) / (B + 200) keep above 1 / 1.2 up to B = 49.6."""
    result = found(planted_history(SIZES[:-1], (0.1,), replicates=2, sd=0, epochs=60, parts=25))
    for row in result.best:
        factor = 1.6 if row.batch_size > 64 else 1.0
        assert row.efficiency == pytest.approx(208 / (row.batch_size + 200) / factor, rel=0.03)
    assert result.scaling is not None
    assert (result.scaling.batch_size, result.scaling.up_to, result.scaling.leaves_at) == (8, 32, 64)
    single = found(planted_history(SIZES[:-1], (0.1,), replicates=1, sd=0, epochs=60, parts=25))
    assert math.isnan(single.best[0].updates.low)
    assert single.scaling is not None
    assert (single.scaling.up_to, single.scaling.leaves_at) == (None, None)


def test_a_rate_with_trials_that_run_is_not_taken_for_slower() -> None:
    """Two of its trials have just begun; the third was faster than any at the other rate."""
    history = planted_history(sizes=(64,), rates=(0.1, 1.0), sd=0.01, epochs=30)
    begun = history["trial"].isin(["b64-lr0.1-r2", "b64-lr0.1-r3"]) & (history["epoch"] > 1)
    row = found(history[~begun]).best[0]
    assert (row.learning_rate, row.n_reached, row.n_censored) == (0.1, 1, 2)


def test_measurements_within_epochs_are_lined_up_and_must_lie_in_their_epoch() -> None:
    history = check_history(planted_history(sizes=(64,), rates=(0.1,), parts=4))
    course = trial_courses(history, "val_accuracy")[0]
    assert course.spent["updates"].tolist() == list(range(50, 16 * 200 + 1, 50))
    assert course.spent["examples"] == pytest.approx(course.spent["updates"] * 64)
    history.loc[2, "within_2_updates"] = 100.0
    with pytest.raises(
        HistoryError, match=r"within the row's epoch, but a row of trial b64-lr0\.1-r1 has 100 "
    ):
        trial_courses(history, "val_accuracy")


def test_accuracies_within_epochs_are_shares() -> None:
    history = planted_history(sizes=(64,), rates=(0.1,), parts=2)
    history["within_1_val_accuracy"] *= 100
    with pytest.raises(HistoryError, match="within_1_val_accuracy must lie between 0 and 1"):
        analyze(history, Settings(resamples=100))


def test_a_measurement_that_is_missing_does_not_count() -> None:
    history = planted_history(sizes=(64,), rates=(0.1,), parts=4)
    whole = found(history).trials[0]
    at = history["within_1_updates"] == whole.updates_before
    other = history["within_3_updates"] == whole.updates_before
    history.loc[at, ["within_1_updates", "within_1_val_accuracy"]] = np.nan
    history.loc[other, ["within_3_updates", "within_3_val_accuracy"]] = np.nan
    assert at.any() or other.any() or (history["updates"] == whole.updates_before).any()
    now = found(history).trials[0]
    assert now.updates == whole.updates
    assert now.updates_before <= whole.updates_before


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_diverged_network_has_not_reached_the_target(loss: float) -> None:
    """Whatever its accuracy, at the end of an epoch or within one; what comes after may."""
    history = planted_history(sizes=(64,), rates=(0.1,), parts=4, epochs=20)
    trial = found(history).trials[0]
    for part in (1, 2, 3, ""):
        name = f"within_{part}_" if part else ""
        at = (history["trial"] == trial.trial) & (history[f"{name}updates"] == trial.updates)
        history.loc[at, f"{name}val_loss"] = loss
    now = found(history).trials[0]
    assert (now.outcome, now.updates) == ("reached", trial.updates + 50)
    assert now.updates_before == trial.updates_before  # no measurement
    history["val_loss"] = loss
    for part in (1, 2, 3):
        history[f"within_{part}_val_loss"] = loss
    assert {trial.outcome for trial in found(history).trials} == {"diverged"}
    bare = history.drop(columns=[name for name in history.columns if name.endswith("loss")])
    assert {trial.outcome for trial in found(bare).trials} == {"reached"}


def test_without_a_column_there_is_a_reason_and_the_rest_stands() -> None:
    history = planted_history(sizes=(32, 64), rates=(0.1,), epochs=30)
    bare = analyze(history.drop(columns="updates"), Settings(resamples=100, targets=(ACCURACY,)))
    assert bare.updates_to_target[0].reason == "the history has no column updates"
    assert "the history has no column updates" in said(bare)["target_without_column"]
    lossless = found(history.drop(columns=["val_accuracy", "examples", "seconds"]))
    assert (lossless.trials, lossless.scaling, lossless.critical) == ((), None, None)
    assert found(history.drop(columns="examples")).rates[0].examples is None
    assert analyze(history, Settings(resamples=100)).updates_to_target == ()


def test_the_verdict_says_what_it_takes() -> None:
    analysis = analyze(planted_history(parts=4), Settings(resamples=100, targets=(ACCURACY,)))
    texts = said(analysis)
    [target] = analysis.updates_to_target
    assert target.scaling is not None
    assert target.critical is not None
    assert "updates are more than 20% above perfect scaling at batch size 256" in texts["updates_to_target"]
    assert f"is {target.critical.batch_size.value:.0f} (95% interval" in texts["critical_batch_size"]
    assert "3 of 3 at batch size 1024" in texts["target_not_reached_by_all"]
    assert "1 at batch size 128" in texts["target_learning_rate_at_edge"]
    assert "chosen by the trials" in texts["target_learning_rate_optimism"]
    assert "target_measured_coarsely" not in texts
    one_rate = planted_history(rates=(0.1,), parts=4)
    assert "target_learning_rate_optimism" not in said(
        analyze(one_rate, Settings(resamples=100, targets=(ACCURACY,)))
    )


def test_an_interval_about_a_curve_that_fits_badly_is_called_too_narrow() -> None:
    critical = found(planted_history(rates=(0.1,), parts=4)).critical
    assert critical is not None
    assert misfit_text(critical) == ""
    bad = misfit_text(dataclasses.replace(critical, lack_of_fit_p=0.012))
    assert bad == (
        " The curve fits badly (lack of fit, p = 0.012): take the value as rough, and its interval as too "
        "narrow."
    )


def test_a_target_beyond_all_and_a_coarse_measurement_are_said() -> None:
    never = TargetSpec(metric="val_accuracy", value=1.0)
    history = made_history(epochs=4)
    texts = said(analyze(history, Settings(resamples=100, targets=(never,))))
    assert texts["target_not_reached"].startswith("At no batch size did enough trials reach")
    assert not {"critical_batch_size", "critical_batch_size_unknown"} & set(texts)
    early = TargetSpec(metric="val_accuracy", value=0.8)
    texts = said(analyze(history, Settings(resamples=100, targets=(early,))))
    assert "more than 20% of the updates" in texts["target_measured_coarsely"]
    assert "not determined" in texts["critical_batch_size_unknown"]


def test_a_history_that_reached_the_target_before_its_first_update_has_no_fit() -> None:
    history = made_history(epochs=2).assign(updates=lambda table: (table["epoch"] - 1) * 10)
    result = found(history, TargetSpec(metric="val_accuracy", value=0.8))
    assert result.critical is not None
    assert "before its first update" in (result.critical.reason or "")
    assert dataclasses.asdict(result)["scaling"]["batch_size"] is None


def test_a_trial_that_was_never_measured_has_not_reached_the_target() -> None:
    history = planted_history(sizes=(64,), rates=(0.1,), epochs=30)
    history.loc[history["replicate"] == 2, ["val_accuracy", "val_loss"]] = np.nan
    row = found(history).rates[0]
    assert (row.n_trials, row.n_reached, row.n_diverged) == (3, 2, 1)


def test_figures_that_no_training_gives_are_taken_without_a_warning() -> None:
    history = planted_history(sizes=(8, 64, 512), rates=(0.1,), epochs=6)
    updates = np.random.default_rng(1).permutation(history["updates"].to_numpy())
    for column in (0, 2**53, updates):
        critical = found(history.assign(updates=column)).critical
        assert critical is not None
        assert critical.status == "not_determined"
