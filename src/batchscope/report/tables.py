"""The analysis as tables, for the page and for the terminal alike."""

from __future__ import annotations

import math
from dataclasses import replace

from batchscope.analysis.estimates import TERMS
from batchscope.analysis.gap_finding import inference_sentence
from batchscope.analysis.results import Analysis, DecompositionRow, Estimate, StudyFacts, UpdatesShare
from batchscope.analysis.words import minus, number, of_quantity, p_value, percent, quantity_name
from batchscope.report.gradient_tables import noise_scale_table, sharpness_table
from batchscope.report.pace_tables import throughput_table
from batchscope.report.practical_table import choices_table, practical_table
from batchscope.report.recipe_tables import learning_rate_table, target_table
from batchscope.report.table import (
    NOTHING,
    Cell,
    Table,
    estimate_cell,
    figure_cell,
    lost,
    range_text,
    whole_cell,
)
from batchscope.report.to_target_tables import critical_table, to_target_tables
from batchscope.report.words import figure_text

__all__ = ["Cell", "Table", "analysis_tables", "summary_of"]

TERM_HEADS = ("Averaging", "Augmentation", "BatchNorm", "Generalization")


def analysis_tables(analysis: Analysis) -> tuple[Table, ...]:
    """All tables of an analysis that have rows, in the order of reading."""
    tables = (
        summary_of(analysis),
        target_table(analysis),
        *to_target_tables(analysis),
        critical_table(analysis),
        learning_rate_table(analysis),
        _decomposition(analysis),
        noise_scale_table(analysis),
        sharpness_table(analysis),
        _comparisons(analysis),
        _trend(analysis),
        _updates_share(analysis),
        _spread(analysis),
        practical_table(analysis),
        throughput_table(analysis),
        _flags(analysis),
        _exchangeability(analysis),
        choices_table(analysis),
    )
    return tuple(_without_empty_columns(table) for table in tables if table.rows)


def _without_empty_columns(table: Table) -> Table:
    used = [index for index in range(len(table.columns)) if any(row[index].text for row in table.rows)]
    return replace(
        table,
        columns=tuple(table.columns[index] for index in used),
        rows=tuple(tuple(row[index] for index in used) for row in table.rows),
    )


def summary_of(analysis: Analysis) -> Table:
    """Means over replicates per batch size at the chosen epochs."""
    names = [
        name
        for name in ("train_accuracy", "val_accuracy", "gap", "train_loss", "val_loss")
        if any(getattr(row, name) is not None for row in analysis.summary)
    ]
    if analysis.facts.metric == "val_accuracy":
        names = [name for name in names if not name.endswith("_loss")]
    own_ends = analysis.facts.end_epoch is None
    return Table(
        key="summary",
        title="Summary by batch size",
        note=f"Mean over replicates, with standard deviation and {_coverage(analysis)} t-interval."
        + (f" Marked: {analysis.facts.when}." if own_ends else ""),
        columns=("Epoch", "Batch size", "Replicates", *(quantity_name(name).capitalize() for name in names)),
        rows=tuple(
            (
                replace(whole_cell(row.epoch), detail="end" if own_ends and row in analysis.final else ""),
                whole_cell(row.batch_size),
                Cell(
                    str(row.n_trials - row.n_diverged - row.n_missing),
                    float(row.n_trials - row.n_diverged - row.n_missing),
                    lost(row.n_diverged, row.n_missing),
                ),
                *(estimate_cell(getattr(row, name)) for name in names),
            )
            for row in analysis.summary
        ),
    )


def _decomposition(analysis: Analysis) -> Table:
    inference = inference_sentence(analysis.decomposition)
    return Table(
        key="decomposition",
        title="What the observed gap is made of",
        note="The observed gap is the sum of the four columns after it. Means over replicates with half the "
        f"width of the {_coverage(analysis)} t-interval, at the end of each stage; below BatchNorm's, "
        "its half on the training side + that on the validation side. Lag: distance of the moving averages "
        "from recalibrated ones in standard deviations, mean over layers."
        f"{f' {inference}' if inference else ''}",
        columns=("Stage", "Epoch", "Batch size", "Gap", *TERM_HEADS, "Lag"),
        rows=tuple(
            (
                Cell(row.stage),
                whole_cell(row.epoch),
                replace(whole_cell(row.batch_size), detail=f"n = {row.observed.n}"),
                _give_or_take(row.observed),
                *(_term(row, name) for name in TERMS),
                Cell("") if row.lag_mean is None else _give_or_take(row.lag_mean),
            )
            for row in analysis.decomposition.ends
        ),
    )


def _term(row: DecompositionRow, name: str) -> Cell:
    if name != "batchnorm":
        return _give_or_take(row.term(name))
    if row.batchnorm_inference:
        return Cell("0", 0.0, "inference\nmode")
    training, validation = row.batchnorm_training.mean, row.batchnorm_validation.mean
    sign = "\u2212" if validation < 0 else "+"
    return _give_or_take(row.batchnorm, f"{number(training)}\n{sign} {number(abs(validation))}")


def _give_or_take(found: Estimate, below: str = "") -> Cell:
    half = f"\u00b1{figure_text(found.high - found.mean)}" if math.isfinite(found.high) else ""
    detail = "\n".join(line for line in (half, below) if line)
    return Cell(number(found.mean) if math.isfinite(found.mean) else NOTHING, _known(found.mean), detail)


def _comparisons(analysis: Analysis) -> Table:
    return Table(
        key="comparisons",
        title="Each batch size against the smallest",
        note=f"Mean difference over pairs of replicates at {analysis.facts.when}, {_coverage(analysis)} "
        "t-interval, paired t-test, and Holm's correction over the batch sizes.",
        columns=("Quantity", "Batch size", "Against", "Pairs", "Difference", "p", "p (Holm)", "Remark"),
        rows=tuple(
            (
                Cell(quantity_name(row.quantity)),
                whole_cell(row.batch_size),
                whole_cell(row.reference),
                whole_cell(row.n_pairs),
                Cell(_signed(row.difference), _known(row.difference), range_text(row.low, row.high)),
                _p(row.p),
                _p(row.p_holm),
                Cell(row.reason or ""),
            )
            for row in analysis.comparisons
        ),
    )


def _trend(analysis: Analysis) -> Table:
    return Table(
        key="trend",
        title="Trend with batch size",
        note=f"Page's test over replicates at {analysis.facts.when}, one-sided; the direction was fixed "
        "beforehand.",
        columns=("Quantity", "Tested direction", "Replicates", "Page's L", "p", "Remark"),
        rows=tuple(
            (
                Cell(quantity_name(row.quantity)),
                Cell(row.direction),
                whole_cell(row.n_replicates),
                figure_cell(row.statistic, of_quantity),
                _p(row.p),
                Cell(row.reason or (row.method or "")),
            )
            for row in analysis.trend
        ),
    )


def _updates_share(analysis: Analysis) -> Table:
    return Table(
        key="updates-share",
        title="Updates or epochs?",
        note="Share of the variance between batch sizes that is gone when they are compared at equal "
        "numbers of updates instead of equal epochs, with its "
        f"{_coverage(analysis)} bootstrap interval over replicates. Few batch sizes reach the same number of "
        "updates, so the share overstates where their range is wide; like for like compares the same ones "
        "at equal epochs.",
        columns=(
            "Stage",
            "Share explained",
            "Like for like",
            "Variance at equal epochs",
            "Variance at equal updates",
            "Remark",
        ),
        rows=tuple(
            (
                Cell(row.stage or "all epochs"),
                _share(row.share, row.low, row.high),
                _share(row.share_alike, row.low_alike, row.high_alike),
                figure_cell(row.variance_at_matched_epochs, _short),
                figure_cell(row.variance_at_matched_updates, _short),
                Cell(_share_remark(row, analysis.facts)),
            )
            for row in analysis.updates_share
        ),
    )


def _share_remark(found: UpdatesShare, facts: StudyFacts) -> str:
    """Why a figure is missing, or that a stage of equal updates is matched by design."""
    if found.reason is not None or facts.equal_epochs(found.stage):
        return found.reason or ""
    return (
        "batch sizes were not given the same number of epochs here: equal epochs are the "
        f"{found.n_epochs} that all have"
    )


def _share(share: float, low: float, high: float) -> Cell:
    if not math.isfinite(share):
        return Cell(NOTHING)
    bounds = f"{percent(low)} to {percent(high)}" if math.isfinite(low) else ""
    return Cell(percent(share), share, bounds)


def _spread(analysis: Analysis) -> Table:
    spread = analysis.spread
    return Table(
        key="spread",
        title="Spread between replicates",
        note=f"Standard deviation of {quantity_name(spread.quantity)} at {analysis.facts.when}.",
        columns=("Batch size", "Replicates", "Standard deviation"),
        rows=tuple(
            (whole_cell(row.batch_size), whole_cell(row.n), figure_cell(row.sd, lambda sd: number(sd, 4)))
            for row in spread.rows
        ),
    )


def _flags(analysis: Analysis) -> Table:
    quantities = " and ".join(dict.fromkeys(quantity_name(row.quantity) for row in analysis.flags))
    return Table(
        key="flags",
        title="Replicates that do not look like the others",
        note=f"Mean {quantities} over the epochs named, against the other replicates of the batch size; "
        "flagged above the threshold, never removed.",
        columns=("Stage", "Batch size", "Replicate", "Its mean", "Others", "Studentised residual"),
        rows=tuple(
            (
                Cell(row.stage),
                whole_cell(row.batch_size),
                whole_cell(row.replicate),
                replace(
                    figure_cell(row.value, number), detail=f"epochs\n{row.first_epoch} to {row.last_epoch}"
                ),
                figure_cell(row.others, number),
                replace(
                    figure_cell(row.score, lambda score: number(score, 1)),
                    detail=f"threshold {number(row.threshold, 1)}",
                ),
            )
            for row in analysis.flags
        ),
    )


def _exchangeability(analysis: Analysis) -> Table:
    return Table(
        key="exchangeability",
        title="Are replicates alike?",
        note="How many trials were compared with the others of their batch size, stage by stage.",
        columns=("Stage", "Quantity", "Compared", "Left out", "Flagged", "Remark"),
        rows=tuple(
            (
                Cell(row.stage or "all epochs"),
                Cell(quantity_name(row.quantity) if row.quantity else NOTHING),
                whole_cell(row.n_tested),
                whole_cell(row.n_left_out),
                whole_cell(row.n_flagged),
                Cell(row.reason or ""),
            )
            for row in analysis.exchangeability
        ),
    )


def _signed(value: float) -> str:
    return minus(f"{value:+.3f}") if math.isfinite(value) else NOTHING


def _short(value: float) -> str:
    return minus(f"{value:.2g}")


def _p(value: float) -> Cell:
    return figure_cell(value, lambda p: p_value(p).removeprefix("p = ").removeprefix("p "))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _coverage(analysis: Analysis) -> str:
    return percent(analysis.facts.confidence)
