"""A grid of learning rates whose trials end at a target, in real worker processes, with a known best rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchscope
from batchscope.loading import parse_study
from batchscope.records import TrialState
from batchscope.running.options import RunOptions
from batchscope.running.run import run_study
from batchscope.spec import Study
from run_samples import Events
from tiny import stage

pytestmark = pytest.mark.keras

RIGHT = 0.8
"""How often the label is the sign of the first feature."""
GOAL = 0.6
SLOW, BEST, WILD = 0.02, 0.2, 5000.0
EPOCHS, PARTS, TRAINING = 10, 5, 160
NETWORK = """
import keras

def build(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Activation("linear")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros")(x))
"""


def signs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Two independent features of 1 and -1, and labels that follow the first as often as `RIGHT` says."""
    first, second = np.repeat([1.0, -1.0], rows // 2), np.tile([1.0, -1.0], rows // 2)
    right = np.tile(np.arange(rows // 2) < RIGHT * (rows // 2), 2)
    return np.stack([first, second], axis=1), np.where(right, first > 0, first < 0).astype(np.int64)


def planted_updates(rate: float) -> int:
    """Steps down the mean gradient, w += rate (RIGHT - sigmoid(w)), until the mean loss is low enough.

    The loss is -RIGHT log sigmoid(w) - (1 - RIGHT) log sigmoid(-w); batches add noise alone.
    """
    weight, updates = 0.0, 0
    while RIGHT * math.log1p(math.exp(-weight)) + (1 - RIGHT) * math.log1p(math.exp(weight)) > GOAL:
        weight += rate * (RIGHT - 1 / (1 + math.exp(-weight)))
        updates += 1
    return updates


def study(data: Path) -> Study:
    goal = {"metric": "val_loss", "value": GOAL, "epochs": EPOCHS}
    trained = stage("one", "all", epochs=0) | {
        "optimizer": "sgd",
        "learning_rate": {"grid": [WILD, SLOW, BEST]},
        "until": goal,
    }
    del trained["epochs"]
    raw = {
        "name": "signs",
        "batch_sizes": [8, 16],
        "replicates": 3,
        "probes": "none",
        "validations_per_epoch": PARTS,
        "data": {"source": str(data)},
        "model": {"network": "network_of_signs:build"},
        "stages": [trained],
    }
    return parse_study(raw, "signs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> batchscope.Run:
    place = tmp_path_factory.mktemp("signs")
    data = place / "signs.npz"
    (x_train, y_train), (x_val, y_val) = signs(TRAINING), signs(40)
    np.savez(data, x_train=x_train, y_train=y_train, x_val=x_val, y_val=y_val)
    (place / "network_of_signs.py").write_text(NETWORK, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        statuses = run_study(study(data), place / "run", Events(), RunOptions(workers=1))
    assert {status.state for status in statuses} == {TrialState.COMPLETE}
    return batchscope.load(place / "run")


def ends(history: pd.DataFrame) -> pd.DataFrame:
    return history.groupby("trial").tail(1)


def test_the_best_learning_rate_is_the_one_that_is_known_to_be(run: batchscope.Run):
    found = run.analyze().learning_rates
    assert {point.batch_size: point.learning_rate for point in found.chosen} == {8: BEST, 16: BEST}
    assert (found.chosen_by, found.goal and found.goal.value) == ("updates", GOAL)
    for point in found.points:
        spent = point.to_target
        assert spent is not None
        if point.learning_rate == WILD:
            assert (spent.n_reached, spent.n_censored) == (0, 3)
            continue
        assert spent.n_reached == 3
        planted, between = planted_updates(point.learning_rate), TRAINING // point.batch_size // PARTS
        assert 0.75 * planted - 1 <= spent.updates.value <= 1.25 * planted + between
    assert planted_updates(SLOW) > 8 * planted_updates(BEST)


def test_trials_end_where_they_got_there_and_others_go_through_all_epochs(run: batchscope.Run):
    last = ends(run.history)
    there = last["val_loss"] <= GOAL
    assert (there == (last["grid_learning_rate"] != WILD)).all()
    assert set(last.loc[~there, "epoch"]) == {EPOCHS}
    per_part = TRAINING // last["batch_size"] // PARTS
    assert (last["updates"] % per_part == 0).all()
    assert (last["updates"] % (PARTS * per_part) > 0).sum() >= 6  # those of the best rate ended within
    assert (last["examples"] == last["updates"] * last["batch_size"]).all()
    before = run.history.drop(index=last.index)
    assert (before.loc[before["grid_learning_rate"] != WILD, "val_loss"] > GOAL).all()


def test_no_images_were_set_apart(run: batchscope.Run):
    """With all 40 an accuracy is a multiple of a fortieth, and each is right as often as the labels are."""
    assert not [name for name in run.history.columns if name.startswith("selection_")]
    reached = ends(run.history)
    reached = reached[reached["grid_learning_rate"] == BEST]
    assert reached["val_accuracy"].to_numpy() == pytest.approx(RIGHT)


def test_a_target_that_is_asked_for_chooses_alike(run: batchscope.Run):
    analysis = run.analyze(targets=[f"val_loss={GOAL}"])
    [asked] = analysis.updates_to_target
    assert asked.trials == analysis.learning_rates.trials
    assert [row.best for row in asked.rates] == [point.chosen for point in analysis.learning_rates.points]
    assert analysis.verdict[0].rule == "ends_at_target"
    assert run.write_report().is_file()
