"""Replicates that are added until each batch size's mean is known well enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchscope import load
from batchscope.analysis import narrowing
from batchscope.analysis.narrowing import half_width
from batchscope.errors import HistoryError, StudyError
from batchscope.loading import parse_study
from batchscope.own.handle import TrialHandle
from batchscope.records import PEAK_MEMORY, Trial, TrialState
from batchscope.running.growth import Growth
from batchscope.running.options import RunOptions
from batchscope.running.plan import plan_trials
from batchscope.running.run import run_study
from batchscope.running.store import Store
from own_runs import outcomes, run_function
from run_samples import Events, record

SPREADS = {16: 0.001, 32: 0.03}
SEARCH = {"half_width": 0.02, "max_replicates": 12}
TOLD = dict[str, object]


def final(batch_size: int, replicate: int) -> float:
    """What a trial ends with: replicates of 32 differ much, those of 16 hardly."""
    return float(0.8 + np.random.default_rng([batch_size, replicate]).normal(0, SPREADS[batch_size]))


def needed(batch_size: int, fewest: int) -> int:
    """By a slow loop with SciPy's interval."""
    for count in range(fewest, SEARCH["max_replicates"]):
        values = [final(batch_size, replicate) for replicate in range(1, count + 1)]
        low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
        if (high - low) / 2 <= SEARCH["half_width"]:
            return count
    return SEARCH["max_replicates"]


def trained(folder: Path, **keys: object) -> tuple[pd.DataFrame, Events]:
    spreads = dict(SPREADS)

    def train(trial: TrialHandle) -> None:
        import numpy as np

        drawn = np.random.default_rng([trial.batch_size, trial.replicate])
        value = 0.8 + drawn.normal(0, spreads[trial.batch_size])
        for epoch in (1, 2):
            trial.report(updates=epoch, val_accuracy=value - 0.1 * (2 - epoch))

    seen = Events()
    run = run_function(train, folder, seen, replicates=3, **({"until_ci": SEARCH} | keys))
    return run.history, seen


@pytest.mark.usefixtures("machine")
def test_each_batch_size_gets_as_many_replicates_as_its_own_spread_asks_for(tmp_path: Path):
    history, seen = trained(tmp_path / "run")
    counts = history.groupby("batch_size")["replicate"].nunique().to_dict()
    assert counts == {16: needed(16, 3), 32: needed(32, 3)}
    assert counts[16] == 3
    assert 3 < counts[32] < SEARCH["max_replicates"]
    added = [note for note in seen.notes if "is added" in note]
    assert len(added) == counts[32] - 3
    assert added[0].startswith("replicate 4 of batch size 32 is added: its mean val_accuracy is known to ")
    assert [list(work) for work in seen.additions] == [[f"b32-r{r}"] for r in range(4, counts[32] + 1)]
    again, _ = trained(tmp_path / "run")
    pd.testing.assert_frame_equal(again, history, check_exact=True)


@pytest.mark.usefixtures("machine")
def test_no_batch_size_gets_more_than_the_most(tmp_path: Path):
    history, _ = trained(tmp_path / "run", until_ci={"half_width": 1e-6, "max_replicates": 5})
    assert history.groupby("batch_size")["replicate"].nunique().to_dict() == {16: 5, 32: 5}


@pytest.mark.usefixtures("machine")
def test_a_batch_size_with_a_failed_trial_waits_until_that_was_tried_again(tmp_path: Path):
    mended = tmp_path / "mended"

    def train(trial: TrialHandle) -> None:
        if trial.name == "b32-r2" and not mended.exists():
            raise RuntimeError("not yet")
        trial.report(updates=1, val_accuracy=0.5 + 0.1 * (trial.replicate % 2))

    search = {"half_width": 0.01, "max_replicates": 4}
    run = run_function(train, tmp_path / "run", replicates=3, until_ci=search)
    assert outcomes(run)[3] == ("b32-r2", "failed", 0)
    assert [(name, state) for name, state, _ in outcomes(run)[6:]] == [("b16-r4", "complete")]
    mended.touch()
    run = run_function(train, tmp_path / "run", replicates=3, until_ci=search)
    assert [name for name, _, _ in outcomes(run)[6:]] == ["b16-r4", "b32-r4"]
    assert {state for _, state, _ in outcomes(run)} == {"complete"}


@pytest.mark.usefixtures("machine")
def test_a_batch_size_whose_trials_all_diverged_gets_no_more(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        lost = trial.batch_size == 16 or trial.replicate == 2
        trial.report(updates=1, val_accuracy=float("nan") if lost else 0.5 + 0.1 * trial.replicate)

    seen = Events()
    search = {"half_width": 1e-6, "max_replicates": 5}
    run = run_function(train, tmp_path / "run", seen, replicates=3, until_ci=search)
    assert run.history.groupby("batch_size")["replicate"].nunique().to_dict() == {16: 3, 32: 5}
    told = [note for note in seen.notes if "batch size 16" in note]
    assert told == ["no replicate of batch size 16 is added: all of its 3 trials diverged"]


@pytest.mark.usefixtures("machine")
def test_a_search_by_a_metric_that_no_trial_reports_ends_with_the_first_record(tmp_path: Path):
    calls = tmp_path / "calls"

    def train(trial: TrialHandle) -> None:
        with calls.open("a") as file:
            file.write(f"{trial.name} ")
        trial.report(updates=1, val_loss=0.5 + 0.1 * trial.replicate)

    with pytest.raises(StudyError, match=r"until_ci\.metric: must be a metric .* set until_ci\.metric to it"):
        run_function(train, tmp_path / "run", replicates=3, until_ci=SEARCH)
    assert calls.read_text() == "b16-r1 "
    with Store(tmp_path / "run" / "results.sqlite") as store:
        assert [status.epochs for status in store.trials()] == [0] * 6
    cured = {"half_width": 1e-6, "max_replicates": 4, "metric": "val_loss"}
    run = run_function(train, tmp_path / "run", replicates=3, until_ci=cured)
    assert outcomes(run) == [(f"b{size}-r{r}", "complete", 1) for r in range(1, 5) for size in (16, 32)]


SEARCHED = {"name": "own", "command": "true", "batch_sizes": [16, 32], "replicates": 3, "until_ci": SEARCH}


@pytest.fixture
def searched(tmp_path: Path) -> Iterator[Store]:
    """A study of two learning rates, all of whose planned trials have ended."""
    study = parse_study(SEARCHED | {"learning_rates": [0.1, 0.2]}, "own")
    with Store(tmp_path / "results.sqlite", create=True) as store:
        store.plan(plan_trials(study))
        for trial in plan_trials(study):
            values = {"learning_rate": trial.learning_rate, "val_accuracy": 0.4 + 0.1 * trial.replicate}
            store.add(trial, record(1, **values, probes={"selection_accuracy": 0.5}))
            store.set_state(trial, TrialState.COMPLETE)
        yield store


def test_figures_that_cannot_be_judged_stop_their_batch_size_alone(searched: Store):
    absurd = record(1, learning_rate=0.1, probes={"selection_accuracy": 7.0})
    searched.add(Trial(16, 2, 0.1), absurd)
    told: list[str] = []
    study = parse_study(SEARCHED | {"learning_rates": [0.1, 0.2]}, "own")
    added = Growth(study, searched, told.append).trials()
    assert added == [Trial(32, 4, 0.1), Trial(32, 4, 0.2)]
    [first, second] = told
    assert first == (
        "no replicate of batch size 16 is added: its mean cannot be judged, for selection_accuracy must lie "
        "between 0 and 1, but got 7; divide percentages by 100"
    )
    assert second.startswith("replicate 4 of batch size 32 is added: ")


def test_a_batch_size_is_judged_once_by_the_same_trials(searched: Store, monkeypatch: pytest.MonkeyPatch):
    judged: list[int] = []

    def known(history: pd.DataFrame, metric: str) -> float:
        judged.extend(history["batch_size"].unique().tolist())
        return 0.0 if judged[-1] == 16 else half_width(history, metric)

    monkeypatch.setattr(narrowing, "half_width", known)
    study, told = parse_study(SEARCHED | {"learning_rates": [0.1, 0.2]}, "own"), []
    asked = Growth(study, searched, told.append)
    assert asked.trials() == asked.trials() == [Trial(32, 4, 0.1), Trial(32, 4, 0.2)]
    assert (judged, len(told)) == ([16, 32], 1)
    searched.plan(asked.trials())
    assert asked.trials() == []
    for trial in (Trial(32, 4, 0.1), Trial(32, 4, 0.2)):
        searched.add(trial, record(1, learning_rate=trial.learning_rate, probes={"selection_accuracy": 0.5}))
        searched.set_state(trial, TrialState.COMPLETE)
    assert asked.trials() == [Trial(32, 5, 0.1), Trial(32, 5, 0.2)]
    assert (judged, len(told)) == ([16, 32, 32], 2)


class Stopping(Events):
    """Stops the run when a replicate was added, once."""

    def added(self, left: Mapping[Trial, float]) -> None:
        super().added(left)
        if len(self.additions) == 1:
            raise KeyboardInterrupt


@pytest.mark.keras
def test_keras_trains_added_replicates_alike_however_it_is_run(tmp_path: Path, machine: Callable[..., None]):
    layers = {"network": "mlp", "image_size": 8, "input_scaling": "symmetric"}
    study = parse_study(
        {
            "name": "tiny",
            "batch_sizes": [8, 16],
            "replicates": 3,
            "data": {"source": "synthetic-cactus", "images": 60},
            "model": layers,
            "probes": "none",
            "stages": [{"name": "one", "trainable": "all", "learning_rate": 0.01, "epochs": 2}],
            "until_ci": {"half_width": 0.1, "max_replicates": 6, "metric": "val_loss"},
        },
        "tiny",
    )
    machine(1)
    run_study(study, tmp_path / "one", Events(), RunOptions(workers=1))
    machine(2)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "two", Stopping(), RunOptions(workers=2))
    run_study(study, tmp_path / "two", Events(), RunOptions(workers=2))
    one, two = (load(tmp_path / name).history for name in ("one", "two"))
    clocks = [name for name in one.columns if name.endswith("seconds") or name == PEAK_MEMORY]
    assert one.groupby("batch_size")["replicate"].nunique().max() > 3
    pd.testing.assert_frame_equal(one.drop(columns=clocks), two.drop(columns=clocks), check_exact=True)


def history_of(finals: dict[str, float], rates: Callable[[str], float] | None = None) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"trial": name, "batch_size": 16, "replicate": int(name[-1]), "epoch": 1, "val_accuracy": value}
            for name, value in finals.items()
        ]
    )
    return table if rates is None else table.assign(learning_rate=[rates(name) for name in finals])


def test_the_half_width_is_that_of_scipy_over_the_finite_ends():
    finals = {"a1": 0.8, "a2": 0.83, "a3": np.nan, "a4": 0.78}
    kept = [0.8, 0.83, 0.78]
    expected = stats.sem(kept) * stats.t.ppf(0.975, 2)
    assert half_width(history_of(finals), "val_accuracy") == pytest.approx(expected, rel=1e-12)
    assert half_width(history_of({"a1": 0.8, "a2": np.nan}), "val_accuracy") == np.inf


def test_a_trial_whose_loss_diverged_does_not_count_for_its_accuracy():
    history = history_of({"a1": 0.90, "a2": 0.91, "a3": 0.10}).assign(val_loss=[0.3, 0.3, np.nan])
    expected = stats.sem([0.90, 0.91]) * stats.t.ppf(0.975, 1)
    assert half_width(history, "val_accuracy") == pytest.approx(expected, rel=1e-12)


def test_figures_that_are_all_the_same_tell_nothing():
    assert half_width(history_of({"a1": 0.9, "a2": 0.9, "a3": 0.9}), "val_accuracy") == np.inf


def test_with_a_grid_the_best_learning_rate_counts():
    finals = {"good1": 0.9, "good2": 0.92, "poor1": 0.1, "poor2": 0.7}
    found = half_width(history_of(finals, lambda name: 0.1 if "good" in name else 0.5), "val_accuracy")
    assert found == pytest.approx(stats.sem([0.9, 0.92]) * stats.t.ppf(0.975, 1), rel=1e-12)


def test_a_metric_that_trials_do_not_report_is_refused():
    with pytest.raises(HistoryError, match="until_ci needs val_loss, which the trials do not report"):
        half_width(history_of({"a1": 0.8}), "val_loss")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"until_ci": SEARCH | {"half_width": 0}}, "until_ci.half_width"),
        ({"until_ci": SEARCH | {"half_width": float("nan")}}, "until_ci.half_width"),
        ({"until_ci": SEARCH | {"max_replicates": 3}}, "until_ci.max_replicates"),
        ({"until_ci": SEARCH | {"metric": "train_loss"}}, "until_ci.metric"),
        ({"until_ci": SEARCH | {"more": 1}}, "until_ci.more"),
        ({"until_ci": {"max_replicates": 5}}, "until_ci.half_width"),
        ({"until_ci": SEARCH, "replicates": 2}, "replicates must be at least 3"),
        ({"until_ci": SEARCH, "replicates": 12}, "below until_ci.max_replicates, 12; it is 12"),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, keys: TOLD, told: str):
    def train(trial: TrialHandle) -> None: ...

    with pytest.raises(StudyError, match=told):
        run_function(train, tmp_path / "run", **({"replicates": 3} | keys))
