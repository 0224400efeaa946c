"""The gradient noise scale by batch size, and its intervals, on planted gradients."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import t as student

from batchscope.analysis.analyze import analyze
from batchscope.analysis.encode import to_json
from batchscope.analysis.noise_scale import fieller, ratio_interval
from probed import ONE_TRIAL, Terms, probed_history, with_gradients

RNG = np.random.default_rng(21)
NORM2, TRACE = "probe_gradient_norm2", "probe_gradient_trace"
# Of `ONE_TRIAL`.
JACKKNIFE = np.array([[0.04, -0.02], [-0.02, 4.0]])


def brute_force(means: tuple[float, float], covariance: np.ndarray, quantile: float) -> tuple[float, float]:
    """The smallest and the largest ratio that is not rejected, of very many."""
    ratios = np.concatenate([[0.0], np.geomspace(1e-6, 1e9, 400_001)])
    errors = np.sqrt(covariance[1, 1] - 2 * ratios * covariance[0, 1] + ratios**2 * covariance[0, 0])
    inside = ratios[np.abs(means[1] - ratios * means[0]) <= quantile * errors]
    return float(inside.min()), float(inside.max())


@pytest.mark.parametrize(
    ("norm2", "trace", "correlation"),
    [
        (2.0, 50.0, 0.0),
        (2.0, 50.0, -0.7),
        (0.3, 50.0, 0.4),
        (-0.2, 50.0, -0.4),
        (0.3, 2.0, 0.3),
        (5.0, 1.0, 0.9),
    ],
)
def test_fiellers_interval_holds_every_ratio_that_a_slow_search_does(
    norm2: float, trace: float, correlation: float
):
    deviations = np.array([0.25, 4.0])
    covariance = np.outer(deviations, deviations) * [[1, correlation], [correlation, 1]]
    low, high = fieller((norm2, trace), covariance, 2.1)
    expected = brute_force((norm2, trace), covariance, 2.1)
    assert low == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
    assert high == (np.inf if expected[1] > 1e8 else pytest.approx(expected[1], rel=1e-3))


def test_a_gradient_that_is_surely_none_has_no_interval():
    assert np.isnan(fieller((-3.0, 50.0), np.diag([0.01, 1.0]), 2.0)).all()


def test_the_interval_covers_the_planted_noise_scale_as_often_as_it_says():
    truth, covered, runs = 25.0, 0, 4_000
    quantile = float(student.ppf(0.975, 4))
    for _ in range(runs):
        pairs = RNG.multivariate_normal([2.0, 50.0], [[0.5, -0.6], [-0.6, 9.0]], size=5).T
        low, high = fieller(tuple(pairs.mean(axis=1)), np.cov(pairs) / 5, quantile)
        covered += low <= truth <= high
    assert covered / runs == pytest.approx(0.95, abs=0.012)


def test_estimates_are_averaged_before_they_are_divided():
    history = with_gradients(probed_history(batch_sizes=(16, 64), replicates=3))
    found = analyze(history).noise_scale
    assert found.reason is None
    assert [(row.stage, row.batch_size) for row in found.ends] == [
        (stage, size) for stage in ("feature_extraction", "fine_tuning") for size in (16, 64)
    ]
    row = found.ends[-1]
    trials = history[(history.batch_size == 64) & (history.epoch == 6)]
    norm2, trace = trials[NORM2], trials[TRACE]
    assert (row.n, row.epoch, row.over) == (3, 6, "replicates_and_batches")
    assert row.noise_scale == pytest.approx(trace.mean() / norm2.mean())
    assert row.noise_scale != pytest.approx((trace / norm2).mean(), rel=1e-6)
    means, runs = (norm2.mean(), trace.mean()), student.ppf(0.975, 2) ** 2 * np.cov(norm2, trace) / 3
    images = student.ppf(0.975, 39) ** 2 * JACKKNIFE  # not divided by the replicates, which share them
    assert (row.low, row.high) == pytest.approx(brute_force(means, runs + images, 1.0), rel=1e-3)
    assert row.low < row.noise_scale < row.high
    history.loc[(history.batch_size == 64) & (history.replicate == 2), "probe_gradient_trace_error"] = np.nan
    bare = analyze(history).noise_scale.ends[-1]
    assert bare.over == "replicates"
    assert (bare.low, bare.high) == pytest.approx(brute_force(means, runs, 1.0), rel=1e-3)


def test_the_jackknifes_of_replicates_are_averaged():
    pairs = np.array([[2.0, 2.2, 1.9], [50.0, 55.0, 48.0]])
    each = np.array([JACKKNIFE, 2 * JACKKNIFE, 6 * JACKKNIFE])
    assert ratio_interval(pairs, each, 40, 0.9) == ratio_interval(pairs, each.mean(axis=0)[None], 40, 0.9)
    assert ratio_interval(pairs[:, :1], None, np.nan, 0.9).over is None


def test_one_replicate_has_an_interval_over_its_batches():
    history = with_gradients(probed_history(batch_sizes=(16,), replicates=1))
    row = analyze(history).noise_scale.ends[-1]
    trial = history[history.epoch == 6].iloc[0]
    expected = brute_force((trial[NORM2], trial[TRACE]), JACKKNIFE, float(student.ppf(0.975, 39)))
    assert (row.n, row.over) == (1, "batches")
    assert (row.low, row.high) == pytest.approx(expected, rel=1e-3)
    bare = analyze(history.drop(columns=list(ONE_TRIAL))).noise_scale.ends[-1]
    assert (bare.over, bare.noise_scale) == (None, row.noise_scale)
    assert np.isnan([bare.low, bare.high]).all()


def test_a_gradient_that_is_not_told_from_none_has_no_upper_end_or_no_estimate():
    history = with_gradients(probed_history(batch_sizes=(16, 64)), norm2=0.05)
    row = analyze(history).noise_scale.ends[0]
    assert row.unbounded
    assert row.high == np.inf
    history.loc[history.batch_size == 64, NORM2] = history[NORM2] - 0.5
    analysis = analyze(history)
    lost = [row for row in analysis.noise_scale.ends if row.batch_size == 64]
    assert np.isnan([row.noise_scale for row in lost]).all()
    notes = [note for note in analysis.notes if note.rule == "noise_scale_unknown"]
    assert [dict(note.figures)["stage"] for note in notes] == ["feature_extraction", "fine_tuning"]
    encoded = json.loads(to_json(analysis))["noise_scale"]["rows"]
    assert [(row["high"], row["unbounded"]) for row in encoded if row["batch_size"] == 16] == [
        (None, True)
    ] * 2
    assert {row["noise_scale"] for row in encoded if row["batch_size"] == 64} == {None}


def test_every_probed_epoch_has_its_row_and_the_last_ends_its_stage():
    history = with_gradients(probed_history(batch_sizes=(16,), every=True))
    rows = analyze(history).noise_scale.rows
    assert [row.epoch for row in rows if row.ends_stage] == [3, 6]
    assert [round(row.noise_scale / 50) for row in rows] == [1, 2, 3, 4, 5, 6]


def test_the_verdict_places_batch_sizes_only_an_order_of_magnitude_away():
    history = with_gradients(
        probed_history(batch_sizes=(64, 256, 8_192), terms=lambda *_: Terms(), stages=(("one", 5),))
    )
    sentence = next(said for said in analyze(history).verdict if said.rule == "noise_scale")
    assert "batch size 8192 lies well above it" in sentence.text
    assert "well below" not in sentence.text  # 64 is not: the noise scale is about 250
    assert "to an order of magnitude" in sentence.text
    assert dict(sentence.figures)["batch_size_64"] == pytest.approx(250, rel=0.2)
    assert sentence.text.count(", over replicates and batches of images)") == 2
    assert "at the end, where it is largest as a rule; earlier it is smaller." in sentence.text


def test_by_one_replicate_no_batch_size_is_placed():
    history = with_gradients(
        probed_history(batch_sizes=(16, 8_192), replicates=1, terms=lambda *_: Terms(), stages=(("one", 5),))
    )
    analysis = analyze(history)
    assert analysis.noise_scale.ends[-1].high < 819  # by its batches alone it would be well above
    sentence = next(said for said in analysis.verdict if said.rule == "noise_scale")
    assert "lies well" not in sentence.text
    assert sentence.text.count(", over batches of its only replicate)") == 2


def test_without_the_columns_there_are_no_rows_and_no_word():
    analysis = analyze(probed_history())
    assert analysis.noise_scale.rows == ()
    assert f"{NORM2} and {TRACE}" in str(analysis.noise_scale.reason)
    assert analysis.sharpness.rows == ()
    said = {sentence.rule for sentence in (*analysis.verdict, *analysis.notes)}
    assert not said & {"noise_scale", "sharpness", "noise_scale_unknown", "hessian_not_converged"}


def test_sharpness_is_averaged_and_what_did_not_converge_is_counted():
    history = with_gradients(probed_history(batch_sizes=(16, 64)))
    history.loc[(history.batch_size == 64) & (history.replicate == 3), "probe_hessian_top"] = np.nan
    analysis = analyze(history)
    first, *_, last = analysis.sharpness.ends
    assert (first.hessian_top.mean, first.box.mean) == pytest.approx((34.0, 3.6))
    assert first.hessian_top.high - 34.0 == pytest.approx(student.ppf(0.975, 2) / np.sqrt(3))
    assert (last.hessian_top.n, last.hessian_top.mean, last.n_unconverged) == (2, pytest.approx(129.5), 1)
    assert last.box.mean == pytest.approx(8.4)
    note = next(said for said in analysis.notes if said.rule == "hessian_not_converged")
    assert dict(note.figures) == {"n_unconverged": 2}  # once in each stage
    verdict = [said.text for said in analysis.verdict if said.rule == "sharpness"]
    assert len(verdict) == 2
    assert "34 at batch size 16 (Keskar's sharpness 3.6), and 130 at batch size 64" in verdict[1]
