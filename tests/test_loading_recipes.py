"""Budgets and learning rates in study files: what is accepted, what is refused, and what replaces what."""

from __future__ import annotations

import re

import pytest

from batchscope.errors import StudyError
from batchscope.loading import (
    apply_changes,
    difference,
    dump_study,
    extension,
    parse_study,
    parse_targets,
    read_toml,
)
from batchscope.own_study import AnyStudy
from batchscope.recipe import BUDGETS, LearningRate, Until
from test_loading import MINIMAL, problems

Told = dict[str, object]
TARGET = {"metric": "val_accuracy", "value": 0.9, "epochs": 50}
GRID_STAGE = {"name": "one", "trainable": "head", "learning_rate": {"grid": [0.1, 0.2]}, "epochs": 3}


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("stages.one.examples", 0, "greater than or equal to 1"),
        ("stages.one.seconds", 0.0, "greater than 0"),
        ("stages.one.seconds", float("nan"), "finite number"),
        ("stages.one.until", "best", "must be a table"),
        ("stages.one.until", {"metric": "train_loss"}, "'val_accuracy' or 'val_loss'"),
        ("stages.one.until", TARGET | {"value": 1.5}, "must be at most 1 for val_accuracy; it is 1.5"),
        ("stages.one.until", TARGET | {"value": 0.0}, "greater than 0"),
        ("stages.one.until", TARGET | {"epochs": 0}, "greater than or equal to 1"),
        ("stages.one.until", TARGET | {"epoch": 1}, "did you mean epochs?"),
        ("stages.one.learning_rate", "0.1", "{ base = 0.01 }"),
        ("stages.one.learning_rate", {}, "needs either base, one learning rate, or grid"),
        ("stages.one.learning_rate", {"base": 1.0, "grid": [1.0, 2.0]}, "needs either base, one learning"),
        ("stages.one.learning_rate", {"base": 0.0}, "learning_rate.base: must be greater than 0 (got 0.0)"),
        ("stages.one.learning_rate", {"grid": [0.1]}, "at least 2 items"),
        ("stages.one.learning_rate", {"grid": [0.1, 0.2, 0.1]}, "each learning rate must be listed once"),
        ("stages.one.learning_rate", {"grid": [0.1, float("inf")]}, "finite number"),
        ("stages.one.learning_rate", {"bass": 0.1}, "did you mean base?"),
        ("stages.one.learning_rate.rule", "cubic", "'constant', 'linear' or 'sqrt'"),
        (
            "stages.one.learning_rate",
            {"base": 1.0, "rule": "linear"},
            "need base_batch_size, and only they do",
        ),
        (
            "stages.one.learning_rate",
            {"base": 1.0, "base_batch_size": 16},
            "need base_batch_size, and only they do",
        ),
        ("stages.one.learning_rate", {"base": 1.0, "warmup_epochs": 1, "warmup_updates": 1}, "by either"),
        ("stages.one.learning_rate.warmup_updates", 0, "greater than or equal to 1"),
        ("data.selection_share", 1.0, "less than 1"),
    ],
)
def test_impossible_values_are_refused(key: str, value: object, rule: str):
    with pytest.raises(StudyError) as caught:
        parse_study(apply_changes(read_toml(MINIMAL, "mine"), [(key, value)]), "mine")
    assert caught.value.problems[0].key.startswith(key)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            [("stages.one.examples", 15)],
            "stages.one.examples must be at least the largest batch size, 16; it is 15",
        ),
        (
            [("stages.one.learning_rate.warmup_epochs", 4)],
            "learning_rate.warmup_epochs must not exceed the stage's epochs, 3; it is 4",
        ),
        (
            [
                ("stages.one.until", TARGET | {"epochs": 4}),
                ("stages.one.learning_rate.warmup_epochs", 5),
            ],
            "learning_rate.warmup_epochs must not exceed the stage's until.epochs, 4; it is 5",
        ),
        (
            [("replicates", 3), ("until_ci", {"half_width": 0.01}), ("stages.one.until", TARGET)],
            "the last stage needs another budget than until, which makes ends alike; stages.one has until",
        ),
        (
            [
                ("stages.one.learning_rate.grid", [0.1, 0.2]),
                ("stages", [GRID_STAGE, GRID_STAGE | {"name": "two"}]),
            ],
            "two would have to be tried in every combination; one, two have one",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes: list[tuple[str, object]], rule: str):
    with pytest.raises(StudyError, match=re.escape(rule)):
        parse_study(apply_changes(read_toml(MINIMAL, "mine"), changes), "mine")


def test_a_grid_may_end_at_a_target_and_the_last_stages_is_the_goal():
    raw = read_toml(MINIMAL, "mine")
    ended = parse_study(apply_changes(raw, [("stages", [GRID_STAGE]), ("stages.one.until", TARGET)]), "mine")
    assert (ended.grid, ended.goal) == ([0.1, 0.2], Until(**TARGET))  # type: ignore[arg-type]
    later = {"name": "two", "trainable": "head", "learning_rate": 0.1, "epochs": 3}
    raw = apply_changes(raw, [("stages", [GRID_STAGE, later]), ("stages.one.until", TARGET)])
    gone_on = parse_study(raw, "mine")
    assert (gone_on.stages[0].until, gone_on.goal) == (ended.goal, None)
    searched = apply_changes(raw, [("replicates", 3), ("until_ci", {"half_width": 0.01})])
    assert parse_study(searched, "mine").until_ci is not None


def test_a_stage_has_one_budget_and_a_change_replaces_it():
    rule = "needs a budget, exactly one of epochs, updates, examples, seconds, until; it has "
    assert f"{rule}none" in str(problems(MINIMAL.replace("epochs = 3", "")))
    both = MINIMAL.replace("epochs = 3", "epochs = 3\nupdates = 10")
    assert f"{rule}epochs, updates" in str(problems(both))
    raw = read_toml(MINIMAL, "mine")
    for key, value in (("updates", 40), ("seconds", 1.5), ("until", TARGET), ("examples", 40), ("epochs", 2)):
        raw = apply_changes(raw, [(f"stages.one.{key}", value)])
        stage = parse_study(raw, "mine").stages[0]
        assert stage.budget == key
        assert [getattr(stage, other) for other in BUDGETS if other != key] == [None] * 4
    for key, value in TARGET.items():
        raw = apply_changes(raw, [(f"stages.one.until.{key}", value)])
    assert parse_study(raw, "mine").stages[0].until == Until(**TARGET)  # type: ignore[arg-type]


def test_a_learning_rate_becomes_a_table_where_a_key_of_it_is_set():
    key = "stages.one.learning_rate"
    changes = [(f"{key}.rule", "sqrt"), (f"{key}.base_batch_size", 8), (f"{key}.warmup_epochs", 1)]
    raw = apply_changes(read_toml(MINIMAL, "mine"), changes)
    found = parse_study(raw, "mine").stages[0].learning_rate
    assert found == LearningRate(base=0.001, rule="sqrt", base_batch_size=8, warmup_epochs=1)
    raw = apply_changes(raw, [(f"{key}.grid", [0.2, 0.1]), (f"{key}.warmup_updates", 5)])
    study = parse_study(raw, "mine")
    wanted = LearningRate(grid=[0.2, 0.1], rule="sqrt", base_batch_size=8, warmup_updates=5)
    assert study.stages[0].learning_rate == wanted
    assert study.grid == [0.1, 0.2]
    assert parse_study(read_toml(dump_study(study), "mine"), "mine") == study
    plain = parse_study(apply_changes(raw, [(key, 0.5)]), "mine")
    assert (plain.stages[0].learning_rate, plain.grid) == (0.5, None)
    assert "stages.one.learning_rate: " in "\n".join(difference(plain, study))


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ([], "at least 1 item"),
        ([{"metric": "val_accuracy", "value": 1.5}], "value must be at most 1 for val_accuracy; it is 1.5"),
        ([{"metric": "val_accuracy", "value": 0.0}], "greater than 0"),
        ([{"metric": "val_loss", "value": float("nan")}], "finite number"),
        ([{"metric": "accuracy", "value": 0.5}], "'val_accuracy' or 'val_loss'"),
        ([{"metric": "val_loss", "value": "0.5"}], "valid number"),
        ([{"metric": "val_loss", "value": 0.5, "epochs": 3}], "unknown key; known are metric, value"),
        ([{"metric": "val_loss", "val": 0.5}], "did you mean value?"),
        ([{"metric": "val_loss", "value": 0.5}] * 2, "each target must be listed once"),
        ({"metric": "val_loss", "value": 0.5}, "valid list"),
    ],
)
def test_targets_that_cannot_be_are_refused(value: object, rule: str):
    with pytest.raises(StudyError) as refused:
        parse_study(read_toml(MINIMAL, "mine.toml") | {"targets": value}, "mine.toml")
    assert rule in str(refused.value)


def test_targets_survive_writing_and_extend_a_study():
    targets = [{"metric": "val_accuracy", "value": 0.85}, {"metric": "val_loss", "value": 0.5}]
    study = parse_study(read_toml(MINIMAL, "mine.toml") | {"targets": targets}, "mine.toml")
    again = parse_study(read_toml(dump_study(study), "frozen"), "frozen")
    assert again == study
    assert study.targets == parse_targets(["val_accuracy=0.85", " val_loss = 5e-1"])
    plain = parse_study(read_toml(MINIMAL, "mine.toml"), "mine.toml")
    assert plain.targets is None
    assert (difference(plain, study), extension(plain, study)) == ([], [f"targets: None -> {targets}"])
    assert extension(study, plain) == [f"targets: {targets} -> None"]


SEARCH = {"half_width": 0.01, "max_replicates": 9, "metric": "val_accuracy"}


@pytest.mark.parametrize(
    ("before", "after", "extends"),
    [
        ({"replicates": 2}, {"replicates": 3}, ["replicates: 2 -> 3"]),
        (
            {},
            {"until_ci": SEARCH},
            [f"until_ci.{key}: absent -> {value}" for key, value in SEARCH.items()],
        ),
        (
            {"until_ci": SEARCH},
            {"until_ci": SEARCH | {"half_width": 0.1, "max_replicates": 10}},
            ["until_ci.half_width: 0.01 -> 0.1", "until_ci.max_replicates: 9 -> 10"],
        ),
    ],
)
def test_a_study_can_be_given_more(before: Told, after: Told, extends: list[str]):
    old, new = repeated(before), repeated(after)
    assert (difference(old, new), extension(old, new)) == ([], extends)
    assert extension(new, new) == []


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        ({"replicates": 3}, {"replicates": 2}, ["replicates: 3 -> 2"]),
        (
            {"until_ci": SEARCH},
            {},
            [f"until_ci.{key}: {value} -> absent" for key, value in SEARCH.items()],
        ),
        (
            {"until_ci": SEARCH},
            {"until_ci": SEARCH | {"metric": "val_loss", "max_replicates": 8}},
            ["until_ci.max_replicates: 9 -> 8", "until_ci.metric: val_accuracy -> val_loss"],
        ),
    ],
)
def test_a_study_of_fewer_replicates_or_of_a_search_that_is_forgotten_is_another(
    before: Told, after: Told, differs: list[str]
):
    old, new = repeated(before), repeated(after)
    assert (difference(old, new), extension(old, new)) == (differs, [])


def repeated(keys: Told) -> AnyStudy:
    return parse_study(read_toml(MINIMAL, "mine.toml") | {"replicates": 3} | keys, "mine.toml")


@pytest.mark.parametrize(
    ("texts", "rule"),
    [
        (["val_accuracy"], "'val_accuracy': must have the form METRIC=VALUE, such as val_accuracy=0.85"),
        (["val_accuracy=high"], "must have the form METRIC=VALUE"),
        (["val_accuracy=85"], "'val_accuracy=85': value must be at most 1 for val_accuracy; it is 85.0"),
        (["val_accuracy=nan"], "'val_accuracy=nan': value must be a finite number"),
        (["loss=0.3"], "'loss=0.3': metric must be 'val_accuracy' or 'val_loss'"),
        (["val_loss=0.3", "val_loss=0.30"], "'val_loss=0.30': each target must be given once"),
    ],
)
def test_targets_of_the_command_line_are_checked_alike(texts: list[str], rule: str):
    with pytest.raises(StudyError) as refused:
        parse_targets(texts)
    assert rule in str(refused.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["gradient_noise", "gradient_noise"], "extra_probes must be listed once each"),
        (["noise"], "extra_probes"),
        ("sharpness", "extra_probes"),
        ([3], "extra_probes"),
        (None, "extra_probes"),
    ],
)
def test_extra_probes_are_known_and_each_once(value: object, told: str):
    with pytest.raises(StudyError, match=told):
        parse_study(apply_changes(read_toml(MINIMAL, "mine"), [("extra_probes", value)]), "mine")


def test_extra_probes_are_none_unless_asked_for_and_need_probes():
    assert parse_study(read_toml(MINIMAL, "mine"), "mine").extra_probes == []
    raw = apply_changes(read_toml(MINIMAL, "mine"), [("extra_probes", ["sharpness", "gradient_noise"])])
    study = parse_study(raw, "mine")
    assert parse_study(read_toml(dump_study(study), "mine"), "mine") == study
    with pytest.raises(StudyError, match='probes must be "last" or "every"'):
        parse_study(apply_changes(raw, [("probes", "none")]), "mine")
