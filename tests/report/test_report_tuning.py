"""Figure, table and page of a grid of learning rates that was chosen by updates to the trials' target."""

from __future__ import annotations

import pandas as pd
import pytest
from planted import planted

from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, Target, analyze
from batchscope.history import check_history
from batchscope.report.content import PageContent
from batchscope.report.learning_rates import learning_rates_figure, learning_rates_info
from batchscope.report.page import page_html
from batchscope.report.render import svg
from batchscope.report.tables import analysis_tables

FEW = Settings(resamples=100)
MOST = 6
# The epoch in which each replicate gets there; one beyond the last misses it.
REACHED = {
    (16, 0.01): (4, 4, 4),
    (16, 0.1): (2, 3, 3),
    (16, 1.0): (3, 3, 7),
    (32, 0.01): (3, 3, 4),
    (32, 0.1): (4, 4, 4),
    (64, 0.01): (7, 7, 7),
    (64, 0.1): (7, 7, 7),
}


def made() -> pd.DataFrame:
    """An epoch has 320 images. Replicate 3 of batch size 32 at 0.01 diverges where it would get there."""
    frames = []
    for (size, rate), epochs in REACHED.items():
        history = planted(
            lambda _, replicate, epoch, epochs=epochs: 0.9 if epoch >= epochs[replicate - 1] else 0.5,
            batch_sizes=(size,),
            replicates=3,
            epochs=MOST,
        )
        ends = [min(epochs[replicate - 1], MOST) for replicate in history["replicate"]]
        history = history[history["epoch"] <= ends].assign(stage="one", learning_rate=rate)
        names = [f"b{size}-lr{rate}-r{replicate}" for replicate in history["replicate"]]
        frames.append(history.assign(trial=names))
    found = pd.concat(frames, ignore_index=True)
    found.loc[(found["trial"] == "b32-lr0.01-r3") & (found["epoch"] == 4), "val_accuracy"] = float("nan")
    return check_history(found)


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return made()


@pytest.fixture(scope="module")
def analysis(history: pd.DataFrame) -> Analysis:
    """One trial of batch size 64 goes on."""
    names = frozenset(history["trial"]) - {"b64-lr0.1-r2"}
    plan = Plan({"one": "until"}, None, {"one": Target("val_accuracy", 0.85, MOST)}, names)
    return analyze(history, FEW, RecipeFacts(plan=plan))


def test_the_figure_shows_updates_with_the_trials_that_missed_the_target(analysis: Analysis) -> None:
    info = learning_rates_info(analysis)
    assert info is not None
    assert (info.quantity, info.target) == ("updates", "a validation accuracy of 0.850")
    drawn = {
        cell: list(zip(rows["value"], rows["kind"], strict=True))
        for cell, rows in info.points.groupby(["batch_size", "learning_rate"])
    }
    assert drawn == {
        (16, 0.01): [(80, "trial")] * 3,
        (16, 0.1): [(40, "trial"), (60, "trial"), (60, "trial")],
        (16, 1.0): [(60, "trial"), (60, "trial"), (120, "censored")],
        (32, 0.01): [(30, "trial"), (30, "trial")],
        (32, 0.1): [(40, "trial")] * 3,
        (64, 0.01): [(30, "censored")] * 3,
        (64, 0.1): [(30, "censored")] * 3,
    }
    medians = info.means.set_index(["batch_size", "learning_rate"])
    assert medians["value"].to_dict() == {
        (16, 0.01): 80,
        (16, 0.1): 60,
        (16, 1.0): 60,
        (32, 0.01): 30,
        (32, 0.1): 40,
    }
    assert medians.index[medians["best"]].tolist() == [(16, 0.1), (32, 0.1)]
    assert info.title == "The best learning rate is 0.1 at batch 16 and 32"
    assert info.notes == (
        "1 trial diverged before the target and cannot be drawn.",
        "Batch 64 has no ring: too few trials got there for a median.",
    )


def test_the_chart_has_an_axis_of_updates_and_triangles_for_what_is_not_there(analysis: Analysis) -> None:
    info = learning_rates_info(analysis)
    assert info is not None
    figure = learning_rates_figure(info, "H")
    layers = figure.spec()["layer"]
    axis = layers[0]["encoding"]["y"]
    assert (axis["title"], axis["scale"]["type"]) == ("Updates to the target (log scale)", "log")
    assert axis["scale"]["domain"][0] < 30
    assert axis["scale"]["domain"][1] > 120
    [triangles] = [layer for layer in layers if layer["mark"].get("shape") == "triangle-up"]
    assert triangles["transform"] == [{"filter": "(datum.kind === 'censored')"}]
    assert figure.caption.startswith("Updates to a validation accuracy of 0.850, at which trials end. Dots: ")
    assert "Open triangles: trials that have not" in figure.caption
    assert figure.caption.endswith("As the same trials chose it, its updates are too few.")
    assert "<svg" in svg(figure, 3)


def test_the_table_tells_how_often_the_target_was_reached_and_who_goes_on(analysis: Analysis) -> None:
    table = next(found for found in analysis_tables(analysis) if found.key == "learning-rates")
    assert table.columns == ("Batch size", "Learning rate", "Reached", "Updates", "Remark")
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows == [
        ["16", "0.01", "3 of 3", "80", ""],
        ["16", "0.1", "3 of 3", "60", "best"],
        ["16", "1", "2 of 3", "60", ""],
        ["32", "0.01", "2 of 3", "30", "passed over: missed"],
        ["32", "0.1", "3 of 3", "40", "best, at the edge"],
        ["64", "0.01", "0 of 3", "> 30", "taken, without a median"],
        ["64", "0.1", "0 of 3", "> 30", ""],
    ]
    assert [row[2].detail for row in table.rows] == [
        "",
        "",
        "1 never",
        "1 diverged",
        "",
        "3 never",
        "2 never, 1 not there yet",
    ]
    assert table.rows[1][3].detail == "40 to 60"


def test_the_page_says_by_what_it_was_chosen(history: pd.DataFrame, analysis: Analysis) -> None:
    page = page_html(PageContent("tuned", history, analysis))
    assert "each batch size at its best learning rate" in page
    assert "chosen by the fewest updates to a validation accuracy of 0.850, at which trials end" in page
    assert "so the updates, examples and seconds to it come out too few" in page
    assert "on which no other figure rests" not in page
