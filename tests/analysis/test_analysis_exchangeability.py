import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize_scalar

from analysis_samples import made_history, noisy
from batchscope.analysis import analyze, load_source
from batchscope.analysis import outliers as module
from batchscope.analysis.outliers import find_outliers

SIZES = np.log2([16.0, 32, 64, 128])


@pytest.mark.parametrize("dropped", [[], ["train_accuracy"], ["stage"]])
def test_published_flags_are_run_1_of_batch_32_and_64_and_nothing_else(dropped: list[str]) -> None:
    flags = analyze(load_source("published").drop(columns=dropped)).flags
    assert [(flag.batch_size, flag.replicate, flag.trial) for flag in flags] == [
        (32, 1, "b32-r1"),
        (64, 1, "b64-r1"),
    ]
    assert {flag.stage for flag in flags} == ({""} if dropped == ["stage"] else {"fine_tuning"})


def test_published_flags_carry_their_figures() -> None:
    history = load_source("published")
    first = analyze(history).flags[0]
    window = history[(history.batch_size == 32) & history.epoch.between(16, 20)]
    assert (first.first_epoch, first.last_epoch, first.quantity) == (16, 20, "train_accuracy")
    assert first.value == pytest.approx(window[window.replicate == 1].train_accuracy.mean(), rel=1e-12)
    assert first.others == pytest.approx(window[window.replicate > 1].train_accuracy.mean(), rel=1e-12)
    assert first.score > 10 * first.threshold


def test_scores_agree_with_statsmodels() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(4, 5)) + np.arange(4)[:, None]
    values[2, 3] += 40
    found = find_outliers(values, SIZES, 0.05)
    assert [(outlier.group, outlier.member) for outlier in found] == [(2, 3)]
    groups = np.repeat(np.arange(4), 5)
    fit = sm.OLS(values.ravel(), pd.get_dummies(groups).to_numpy(dtype=float)).fit()
    tested = np.asarray(fit.outlier_test(alpha=0.05, method="bonferroni"))
    row = 2 * 5 + 3
    assert found[0].score == pytest.approx(abs(tested[row, 0]), rel=1e-9)
    # At the threshold the Bonferroni-corrected p of statsmodels' test is the level.
    p = 2 * float(sm.stats.stattools.stats.t.sf(found[0].threshold, 20 - 4 - 1))
    assert p * 20 == pytest.approx(0.05, rel=1e-9)


def test_the_fitted_power_is_that_of_largest_restricted_likelihood() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(4, 6)) * 2.0 ** (0.7 * np.arange(4))[:, None]
    alive = np.ones(values.shape, dtype=bool)
    n, deviations = module._residuals(values, alive)
    squares = (deviations**2).sum(axis=1)

    def minus_log_likelihood(power: float) -> float:
        # -2 log restricted likelihood of independent groups, their common variance profiled out.
        relative = [4 ** (power * (x - SIZES.mean())) for x in SIZES]
        freedom = sum(n - 1)
        common = sum(s / v for s, v in zip(squares, relative, strict=True)) / freedom
        return sum(
            (m - 1) * math.log(common * v) + s / (common * v)
            for m, s, v in zip(n, squares, relative, strict=True)
        )

    best = minimize_scalar(minus_log_likelihood, bounds=(-2, 2), method="bounded").x
    scale = module._relative_scale(squares, n, SIZES)
    assert math.log2(scale[1] / scale[0]) == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize(
    ("groups", "members", "power", "most"),
    [(4, 3, 0.0, 0.05), (4, 8, 0.0, 0.05), (1, 4, 0.0, 0.05), (4, 3, 0.5, 0.15), (4, 3, 1.0, 0.2)],
)
def test_false_alarms_stay_near_their_level(groups: int, members: int, power: float, most: float) -> None:
    random = np.random.default_rng([groups, members, int(10 * power)])
    sizes = np.arange(groups, dtype=float)
    alarms = sum(
        bool(
            find_outliers(
                random.normal(size=(groups, members)) * 2.0 ** (power * sizes)[:, None], sizes, 0.05
            )
        )
        for _ in range(500)
    )
    # Two standard errors of a share of 500 are added to the largest rate allowed.
    assert alarms / 500 <= most + 2 * math.sqrt(most * (1 - most) / 500)


def test_a_whole_history_of_alike_replicates_is_seldom_flagged() -> None:
    flagged = 0
    for study in range(60):
        history = made_history(epochs=4, stages=(("a", 2), ("b", 2)))
        random = np.random.default_rng(study)
        level = random.normal(0.95, 0.003, 12).repeat(4)
        history["train_accuracy"] = level + random.normal(0, 0.001, len(history))
        flagged += bool(analyze(history.drop(columns="updates")).flags)
    assert flagged <= 6


@pytest.mark.parametrize("planted", [{(1, 0)}, {(1, 0), (2, 0)}, {(0, 1), (1, 2), (2, 0), (3, 1)}])
def test_planted_outliers_are_found_even_if_they_are_many(planted: set[tuple[int, int]]) -> None:
    hits = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(size=(4, 3))
        for member in planted:
            values[member] -= 40
        hits += {(found.group, found.member) for found in find_outliers(values, SIZES, 0.05)} == planted
    assert hits >= 85


def test_at_the_edge_of_the_threshold() -> None:
    # Nine exchangeable values around one whose distance is moved across its threshold.
    values = np.random.default_rng(4).normal(size=(1, 10))
    others = values[0, :9]
    threshold = find_outliers(np.append(others, 50.0)[None], SIZES[:1], 0.05)[0].threshold
    error = np.std(others, ddof=1) * math.sqrt(1 + 1 / 9)
    for factor, expected in ((0.999, 0), (1.001, 1)):
        values[0, 9] = others.mean() + factor * threshold * error
        assert len(find_outliers(values, SIZES[:1], 0.05)) == expected


def test_a_majority_defines_what_is_usual() -> None:
    two_and_two = np.array([[0.0, 0.001, 9, 9.001], [0, 0.001, 0.002, 0.003]])
    assert all(
        outlier.group == 1 or outlier.member in (0, 1, 2, 3)
        for outlier in find_outliers(two_and_two, SIZES[:2], 0.05)
    )
    assert len(find_outliers(two_and_two, SIZES[:2], 0.05)) <= 1


@pytest.mark.parametrize("shift", [0.0, 1e-7])
def test_identical_replicates_and_rounding_are_not_flagged(shift: float) -> None:
    values = np.full((4, 3), 0.5)
    values[1, 1] += shift
    assert find_outliers(values, SIZES, 0.05) == ()


def test_a_difference_among_identical_replicates_is_flagged() -> None:
    values = np.full((4, 3), 0.5)
    values[1, 1] += 0.01
    assert [(found.group, found.member) for found in find_outliers(values, SIZES, 0.05)] == [(1, 1)]


def test_flagged_replicates_stay_in_all_figures() -> None:
    row = next(row for row in analyze(load_source("published")).final if row.batch_size == 32)
    assert row.train_accuracy is not None
    assert row.train_accuracy.n == 3
    assert row.train_accuracy.mean == pytest.approx(0.9755, abs=5e-5)


@pytest.mark.parametrize("replicates", [1, 2])
def test_fewer_than_three_replicates_cannot_be_compared(replicates: int) -> None:
    analysis = analyze(made_history(replicates=replicates, epochs=4))
    check = analysis.exchangeability[0]
    assert (check.n_tested, check.n_left_out) == (0, 4 * replicates)
    assert f"the largest number is {replicates}" in (check.reason or "")
    assert "exchangeability_not_tested" in {note.rule for note in analysis.notes}


def test_without_training_columns_nothing_is_compared() -> None:
    check = analyze(made_history(epochs=4).drop(columns=["train_accuracy", "train_loss"])).exchangeability[0]
    assert check.quantity is None
    assert "train_accuracy or train_loss" in (check.reason or "")


def test_a_diverged_or_short_trial_takes_no_part_and_is_counted() -> None:
    history = made_history(replicates=4, epochs=6)
    history.loc[(history.batch_size == 32) & (history.replicate == 1) & (history.epoch == 5), "val_loss"] = (
        np.nan
    )
    history = history[~((history.batch_size == 64) & (history.replicate == 2) & (history.epoch == 6))]
    history = history[~((history.batch_size == 128) & (history.replicate > 2))]
    check = analyze(history).exchangeability[0]
    # All of batch 128 has too few; the last half is epochs 4 to 6.
    assert (check.n_tested, check.n_left_out) == (10, 4)


def test_only_the_last_half_of_a_stage_counts() -> None:
    def early(b: int, r: int, e: int, u: float) -> float:
        return 0.9 - (0.3 if (b, r) == (64, 2) and e <= 3 else 0) + noisy(b, r, e + 50, 1e-3)

    def late(b: int, r: int, e: int, u: float) -> float:
        return 0.9 - (0.3 if (b, r) == (64, 2) and e > 3 else 0) + noisy(b, r, e + 50, 1e-3)

    assert analyze(made_history(epochs=6, train=early)).flags == ()
    assert [flag.trial for flag in analyze(made_history(epochs=6, train=late)).flags] == ["b64-r2"]


def test_perfect_training_accuracy_is_no_obstacle() -> None:
    analysis = analyze(made_history(epochs=4, train=lambda *_: 1.0))
    assert analysis.flags == ()
    assert analysis.exchangeability[0].n_tested == 12
