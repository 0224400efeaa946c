"""Whole trials with layers cut off, with and without a store, against the network run as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from backbones import SMALL_TAIL, small_study, small_weights

from batchscope.records import EpochRecord, Trial
from batchscope.spec import ModelSpec, Study, UntilCi
from batchscope.training import stage_program
from batchscope.training.cut import WHOLE
from batchscope.training.features import FeatureStore
from batchscope.training.feeding import _wanted, make_feeding
from batchscope.training.loops import CompiledLoop, FitLoop
from batchscope.training.prefix import Prefix
from batchscope.training.rehearsal import examples_per_second
from batchscope.training.scaling import make_scaling
from batchscope.training.trial import Trainer
from timeless import without_time
from tiny import TRAINING, stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]

VALIDATION, PROBED = 16, 20
AUGMENTED = {"rotation": 15, "zoom": [0.9, 1.25], "horizontal_flip": True}
HEAD = stage("head_stage", "head", epochs=1) | {"learning_rate": 0.01}
TAIL = stage("tail_stage", SMALL_TAIL, epochs=2, augmentation=AUGMENTED) | {"learning_rate": 0.005}
TRIALS = [Trial(size, replicate) for replicate in (1, 2) for size in (8, 16)]
ROOM = 10**9


def probed_study(weights: str = "none", *, stages: Sequence[dict[str, object]] = (HEAD, TAIL)) -> Study:
    return small_study(weights, stages=list(stages), probes="every", probe_images=PROBED)


@pytest.fixture(scope="module", params=["none", "pretrained"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_net: str) -> Study:
    if request.param == "none":
        return probed_study()
    return probed_study(small_weights(tmp_path_factory.mktemp("weights") / "small.weights.h5"))


def histories(trainer: Trainer, trials: Sequence[Trial] = TRIALS) -> dict[str, list[EpochRecord]]:
    return {trial.name: list(trainer.run(trial)) for trial in trials}


def uncut(study: Study) -> Trainer:
    """A trainer whose every update runs the whole network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscope.training.trial.find_cut", lambda *_: WHOLE)
        return Trainer(study, tiny_data())


@pytest.fixture(scope="module")
def whole(study: Study) -> dict[str, list[EpochRecord]]:
    """With nothing cut off."""
    trainer = uncut(study)
    assert set(trainer.paths.values()) == {"the whole network runs"}
    return histories(trainer)


def figures(record: EpochRecord) -> dict[str, float]:
    probes = {name: value for name, value in record.probes.items() if name != "probe_seconds"}
    return probes | {
        "train_loss": record.train_loss,
        "train_accuracy": record.train_accuracy,
        "val_loss": record.val_loss,
        "val_accuracy": record.val_accuracy,
    }


def assert_same(
    found: dict[str, list[EpochRecord]], expected: dict[str, list[EpochRecord]], within: float = 1e-5
) -> None:
    assert found.keys() == expected.keys()
    for trial, records in expected.items():
        for one, other in zip(found[trial], records, strict=True):
            assert (one.epoch, one.stage, one.updates, one.examples) == (
                other.epoch,
                other.stage,
                other.updates,
                other.examples,
            )
            assert figures(one) == pytest.approx(figures(other), abs=within, rel=0)


def test_histories_are_worth_comparing(whole: dict[str, list[EpochRecord]]):
    # Trials learn, and differ by batch size, replicate and epoch, by more than they are compared to.
    losses = [record.train_loss for records in whole.values() for record in records]
    assert np.diff(sorted(losses)).min() > 1e-4
    assert all(records[-1].train_loss < records[0].train_loss - 0.01 for records in whole.values())
    shown = [record for record in whole["b8-r1"] if record.stage == "tail_stage"]
    for record in shown:
        clean, augmented = (record.probes[f"probe_train_{name}_loss"] for name in ("clean", "augmented"))
        assert abs(clean - augmented) > 2e-4


def test_the_history_is_that_of_the_whole_network(
    study: Study,
    whole: dict[str, list[EpochRecord]],
    computed: list[int],
    tmp_path: Path,
):
    trainer = Trainer(study, tiny_data(), FeatureStore(tmp_path, ROOM))
    assert trainer.paths == {
        "head_stage": "only the head is trained, on ready features",
        "tail_stage": "layers up to mid_add are computed once for each view",
    }
    assert_same(histories(trainer), whole)
    owners = {path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.npy")}
    shared = ["all"] if study.model.weights != "none" else ["r1", "r2"]
    clean = {f"{owner}-{what}" for owner in shared for what in ("training", "probed", "validation")}
    assert owners == clean | {f"r{replicate}-{epoch}" for replicate in (1, 2) for epoch in (2, 3)}
    # Both stages look at validation and probed images, whose features differ between them.
    once = TRAINING + 2 * (VALIDATION + PROBED)
    assert sum(computed) == len(shared) * once + 2 * 2 * TRAINING
    # A session after this one finds all of it.
    assert_same({"b8-r2": list(trainer.run(Trial(8, 2)))}, {"b8-r2": whole["b8-r2"]})
    assert sum(computed) == len(shared) * once + 2 * 2 * TRAINING
    assert traces(trainer) == [1] * 4


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images have gone through the layers that stay as they are, at each call."""
    found: list[int] = []
    plain = Prefix.__call__

    def counted(self: Prefix, images: np.ndarray) -> np.ndarray:
        found.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(Prefix, "__call__", counted)
    return found


def traces(trainer: Trainer) -> list[int]:
    """How often each graph was traced."""
    loops = {
        id(loop): loop for made in trainer._programs.values() for loop in (made.loop, made.evaluator.stored)
    }
    assert all(isinstance(loop, CompiledLoop) for loop in loops.values())
    functions = [each for loop in loops.values() for each in (loop._train, loop._evaluate)]
    return sorted(each.experimental_get_tracing_count() for each in functions)


@pytest.fixture(scope="module")
def session(small_net: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """A trainer and its store."""
    folder = tmp_path_factory.mktemp("session")
    return Trainer(probed_study(), tiny_data(), FeatureStore(folder, ROOM)), folder


@pytest.fixture(scope="module")
def through(session: tuple[Trainer, Path]) -> list[EpochRecord]:
    """A trial that ran through."""
    return list(session[0].run(Trial(8, 1)))


@pytest.mark.parametrize(("stop", "emptied"), [(1, True), (2, True), (2, False)])
def test_a_trial_resumed_in_another_session_gives_the_same_figures_to_the_last_bit(
    session: tuple[Trainer, Path], through: list[EpochRecord], tmp_path: Path, stop: int, emptied: bool
):
    trial, path = Trial(8, 1), tmp_path / "c.npz"
    run = session[0].run(trial, path)
    before = [next(run) for _ in range(stop)]
    folder = tmp_path / "emptied" if emptied else session[1]
    resumed = Trainer(probed_study(), tiny_data(), FeatureStore(folder, ROOM))
    next(resumed.run(Trial(16, 2)))  # leaves other weights behind
    after = list(resumed.run(trial, path, stored_epochs=stop))
    assert without_time([*before, *after]) == without_time(through)


def test_measuring_tells_a_rate_and_changes_no_figure(
    session: tuple[Trainer, Path], through: list[EpochRecord]
):
    rate = examples_per_second(session[0], 0.2)
    assert np.isfinite(rate)
    assert rate > 0
    assert without_time(list(session[0].run(Trial(8, 1)))) == without_time(through)
    assert traces(session[0]) == [1] * 4


def test_where_room_is_short_the_most_used_is_kept(tmp_path: Path):
    head, tail = 4 * 16 * (VALIDATION + PROBED + TRAINING), 4 * 16 * 16 * 8 * (VALIDATION + PROBED)
    trainer = Trainer(probed_study(), tiny_data(), FeatureStore(tmp_path, head + tail))
    list(trainer.run(Trial(16, 1)))
    kept = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.npy"))
    assert kept == ["r1-probed", "r1-probed", "r1-training", "r1-validation", "r1-validation"]


ONE = {"epochs": 1}
# Behind late_bn and behind late_silu there are as many features, by the same variables.
NEAR = [stage("late", {"from_layer": "late_drop"}, **ONE), stage("later", {"from_layer": "late_silu"}, **ONE)]
MIXED = [
    stage("shown", "head", augmentation=AUGMENTED, **ONE),
    stage("tail", SMALL_TAIL, **ONE),
    stage("after", "head", **ONE),
]


@pytest.mark.parametrize(
    ("stages", "layers"), [(NEAR, ["late_silu", "late_bn"]), (MIXED, ["last_conv", "mid_add", "mid_add"])]
)
def test_stages_never_get_each_others_features(
    tmp_path: Path, stages: list[dict[str, object]], layers: list[str]
):
    study, trials = probed_study(stages=stages), [Trial(16, 1)]
    kept = Trainer(study, tiny_data(), FeatureStore(tmp_path, ROOM))
    assert [cut.layer for cut in kept._cuts.values()] == layers
    expected = histories(uncut(study), trials)
    assert_same(histories(kept, trials), expected)


def test_the_loops_of_other_backends_without_a_store_give_the_same_history(
    whole: dict[str, list[EpochRecord]], study: Study, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stage_program, "make_loop", FitLoop)
    trainer = Trainer(study, tiny_data())
    assert_same({"b8-r1": list(trainer.run(Trial(8, 1)))}, {"b8-r1": whole["b8-r1"]})


def test_other_images_or_another_split_are_never_taken_for_these(
    session: tuple[Trainer, Path], tmp_path: Path
):
    trainer, data, planned = session[0], tiny_data(), session[0]._study.stages[1]
    cut, network = trainer._cuts[planned.name], trainer.network
    own = trainer._examples
    others = [
        replace(own, validation=own.validation[::-1]),
        replace(own, feed=replace(own.feed, inputs=255 - data.inputs)),
        replace(own, feed=replace(own.feed, scaling=make_scaling(ModelSpec(input_scaling="unit"), data))),
    ]
    for examples in (own, *others):
        store = FeatureStore(tmp_path, ROOM)
        source = make_feeding(trainer._study, planned, cut, examples, network, store).validation(1)
        found, labels = source.take(np.arange(VALIDATION))
        images, expected_labels = examples.feed.batch(examples.validation, None)
        np.testing.assert_allclose(found, Prefix(network, cut)(images), atol=1e-6)
        np.testing.assert_array_equal(labels, expected_labels)
    assert len(list(tmp_path.glob("*.npy"))) == 1 + len(others)


@pytest.mark.parametrize(
    ("sizes", "until_ci", "replicates"),
    [
        ([8, 16], None, 2),
        ([8, 16, 32], None, 2),
        ([8, 16], UntilCi(half_width=0.1), 2),
        ([8, 16, 32], UntilCi(half_width=0.1), 3),
    ],
)
def test_views_have_room_for_as_many_replicates_as_may_be_at_work(
    sizes: list[int], until_ci: UntilCi | None, replicates: int
):
    study = small_study(stages=[HEAD, TAIL], batch_sizes=sizes, replicates=3)
    study = study.model_copy(update={"until_ci": until_ci})
    rows = [np.arange(count) for count in (TRAINING, VALIDATION, 0, PROBED)]
    names = ("training", "validation", "selection", "probed")
    examples = SimpleNamespace(**dict(zip(names, rows, strict=True)))
    rooms = dict(_wanted(study, study.stages[1], examples))  # type: ignore[arg-type]
    assert {what: room for what, room in rooms.items() if isinstance(what, int)} == {
        2: replicates * TRAINING,
        3: replicates * TRAINING,
    }
