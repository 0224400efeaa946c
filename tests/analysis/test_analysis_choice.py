"""The choice of a learning rate: ties, divergence, what it flatters, and grids that nothing marks as such."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from analysis_samples import made_history
from batchscope.analysis import Analysis, RecipeFacts, Settings, analyze
from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.tuning import choose_learning_rates
from batchscope.errors import HistoryError
from batchscope.history import check_history
from batchscope.report.recipe_tables import learning_rate_table
from recipe_samples import tried

FEW = Settings(resamples=100)
RATES = (0.001, 0.01, 0.1, 1.0)


def ended(selection: np.ndarray, metric: np.ndarray, **columns: np.ndarray) -> pd.DataFrame:
    """One row a trial, from figures by (batch size, learning rate, replicate)."""
    sizes, rates, replicates = selection.shape
    rows = [
        {
            "batch_size": b + 1,
            "replicate": r + 1,
            "trial": f"b{b}-lr{j}-r{r}",
            "epoch": 1,
            "learning_rate": RATES[j],
            "val_accuracy": metric[b, j, r],
            "selection_accuracy": selection[b, j, r],
            **{name: values[b, j, r] for name, values in columns.items()},
        }
        for b in range(sizes)
        for j in range(rates)
        for r in range(replicates)
    ]
    return check_history(pd.DataFrame(rows))


def choose(history: pd.DataFrame, metric: str = "val_accuracy") -> LearningRates:
    found = choose_learning_rates(history, metric, 0.95)
    assert found is not None
    return found


def said(analysis: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in (*analysis.verdict, *analysis.notes)}


def equals(sizes: int, replicates: int, images: float) -> tuple[np.ndarray, np.ndarray]:
    """Selection and metric of equal learning rates: trials scatter by 0.01, images add to the selection."""
    random = np.random.default_rng(0)
    metric = 0.8 + random.normal(0, 0.01, (sizes, len(RATES), replicates))
    # The same images in all replicates of a learning rate.
    return metric + random.normal(0, images, (sizes, len(RATES), 1)), metric


@pytest.mark.parametrize(("replicates", "images"), [(3, 0.005), (5, 0.0)])
def test_the_estimated_optimism_of_equal_learning_rates_is_true_on_average(
    replicates: int, images: float
) -> None:
    """Each batch size is a simulation of its own; the truth is its reported mean above the planted 0.8."""
    found = choose(ended(*equals(400, replicates, images)))
    truth = np.array([point.metric.mean for point in found.chosen]) - 0.8
    estimates = np.array([row.estimate for row in found.optimism])
    error = estimates - truth
    assert abs(error.mean()) < 3 * error.std(ddof=1) / math.sqrt(len(error))
    # It is there to be seen: an estimate of 0 would be refused.
    assert truth.mean() > 6 * error.std(ddof=1) / math.sqrt(len(error))
    if images == 0:
        # Mean of the largest of four standard normals, by its density.
        largest = quad(lambda x: x * 4 * norm.pdf(x) * norm.cdf(x) ** 3, -10, 10)[0]
        assert truth.mean() == pytest.approx(largest * 0.01 / math.sqrt(replicates), rel=0.1)


def test_optimism_agrees_with_a_plain_loop() -> None:
    selection, metric = equals(6, 4, 0.003)
    for row, chosen_by, reported in zip(
        choose(ended(selection, metric)).optimism, selection, metric, strict=True
    ):
        best = max(range(4), key=lambda j: sum(chosen_by[j]))
        worse, changed = [], 0
        for r in range(4):
            others = [k for k in range(4) if k != r]
            other = max(range(4), key=lambda j: sum(chosen_by[j][k] for k in others))
            changed += other != best
            worse.append(reported[best][r] - reported[other][r])
        assert row.estimate == pytest.approx(sum(worse) / 4, abs=1e-12)
        assert (row.n_replicates, row.n_changed) == (4, changed)


def test_a_loss_is_too_good_where_it_is_too_low() -> None:
    selection, metric = equals(40, 3, 0.0)
    history = ended(selection, metric, val_loss=1 - metric, selection_loss=1 - selection)
    by_loss, by_accuracy = choose(history, "val_loss"), choose(history)
    assert [row.estimate for row in by_loss.optimism] == pytest.approx(
        [row.estimate for row in by_accuracy.optimism], abs=1e-12
    )
    assert np.mean([row.estimate for row in by_loss.optimism]) > 0


def test_clear_choices_flatter_nothing_and_the_note_says_so() -> None:
    found = analyze(tried(), FEW)
    assert [(row.n_replicates, row.n_changed, row.estimate) for row in found.learning_rates.optimism] == [
        (3, 0, 0.0)
    ] * 4
    text = said(found)["learning_rate_optimism"]
    assert text.startswith("The replicates that chose the learning rates are those that are compared")
    assert "estimated at 0.000 of the mean validation accuracy on average over batch sizes, and at" in text
    assert "What the images add" not in text
    assert "What the images add" in said(analyze(tried(selection=None), FEW))["learning_rate_optimism"]


def test_two_replicates_or_a_diverged_one_leave_it_open() -> None:
    history = tried()
    found = analyze(history[history["replicate"] < 3], FEW)
    assert all(math.isnan(row.estimate) for row in found.learning_rates.optimism)
    assert "By how much cannot be told: it takes 3 replicates" in said(found)["learning_rate_optimism"]
    # Replicate 2 diverges at the best of batch size 32, which the others alone would choose.
    at = (history["batch_size"] == 32) & (history["learning_rate"] == 0.01) & (history["replicate"] == 2)
    lost = history.copy()
    lost.loc[at & (lost["epoch"] == 6), "train_loss"] = np.nan
    found = analyze(lost, FEW)
    assert [math.isnan(row.estimate) for row in found.learning_rates.optimism] == [False, True, False, False]
    assert "over batch sizes (3 of 4 batch sizes)" in said(found)["learning_rate_optimism"]


def test_a_tie_in_accuracy_goes_to_the_lowest_loss_on_the_same_images() -> None:
    """Means over 10 images of two replicates, equal but for the last bits of their sums."""
    selection = np.array([[[0.7, 0.9], [np.float32(0.9), 0.7], [0.8, 0.8], [0.7, 0.8]]])
    losses = np.array([[[0.5, 0.5], [0.4, 0.6], [0.3, 0.5], [0.0, 0.0]]])
    metric = np.full(selection.shape, 0.5)

    def best(**columns: np.ndarray) -> float:
        return choose(ended(selection, metric, **columns)).chosen[0].learning_rate

    assert best(selection_loss=losses) == 0.1
    assert best() == 0.001
    # Images that are reported have no say.
    assert best(val_loss=losses) == 0.001
    # A tie in both goes to the smallest.
    assert best(selection_loss=np.where(losses > 0, 0.5, 0.0)) == 0.001
    by_metric = ended(selection, selection.astype(np.float64), val_loss=losses)
    assert choose(by_metric.drop(columns="selection_accuracy")).chosen[0].learning_rate == 0.1


def test_a_learning_rate_that_lost_by_divergence_is_named() -> None:
    history = tried()
    at = (history["batch_size"] == 32) & (history["learning_rate"] == 0.01) & (history["replicate"] == 2)
    worse = (history["batch_size"] == 64) & (history["learning_rate"] == 0.005) & (history["replicate"] == 1)
    history.loc[(at | worse) & (history["epoch"] == 6), "val_loss"] = np.inf
    found = analyze(history, FEW)
    passed = [(p.batch_size, p.learning_rate) for p in found.learning_rates.points if p.passed_over]
    assert passed == [(32, 0.01)]
    assert said(found)["learning_rate_passed_over"] == (
        "Learning rates were passed over because trials diverged there, though the others ended better than "
        "at the best: 0.01 at batch size 32 (1 of 3 diverged)."
    )
    assert "learning_rate_passed_over" not in said(analyze(tried(), FEW))
    remarks = {(row[0].text, row[1].text): row[-1].text for row in learning_rate_table(found).rows}
    assert remarks["32", "0.01"] == "passed over: diverged"


def test_a_selection_figure_that_is_not_finite_counts_as_divergence() -> None:
    """Without it the best of batch size 32 would be judged by two replicates against three."""
    history = tried()
    at = (history["batch_size"] == 32) & (history["learning_rate"] == 0.01) & (history["replicate"] == 2)
    history.loc[at & (history["epoch"] == 6), "selection_accuracy"] = np.nan
    point = next(
        p
        for p in analyze(history, FEW).learning_rates.points
        if (p.batch_size, p.learning_rate) == (32, 0.01)
    )
    assert (point.n_diverged, point.chosen, point.passed_over) == (1, False, True)


def test_one_learning_rate_twice_in_a_replicate_is_refused() -> None:
    history = tried()
    again = history[history["trial"] == "b32-lr0.04-r1"].assign(trial="again")
    with pytest.raises(HistoryError, match=r"batch_size=32, replicate=1, learning_rate=0.04; keep one"):
        analyze(pd.concat([history, again]), FEW)


def numbered(
    rates: tuple[float, ...] = (0.1, 0.01, 0.001), sizes: tuple[int, ...] = (16, 32, 64)
) -> pd.DataFrame:
    """A grid of which each learning rate is called a replicate, at some batch sizes."""
    history = made_history()
    replicate = history["replicate"].map(dict(enumerate(rates, start=1)))
    return history.assign(learning_rate=replicate.where(history["batch_size"].isin(sizes), 0.01))


@pytest.mark.parametrize("named", [True, False])
def test_learning_rates_that_are_numbered_as_replicates_are_told(named: bool) -> None:
    history = numbered() if named else numbered().drop(columns=["trial", "stage"])
    found = analyze(history, FEW)
    assert (found.learning_rates.how, found.learning_rates.mixed) == ("differ", (16, 32, 64))
    text = said(found)["learning_rates_mixed"]
    assert text.startswith("The replicates of batch size 16, 32 and 64 have different learning rates, so")
    assert "number replicates from 1 at each learning rate" in text
    reasons = {reason.rule: reason.text for reason in found.recommendation.reasons}
    assert reasons["learning_rates_mixed"] == (
        "The replicates of batch size 16, 32 and 64 differ in their learning rates."
    )
    assert "learning_rate_not_retuned" not in reasons
    # The remedy that it names works.
    mended = numbered(sizes=(16, 32, 64, 128)).assign(
        trial=lambda rows: "b" + rows["batch_size"].astype(str) + "-lr" + rows["learning_rate"].astype(str),
        replicate=1,
    )
    assert analyze(mended, FEW).learning_rates.how == "grid"


def _warmed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(learning_rate=0.1 * (rows["epoch"] / 5).clip(upper=1))


def _scaled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(learning_rate=0.001 * rows["batch_size"] / 16)


def _lowered(rows: pd.DataFrame) -> pd.DataFrame:
    """Halved when a replicate's own plateau comes."""
    return rows.assign(learning_rate=0.1 * 0.5 ** (rows["epoch"] > 2 + rows["replicate"]))


def _staged(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        stage=np.where(rows["epoch"] > 4, "two", "one"), learning_rate=np.where(rows["epoch"] > 4, 1e-5, 1e-3)
    )


@pytest.mark.parametrize("recipe_of", [_warmed, _scaled, _lowered, _staged])
@pytest.mark.parametrize("unfinished", [10, 2])
def test_rules_warm_up_stages_and_plateaus_are_no_mixture(recipe_of, unfinished) -> None:  # type: ignore[no-untyped-def]
    history = recipe_of(made_history())
    going_on = (history["replicate"] == 3) & (history["epoch"] > unfinished)
    for recipe in (None, RecipeFacts(learning_rate_rule="linear")):
        found = analyze(history[~going_on], FEW, recipe)
        assert found.learning_rates.mixed == ()
        assert "learning_rates_mixed" not in said(found)


def test_a_grid_that_is_marked_as_one_is_no_mixture() -> None:
    assert analyze(tried(), FEW).learning_rates.mixed == ()
    single = tried(grid=(0.01,)).assign(grid_learning_rate=0.01)
    assert analyze(single, FEW).learning_rates.optimism == ()
    assert "learning_rate_optimism" not in said(analyze(single, FEW))
