"""A loss that is NaN or infinite ends the trial as diverged: kept, named, and never averaged away."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchscope
from batchscope.analysis import analyze
from batchscope.history import check_history
from batchscope.records import TrialState
from batchscope.report.figures import all_figures
from batchscope.running import pool, run
from batchscope.running.machine import Machine
from batchscope.running.store import Store
from run_samples import FIRST, STUB, record, small_study
from tiny import TAIL, stage

NAN, INF = math.nan, math.inf
CURVES = ("a-replicates", "b-together", "c-means", "d-by-batch-size")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def misbehave(*how: str) -> None:
        monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), *how))

    monkeypatch.setattr(run, "look_around", lambda: Machine(1, None, gpu=False))
    return misbehave


def text_of(run_: batchscope.Run) -> str:
    """What the page says, without marks and what only scripts read."""
    page = (run_.path / "report" / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(script|style).*?</\1>", " ", page)))


@pytest.mark.keras
def test_a_learning_rate_of_1e30_diverges_and_is_told(tmp_path: Path):
    """A real training by a real worker: every trial diverges, and there still is a page."""
    wild = stage("wild", TAIL, epochs=5, optimizer="sgd", batchnorm="batch") | {"learning_rate": 1e30}
    with pytest.warns(batchscope.BatchscopeWarning, match="diverged"):
        result = batchscope.run(small_study(stages=[wild]), out=tmp_path / "run", workers=1)
    assert [(status.trial.name, status.state) for status in result.trials] == [
        ("b8-r1", TrialState.DIVERGED),
        ("b16-r1", TrialState.DIVERGED),
    ]
    last = result.history.groupby("trial").tail(1)
    assert (last["epoch"] < 5).all()
    assert not np.isfinite(last["train_loss"] + last["val_loss"]).any()
    assert all(row.n_diverged == row.n_trials == 1 for row in result.analyze().final)
    said = text_of(result)
    assert "2 of 2 trials diverged: their loss became infinite or undefined: b8-r1, b16-r1." in said


def test_one_diverged_replicate_is_named_and_left_out_of_its_means(tmp_path: Path, stub: Callable[..., None]):
    stub("diverge", "b8-r2")
    with pytest.warns(batchscope.BatchscopeWarning, match="diverged"):
        result = batchscope.run(small_study(replicates=3), out=tmp_path / "run", workers=1)
    history = result.history
    [row] = history[history["trial"] == "b8-r2"].to_dict("records")
    assert (row["epoch"], math.isnan(row["train_loss"])) == (1, True)
    said = text_of(result)
    assert "1 of 6 trials diverged: their loss became infinite or undefined: b8-r2." in said
    assert "1 trial of 6 diverged: 1 of 3 at batch size 8." in said
    assert "1 trial had a NaN or infinite loss or accuracy (b8-r2)" in said
    final = next(row for row in result.analyze().final if row.batch_size == 8)
    others = history[(history["batch_size"] == 8) & (history["epoch"] == 2)]
    assert others["trial"].tolist() == ["b8-r1", "b8-r3"]
    assert final.train_loss is not None
    assert (final.n_trials, final.n_diverged, final.train_loss.n) == (3, 1, 2)
    assert final.train_loss.mean == pytest.approx(others["train_loss"].mean(), rel=1e-15)
    table = (result.path / "report" / "report.html").read_text(encoding="utf-8")
    assert re.search(r">2<small>1 diverged</small>", table)


def lost(column: str, value: float) -> pd.DataFrame:
    """Three replicates at two batch sizes; b8-r2 ends with its third epoch, where a figure is lost."""
    rows = [
        {"trial": f"b{size}-r{replicate}", "batch_size": size, "replicate": replicate}
        | {"epoch": epoch, "stage": "one", "updates": epoch * 48 // size}
        | {"train_loss": 1 / (epoch + replicate), "val_loss": 1 / epoch}
        | {"train_accuracy": 0.6 + 0.01 * replicate, "val_accuracy": 0.6 + 0.05 * epoch + 0.01 * replicate}
        for size in (8, 16)
        for replicate in (1, 2, 3)
        for epoch in range(1, 6)
    ]
    history = pd.DataFrame(rows)
    ended = history["trial"] == "b8-r2"
    history.loc[ended & (history["epoch"] == 3), column] = value
    return check_history(history[~(ended & (history["epoch"] > 3))])


@pytest.mark.parametrize(
    ("column", "value"),
    [("train_loss", NAN), ("val_loss", INF), ("train_accuracy", -INF), ("val_accuracy", NAN)],
)
def test_figures_leave_out_and_count_a_trial_whichever_figure_was_lost(column: str, value: float):
    history = lost(column, value)
    figures = {figure.key: figure for figure in all_figures(history, analyze(history))}
    curves = [key for key in figures if key.startswith(CURVES)]
    assert {"c-means-accuracy", "a-replicates-loss"} <= set(curves)
    for key in curves:
        assert any("1 trial diverged (batch 8)" in note for note in figures[key].notes), key
    spec = figures["c-means-accuracy"].spec()
    points = pd.DataFrame(next(iter(spec["datasets"].values())))
    means = points[(points["batch_size"] == 8) & (points["epoch"] == 3)].set_index("part")
    assert means["replicates"].tolist() == [2, 2]
    kept = history[(history["batch_size"] == 8) & (history["epoch"] == 3) & (history["replicate"] != 2)]
    assert means["value"]["training"] == pytest.approx(kept["train_accuracy"].mean(), rel=1e-12)
    assert means["value"]["validation"] == pytest.approx(kept["val_accuracy"].mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("losses", "finite"),
    [((0.5, 0.5), True), ((NAN, 0.5), False), ((0.5, NAN), False), ((0.5, INF), False), ((-INF, 0.5), False)],
)
def test_a_trial_whose_last_losses_are_not_finite_has_diverged(
    tmp_path: Path, losses: tuple[float, float], finite: bool
):
    """The last update of all may break the weights, which its training loss does not show."""
    with Store(tmp_path / "results.sqlite", create=True) as store:
        store.plan([FIRST])
        store.add(FIRST, record(1))
        store.add(FIRST, record(2, train_loss=losses[0], val_loss=losses[1]))
        last = store.last_epoch(FIRST)
    assert last is not None
    assert last.finite == finite
