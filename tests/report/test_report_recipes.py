"""Figures, tables and page of grids of learning rates and of stages whose length only training tells."""

from __future__ import annotations

import dataclasses
import itertools

import pandas as pd
import pytest
from planted import planted

from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, Target, analyze
from batchscope.history import check_history
from batchscope.report.by_batch_size import by_batch_size_info
from batchscope.report.content import PageContent
from batchscope.report.figures import all_figures
from batchscope.report.learning_rates import learning_rates_figure, learning_rates_info
from batchscope.report.means import means_info
from batchscope.report.page import page_html
from batchscope.report.render import svg
from batchscope.report.replicates import replicates_info
from batchscope.report.table import NOTHING, Table
from batchscope.report.tables import analysis_tables
from batchscope.report.together import together_info
from batchscope.report.updates import updates_info

FEW = Settings(resamples=100)
GRID = (0.01, 0.1, 1.0)
SIZES = (16, 32, 64)


def tried(best: tuple[float, ...], optimistic: bool = False) -> pd.DataFrame:
    """Each batch size is a tenth better at its best than elsewhere, and replicates differ by a hundredth."""

    def score(size: int, rate: float) -> float:
        return 0.8 if rate == best[SIZES.index(size)] else 0.7

    frames = []
    for rate in GRID:
        history = planted(
            lambda size, replicate, epoch, rate=rate: score(size, rate) + 0.01 * replicate + 0.01 * epoch,
            batch_sizes=SIZES,
        )
        names = zip(history["batch_size"], history["replicate"], strict=True)
        history["trial"] = [f"b{size}-lr{rate}-r{replicate}" for size, replicate in names]
        if not optimistic:
            history["selection_accuracy"] = history["val_accuracy"] - 0.05
        frames.append(history.assign(learning_rate=rate))
    return check_history(pd.concat(frames))


def table(analysis: Analysis, key: str) -> Table:
    return next(found for found in analysis_tables(analysis) if found.key == key)


@pytest.mark.parametrize(
    ("best", "title"),
    [
        ((0.01, 0.1, 1.0), "The best learning rate rises from 0.01 at batch 16 to 1 at batch 64"),
        ((1.0, 0.1, 0.1), "The best learning rate falls from 1 at batch 16 to 0.1 at batch 64"),
        ((0.1, 0.01, 1.0), "The best learning rate goes from 0.1 at batch 16 to 1 at batch 64"),
        ((0.1, 0.1, 0.1), "The best learning rate is 0.1 at every batch size"),
    ],
)
def test_the_figure_shows_every_trial_and_tells_the_best(best: tuple[float, ...], title: str) -> None:
    history = tried(best)
    info = learning_rates_info(analyze(history, FEW))
    assert info is not None
    assert info.title == title
    last = history[history["epoch"] == 4].sort_values(["batch_size", "learning_rate", "replicate"])
    assert info.points["value"].tolist() == pytest.approx(last["selection_accuracy"].tolist())
    assert info.points["learning_rate"].tolist() == last["learning_rate"].tolist()
    assert info.means["best"].tolist() == [rate == good for good in best for rate in GRID]
    chart = learning_rates_figure(info, "H").spec()
    rings = next(layer for layer in chart["layer"] if layer["mark"]["type"] == "point")
    assert rings["transform"][-1] == {"filter": {"field": "best", "equal": True}}
    assert chart["layer"][0]["encoding"]["x"]["axis"]["values"] == list(GRID)
    assert "<svg" in svg(learning_rates_figure(info, "H"), 3)


def test_other_figures_and_tables_are_those_of_the_chosen_trials() -> None:
    history, best = tried((0.01, 0.1, 1.0)), dict(zip(SIZES, (0.01, 0.1, 1.0), strict=True))
    alone = history[history["learning_rate"] == history["batch_size"].map(best)].reset_index(drop=True)
    analysis = analyze(history, FEW)
    found = {figure.key: figure for figure in all_figures(history, analysis)}
    expected = {figure.key: figure for figure in all_figures(alone, analyze(alone, FEW))}
    assert list(found) == [*expected, "learning-rates"]
    assert {key: found[key].title for key in expected} == {
        key: figure.title for key, figure in expected.items()
    }
    rows = [[cell.text for cell in row] for row in table(analysis, "learning-rates").rows]
    assert [row[:2] + row[-1:] for row in rows if row[-1]] == [
        ["16", "0.01", "best, at the edge"],
        ["32", "0.1", "best"],
        ["64", "1", "best, at the edge"],
    ]
    assert rows[0] == ["16", "0.01", "2", "0.805", "0.855", "best, at the edge"]
    page = page_html(PageContent("tuned", history, analysis))
    assert "each batch size at its best learning rate" in page
    assert "chosen by the same replicates on validation examples on which no other figure rests" in page


def test_an_optimistic_choice_is_called_so_and_shown_once() -> None:
    history = tried((0.01, 0.1, 1.0), optimistic=True)
    analysis = analyze(history, FEW)
    info = learning_rates_info(analysis)
    assert info is not None
    assert "which are optimistic there" in learning_rates_figure(info, "H").caption
    assert table(analysis, "learning-rates").columns == (
        "Batch size",
        "Learning rate",
        "Replicates",
        "Validation accuracy",
        "Remark",
    )


def test_diverged_and_unfinished_trials_are_noted() -> None:
    history = tried((0.01, 0.1, 1.0))
    wild = (history["learning_rate"] == 1.0) & (history["replicate"] == 2) & (history["batch_size"] == 16)
    history.loc[wild & (history["epoch"] == 4), "val_accuracy"] = float("nan")
    late = (history["learning_rate"] == 0.1) & (history["replicate"] == 1) & (history["batch_size"] == 16)
    analysis = analyze(history[~(late & (history["epoch"] > 2))], FEW)
    info = learning_rates_info(analysis)
    assert info is not None
    assert info.notes == (
        "1 trial diverged and cannot be drawn.",
        "1 trial has not come to the end and cannot be drawn.",
    )
    details = [row[2].detail for row in table(analysis, "learning-rates").rows[:3]]
    assert details == ["", "1 not there yet", "1 diverged"]


@pytest.fixture(scope="module")
def until() -> tuple[pd.DataFrame, Analysis]:
    """Replicate r of batch size 16 ends after 2 r epochs, of 32 after 3 r; 64 goes through all six."""
    history = planted(lambda size, replicate, epoch: 0.5 + 0.05 * epoch, batch_sizes=SIZES, epochs=6)
    history["stage"] = "one"
    last = {16: (2, 4), 32: (3, 6), 64: (6, 6)}
    ends = [
        last[size][replicate - 1]
        for size, replicate in zip(history["batch_size"], history["replicate"], strict=True)
    ]
    history = history[history["epoch"] <= ends].reset_index(drop=True)
    at_end = history["epoch"] == history.groupby(["batch_size", "replicate"])["epoch"].transform("max")
    history.loc[at_end & (history["batch_size"] < 64), "val_accuracy"] = 0.9
    names = frozenset(f"b{size}-r{replicate}" for size, replicate in itertools.product(SIZES, (1, 2)))
    plan = Plan({"one": "until"}, None, {"one": Target("val_accuracy", 0.85, 6)}, names)
    return history, analyze(history, FEW, RecipeFacts(plan=plan))


def test_figures_compare_each_trial_at_its_own_end(until: tuple[pd.DataFrame, Analysis]) -> None:
    history, analysis = until
    means = means_info(history, "accuracy", analysis.facts)
    assert [(level.batch_size, level.value) for level in means.ends] == [
        (16, pytest.approx(0.9)),
        (32, pytest.approx(0.9)),
        (64, pytest.approx(0.8)),
    ]
    assert means.title == "Mean validation accuracy up to the target of 0.850, at which trials end"
    losses = means_info(history.assign(val_loss=1 - history["val_accuracy"]), "loss", analysis.facts)
    assert losses.title.endswith("(each batch size's end, at most 6 epochs)")
    by_size = by_batch_size_info(history, "accuracy", analysis.facts)
    assert len(by_size.moments) == 1
    validation = by_size.means[by_size.means["part"] == "validation"]
    assert validation["replicates"].tolist() == [2, 2, 2]
    assert validation["value"].tolist() == pytest.approx([0.9, 0.9, 0.8])
    assert (
        by_size.title
        == "Validation accuracy where trials end: at the target of 0.850, or where they missed it"
    )
    replicates = replicates_info(history, "accuracy", analysis.facts)
    assert replicates.spread == pytest.approx({16: 0, 32: 0, 64: 0})
    target = "up to the target of 0.850, at which trials end"
    assert replicates.title == f"Validation accuracy of each replicate {target}"
    by_updates = updates_info(history, analysis)
    assert by_updates is not None
    assert by_updates.title == (
        "Validation accuracy against epochs and against updates, up to the target of 0.850"
    )


def test_figures_leave_out_trials_that_go_on(until: tuple[pd.DataFrame, Analysis]) -> None:
    """Replicate 2 of batch size 32 is at epoch 4 at 0.1; both of batch size 64 go on too."""
    history = until[0].copy()
    at = (history["batch_size"] == 32) & (history["replicate"] == 2)
    history = history[~(at & (history["epoch"] > 4))]
    history.loc[at & (history["epoch"] == 4), "val_accuracy"] = 0.1
    names = frozenset({"b16-r1", "b16-r2", "b32-r1"})
    plan = Plan({"one": "until"}, None, {"one": Target("val_accuracy", 0.85, 6)}, names)
    analysis = analyze(history, FEW, RecipeFacts(plan=plan))
    assert analysis.facts.unfinished == ("b32-r2", "b64-r1", "b64-r2")
    note = "3 trials have not ended and are left out of figures at the end."
    means = means_info(history, "accuracy", analysis.facts)
    assert [(level.batch_size, level.value) for level in means.ends] == [(16, 0.9), (32, 0.9)]
    by_size = by_batch_size_info(history, "accuracy", analysis.facts)
    assert set(zip(by_size.points["batch_size"], by_size.points["replicate"], strict=True)) == {
        (16, "1"),
        (16, "2"),
        (32, "1"),
    }
    assert [(level.batch_size, level.value) for level in by_size.levels[0]] == [(16, 0.9), (32, 0.9)]
    means_of_summary = {row.batch_size: row.val_accuracy for row in analysis.final}
    assert [means_of_summary[size].n for size in SIZES if means_of_summary[size]] == [2, 1, 0]
    replicates = replicates_info(history, "accuracy", analysis.facts)
    assert replicates.spread == pytest.approx({16: 0})
    together = together_info(history, "accuracy", analysis.facts)
    assert {size: val for size, (_, val) in together.ends.items()} == pytest.approx({16: 0.9, 32: 0.9})
    assert all(note in info.notes for info in (means, by_size, replicates, together))
    one = dataclasses.replace(analysis.facts, unfinished=("b32-r2",))
    assert "1 trial has not ended and is left out" in means_info(history, "accuracy", one).notes[0]
    assert note in page_html(PageContent("until", history, analysis))


def test_the_targets_table_and_the_page_say_who_never_got_there(until: tuple[pd.DataFrame, Analysis]) -> None:
    history, analysis = until
    rows = [[cell.text for cell in row] for row in table(analysis, "targets").rows]
    assert rows == [
        ["one", "validation accuracy 0.850", "16", "2 of 2", "3", "60", "960"],
        ["one", "validation accuracy 0.850", "32", "2 of 2", "4.5", "45", "1,440"],
        ["one", "validation accuracy 0.850", "64", "0 of 2", *[NOTHING] * 3],
    ]
    assert table(analysis, "targets").rows[2][3].detail == "2 never"
    page = page_html(PageContent("until", history, analysis))
    assert "was not reached within 6 epochs by some trials: 2 of 2 at batch size 64" in page
