from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.analysis.batchnorm_mode import in_inference_mode as found_in_inference_mode
from batchscope.analysis.estimates import TERMS
from batchscope.analysis.panel import build_panel
from probed import Terms, in_inference_mode, lagging, probed_history

FEW = Settings(resamples=100)
STAGES = ("feature_extraction", "fine_tuning")
WEIGHT = "probe_batchnorm_stale_weight"
NEEDED = (
    "probe_train_moving_accuracy",
    "probe_train_moving_loss",
    "probe_train_clean_loss",
    "val_loss",
    WEIGHT,
)
RECALIBRATED = [
    f"probe_{which}_recalibrated_{metric}" for which in ("train", "val") for metric in ("accuracy", "loss")
]


def _terms(analysis: Analysis) -> list[list[float]]:
    return [[row.term(name).mean for name in ("observed", *TERMS)] for row in analysis.decomposition.rows]


def _modes(history: pd.DataFrame) -> list[bool]:
    return [row.batchnorm_inference for row in analyze(history, FEW).decomposition.rows]


def _note(history: pd.DataFrame) -> str | None:
    notes = {note.rule: note.text for note in analyze(history, FEW).notes}
    assert "no_batchnorm_term" not in notes
    return notes.get("batchnorm_inference")


@pytest.mark.parametrize("every", [False, True])
def test_in_inference_mode_batchnorm_has_no_term_and_generalization_is_by_the_same_averages(
    every: bool,
) -> None:
    decomposition = analyze(in_inference_mode(probed_history(every=every), *STAGES), FEW).decomposition
    assert len(decomposition.rows) == (24 if every else 8)
    for row in decomposition.rows:
        planted = [lagging(row.batch_size, replicate, row.epoch) for replicate in (1, 2, 3)]
        assert row.batchnorm_inference
        for name in ("batchnorm", "batchnorm_training", "batchnorm_validation"):
            found = row.term(name)
            assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
        apart = [terms.batchnorm + terms.generalization for terms in planted]
        assert row.generalization.mean == pytest.approx(np.mean(apart), abs=1e-12, rel=0)
        assert row.generalization.sd == pytest.approx(np.std(apart, ddof=1), abs=1e-12, rel=0)
        assert row.augmentation.mean == pytest.approx(np.mean([terms.augmentation for terms in planted]))
        assert sum(row.term(name).mean for name in TERMS) == pytest.approx(row.observed.mean, abs=1e-12)


@pytest.mark.parametrize(
    ("stages", "modes"),
    [(STAGES[:1], [True, False]), (STAGES[1:], [False, True]), (STAGES, [True, True]), ((), [False, False])],
)
def test_stages_are_told_apart(stages: tuple[str, ...], modes: list[bool]) -> None:
    plain = probed_history()
    mixed = in_inference_mode(plain, *stages)
    assert _modes(mixed) == [mode for mode in modes for _ in range(4)]
    pairs = zip(_modes(mixed), _terms(analyze(mixed, FEW)), _terms(analyze(plain, FEW)), strict=True)
    for inference, found, before in pairs:
        observed, averaging, augmentation, batchnorm, generalization = before
        joined = [0.0, batchnorm + generalization] if inference else [batchnorm, generalization]
        assert found == pytest.approx([observed, averaging, augmentation, *joined], abs=1e-12)
    told = _note(mixed)
    assert (told is None) == (not stages)
    if stages:
        assert told == (
            f"BatchNorm was in inference mode in {' and '.join(stages)}, in training as in validation: its "
            "term is 0 by definition, and generalization is training less validation accuracy by the "
            "averages that the network was trained with."
        )


def test_trials_and_epochs_are_judged_one_by_one() -> None:
    history = in_inference_mode(probed_history(), "fine_tuning")
    other = (history.batch_size == 64) & (history.replicate == 2)
    history.loc[other, "probe_train_moving_loss"] += 1e-7
    found = found_in_inference_mode(build_panel(history))
    expected = np.zeros((4, 3, 6), dtype=bool)
    expected[:, :, 5] = True
    expected[2, 1, 5] = False
    np.testing.assert_array_equal(found, expected)
    assert _modes(history) == [False] * 4 + [True, True, False, True]


def test_a_momentum_of_one_in_batch_mode_keeps_its_term() -> None:
    history = probed_history()
    history[WEIGHT] = history[WEIGHT].mask(history[WEIGHT].notna(), 1.0)
    assert not any(_modes(history))
    assert _terms(analyze(history, FEW)) == _terms(analyze(probed_history(), FEW))


@pytest.mark.parametrize(("factor", "inference"), [(1 - 1e-6, False), (1 - 1e-13, True)])
def test_averages_that_moved_are_no_inference_mode_whatever_the_figures(
    factor: float, inference: bool
) -> None:
    history = in_inference_mode(probed_history(), "fine_tuning")
    history.loc[history.stage == "fine_tuning", WEIGHT] *= factor
    assert _modes(history) == [False] * 4 + [inference] * 4


def test_validation_with_recalibrated_statistics_keeps_the_terms() -> None:
    plain = probed_history(lambda *_: Terms(batchnorm_training=-0.1, generalization=0.2))
    history = in_inference_mode(plain, *STAGES)
    assert not any(_modes(history))
    assert _terms(analyze(history, FEW))[-1] == pytest.approx([0.1, 0, 0, -0.1, 0.2], abs=1e-12)


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_column_the_terms_are_the_plain_ones(name: str) -> None:
    history = in_inference_mode(probed_history(), *STAGES)
    assert not any(_modes(history.drop(columns=name)))
    plain = probed_history().drop(columns=name)
    assert _terms(analyze(history.drop(columns=name), FEW)) == _terms(analyze(plain, FEW))


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_nothing_recalibrated_is_needed_in_inference_mode(how: str) -> None:
    history = in_inference_mode(probed_history(), *STAGES)
    bare = (
        history.drop(columns=RECALIBRATED)
        if how == "missing"
        else history.assign(**dict.fromkeys(RECALIBRATED, np.nan))
    )
    assert all(_modes(bare))
    assert _terms(analyze(bare, FEW)) == _terms(analyze(history, FEW))


def test_only_the_stage_in_inference_mode_does_without() -> None:
    history = in_inference_mode(probed_history(), "fine_tuning")
    history.loc[history.stage == "fine_tuning", RECALIBRATED] = np.nan
    assert _modes(history) == [False] * 4 + [True] * 4
    history.loc[history.stage == "feature_extraction", RECALIBRATED] = np.nan
    assert _modes(history) == [True] * 4
    assert (
        analyze(in_inference_mode(probed_history()).drop(columns=RECALIBRATED), FEW).decomposition.rows == ()
    )


def test_the_sentence_says_that_the_term_is_zero_by_definition() -> None:
    planted = Terms(averaging=-0.01, augmentation=-0.02, batchnorm_validation=0.04, generalization=0.16)
    history = in_inference_mode(probed_history(lambda *_: planted), *STAGES)
    text = next(s.text for s in analyze(history, FEW).verdict if s.rule == "gap_is_generalization")
    assert text == (
        "At batch size 16, generalization would alone open a gap of 0.200 (95% interval 0.200 to 0.200) at "
        "epoch 6, more than the 0.170 observed, as other terms close some of it. The rest: averaging over "
        "the epoch \u22120.010, augmentation \u22120.020. BatchNorm was in inference mode: its term is 0 by "
        "definition."
    )


def test_other_terms_leave_batchnorm_out_of_their_sentence() -> None:
    planted = {16: Terms(batchnorm_validation=0.001), 64: Terms(averaging=0.03, batchnorm_validation=0.01)}
    history = probed_history(lambda size, *_: planted[size], batch_sizes=(16, 64))
    text = analyze(in_inference_mode(history, *STAGES), FEW).verdict[0].text
    assert text == (
        "At batch size 64, 0.030 (95% interval 0.030 to 0.030) of the 0.040 gap at epoch 6 is averaging over "
        "the epoch; 0.010 (0.010 to 0.010) is generalization. The rest: augmentation 0.000. BatchNorm was in "
        "inference mode: its term is 0 by definition. At batch size 16 the gap is 0.001: averaging over the "
        "epoch 0.000, augmentation 0.000, generalization 0.001."
    )


def test_a_history_without_stages_has_its_note_too() -> None:
    history = in_inference_mode(probed_history(), *STAGES).drop(columns="stage")
    told = _note(history)
    assert told is not None
    assert told.startswith("BatchNorm was in inference mode, in training as in validation: ")
