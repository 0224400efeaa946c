"""What a reader must know to trust the figures: what was missing, left out or thin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batchscope.analysis.budget_notes import budget_notes
from batchscope.analysis.decomposition import without_batchnorm
from batchscope.analysis.gap_finding import inference_sentence
from batchscope.analysis.gradient_findings import gradient_notes
from batchscope.analysis.learning_rate_notes import learning_rate_notes
from batchscope.analysis.panel import Panel
from batchscope.analysis.probe_cost import probe_cost
from batchscope.analysis.results import Analysis, StudyFacts, SummaryRow
from batchscope.analysis.settings import Settings
from batchscope.analysis.throughput import throughput_notes
from batchscope.analysis.to_target_findings import to_target_notes
from batchscope.analysis.words import Sentence, count, listed, number, quantity_name, some
from batchscope.records import PEAK_MEMORY
from batchscope.spec import UntilCi

__all__ = ["draw_notes"]


def draw_notes(
    analysis: Analysis, panel: Panel, settings: Settings, until_ci: UntilCi | None = None
) -> tuple[Sentence, ...]:
    """Notes by rule: columns, then trials, then what could not be computed and why.

    Args:
        analysis: With everything but notes and verdict.
        panel: The history that it rests on.
        settings: To tell a metric that was chosen from one that was fallen back on.
        until_ci: By which replicates were added, if they were.
    """
    return (
        *_fallback(analysis, settings),
        *_missing_columns(analysis, panel),
        *_own_ends(analysis.facts, planned=panel.ends.planned),
        *budget_notes(analysis.facts, panel),
        *learning_rate_notes(analysis),
        *_one_replicate(analysis),
        *_unequal_replicates(analysis),
        *_replicates_added(analysis, until_ci),
        *_diverged(panel),
        *_missing(analysis),
        *_differing_updates(panel),
        *_replicates_not_compared(analysis),
        *_decomposition(analysis, panel),
        *gradient_notes(analysis),
        *_not_computed(analysis),
        *_probe_cost(panel),
        *to_target_notes(analysis),
        *throughput_notes(analysis.throughput),
    )


def _probe_cost(panel: Panel) -> list[Sentence]:
    said = probe_cost(panel)
    return [] if said is None else [said]


def _fallback(analysis: Analysis, settings: Settings) -> list[Sentence]:
    if settings.metric is not None or analysis.facts.metric == "val_accuracy":
        return []
    text = (
        "The history has no column val_accuracy, so the analysis is of val_loss; the margin is in its unit."
    )
    return [Sentence("metric_val_loss", text)]


def _missing_columns(analysis: Analysis, panel: Panel) -> list[Sentence]:
    notes = []
    if "gap" not in panel.metrics:
        missing = [name for name in ("train_accuracy", "val_accuracy") if name not in panel.metrics]
        text = f"The observed gap needs the column {listed(missing)}, which the history lacks."
        notes.append(Sentence("no_gap", text))
    costs = [name for name in ("updates", "examples", "seconds") if name not in panel.costs]
    if costs:
        text = f"The history has no column {listed(costs)}: batch sizes are not compared by it."
        notes.append(Sentence("missing_costs", text))
    gaps = [name for name, values in panel.costs.items() if not np.isfinite(values[panel.recorded]).all()]
    if gaps:
        text = f"The column {listed(gaps)} has gaps: it picks no batch size where a figure is missing."
        notes.append(Sentence("incomplete_costs", text))
    if analysis.facts.learning_rate_retuned is None and len(panel.batch_sizes) > 1:
        text = (
            "The history has no column learning_rate, and nothing else tells whether it was retuned for each "
            "batch size."
        )
        notes.append(Sentence("learning_rate_unknown", text))
    return notes


def _own_ends(facts: StudyFacts, *, planned: bool) -> list[Sentence]:
    if facts.end_epoch is not None:
        return []
    epochs = [end.epoch for end in facts.ends]
    if facts.own_ends:
        return [_ends_of_trials(facts, epochs)]
    others = [stage for stage in facts.stages if stage.budget != "epochs"]
    if len({stage.budget for stage in facts.stages}) == 1:
        same = f"the same number of {facts.stages[0].budget}"
    else:
        same = listed(f"the same number of {stage.budget} in {stage.name}" for stage in others)
    text = (
        f"Batch sizes end at different epochs, from {min(epochs)} to {max(epochs)}, because all were given "
        f"{same}. Each is compared at its own end."
    )
    if not planned:
        text += " This is read from the history, and may be chance if its trials are not finished."
    return [Sentence("own_ends", text, (("first_epoch", min(epochs)), ("last_epoch", max(epochs))))]


def _ends_of_trials(facts: StudyFacts, epochs: Sequence[int]) -> Sentence:
    why = {"seconds": "gives all the same training time", "until": "ends when validation reaches its target"}
    open_ended = listed(
        f"{stage.name} {why[stage.budget]}" for stage in facts.stages if stage.budget in ("seconds", "until")
    )
    text = (
        f"Trials end at different epochs, up to {max(epochs)}, because {open_ended}. Each is compared at its "
        "own last epoch."
    )
    return Sentence("own_ends", text, (("first_epoch", min(epochs)), ("last_epoch", max(epochs))))


def _one_replicate(analysis: Analysis) -> list[Sentence]:
    sizes = [row.batch_size for row in analysis.final if row.n_trials == 1]
    if not sizes:
        return []
    text = (
        f"Batch size {some(sizes)} {'has' if len(sizes) == 1 else 'have'} one replicate: there is no "
        "standard deviation, interval or test."
    )
    return [Sentence("one_replicate", text, (("n_batch_sizes", len(sizes)),))]


def _unequal_replicates(analysis: Analysis) -> list[Sentence]:
    counts = [row.n_trials for row in analysis.final]
    if len(set(counts)) == 1:
        return []
    text = (
        f"Batch sizes have from {min(counts)} to {max(counts)} replicates; paired figures use those that "
        "both sides have."
    )
    return [Sentence("unequal_replicates", text, (("fewest", min(counts)), ("most", max(counts))))]


def _replicates_added(analysis: Analysis, until_ci: UntilCi | None) -> list[Sentence]:
    if until_ci is None:
        return []
    counts = [row.n_trials for row in analysis.final]
    asked, name = f"\u00b1{number(until_ci.half_width)}", quantity_name(until_ci.metric)
    text = (
        f"Replicates are added to each batch size until its mean {name} is known to {asked} (95% interval) "
        f"or it has {until_ci.max_replicates}; there are from {min(counts)} to {max(counts)}. Where all "
        "trials diverge none is added. An interval that ends such a search is narrow partly by luck: "
        "simulated ones held the truth in 90% to 95%."
    )
    figures = (
        ("half_width", until_ci.half_width),
        ("fewest", min(counts)),
        ("most", max(counts)),
        ("max_replicates", until_ci.max_replicates),
    )
    return [Sentence("replicates_added", text, figures)]


def _diverged(panel: Panel) -> list[Sentence]:
    trials = [
        panel.trial_names[int(panel.batch_sizes[row]), int(panel.replicates[column])]
        for row, column in np.argwhere(panel.diverged.any(axis=2))
    ]
    if not trials:
        return []
    text = (
        f"{count(len(trials), 'trial')} had a NaN or infinite loss or accuracy ({some(trials)}): these "
        "epochs are counted as diverged and left out of means, deviations, intervals and tests."
    )
    return [Sentence("diverged_trials", text, (("n_trials", len(trials)),))]


def _missing(analysis: Analysis) -> list[Sentence]:
    notes = []
    own_ends = analysis.final if analysis.facts.end_epoch is None else ()
    others = [row for row in analysis.summary if row not in own_ends]
    groups: list[tuple[int | None, Sequence[SummaryRow]]] = [
        (epoch, [row for row in others if row.epoch == epoch])
        for epoch in dict.fromkeys(row.epoch for row in others)
    ]
    for epoch, group in (*groups, (None, own_ends)):
        rows = [row for row in group if row.n_missing]
        if not rows:
            continue
        total = sum(row.n_missing for row in rows)
        each = some([f"{row.n_missing} of {row.n_trials} at batch size {row.batch_size}" for row in rows])
        what = "reach the end" if epoch is None else f"record epoch {epoch}"
        verb = "is" if total == 1 else "are"
        text = f"{count(total, 'trial')} did not {what} and {verb} missing from its figures: {each}."
        notes.append(Sentence("missing_trials", text, (("epoch", epoch), ("n_trials", total))))
    return notes


def _differing_updates(panel: Panel) -> list[Sentence]:
    if "updates" not in panel.costs:
        return []
    updates = panel.costs["updates"]
    known = np.isfinite(updates)
    most = np.where(known, updates, -np.inf).max(axis=1)
    least = np.where(known, updates, np.inf).min(axis=1)
    sizes = panel.batch_sizes[(most > least).any(axis=1)]
    if not len(sizes):
        return []
    text = (
        f"At batch size {some(sizes.tolist())} replicates had taken different numbers of updates at the "
        "same epoch; curves over updates use their mean."
    )
    return [Sentence("updates_differ", text, (("n_batch_sizes", len(sizes)),))]


def _replicates_not_compared(analysis: Analysis) -> list[Sentence]:
    notes = []
    for check in analysis.exchangeability:
        if check.reason is not None:
            text = f"Whether replicates look alike was not tested{_in(check.stage)}: {check.reason}."
            notes.append(Sentence("exchangeability_not_tested", text))
        elif check.n_left_out:
            text = (
                f"{count(check.n_left_out, 'trial')}{_in(check.stage)} could not be compared with others "
                "of the same batch size: diverged, ended early, or fewer than 3 replicates."
            )
            notes.append(Sentence("exchangeability_left_out", text, (("n_trials", check.n_left_out),)))
    return notes


def _decomposition(analysis: Analysis, panel: Panel) -> list[Sentence]:
    reason = analysis.decomposition.reason
    if reason is not None:
        return (
            [Sentence("decomposition_missing", f"{reason[0].upper()}{reason[1:]}.")]
            if panel.probes.keys() - {PEAK_MEMORY}
            else []
        )
    inference = inference_sentence(analysis.decomposition)
    if inference is not None:
        return [Sentence("batchnorm_inference", inference)]
    if not without_batchnorm(panel):
        return []
    text = (
        "BatchNorm's part of the gap is zero in every trial: the network has no BatchNorm, or its "
        "averages are those of its training examples."
    )
    return [Sentence("no_batchnorm_term", text)]


def _not_computed(analysis: Analysis) -> list[Sentence]:
    notes = []
    for share in analysis.updates_share:
        if share.reason is not None:
            text = f"The share that updates explain{_in(share.stage)} is incomplete: {share.reason}."
            notes.append(Sentence("updates_share_incomplete", text))
    for trend in analysis.trend:
        name = quantity_name(trend.quantity)
        if trend.reason is not None:
            notes.append(Sentence("trend_not_tested", f"No test for a trend of the {name}: {trend.reason}."))
        elif trend.n_left_out:
            text = (
                f"The test for a trend of the {name} leaves out {count(trend.n_left_out, 'replicate')} "
                "without a finite value at every batch size."
            )
            notes.append(Sentence("trend_left_out", text, (("n_replicates", trend.n_left_out),)))
    if analysis.spread.reason is not None:
        text = f"The spreads between replicates were not compared: {analysis.spread.reason}."
        notes.append(Sentence("spread_not_tested", text))
    return notes


def _in(stage: str) -> str:
    return f" in {stage}" if stage else ""
