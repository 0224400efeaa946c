import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis_samples import made_history, noisy, plain_mean, plain_variance
from batchscope.analysis import Settings, analyze, load_source
from batchscope.analysis.matched import GRID_POINTS
from batchscope.analysis.results import UpdatesShare
from batchscope.errors import HistoryError


def _slow_share(
    history: pd.DataFrame, stage: str, draws: dict[int, list[int]] | None = None
) -> tuple[float, ...]:
    """The definition as plain loops: share, share alike, variances at epochs, updates, epochs alike."""
    curves: dict[int, list[tuple[int, float, float]]] = {}
    start: dict[int, float] = {}
    for size, part in history.groupby("batch_size"):
        own = part[part.stage == stage]
        before = part[part.epoch < own.epoch.min()].updates
        start[size] = before.max() if len(before) else 0
        curves[size] = []
        for epoch, rows in own.groupby("epoch"):
            values = rows.set_index("replicate").val_accuracy
            chosen = draws[size] if draws else list(values.index)
            mean = plain_mean([values[replicate] for replicate in chosen])
            curves[size].append((epoch, rows.updates.iloc[0] - start[size], mean))
    common = set.intersection(*({epoch for epoch, _, _ in curve} for curve in curves.values()))
    at_epochs = plain_mean(
        [
            plain_variance([mean for curve in curves.values() for e, _, mean in curve if e == epoch])
            for epoch in sorted(common)
        ]
    )
    low = sorted(curve[0][1] for curve in curves.values())[1]
    high = sorted(curve[-1][1] for curve in curves.values())[-2]
    variances, alike = [], []
    for cell in range(GRID_POINTS):
        log_updates = math.log(low) + (cell + 0.5) / GRID_POINTS * (math.log(high) - math.log(low))
        there = {size: value for size in curves if (value := _at(curves[size], log_updates)) is not None}
        if len(there) < 2:
            continue
        variances.append(plain_variance(list(there.values())))
        alike.append(
            plain_mean(
                [
                    plain_variance([mean for size in there for e, _, mean in curves[size] if e == epoch])
                    for epoch in sorted(common)
                ]
            )
        )
    at_updates, at_epochs_alike = plain_mean(variances), plain_mean(alike)
    shares = 1 - at_updates / at_epochs, 1 - at_updates / at_epochs_alike
    return (*shares, at_epochs, at_updates, at_epochs_alike)


def _figures(share: UpdatesShare) -> tuple[float, ...]:
    return (
        share.share,
        share.share_alike,
        share.variance_at_matched_epochs,
        share.variance_at_matched_updates,
        share.variance_at_matched_epochs_alike,
    )


def _at(curve: list[tuple[int, float, float]], log_updates: float) -> float | None:
    for (_, left, low), (_, right, high) in itertools.pairwise(curve):
        if math.log(left) <= log_updates <= math.log(right):
            weight = (log_updates - math.log(left)) / (math.log(right) - math.log(left))
            return low + weight * (high - low)
    return None


def _shares(history: pd.DataFrame, **settings: float) -> tuple[UpdatesShare, ...]:
    return analyze(history, Settings(**settings)).updates_share


def test_published_feature_extraction_is_mostly_explained_by_updates() -> None:
    share = _shares(load_source("published"))[0]
    assert share.stage == "feature_extraction"
    assert 0.85 < share.share < 0.91
    assert share.low < share.share < share.high
    assert (share.updates_from, share.updates_to, share.n_epochs) == (218, 4370, 10)


@pytest.mark.parametrize("stage", [0, 1])
def test_published_shares_agree_with_plain_loops(stage: int) -> None:
    history = load_source("published")
    found = _shares(history)[stage]
    assert _figures(found) == pytest.approx(_slow_share(history, found.stage), rel=1e-9)


def test_unequal_lengths_agree_with_plain_loops() -> None:
    history = made_history(epochs=9, val=_by_updates(0.002))
    history = history[history.epoch <= 3 + np.log2(history.batch_size) - 3]
    found = _shares(history)[0]
    assert _figures(found) == pytest.approx(_slow_share(history, "training"), rel=1e-9)
    assert found.n_epochs == 4


def test_the_bootstrap_agrees_with_plain_loops() -> None:
    history = made_history(batch_sizes=(16, 64), epochs=6, val=_by_updates(0.02))
    found = _shares(history, resamples=100, seed=7)[0]
    random = np.random.default_rng(7)
    counts = {size: random.multinomial(3, [1 / 3] * 3, size=100) for size in (16, 64)}
    shares = [
        _slow_share(
            history,
            "training",
            {size: [r + 1 for r in range(3) for _ in range(counts[size][draw][r])] for size in counts},
        )[:2]
        for draw in range(100)
    ]
    plain, alike = np.quantile(shares, [0.025, 0.975], axis=0).T
    assert (found.low, found.high) == pytest.approx(plain, rel=1e-9)
    assert (found.low_alike, found.high_alike) == pytest.approx(alike, rel=1e-9)


def _by_updates(noise: float) -> Callable[[int, int, int, float], float]:
    def curve(batch_size: int, replicate: int, epoch: int, updates: float) -> float:
        return 0.4 + 0.06 * math.log(updates / 50) + noisy(batch_size, replicate, epoch, noise)

    return curve


def test_curves_that_depend_on_updates_alone_are_explained_wholly() -> None:
    share = _shares(made_history(val=_by_updates(0)))[0]
    assert (share.share, share.share_alike) == pytest.approx((1, 1), abs=1e-12)
    assert share.variance_at_matched_updates == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(("n_sizes", "inflated"), [(2, 0.0), (4, 0.3), (8, 0.6)])
def test_curves_that_depend_on_batch_size_alone_are_not_explained(n_sizes: int, inflated: float) -> None:
    sizes = tuple(2**power for power in range(4, 4 + n_sizes))
    history = made_history(
        sizes, epochs=20, val=lambda b, r, e, u: 0.9 - 0.01 * math.log2(b) + noisy(b, r, e, 1e-6)
    )
    share = _shares(history)[0]
    assert share.share_alike == pytest.approx(0, abs=1e-3)
    # At matched updates only neighbours are compared, which alone makes their variance smaller.
    assert share.share >= inflated - 1e-3
    assert analyze(history).verdict[0].rule == "gap_beyond_updates"


def test_curves_that_depend_on_epochs_and_hardly_on_batch_size_give_a_negative_share() -> None:
    history = made_history(
        replicates=8, val=lambda b, r, e, u: 0.3 + 0.05 * e - 3e-3 * math.log2(b) + noisy(b, r, e, 1e-3)
    )
    analysis = analyze(history)
    assert analysis.updates_share[0].share < -10
    assert analysis.verdict[0].rule == "gap_beyond_updates"
    assert "(explained share \u2212" in analysis.verdict[0].text


def test_a_later_stage_forgets_the_updates_before_it() -> None:
    one = made_history(epochs=5, val=_by_updates(0.001))
    two = made_history(
        stages=(("a", 5), ("b", 5)),
        val=lambda b, r, e, u: _by_updates(0.001)(b, r, *((e - 5, u / e * (e - 5)) if e > 5 else (e, u))),
    )
    first, second = _shares(two)
    alone = _shares(one)[0]
    assert second.share == pytest.approx(alone.share, rel=1e-9)
    assert (second.updates_from, second.updates_to) == (alone.updates_from, alone.updates_to)
    assert first.share == pytest.approx(alone.share, rel=1e-9)


def test_the_seed_fixes_the_interval() -> None:
    history = made_history(epochs=4, val=_by_updates(0.02))
    assert repr(_shares(history, seed=1)) == repr(_shares(history, seed=1))
    assert _shares(history, seed=1)[0].low != _shares(history, seed=2)[0].low


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # The truth is the share without noise: half of the difference is due to updates.
    def curve(b: int, r: int, e: int, u: float) -> float:
        return 0.3 + 0.05 * math.log(u / 50) - 0.02 * math.log2(b)

    truth = _shares(made_history(epochs=4, val=curve))[0].share
    hits = 0
    for trial in range(60):
        random = np.random.default_rng(trial)
        history = made_history(replicates=8, epochs=4, val=lambda b, r, e, u: curve(b, r, e, u))  # noqa: PLW0108
        history["val_accuracy"] += random.normal(0, 0.01, len(history))
        share = _shares(history, resamples=200)[0]
        hits += share.low <= truth <= share.high
    assert hits >= 50


def test_one_replicate_has_a_share_but_no_interval() -> None:
    history = made_history(replicates=1, val=_by_updates(0.01))
    share = _shares(history)[0]
    assert math.isfinite(share.share)
    assert math.isnan(share.low)
    assert "at least 2 replicates" in (share.reason or "")


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (made_history(batch_sizes=(16,)), "at least 2 batch sizes with finite figures, but the stage has 1"),
        (made_history().drop(columns="updates"), "column updates"),
        (made_history(batch_sizes=(2, 512), epochs=3), "no two batch sizes have data at the same number"),
        (made_history(val=lambda b, r, e, u: e / 20), "do not differ at matched epochs"),
    ],
)
def test_what_cannot_be_computed_has_a_reason(history: pd.DataFrame, reason: str) -> None:
    share = _shares(history)[0]
    assert math.isnan(share.share)
    assert math.isnan(share.low)
    assert reason in (share.reason or "")
    assert "updates_share_incomplete" in {note.rule for note in analyze(history).notes}


def test_batch_sizes_that_share_no_epoch_have_a_reason() -> None:
    history = made_history(batch_sizes=(16, 32), epochs=4)
    history.loc[(history.batch_size == 16) & (history.epoch > 2), "val_loss"] = np.nan
    history.loc[(history.batch_size == 32) & (history.epoch <= 2), "val_loss"] = np.nan
    assert "no epoch at which every batch size" in (_shares(history)[0].reason or "")


def test_a_diverged_batch_size_is_left_out_and_named() -> None:
    history = made_history(val=_by_updates(0.001))
    alike = history[history.batch_size != 64]
    history.loc[history.batch_size == 64, "train_loss"] = np.nan
    share = _shares(history)[0]
    assert share.batch_sizes == (16, 32, 128)
    assert share.share == _shares(alike)[0].share


def test_a_gap_inside_a_curve_is_interpolated_across() -> None:
    history = made_history(epochs=6, val=_by_updates(0))
    assert _shares(history[~((history.batch_size == 16) & (history.epoch == 3))])[0].share == pytest.approx(1)


def test_replicates_with_different_updates_are_averaged_and_said() -> None:
    history = made_history(epochs=4, val=_by_updates(0.001))
    history.loc[(history.batch_size == 64) & (history.replicate == 1), "updates"] += 20
    analysis = analyze(history)
    assert math.isfinite(analysis.updates_share[0].share)
    note = next(note for note in analysis.notes if note.rule == "updates_differ")
    assert "batch size 64" in note.text


@pytest.mark.parametrize("wrong", [0, 875])
def test_updates_that_do_not_grow_are_refused(wrong: int) -> None:
    history = made_history(epochs=3)
    history.loc[(history.batch_size == 16) & (history.epoch == (1 if wrong == 0 else 2)), "updates"] = wrong
    with pytest.raises(HistoryError, match="updates must count on from epoch to epoch"):
        analyze(history)
