from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pandas as pd
import pytest

from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, analyze
from batchscope.analysis.estimates import TERMS, Estimate
from batchscope.report.figures import all_figures
from batchscope.report.lag import lag_chart, lag_figure, lag_info
from batchscope.report.render import svg
from batchscope.report.tables import analysis_tables
from batchscope.report.terms import (
    NAMES,
    OBSERVED,
    TermsInfo,
    finding_title,
    terms_chart,
    terms_figure,
    terms_info,
)
from probed import Terms, in_inference_mode, lagging, probed_history

FEW = Settings(resamples=100)


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return probed_history()


@pytest.fixture(scope="module")
def known(history: pd.DataFrame) -> Analysis:
    return analyze(history, FEW)


def _info(analysis: Analysis) -> TermsInfo:
    info = terms_info(analysis)
    assert info is not None
    return info


def test_every_planted_term_is_a_point(known: Analysis) -> None:
    points = _info(known).points
    assert len(points) == 2 * 4 * 5
    for point in points.itertuples():
        field = {**{name: term for term, name in NAMES.items()}, OBSERVED: "observed"}[point.term]
        values = [getattr(lagging(point.batch_size, r, point.epoch), field) for r in (1, 2, 3)]
        assert point.value == pytest.approx(sum(values) / 3, abs=1e-12)
        assert point.low < point.value < point.high
        assert point.replicates == 3
    stacked = points[points["term"] != OBSERVED].groupby(["epoch", "batch_size"])["value"].sum()
    observed = points[points["term"] == OBSERVED].set_index(["epoch", "batch_size"])["value"]
    assert stacked.to_dict() == pytest.approx(observed.to_dict(), abs=1e-12)


def test_panels_are_the_ends_of_stages_and_hold_all_marks(known: Analysis) -> None:
    info = _info(known)
    spec = terms_chart(info).to_dict()
    assert [panel["title"] for panel in spec["concat"]] == [
        "Feature extraction, epoch 3",
        "Feature extraction, epoch 3: each term",
        "Fine tuning, epoch 6",
        "Fine tuning, epoch 6: each term",
    ]
    bars = spec["concat"][0]["layer"][0]["encoding"]
    low, high = bars["y"]["scale"]["domain"]
    terms = info.points[info.points["term"] != OBSERVED]
    piles = terms[terms["value"] > 0].groupby(["epoch", "batch_size"])["value"].sum()
    assert high >= max(piles.max(), info.points["high"].loc[info.points["term"] == OBSERVED].max())
    assert low <= terms[terms["value"] < 0].groupby(["epoch", "batch_size"])["value"].sum().min() < 0
    assert bars["y"]["stack"] == "zero"
    assert bars["color"]["scale"]["domain"] == list(NAMES.values())
    term_low, term_high = spec["concat"][1]["layer"][2]["encoding"]["y"]["scale"]["domain"]
    assert term_low <= terms["low"].min()
    assert term_high >= terms["high"].max()


def _scattered(spread: float) -> Callable[[int, int, int], Terms]:
    """Two replicates whose BatchNorm terms are 2 * spread apart: 12.7 times that is the interval."""
    return lambda size, replicate, epoch: Terms(
        augmentation=-0.02, batchnorm_validation=size / 1280 + spread * (2 * replicate - 3)
    )


def _arrowheads(info: TermsInfo) -> list[int]:
    """How many marks each layer of arrowheads has: left up, left down, right up, right down."""
    groups = ElementTree.fromstring(svg(terms_figure(info), 4)).iter("{http://www.w3.org/2000/svg}g")
    counts = {str(group.get("class")).split()[-1]: len(group) for group in groups}
    layers = ("0_layer_4", "0_layer_5", "1_layer_3", "1_layer_4")
    return [counts[f"concat_{layer}_marks"] for layer in layers]


def test_long_intervals_leave_the_means_readable() -> None:
    history = probed_history(_scattered(0.015), replicates=2, stages=(("head", 1),))
    info = _info(analyze(history, FEW))
    # Bars reach from -0.02 to 0.1: half of 0.12 is left on each side.
    assert info.stack_domain == pytest.approx((-0.08, 0.16))
    assert info.term_domain == pytest.approx((-0.08, 0.16))
    points = info.points.set_index(["batch_size", "term"])
    half = 12.706 * 0.015
    assert points.loc[(128, "BatchNorm"), "high"] == pytest.approx(0.1 + half, abs=1e-4)
    assert points.loc[(128, OBSERVED), "low"] == pytest.approx(0.08 - half, abs=1e-4)
    assert info.notes == (
        "Intervals with an arrowhead go on beyond the axis, which leaves the means readable.",
    )
    observed = info.points[info.points["term"] == OBSERVED]
    batchnorm = info.points[info.points["term"] == "BatchNorm"]
    beyond = [(shown["high"] > 0.16).sum() for shown in (observed, batchnorm)]
    below = [(shown["low"] < -0.08).sum() for shown in (observed, batchnorm)]
    assert _arrowheads(info) == [beyond[0], below[0], beyond[1], below[1]]
    assert min(beyond + below) > 0


def test_short_intervals_are_drawn_in_full() -> None:
    history = probed_history(_scattered(0.003), replicates=2, stages=(("head", 1),))
    info = _info(analyze(history, FEW))
    assert info.notes == ()
    assert _arrowheads(info) == [0, 0, 0, 0]
    for domain, of_terms in ((info.stack_domain, False), (info.term_domain, True)):
        shown = info.points[(info.points["term"] != OBSERVED) == of_terms]
        assert domain[0] <= shown["low"].min()
        assert domain[1] >= shown["high"].max()


def test_stages_that_end_at_different_epochs_say_so() -> None:
    history = probed_history(every=True, stages=(("head", 4),))
    history = history[(history["batch_size"] > 16) | (history["epoch"] < 3)].drop(columns="stage")
    spec = terms_chart(_info(analyze(history, FEW))).to_dict()
    assert [panel["title"] for panel in spec["concat"]] == ["Epochs 2 to 4", "Epochs 2 to 4: each term"]


def test_many_batch_sizes_are_thinned_and_single_replicates_told() -> None:
    history = probed_history(
        lambda size, replicate, epoch: Terms(generalization=0.1),
        batch_sizes=range(1, 15),
        replicates=1,
        stages=(("head", 1),),
    )
    info = _info(analyze(history, FEW))
    assert info.points["batch_size"].nunique() == 12
    assert info.notes == (
        "Drawn: 12 of 14 batch sizes.",
        "No interval from one replicate: batch 1 to 14 (12 of them).",
    )
    assert info.title == "At batch 1, 0.100 of the 0.100 gap is generalization, from one replicate (epoch 1)"


def _title(analysis: Analysis, low: float | None = None, **means: float) -> str:
    finding = _info(analysis).finding
    zero = dict.fromkeys(("observed", *TERMS), 0.0) | means
    row = replace(
        finding.row, **{name: Estimate(3, x, 0.001, x - 0.001, x + 0.001) for name, x in zero.items()}
    )
    term = max(TERMS, key=lambda name: zero[name])
    if low is not None:
        row = replace(row, **{term: replace(row.term(term), low=low)})
    share = zero[term] / zero["observed"]
    rule = (
        "gap_is_small" if zero["observed"] < 0.005 else f"gap_is_{term}" if share >= 0.5 else "gap_is_mixed"
    )
    return finding_title(replace(finding, row=row, term=term, rule=rule), 0.005)


def test_titles_by_rule(known: Analysis) -> None:
    not_caught_up = "BatchNorm statistics that have not caught up"
    assert _title(known, observed=0.26, batchnorm=0.21, generalization=0.01) == (
        f"At batch 128, 0.210 of the 0.260 gap is {not_caught_up} and 0.010 generalization (epoch 6)"
    )
    assert _title(known, observed=0.2, batchnorm=0.25, augmentation=-0.05) == (
        f"At batch 128, the gap is 0.200: 0.250 from {not_caught_up}, 0.000 from generalization, "
        "less what closes it (epoch 6)"
    )
    assert _title(known, low=0.0, observed=0.2, averaging=0.2) == (
        "At batch 128, 0.200 of the 0.200 gap is averaging over the epoch, not told apart from zero, "
        "and 0.000 generalization (epoch 6)"
    )
    assert _title(known, observed=0.2, generalization=0.15) == (
        "At batch 128, 0.150 of the 0.200 gap is generalization (epoch 6)"
    )
    assert _title(known, observed=0.2, augmentation=0.09, generalization=0.08) == (
        "At batch 128, no single cause makes up half of the 0.200 gap; augmentation is 0.090 (epoch 6)"
    )
    assert _title(known, observed=-0.01, batchnorm=0.01, augmentation=-0.02) == (
        "No batch size has an observed gap of 0.005 or more; "
        "the largest is \u22120.010 at batch 128 (epoch 6)"
    )


def test_figures_come_after_the_gap_and_letters_follow(history: pd.DataFrame, known: Analysis) -> None:
    figures = {figure.key: figure.label for figure in all_figures(history, known)}
    assert list(figures.items())[5:] == [
        ("epochs-and-updates", "E"),
        ("gap", "F"),
        ("gap-terms", "G"),
        ("batchnorm-lag", "H"),
        ("spread", "I"),
        ("throughput", "J"),
    ]


def test_without_probes_neither_figure_nor_table(published: pd.DataFrame, analysis: Analysis) -> None:
    assert terms_info(analysis) is None
    assert lag_info(published, analysis) is None
    assert "decomposition" not in {table.key for table in analysis_tables(analysis)}


def test_lag_is_the_mean_over_replicates_at_probed_epochs(history: pd.DataFrame, known: Analysis) -> None:
    varied = history.copy()
    column = "probe_batchnorm_lag_mean"
    varied[column] += 0.01 * (varied["replicate"] - 2)
    info = lag_info(varied, known)
    assert info is not None
    assert len(info.points) == 8
    for point in info.points.itertuples():
        stale = 0.999**point.updates
        assert point.updates == 14_000 // point.batch_size * point.epoch
        assert point.distance == pytest.approx(0.9 * stale + 0.02)
        assert point.largest == pytest.approx(2.5 * stale + 0.05)
        assert point.weight == pytest.approx(stale)
    assert info.title == (
        "The distance of BatchNorm's moving averages from the recalibrated ones rises from 0.025 at batch 16 "
        "to 0.488 at batch 128 (in standard deviations, at the last probe)"
    )


def test_lag_at_the_end_is_the_mean_over_trials_that_end_at_epochs_of_their_own() -> None:
    """Replicates 1 to 4 end, and are probed, at epochs 5 to 8."""
    history = probed_history(replicates=4, stages=(("all", 8),), every=True)
    history = history[history["epoch"] <= history["replicate"] + 4].copy()
    probes = [name for name in history.columns if name.startswith("probe_")]
    history.loc[history["epoch"] < history["replicate"] + 4, probes] = math.nan
    plan = Plan({"all": "seconds"}, None, ended=frozenset(history["trial"]))
    info = lag_info(history, analyze(history, Settings(resamples=100), RecipeFacts(plan=plan)))
    assert info is not None
    for level in info.ends:
        stale = [0.999 ** (14_000 // level.batch_size * epoch) for epoch in (5, 6, 7, 8)]
        assert level.value == pytest.approx(0.9 * sum(stale) / 4 + 0.02)


def test_the_curve_beside_the_lag_is_the_power_that_the_weights_are(
    history: pd.DataFrame, known: Analysis
) -> None:
    info = lag_info(history, known)
    assert info is not None
    assert info.momentum == pytest.approx(0.999, abs=1e-9)
    assert "dashed: 0.999 to the power of updates" in svg(lag_figure(info), 4)
    bent = history.copy()
    bent.loc[bent["epoch"] == 6, "probe_batchnorm_stale_weight"] *= 1.01
    other = lag_info(bent, known)
    assert other is not None
    assert other.momentum is None
    assert "dashed" not in svg(lag_figure(other), 4)


@pytest.mark.parametrize(
    ("column", "panels"), [("probe_batchnorm_stale_weight", 1), ("probe_batchnorm_lag_max", 2)]
)
def test_lag_is_drawn_without_its_further_columns(
    history: pd.DataFrame, known: Analysis, column: str, panels: int
) -> None:
    info = lag_info(history.drop(columns=column), known)
    assert info is not None
    assert len(lag_chart(info).to_dict()["concat"]) == panels


def test_no_lag_without_updates_or_figures(history: pd.DataFrame, known: Analysis) -> None:
    assert lag_info(history.drop(columns="updates"), known) is None
    assert lag_info(history.assign(probe_batchnorm_lag_mean=math.nan), known) is None


def test_the_table_gives_terms_halves_and_intervals(known: Analysis) -> None:
    table = next(table for table in analysis_tables(known) if table.key == "decomposition")
    assert table.columns == (
        "Stage",
        "Epoch",
        "Batch size",
        "Gap",
        "Averaging",
        "Augmentation",
        "BatchNorm",
        "Generalization",
        "Lag",
    )
    last = table.rows[-1]
    row = known.decomposition.ends[-1]
    assert [cell.text for cell in last] == [
        "fine_tuning",
        "6",
        "128",
        "0.308",
        "\u22120.012",
        "\u22120.020",
        "0.328",
        "0.012",
        "0.488",
    ]
    assert last[2].detail == "n = 3"
    half = (row.batchnorm.high - row.batchnorm.low) / 2
    assert last[6].detail == f"\u00b1{half:.3f}\n0.004\n+ 0.324"
    assert last[6].value == row.batchnorm.mean
    without = analyze(probed_history(lag=False, replicates=1), FEW)
    table = next(table for table in analysis_tables(without) if table.key == "decomposition")
    assert "Lag" not in table.columns
    assert table.rows[-1][4].detail == ""


def test_inference_mode_is_told_beside_figure_and_table(history: pd.DataFrame, known: Analysis) -> None:
    analysis = analyze(in_inference_mode(history, "fine_tuning"), FEW)
    sentence = next(note.text for note in analysis.notes if note.rule == "batchnorm_inference")
    assert sentence.startswith(
        "BatchNorm was in inference mode in fine_tuning, in training as in validation: "
    )
    assert _info(analysis).notes == (sentence,)
    table = next(table for table in analysis_tables(analysis) if table.key == "decomposition")
    assert table.note.endswith(f"mean over layers. {sentence}")
    cells = [row[6] for row in table.rows]
    assert [cell.text for cell in cells[4:]] == ["0"] * 4
    assert {(cell.value, cell.detail) for cell in cells[4:]} == {(0.0, "inference\nmode")}
    plain = next(table for table in analysis_tables(known) if table.key == "decomposition")
    assert cells[:4] == [row[6] for row in plain.rows[:4]]
    assert plain.note.endswith("mean over layers.")
    row = analysis.decomposition.ends[-1]
    assert [cell.value for cell in table.rows[-1]][6:8] == [0.0, row.generalization.mean]


def test_pictures_draw_every_term(history: pd.DataFrame, known: Analysis) -> None:
    text = svg(terms_figure(_info(known)), 4)
    for colour in ("#666869", "#1593d6", "#0a4148", "#8a9629"):
        assert text.count(f'fill="{colour}"') >= 8 * 2
    assert all(name in text for name in NAMES.values())
