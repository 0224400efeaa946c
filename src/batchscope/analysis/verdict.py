"""Part six: what the figures say, in sentences, the most important first."""

from __future__ import annotations

import math
from collections.abc import Callable

from batchscope.analysis.few_replicates import few_replicates_sentences
from batchscope.analysis.gap_finding import decomposition_sentence, gap_finding
from batchscope.analysis.gradient_findings import noise_scale_sentences, sharpness_sentences
from batchscope.analysis.headline import headline, headline_share, share_clause
from batchscope.analysis.noise_against_critical import noise_against_critical_sentences
from batchscope.analysis.recipe_findings import learning_rate_sentences, mixed_sentences, target_sentences
from batchscope.analysis.results import (
    Analysis,
    Choice,
    Comparison,
    Flag,
    Recommendation,
    Sentence,
    StudyFacts,
    Trend,
)
from batchscope.analysis.to_target_findings import to_target_sentences
from batchscope.analysis.words import (
    MOST_LISTED,
    Figure,
    batch_sizes,
    count,
    interval,
    listed,
    number,
    of_quantity,
    p_value,
    quantity_name,
    some,
)

__all__ = ["draw_verdict"]


_NO_COSTS = "Without a column of updates, examples or seconds, none of them is known to be cheaper."


def draw_verdict(analysis: Analysis) -> tuple[Sentence, ...]:
    """Sentences in order of importance, each drawn by a rule from the analysis' figures.

    First `batchscope.analysis.headline.headline`, and what the gap is made of where probes tell
    (`batchscope.analysis.gap_finding`), ahead of it where that is for the most part not
    generalization; then what to do (`recommended`, `cannot_tell`);
    which batch sizes reached their target (`target_reached`, `target_missed`), and how updates to a target
    that was asked for scale (`batchscope.analysis.to_target_findings`);
    what puts the data in doubt (`learning_rates_mixed`, `diverged`, `replicates_flagged`); what
    holds up statistically (`comparison_*`, `trend_*`); the other stages (`stage_share`); what probes
    found of gradients and curvature (`noise_scale`, `noise_scale_against_critical`, `sharpness`); how
    replicates scatter (`spread_*`, `replicates_alike`); and how far to trust it (`few_replicates`,
    `learning_rate_chosen`, `learning_rate_passed_over`, `learning_rate_at_edge`,
    `learning_rate_unknown`). A test counts as
    significant where p < 1 - confidence.

    Args:
        analysis: With everything but the verdict.
    """
    rules: tuple[Callable[[Analysis], list[Sentence]], ...] = (
        _opening,
        _recommendation,
        target_sentences,
        to_target_sentences,
        mixed_sentences,
        _diverged,
        _flagged,
        _comparisons,
        _trends,
        _stage_shares,
        noise_scale_sentences,
        noise_against_critical_sentences,
        sharpness_sentences,
        _spread,
        _alike,
        few_replicates_sentences,
        learning_rate_sentences,
    )
    return tuple(sentence for rule in rules for sentence in rule(analysis))


def _opening(analysis: Analysis) -> list[Sentence]:
    finding = gap_finding(analysis.decomposition, analysis.facts.margin)
    if finding is None:
        return [headline(analysis)]
    told = decomposition_sentence(finding, analysis.facts)
    return [told, headline(analysis)] if finding.measured_away else [headline(analysis), told]


def _recommendation(analysis: Analysis) -> list[Sentence]:
    found = analysis.recommendation
    figures: tuple[tuple[str, Figure], ...] = (
        ("best_batch_size", found.best_batch_size),
        ("best_mean", found.best_mean),
        ("margin", found.margin),
    )
    if found.status == "cannot_tell":
        if len(analysis.facts.batch_sizes) == 1:
            return []
        for reason in found.reasons:
            figures += tuple((f"{reason.rule}_{name}", value) for name, value in reason.figures)
        best = (
            f" (batch size {found.best_batch_size} ends best, at {number(found.best_mean)})"
            if found.best_batch_size is not None
            else ""
        )
        reasons = " ".join(reason.text for reason in found.reasons)
        text = f"These data cannot tell which batch size to use{best}. {reasons}"
        return [Sentence("cannot_tell", text, figures)]
    for choice in found.choices:
        figures += ((f"batch_size_by_{choice.cost}", choice.batch_size), (choice.cost, choice.spent))
    if analysis.facts.goal is not None:
        return [Sentence("recommended", _advice_to_target(found), figures)]
    text = (
        f"Within {found.margin:g} of the best {quantity_name(found.quantity)} ({number(found.best_mean)} "
        f"at batch size {found.best_batch_size}): batch size {batch_sizes(found.within_margin)}. "
        f"{_advice(found.choices, found.best_batch_size)}"
    )
    return [Sentence("recommended", text.rstrip(), figures)]


def _advice(choices: tuple[Choice, ...], best: int | None) -> str:
    if not choices:
        return _NO_COSTS
    by_size: dict[int, list[str]] = {}
    for choice in choices:
        own = choice.batch_size == best
        best_one = "" if own else f"; the best one took {of_quantity(choice.best_spent)}"
        by_size.setdefault(choice.batch_size, []).append(
            f"{choice.cost} ({of_quantity(choice.spent)}{best_one})"
        )
    parts = [
        f"batch size {size} gets there with the fewest {listed(costs)}" for size, costs in by_size.items()
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _advice_to_target(found: Recommendation) -> str:
    """The cheapest by each cost; what it took stands in ``target_reached``."""
    sizes = found.within_margin
    if len(sizes) == 1:
        return f"Batch size {sizes[0]} is the only one of which every trial reached the target."
    if not found.choices:
        return _NO_COSTS
    parts = [
        f"{choice.batch_size} takes the fewest {choice.cost}{_rivals(choice)}" for choice in found.choices
    ]
    return f"Of batch size {batch_sizes(sizes)}, of which every trial reached the target, {'; '.join(parts)}."


def _rivals(choice: Choice) -> str:
    return f" (not told apart from {batch_sizes(choice.rivals)})" if choice.rivals else ""


def _diverged(analysis: Analysis) -> list[Sentence]:
    rows = [row for row in analysis.final if row.n_diverged]
    if not rows:
        return []
    total = sum(row.n_diverged for row in rows)
    each = some([f"{row.n_diverged} of {row.n_trials} at batch size {row.batch_size}" for row in rows])
    text = (
        f"{count(total, 'trial')} of {analysis.facts.n_trials} diverged: {each}. Means and intervals "
        "rest on the trials that did not, and look better than the recipe is."
    )
    return [Sentence("diverged", text, (("n_diverged", total), ("n_trials", analysis.facts.n_trials)))]


def _flagged(analysis: Analysis) -> list[Sentence]:
    flags = analysis.flags
    if not flags:
        return []
    each = "; ".join(_describe(flag) for flag in flags[:MOST_LISTED])
    more = "" if len(flags) <= MOST_LISTED else f"; and {len(flags) - MOST_LISTED} more"
    subject = "1 replicate does" if len(flags) == 1 else f"{len(flags)} replicates do"
    text = (
        f"{subject} not look like the others of the same batch size: {each}{more}. They are kept in all "
        "figures; check whether they ran under the same conditions."
    )
    figures: list[tuple[str, Figure]] = [("n_flags", len(flags))]
    for flag in flags:
        key = f"{flag.trial}_{flag.stage}" if flag.stage else flag.trial
        figures += [
            (f"{key}_{flag.quantity}", flag.value),
            (f"{key}_others", flag.others),
            (f"{key}_score", flag.score),
            (f"{key}_threshold", flag.threshold),
        ]
    return [Sentence("replicates_flagged", text, tuple(figures))]


def _describe(flag: Flag) -> str:
    where = f" in {flag.stage}" if flag.stage else ""
    return (
        f"replicate {flag.replicate} of batch size {flag.batch_size}{where} has "
        f"{quantity_name(flag.quantity)} {number(flag.value)} over epochs {flag.first_epoch} to "
        f"{flag.last_epoch} where the others have {number(flag.others)} "
        f"(studentised residual {flag.score:.3g}, threshold {flag.threshold:.2g})"
    )


def _comparisons(analysis: Analysis) -> list[Sentence]:
    sentences = []
    for quantity in dict.fromkeys(found.quantity for found in analysis.comparisons):
        tested = [
            found
            for found in analysis.comparisons
            if found.quantity == quantity and math.isfinite(found.p_holm)
        ]
        if tested:
            sentences.append(_comparison(tested, analysis.facts))
    return sentences


def _comparison(tested: list[Comparison], facts: StudyFacts) -> Sentence:
    name, when, reference = quantity_name(tested[0].quantity), facts.when, tested[0].reference
    surest = min(tested, key=lambda found: found.p_holm)
    different = [found for found in tested if found.p_holm < facts.level]
    shown = max(different, key=lambda found: abs(found.difference)) if different else surest
    figures: tuple[tuple[str, Figure], ...] = (
        *facts.end_figures,
        ("reference", reference),
        ("n_different", len(different)),
        ("n_tested", len(tested)),
        ("batch_size", shown.batch_size),
        ("difference", shown.difference),
        ("low", shown.low),
        ("high", shown.high),
        ("p_holm", shown.p_holm),
    )
    amount = (
        f"{number(shown.difference)} at batch size {shown.batch_size} "
        f"({interval(shown.low, shown.high, facts.confidence)}, Holm-corrected {p_value(shown.p_holm)})"
    )
    if not different:
        text = (
            f"No batch size differs significantly from batch size {reference} in {name} at {when}; "
            f"the surest difference is {amount}."
        )
        return Sentence("comparison_none", text, figures)
    sizes = [found.batch_size for found in different]
    text = (
        f"Against batch size {reference}, the {name} at {when} differs significantly at batch size "
        f"{some(sizes)}: by {amount}."
    )
    return Sentence("comparison_different", text, figures)


def _trends(analysis: Analysis) -> list[Sentence]:
    return [_trend(found, analysis.facts.level) for found in analysis.trend if math.isfinite(found.p)]


def _trend(found: Trend, level: float) -> Sentence:
    verb = "falls" if found.direction == "decreasing" else "rises"
    name = quantity_name(found.quantity)
    test = (
        f"Page's test for an ordered trend, L = {found.statistic:g}, {p_value(found.p)}, "
        f"{count(found.n_replicates, 'replicate')}"
    )
    figures = (("statistic", found.statistic), ("p", found.p), ("n_replicates", found.n_replicates))
    if found.p < level:
        return Sentence("trend_found", f"The {name} {verb} with batch size ({test}).", figures)
    text = f"That the {name} {verb} with batch size is not shown ({test})."
    return Sentence("trend_not_shown", text, figures)


def _stage_shares(analysis: Analysis) -> list[Sentence]:
    first = headline_share(analysis)
    sentences = []
    for share in analysis.updates_share:
        # Where a stage gives all batch sizes equally many updates, matching them is no finding.
        if share is first or not math.isfinite(share.share) or not analysis.facts.equal_epochs(share.stage):
            continue
        clause = share_clause(share, analysis.facts.confidence)
        figures = (
            ("stage", share.stage),
            ("share", share.share),
            ("low", share.low),
            ("high", share.high),
            ("share_alike", share.share_alike),
            ("low_alike", share.low_alike),
            ("high_alike", share.high_alike),
        )
        text = (
            f"{clause[0].upper()}{clause[1:]}. Updates are counted from the stage's start, so what "
            "earlier stages left behind stays."
        )
        sentences.append(Sentence("stage_share", text, figures))
    return sentences


def _spread(analysis: Analysis) -> list[Sentence]:
    spread = analysis.spread
    rows = [row for row in spread.rows if math.isfinite(row.sd)]
    if not (math.isfinite(spread.p) and math.isfinite(spread.factor_per_doubling)):
        return []
    significant = spread.p < analysis.facts.level
    grows = spread.factor_per_doubling > 1
    rule = ("spread_grows" if grows else "spread_shrinks") if significant else "spread_not_shown"
    first, last = rows[0], rows[-1]
    text = (
        f"The spread between replicates (standard deviation of {quantity_name(spread.quantity)}) goes from "
        f"{number(first.sd)} at batch size {first.batch_size} to {number(last.sd)} at batch size "
        f"{last.batch_size}, {spread.factor_per_doubling:.2f} times for each doubling of the batch size"
    )
    test = f"Brown-Forsythe {p_value(spread.p)}"
    text += f" ({test})." if significant else f"; these replicates cannot tell this from chance ({test})."
    figures = (
        ("factor_per_doubling", spread.factor_per_doubling),
        ("sd_at_smallest", first.sd),
        ("sd_at_largest", last.sd),
        ("p", spread.p),
    )
    return [Sentence(rule, text, figures)]


def _alike(analysis: Analysis) -> list[Sentence]:
    tested = [check for check in analysis.exchangeability if check.n_tested]
    if analysis.flags or not tested:
        return []
    quantity = tested[0].quantity or ""
    n_tested = max(check.n_tested for check in tested)
    text = (
        f"No replicate stands out from the others of its batch size in {quantity_name(quantity)} "
        f"({count(n_tested, 'trial')} compared)."
    )
    return [Sentence("replicates_alike", text, (("n_tested", n_tested),))]
