"""One call from a history to everything that it says."""

from __future__ import annotations

import dataclasses

import pandas as pd

from batchscope.analysis.comparisons import (
    compare_with_smallest,
    page_trend,
    replicate_spread,
    spread_of_none,
)
from batchscope.analysis.decomposition import decompose
from batchscope.analysis.exchangeability import check_exchangeability
from batchscope.analysis.facts import study_facts
from batchscope.analysis.grid import at_chosen
from batchscope.analysis.learning_rate import learning_rate_retuned, without_grid
from batchscope.analysis.noise_scale import noise_scales
from batchscope.analysis.notes import draw_notes
from batchscope.analysis.panel import build_panel
from batchscope.analysis.practical import practical_rows
from batchscope.analysis.recommendation import recommend
from batchscope.analysis.results import Analysis
from batchscope.analysis.settings import VALIDATION_METRICS, RecipeFacts, Settings, Target
from batchscope.analysis.sharpness import sharpness_rows
from batchscope.analysis.summary import summarize
from batchscope.analysis.target_recommendation import recommend_to_target
from batchscope.analysis.targets import goal_rows, target_rows
from batchscope.analysis.throughput import find_throughput
from batchscope.analysis.to_target import updates_to_target
from batchscope.analysis.tuning import choose_learning_rates
from batchscope.analysis.updates_share import updates_shares
from batchscope.analysis.verdict import draw_verdict
from batchscope.errors import HistoryError
from batchscope.history import check_history, require_columns
from batchscope.recipe import TargetSpec

__all__ = ["analyze"]


def analyze(
    history: pd.DataFrame, settings: Settings | None = None, recipe: RecipeFacts | None = None
) -> Analysis:
    """Analyses one study's history.

    Where trials have tried several learning rates, each batch size is analysed at its own best, see
    `batchscope.analysis.tuning.choose_learning_rates`; the other trials count for that choice alone.

    Args:
        history: Rows of (trial, epoch) in any order, of one study and with one trial for each
            batch size and replicate, or for each of their learning rates; see `batchscope.history`.
        settings: Margin, confidence and the like; None for the defaults.
        recipe: What is known beyond the history; None for nothing.

    Returns:
        Summary, comparisons, shares, flags, recommendation and verdict. What the history cannot
        give is NaN or None there, with a reason or a note.

    Raises:
        HistoryError: The history breaks its contract, has no validation metric, or holds several
            studies or several trials for one batch size, replicate and learning rate.
    """
    settings = settings or Settings()
    history, plan = check_history(history), None if recipe is None else recipe.plan
    metric = _metric(history, settings.metric)
    ended = plan.ended if plan is not None and plan.last_epochs is None else frozenset()
    goal = None if plan is None else plan.goal
    chosen = choose_learning_rates(history, metric, settings.confidence, ended=ended, goal=goal)
    panel = build_panel(history if chosen is None else at_chosen(history, chosen), plan)
    retuned = learning_rate_retuned(panel, recipe) if chosen is None else True
    learning_rates = chosen or without_grid(panel, retuned, recipe)
    facts = study_facts(panel, metric, settings, retuned)
    quantities = tuple(
        name for name in (metric, "gap") if name in panel.metrics and not facts.ends_alike(name)
    )
    targets = target_rows(panel, settings.confidence)
    to_goal = goal_rows(facts, targets)
    checks, flags = check_exchangeability(panel)
    throughput = find_throughput(panel, settings.confidence, () if recipe is None else recipe.workers)
    analysis = Analysis(
        facts=facts,
        summary=summarize(panel, settings),
        learning_rates=learning_rates,
        targets=targets,
        updates_to_target=tuple(
            updates_to_target(history, target, settings.confidence, ended if _is_goal(target, goal) else None)
            for target in settings.targets
        ),
        decomposition=decompose(panel, settings.confidence),
        noise_scale=noise_scales(panel, settings.confidence),
        sharpness=sharpness_rows(panel, settings.confidence),
        comparisons=tuple(
            comparison
            for quantity in quantities
            for comparison in compare_with_smallest(panel, quantity, settings.confidence)
        ),
        trend=tuple(page_trend(panel, quantity) for quantity in quantities),
        updates_share=updates_shares(panel, metric, settings),
        spread=spread_of_none(metric) if facts.ends_alike(metric) else replicate_spread(panel, metric),
        throughput=throughput,
        practical=practical_rows(panel, metric, settings, to_goal),
        exchangeability=checks,
        flags=flags,
        recommendation=recommend(panel, metric, settings, learning_rates)
        if facts.goal is None
        else recommend_to_target(panel, facts.goal, to_goal, settings, learning_rates),
        verdict=(),
        notes=(),
    )
    until_ci = None if recipe is None else recipe.until_ci
    return dataclasses.replace(
        analysis,
        verdict=draw_verdict(analysis),
        notes=draw_notes(analysis, panel, settings, until_ci),
    )


def _is_goal(target: TargetSpec, goal: Target | None) -> bool:
    return goal is not None and (target.metric, target.value) == (goal.metric, goal.value)


def _metric(history: pd.DataFrame, chosen: str | None) -> str:
    if chosen is not None:
        require_columns(history, (chosen,), "the analysis")
        return chosen
    for name in VALIDATION_METRICS:
        if name in history.columns:
            return name
    raise HistoryError(
        f"the analysis needs the column {' or '.join(VALIDATION_METRICS)}, but this history has neither"
    )
