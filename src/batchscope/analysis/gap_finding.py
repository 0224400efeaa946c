"""Which term the observed gap is made of, by rule, and the sentence that says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchscope.analysis.estimates import TERMS, Decomposition, DecompositionRow, Estimate
from batchscope.analysis.results import StudyFacts
from batchscope.analysis.words import Figure, Sentence, interval, number, some

__all__ = ["GapFinding", "decomposition_sentence", "gap_finding", "inference_sentence", "term_phrase"]

# A term is what the gap is made of if it makes up at least half of it.
_MOST = 0.5
_NAMES = {
    "averaging": "averaging over the epoch",
    "augmentation": "augmentation",
    "batchnorm": "BatchNorm",
    "generalization": "generalization",
}


@dataclass(frozen=True)
class GapFinding:
    """What the largest gap is made of.

    Attributes:
        rule: ``gap_is_small``: the largest observed gap is below the margin. ``gap_is_mixed``: no
            term makes up half of it. Otherwise ``gap_is_`` and the name of the largest term.
        row: The batch size with the largest observed gap, at the end of the last probed stage.
        smallest: The smallest batch size there; None where it is the one of `row`.
        term: The largest of `batchscope.analysis.estimates.TERMS`.
    """

    rule: str
    row: DecompositionRow
    smallest: DecompositionRow | None
    term: str

    @property
    def largest(self) -> Estimate:
        """The largest term's estimate."""
        return self.row.term(self.term)

    @property
    def measured_away(self) -> bool:
        """Whether the gap is for the most part not generalization, beyond chance."""
        return self.rule not in ("gap_is_small", "gap_is_mixed", "gap_is_generalization") and (
            self.largest.low > 0
        )


def gap_finding(decomposition: Decomposition, margin: float) -> GapFinding | None:
    """Judges the last probed stage; None where nothing was probed.

    Args:
        decomposition: Of the analysis.
        margin: Gaps below it do not matter in practice.
    """
    ends = decomposition.ends
    if not ends:
        return None
    last = [row for row in ends if row.stage == ends[-1].stage]
    row = max(last, key=lambda found: found.observed.mean)
    term = max(TERMS, key=lambda name: row.term(name).mean)
    # A gap of exactly the margin, or a term of exactly half, counts, whatever its last bit.
    tolerance = 1 - 1e-9
    if row.observed.mean < margin * tolerance:
        rule = "gap_is_small"
    elif row.term(term).mean < _MOST * row.observed.mean * tolerance:
        rule = "gap_is_mixed"
    else:
        rule = f"gap_is_{term}"
    return GapFinding(rule, row, None if last[0] is row else last[0], term)


def term_phrase(row: DecompositionRow, term: str) -> str:
    """A term in words; BatchNorm's by its larger half."""
    if term != "batchnorm":
        return _NAMES[term]
    if row.batchnorm_validation.mean >= row.batchnorm_training.mean:
        return "BatchNorm statistics that have not caught up"
    return "BatchNorm statistics on the training side"


def inference_sentence(decomposition: Decomposition) -> str | None:
    """Says in which stages BatchNorm was in inference mode and what the terms are there; None: in none."""
    stages = list(dict.fromkeys(row.stage for row in decomposition.rows if row.batchnorm_inference))
    if not stages:
        return None
    where = f" in {some(stages)}" if any(stages) else ""
    return (
        f"BatchNorm was in inference mode{where}, in training as in validation: its term is 0 by definition, "
        "and generalization is training less validation accuracy by the averages that the network was "
        "trained with."
    )


def decomposition_sentence(finding: GapFinding, facts: StudyFacts) -> Sentence:
    """Says what the largest gap is made of, with intervals, beside that of the smallest batch size."""
    row = finding.row
    if finding.rule == "gap_is_small":
        text = _small(finding, facts.margin)
    else:
        text = f"{_opening(finding, facts.confidence)}{_second(finding)}. {_rest(finding)}"
    if row.batchnorm_inference:
        text += " BatchNorm was in inference mode: its term is 0 by definition."
    if finding.smallest is not None:
        other = finding.smallest
        text += (
            f" At batch size {other.batch_size} the gap is {number(other.observed.mean)}: {_terms(other)}."
        )
    return Sentence(finding.rule, text + _doubt(row.observed, facts), _figures(finding))


def _opening(finding: GapFinding, confidence: float) -> str:
    row, found = finding.row, finding.largest
    gap = number(row.observed.mean)
    phrase = term_phrase(row, finding.term)
    sure = _bounds(found, confidence)
    where = f"At batch size {row.batch_size}, "
    if finding.rule == "gap_is_mixed":
        return (
            f"{where}no single cause makes up half of the {gap} gap at epoch {row.epoch}: "
            f"{number(found.mean)}{sure}, the largest part, is {phrase}"
        )
    if found.mean > row.observed.mean and number(found.mean) != gap:
        return (
            f"{where}{phrase} would alone open a gap of {number(found.mean)}{sure} at epoch {row.epoch}, "
            f"more than the {gap} observed, as other terms close some of it"
        )
    return f"{where}{number(found.mean)}{sure} of the {gap} gap at epoch {row.epoch} is {phrase}"


def _second(finding: GapFinding) -> str:
    """Generalization, or BatchNorm where generalization is the largest and BatchNorm has a term."""
    name = _other(finding)
    if name not in _measured(finding.row):
        return ""
    found = finding.row.term(name)
    return f"; {number(found.mean)}{_bounds(found)} is {term_phrase(finding.row, name)}"


def _other(finding: GapFinding) -> str:
    return "batchnorm" if finding.term == "generalization" else "generalization"


def _rest(finding: GapFinding) -> str:
    return f"The rest: {_terms(finding.row, but=(finding.term, _other(finding)))}."


def _measured(row: DecompositionRow) -> tuple[str, ...]:
    """The terms but for one that is 0 by definition."""
    return tuple(name for name in TERMS if not (row.batchnorm_inference and name == "batchnorm"))


def _terms(row: DecompositionRow, but: tuple[str, ...] = ()) -> str:
    names = (name for name in _measured(row) if name not in but)
    return ", ".join(f"{_NAMES[name]} {number(row.term(name).mean)}" for name in names)


def _small(finding: GapFinding, margin: float) -> str:
    row = finding.row
    text = (
        f"No batch size has an observed gap of {margin:g} or more at the end: the largest is "
        f"{number(row.observed.mean)} at batch size {row.batch_size}, epoch {row.epoch}"
    )
    if max(abs(row.term(name).mean) for name in TERMS) >= margin:
        return f"{text}, where larger terms cancel: {_terms(row)}."
    return f"{text}, and none of its terms is larger: {_terms(row)}."


def _bounds(found: Estimate, confidence: float | None = None) -> str:
    """The interval in brackets, and whether it holds zero; empty without one."""
    if not math.isfinite(found.low):
        return ""
    ends = f"{number(found.low)} to {number(found.high)}"
    if confidence is not None:
        ends = interval(found.low, found.high, confidence)
    unsure = ", not told apart from zero" if found.low <= 0 <= found.high else ""
    return f" ({ends}{unsure})"


def _doubt(observed: Estimate, facts: StudyFacts) -> str:
    if not math.isfinite(observed.low):
        return " These are figures of one replicate; without more, chance cannot be ruled out."
    if observed.low <= 0 <= observed.high:
        return (
            " These replicates cannot tell the gap itself from zero "
            f"({interval(observed.low, observed.high, facts.confidence)})."
        )
    return ""


def _figures(finding: GapFinding) -> tuple[tuple[str, Figure], ...]:
    figures: list[tuple[str, Figure]] = [
        ("epoch", finding.row.epoch),
        ("batch_size", finding.row.batch_size),
        ("largest_term", finding.term),
    ]
    for name in ("observed", *TERMS, "batchnorm_training", "batchnorm_validation"):
        found = finding.row.term(name)
        figures += [(name, found.mean), (f"{name}_low", found.low), (f"{name}_high", found.high)]
    if finding.smallest is not None:
        figures += [("smallest_batch_size", finding.smallest.batch_size)]
        figures += [
            (f"{name}_at_smallest", finding.smallest.term(name).mean) for name in ("observed", *TERMS)
        ]
    return tuple(figures)
