"""The gradient noise scale beside the critical batch size: where it lies, and whether both agree."""

from __future__ import annotations

import dataclasses
import math

import pytest

from batchscope.analysis import Analysis, Settings, TargetSpec, analyze
from batchscope.analysis.noise_against_critical import noise_against_critical_sentences
from batchscope.analysis.noise_scale import NoiseScaleRow, NoiseScales
from batchscope.analysis.to_target_results import Bounded
from batchscope.history import check_history
from probed import with_noise_scale
from to_target_samples import B_CRIT, planted_history

RULE = "noise_scale_against_critical"
ACCURACY = TargetSpec(metric="val_accuracy", value=0.7)
CRITICAL = Bounded(200.0, 100.0, 400.0)
PLANTED = {8: 20.0, 16: 20.0, 32: 90.0, 64: 150.0, 128: 200.0, 256: 230.0, 512: 900.0, 1024: 9_000.0}
INSIDE = "inside the interval of the critical batch size for a validation accuracy of 0.700 (100 to 400)"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    history = check_history(
        with_noise_scale(planted_history(rates=(0.1, 1.0), parts=4), lambda size: PLANTED[size])
    )
    return analyze(history, Settings(resamples=100, targets=(ACCURACY,)))


def row(size: int, scale: float, low: float, high: float, n: int = 3, stage: str = "") -> NoiseScaleRow:
    over = "replicates_and_batches"
    return NoiseScaleRow(9, stage, size, True, n, 1.0, scale, scale, low, high, math.isinf(high), over)


def said(analysis: Analysis, *rows: NoiseScaleRow, critical: Bounded = CRITICAL, p: float = 0.5) -> list[str]:
    """The sentences of other rows beside another critical batch size, whose curve has that lack of fit."""
    [found] = analysis.updates_to_target
    assert found.critical is not None
    fit = dataclasses.replace(found.critical, batch_size=critical, lack_of_fit_p=p)
    placed = dataclasses.replace(
        analysis,
        noise_scale=NoiseScales(rows, None),
        updates_to_target=(dataclasses.replace(found, critical=fit),),
    )
    return [sentence.text for sentence in noise_against_critical_sentences(placed)]


def test_the_verdict_compares_planted_noise_scales_with_the_planted_critical_batch_size(
    analysis: Analysis,
) -> None:
    rules = [sentence.rule for sentence in analysis.verdict]
    assert rules[rules.index("noise_scale") + 1] == RULE
    sentence = next(one for one in analysis.verdict if one.rule == RULE)
    [found] = analysis.updates_to_target
    assert found.critical is not None
    critical = found.critical.batch_size
    assert 150 < critical.low < B_CRIT < critical.high < 300  # so the planted ones lie as told below
    figures = dict(sentence.figures)
    assert (figures["critical_batch_size"], figures["low"], figures["high"]) == (
        critical.value,
        critical.low,
        critical.high,
    )
    assert (figures["value"], figures["lack_of_fit_p"]) == (0.7, found.critical.lack_of_fit_p)
    for end in analysis.noise_scale.ends:
        name = f"batch_size_{end.batch_size}"
        assert figures[name] == end.noise_scale == pytest.approx(PLANTED[end.batch_size])
        assert (figures[f"{name}_low"], figures[f"{name}_high"]) == (end.low, end.high)
    assert sentence.text == (
        "At the end of training the estimated gradient noise scale lies inside the interval of the critical "
        f"batch size for a validation accuracy of 0.700 ({critical.low:.0f} to {critical.high:.0f}) at batch "
        "size 128 and 256; above it at batch size 512 and 1024; below it at batch size 8, 16, 32 and 64. "
        "McCandlish et al. 2018 expect both to agree to an order of magnitude: they do at batch size 32, 64, "
        "128, 256 and 512; they do not at batch size 1024; the intervals do not tell whether they do at "
        "batch size 8 and 16."
    )


@pytest.mark.parametrize(
    ("low", "high", "clause"),
    [
        (101.0, 300.0, "they do"),
        (41.0, 999.0, "they do"),  # less than 10 times all of the other: 41 against 400, 999 against 100
        (40.0, 999.0, "the intervals do not tell whether they do"),
        (41.0, 1_000.0, "the intervals do not tell whether they do"),
        (41.0, math.inf, "the intervals do not tell whether they do"),
        (3_999.0, 9_000.0, "the intervals do not tell whether they do"),
        (4_000.0, 9_000.0, "they do not"),
        (4_000.0, math.inf, "they do not"),
        (0.0, 10.0, "they do not"),
        (0.0, 10.1, "the intervals do not tell whether they do"),
        (math.nan, math.nan, "the intervals do not tell whether they do"),
    ],
)
def test_both_agree_or_not_only_where_their_intervals_say_so(
    analysis: Analysis, low: float, high: float, clause: str
) -> None:
    [text] = said(analysis, row(16, 150.0, low, high))
    assert text.endswith(f"expect both to agree to an order of magnitude: {clause}.")
    ratios = [low / CRITICAL.high, high / CRITICAL.low]
    if clause == "they do":
        assert 0.1 < ratios[0] <= ratios[1] < 10
    if clause == "they do not":
        assert ratios[0] >= 10 or ratios[1] <= 0.1


@pytest.mark.parametrize(
    ("scale", "place"), [(100.0, "inside"), (400.0, "inside"), (400.5, "above"), (99.5, "below")]
)
def test_the_estimate_is_placed_by_the_critical_batch_sizes_interval(
    analysis: Analysis, scale: float, place: str
) -> None:
    [text] = said(analysis, row(16, scale, scale / 2, scale * 2))
    assert f"lies {INSIDE.replace('inside', place)} at batch size 16. McCandlish" in text


def test_one_replicate_is_placed_and_not_judged(analysis: Analysis) -> None:
    [text] = said(analysis, row(16, 90_000.0, 80_000.0, 100_000.0, n=1))
    assert f"lies {INSIDE.replace('inside', 'above')} at batch size 16" in text
    assert text.endswith("magnitude: one replicate does not tell whether they do.")


@pytest.mark.parametrize(("low", "high", "clause"), [(101.0, 300.0, "do"), (4_000.0, 9_000.0, "do not")])
def test_a_curve_that_fits_badly_does_not_tell_whether_both_agree(
    analysis: Analysis, low: float, high: float, clause: str
) -> None:
    told = row(16, 150.0, low, high)
    [text] = said(analysis, told, p=0.049)
    assert f"lies {INSIDE} at batch size 16" in text
    assert text.endswith(
        "magnitude: the curve of the critical batch size fits badly, and its interval is too narrow to tell "
        "whether they do."
    )
    for p in (0.05, math.nan):
        [text] = said(analysis, told, p=p)
        assert text.endswith(f"magnitude: they {clause}.")
    [text] = said(analysis, told, row(64, 150.0, 120.0, 200.0, n=1), p=0.049)
    assert text.endswith(
        "too narrow to tell whether they do at batch size 16; one replicate does not tell whether they do at "
        "batch size 64."
    )


def test_only_what_is_known_at_the_end_of_the_last_stage_counts(analysis: Analysis) -> None:
    early = row(16, 1.0, 0.5, 2.0, stage="feature_extraction")
    late = row(16, 150.0, 120.0, 200.0, stage="fine_tuning")
    lost = row(64, math.nan, 200.0, math.inf, stage="fine_tuning")
    [text] = said(analysis, early, late, lost)
    assert text.startswith(f"At the end of fine_tuning the estimated gradient noise scale lies {INSIDE} at")
    assert "batch size 16. McC" in text
    assert "64" not in text
    assert said(analysis, early, lost) == []


def test_without_either_there_is_no_word(analysis: Analysis) -> None:
    assert said(analysis) == []
    assert noise_against_critical_sentences(dataclasses.replace(analysis, updates_to_target=())) == []
    history = planted_history(sizes=(2, 4, 8), rates=(0.1,), parts=4)
    found = analyze(
        check_history(with_noise_scale(history, lambda _: 300.0)),
        Settings(resamples=100, targets=(ACCURACY,)),
    )
    rules = [sentence.rule for sentence in found.verdict]
    assert {"noise_scale", "critical_batch_size_unknown"} < set(rules)
    assert RULE not in rules
