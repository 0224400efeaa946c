"""The critical batch size: planted truth by the hundred, least squares and a slow likelihood."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from batchscope.analysis.critical import _goodness_of_fit, _limit, _spans, fit_critical
from batchscope.analysis.critical_likelihood import (
    Offsets,
    Spans,
    _deviance,
    deviance_of_means,
    least_deviance,
    profile,
)
from batchscope.analysis.to_target_results import Bounded, TrialToTarget
from to_target_samples import B_CRIT, S_MIN, Law, curve, drawn_trials

SEEDS = range(100)
NINE = tuple(2**power for power in range(3, 12))
SIX = tuple(2**power for power in range(4, 10))


def holds(found: Bounded, truth: float) -> bool:
    return found.low <= truth <= found.high


def test_intervals_hold_the_planted_truth_where_measurements_are_coarse() -> None:
    """Noise of 30%, and a quarter of the updates between two measurements."""
    fits = [
        fit_critical(drawn_trials(seed, sizes=NINE, replicates=5, sd=0.3, grain=0.25), 0.95) for seed in SEEDS
    ]
    assert {fit.status for fit in fits} == {"determined"}
    assert sum(holds(fit.batch_size, B_CRIT) for fit in fits) >= 93
    assert sum(holds(fit.examples_min, S_MIN * B_CRIT) for fit in fits) >= 90
    assert sum(holds(fit.updates_min, S_MIN) for fit in fits) >= 90
    assert float(np.median([fit.batch_size.value for fit in fits])) == pytest.approx(B_CRIT, rel=0.05)


def test_censored_trials_bias_nothing() -> None:
    """Small batch sizes are cut off amid their trials; left out, these would look faster than they are."""
    fits = [fit_critical(drawn_trials(seed, last=12_000.0), 0.95) for seed in SEEDS[:40]]
    assert sum(fit.n_censored > 0 for fit in fits) >= 38
    assert sum(holds(fit.batch_size, B_CRIT) for fit in fits) >= 36


@pytest.mark.parametrize(
    ("law", "words", "end"),
    [
        (lambda size: S_MIN * B_CRIT / size, "beyond perfect scaling", "low"),
        (lambda size: S_MIN, "on the plateau", "high"),
    ],
)
def test_pure_perfect_scaling_and_a_pure_plateau_are_refused(law, words: str, end: str) -> None:
    """At the edge of what is possible an interval of 95% is closed in about one of 40."""
    fits = [fit_critical(drawn_trials(seed, law=law), 0.95) for seed in SEEDS[:60]]
    refused = [fit for fit in fits if fit.status == "not_determined"]
    assert len(refused) >= 56
    for fit in refused:
        assert words in (fit.reason or "")
        assert math.isnan(fit.batch_size.value)
        assert math.isfinite(getattr(fit.batch_size, end))
        assert math.isnan(getattr(fit.batch_size, "high" if end == "low" else "low"))
        assert math.isnan(fit.updates_min.value)


def test_a_finely_measured_fit_is_that_of_least_squares() -> None:
    trials = drawn_trials(3, grain=1e-4)
    sizes = np.array([trial.batch_size for trial in trials], dtype=float)
    logs = np.log([trial.updates for trial in trials])
    n = len(trials)

    def squares(log_critical: float) -> float:
        return float(np.var(logs - np.log1p(np.exp(log_critical) / sizes)) * n)

    best = scipy.optimize.minimize_scalar(squares, bounds=(0, 12), method="bounded", options={"xatol": 1e-9})
    rise = 1 + scipy.stats.f.ppf(0.95, 1, n - 2) / (n - 2)
    ends = [
        math.exp(
            scipy.optimize.brentq(lambda x: squares(x) / best.fun - rise, *sorted((best.x, best.x + step)))
        )
        for step in (-2, 2)
    ]
    fit = fit_critical(trials, 0.95)
    assert fit.batch_size.value == pytest.approx(math.exp(best.x), rel=2e-3)
    assert [fit.batch_size.low, fit.batch_size.high] == pytest.approx(ends, rel=3e-3)
    assert fit.sd_log == pytest.approx(math.sqrt(best.fun / (n - 2)), rel=2e-3)
    assert fit.examples_min.value == pytest.approx(fit.batch_size.value * fit.updates_min.value)
    assert fit.r_squared == pytest.approx(1 - best.fun / (np.var(logs) * n), abs=1e-4)
    groups = [logs[sizes == size] for size in np.unique(sizes)]
    pure = sum(float(np.var(group) * len(group)) for group in groups)
    f = (best.fun - pure) / (len(groups) - 2) / (pure / (n - len(groups)))
    assert fit.lack_of_fit_f == pytest.approx(f, rel=1e-2)
    assert fit.lack_of_fit_p == pytest.approx(scipy.stats.f.sf(f, len(groups) - 2, n - len(groups)), rel=1e-2)


def test_the_likelihood_is_that_of_a_plain_loop_and_its_derivatives_are_differences() -> None:
    spans = Spans(
        batch_sizes=np.array([8.0, 16.0, 32.0, 64.0, 64.0]),
        lower=np.array([0.0, 900.0, 700.0, 520.0, 5e3]),
        upper=np.array([1000.0, 950.0, np.inf, 521.0, 5.1e3]),
    )
    mean, log_sd = np.array([6.8, 6.9, 6.5, 6.3, 6.2]), math.log(0.2)
    total = 0.0
    for low, high, centre in zip(spans.lower, spans.upper, mean, strict=True):
        normal = scipy.stats.norm(centre, 0.2)
        # The upper tails' difference, for the last span lies more than ten standard deviations above.
        ends = [normal.sf(math.log(low)) if low else 1.0, normal.sf(math.log(high)) if high < np.inf else 0.0]
        total += -2 * math.log(ends[0] - ends[1])
    value, by_mean, by_sd = _deviance(spans, mean, log_sd)
    assert value == pytest.approx(total, rel=1e-9)
    for index in range(5):
        step = np.eye(5)[index] * 1e-6
        slope = (_deviance(spans, mean + step, log_sd)[0] - _deviance(spans, mean - step, log_sd)[0]) / 2e-6
        assert by_mean[index] == pytest.approx(slope, rel=1e-5, abs=1e-6)
    slope = (_deviance(spans, mean, log_sd + 1e-6)[0] - _deviance(spans, mean, log_sd - 1e-6)[0]) / 2e-6
    assert by_sd == pytest.approx(slope, rel=1e-5)


def test_the_most_likely_parameters_are_those_of_a_search_without_derivatives() -> None:
    trials = drawn_trials(11, grain=0.3, last=13_000.0)
    reached = np.array([trial.outcome == "reached" for trial in trials])
    spans = Spans(
        np.array([trial.batch_size for trial in trials], dtype=float),
        np.array(
            [
                trial.updates_before if there else trial.updates
                for trial, there in zip(trials, reached, strict=True)
            ]
        ),
        np.array([trial.updates if there else np.inf for trial, there in zip(trials, reached, strict=True)]),
    )

    def deviance(x) -> float:
        return _deviance(spans, np.logaddexp(x[0], x[1] - np.log(spans.batch_sizes)), x[2])[0]

    start = [math.log(S_MIN), math.log(S_MIN * B_CRIT), math.log(0.2)]
    options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 5000, "maxfev": 5000}
    slow = scipy.optimize.minimize(deviance, start, method="Nelder-Mead", options=options)
    fit = least_deviance(spans)
    assert fit.deviance == pytest.approx(slow.fun, abs=1e-6)
    assert [fit.log_updates, fit.log_examples, fit.log_sd] == pytest.approx(list(slow.x), abs=1e-3)
    held = profile(spans, Offsets.of(spans, fit.log_critical))
    assert held.deviance == pytest.approx(fit.deviance, abs=1e-6)


def test_a_curve_of_another_shape_fits_badly() -> None:
    """A plateau between two falls."""
    trials = drawn_trials(2, law=lambda size: 1e5 / min(size, 32) if size < 256 else 8e5 / size, sd=0.05)
    fit = fit_critical(trials, 0.95)
    assert fit.status == "determined"
    assert fit.lack_of_fit_p < 1e-6
    assert fit_critical(drawn_trials(2, sd=0.05), 0.95).lack_of_fit_p > 0.05


def roughly_measured(seed: int, grain: float, law: Law = curve, replicates: int = 3) -> list[TrialToTarget]:
    """Scatter of 5%; measurements lie otherwise at each batch size, and alike for its replicates."""
    grains = grain * np.exp(np.random.default_rng(seed).uniform(-0.3, 0.3, len(SIX)))
    return [
        trial
        for size, each in zip(SIX, grains, strict=True)
        for trial in drawn_trials(
            10_000 * seed + size, law=law, sizes=(size,), replicates=replicates, sd=0.05, grain=float(each)
        )
    ]


@pytest.mark.parametrize("grain", [0.02, 0.1, 0.25])
def test_a_true_curve_seldom_fits_badly_however_coarse_measurements_are(grain: float) -> None:
    """At the coarsest the F test on the middles between measurements finds it bad in 9 of these seeds."""
    found = [_goodness_of_fit(roughly_measured(seed, grain)).p for seed in range(60)]
    assert not np.isnan(found).any()
    assert sum(p < 0.05 for p in found) <= 7  # at 5% more than these come in 1 of 100 cases


@pytest.mark.parametrize(("grain", "least"), [(0.02, 19), (0.1, 17), (0.25, 4)])
def test_batch_sizes_beside_the_curve_are_found_where_measurements_can_tell(grain: float, least: int) -> None:
    """Two of six take a fifth more than the curve."""

    def beside(size: float) -> float:
        return curve(size) * (1.2 if size in (32, 64) else 1.0)

    found = [_goodness_of_fit(roughly_measured(seed, grain, beside)).p for seed in range(20)]
    assert sum(p < 0.05 for p in found) >= least


def test_means_of_their_own_are_those_of_a_slow_search() -> None:
    trials = roughly_measured(4, 0.1)
    spans = _spans(trials)

    def of_one(size: int, log_sd: float) -> float:
        here = spans.batch_sizes == size
        one = Spans(spans.batch_sizes[here], spans.lower[here], spans.upper[here])
        ends = (float(one.log_lower.min()), float(one.log_upper.max()))
        return float(
            scipy.optimize.minimize_scalar(
                lambda mean: _deviance(one, np.full(3, mean), log_sd)[0], bounds=ends, method="bounded"
            ).fun
        )

    slow = scipy.optimize.minimize_scalar(
        lambda log_sd: sum(of_one(size, log_sd) for size in SIX), bounds=(-7, 0), method="bounded"
    )
    fit = least_deviance(spans)
    assert deviance_of_means(spans, fit) == pytest.approx(slow.fun, abs=1e-3)
    gained = fit.deviance - slow.fun
    assert gained > 1
    f = math.expm1(gained / 18) * 12 / 4
    assert _goodness_of_fit(trials).p == pytest.approx(scipy.stats.f.sf(f, 4, 12), abs=1e-3)


def test_batch_sizes_that_were_cut_off_take_no_part_in_the_lack_of_fit() -> None:
    trials = drawn_trials(3, sizes=SIX)
    cut = [
        dataclasses.replace(one, outcome="censored") if (one.batch_size, one.replicate) == (16, 1) else one
        for one in trials
    ]
    assert _goodness_of_fit(cut) == _goodness_of_fit([one for one in trials if one.batch_size != 16])
    three = [one for one in cut if one.batch_size < 128]
    assert math.isnan(_goodness_of_fit(three).p)
    assert math.isnan(_goodness_of_fit(three).r_squared)


def test_too_few_batch_sizes_and_no_scatter() -> None:
    two = fit_critical(drawn_trials(1, sizes=(8, 512)), 0.95)
    assert (
        two.reason == "it needs at least 3 batch sizes at which a trial reached the target, but there are 2"
    )
    none = fit_critical(drawn_trials(1, last=1.0), 0.95)
    assert "but there are none" in (none.reason or "")
    exact = fit_critical(drawn_trials(1, sd=0.0, grain=1e-6), 0.95)
    assert exact.status == "determined"
    assert exact.batch_size.value == pytest.approx(B_CRIT, rel=0.02)
    assert exact.lack_of_fit_p > 0.5
    one_each = fit_critical(drawn_trials(1, replicates=1, sd=0.05), 0.95)
    assert one_each.status == "determined"
    assert math.isnan(one_each.lack_of_fit_p)
    assert one_each.r_squared > 0.98


def test_a_target_that_all_reach_at_once_asks_for_finer_measurements() -> None:
    at_once = [dataclasses.replace(one, updates_before=0.0) for one in drawn_trials(1)]
    fit = fit_critical(at_once, 0.95)
    assert fit.reason == (
        "every trial had reached the target by its first measurement; set validations_per_epoch, or a harder "
        "target"
    )
    later = fit_critical([*at_once[:-1], drawn_trials(1)[-1]], 0.95)
    assert "first measurement" not in (later.reason or "")


def test_trials_that_scatter_too_much_tell_nothing() -> None:
    fit = fit_critical(drawn_trials(4, sizes=(16, 32, 64), replicates=2, sd=2.0), 0.95)
    assert "scatter too much" in (fit.reason or "")
    assert math.isnan(fit.batch_size.low)
    assert math.isnan(fit.batch_size.high)


def test_diverged_trials_are_left_out_and_counted() -> None:
    trials = drawn_trials(6)
    lost = [dataclasses.replace(trial, outcome="diverged") for trial in trials[:2]]
    fit, without = fit_critical([*lost, *trials[2:]], 0.95), fit_critical(trials[2:], 0.95)
    assert fit == dataclasses.replace(without, n_diverged=2)


def test_an_estimate_outside_the_batch_sizes_is_called_so() -> None:
    assert fit_critical(drawn_trials(1, sizes=(8, 16, 32, 64), sd=0.02), 0.95).extrapolated
    assert not fit_critical(drawn_trials(1), 0.95).extrapolated
    reached = drawn_trials(1, sizes=(8, 16, 32, 64), sd=0.02)
    begun = [
        dataclasses.replace(one, batch_size=1024, outcome="censored", updates=10.0) for one in reached[:3]
    ]
    fit = fit_critical([*reached, *begun], 0.95)
    assert 64 < fit.batch_size.value < 1024
    assert fit.extrapolated


def test_updates_scale_without_changing_the_critical_batch_size() -> None:
    trials = drawn_trials(7, grain=0.05)
    many: list[TrialToTarget] = [
        dataclasses.replace(one, updates=one.updates * 1000, updates_before=one.updates_before * 1000)
        for one in trials
    ]
    few, more = fit_critical(trials, 0.95), fit_critical(many, 0.95)
    assert more.batch_size.value == pytest.approx(few.batch_size.value, rel=1e-4)
    assert more.updates_min.value == pytest.approx(1000 * few.updates_min.value, rel=1e-4)
    assert curve(B_CRIT) == 2 * S_MIN


def test_the_rule_of_the_interval_covers_as_often_as_it_says_over_thousands_of_seeds() -> None:
    """By least squares, which is quick; the first fits by the likelihood hold the truth where it does."""
    looks = np.linspace(math.log(20), math.log(2_000), 461)
    sizes = np.repeat(SIX, 3).astype(float)
    curves, truth = np.log1p(np.exp(looks)[:, None] / sizes), np.log1p(B_CRIT / sizes)
    limit = _limit(len(sizes), 0.95)
    covered = []
    for seed in range(3_000):
        trials = drawn_trials(seed, sizes=SIX, replicates=3, sd=0.1, grain=0.02)
        logs = np.log([(trial.updates + trial.updates_before) / 2 for trial in trials])
        rise = len(sizes) * math.log((logs - truth).var() / (logs - curves).var(axis=1).min())
        covered.append(rise <= limit)
        if seed < 20:
            assert holds(fit_critical(trials, 0.95).batch_size, B_CRIT) == covered[-1]
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 3_000))
