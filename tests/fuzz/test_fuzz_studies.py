"""Study files and changes to them: a study, or what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import NASTY_TEXTS, damaged_bytes, damaged_lines, mutate_values
from hypothesis import given
from hypothesis import strategies as st

from batchscope.loading import difference, dump_study, parse_change, parse_study, read_toml
from batchscope.running.plan import plan_trials
from batchscope.schedule import schedule
from batchscope.spec import Augmentation, DataSpec, ModelSpec, Stage, Study
from batchscope.studies import built_in_studies, load_study, study_text

FULL = """
name = "full"
description = "All keys."
batch_sizes = [8, 16, 64]
replicates = 3
seed = 7
targets = [{ metric = "val_accuracy", value = 0.85 }]
until_ci = { half_width = 0.01, max_replicates = 9 }
validations_per_epoch = 4
extra_probes = ["gradient_noise", "sharpness"]
last_batch = "drop"
probes = "every"
probe_images = 500
[data]
source = "images"
images = 100
limit = 50
validation_share = 0.25
split_seed = 3
skip_bad_images = true
[model]
backbone = "MobileNet"
weights = "w.h5"
image_size = 64
interpolation = "nearest"
input_scaling = "unit"
[[stages]]
name = "one"
trainable = { from_layer = "conv_dw_12" }
optimizer = "sgd"
learning_rate = 0.001
updates = 40
batchnorm = "batch"
batchnorm_momentum = 0.9
ghost_batch = 8
evaluation = "recalibrated"
[stages.augmentation]
rotation = 15.0
width_shift = 0.1
height_shift = 0.1
shear = 0.1
zoom = [0.9, 1.25]
horizontal_flip = true
[[stages]]
name = "two"
trainable = "all"
learning_rate = 1e-5
epochs = 3
"""
TEXTS = (FULL, *(study_text(name) for name in built_in_studies()))
TABLES = tuple(tomllib.loads(text) for text in TEXTS)
NAMES = ("", "x", "é", "stages", "data", *Study.model_fields, *Stage.model_fields, *DataSpec.model_fields)
KEYS = (
    "seed",
    "name",
    "batch_sizes",
    "replicates",
    "stages",
    "stages.one",
    "stages.two.x.y",
    "a..b",
    ".",
    "x" * 99,
    *(f"data.{key}" for key in DataSpec.model_fields),
    *(f"model.{key}" for key in ModelSpec.model_fields),
    *(f"stages.{name}.{key}" for name in ("one", "fine_tuning") for key in Stage.model_fields),
    *(f"stages.one.augmentation.{key}" for key in Augmentation.model_fields),
    *("stages.two.trainable.from_layer", "seed.x", ".".join("a" * 3_000)),
)
NASTY_LINES = (
    "x = " + "[" * 3_000 + "]" * 3_000,
    "x = " + "{a=" * 3_000 + "1" + "}" * 3_000,
    ".".join("a" * 3_000) + " = 1",
    "[" + ".".join("a" * 3_000) + "]",
    "seed = 0x" + "f" * 5_000,
    "seed = " + "9" * 5_000,
    "batch_sizes = [" + "1, " * 5_000 + "]",
    "replicates = 1e5",
    "seed = 9223372036854775808",
    "when = 2026-02-30",
    "when = 2026-01-01T25:00:00Z",
    'description = "\\ud800"',
    'description = """',
    "description = '''\0'''",
    "[stages]",
    "[[stages]]",
    "[[data]]",
    "[data.source]",
    "[stages.augmentation]",
    "trainable = { from_layer = 1, from_layer = 2 }",
    "trainable = []",
    "learning_rate = nan",
    "learning_rate = 1e999",
    "learning_rate = " + "0" * 999,
    "epochs = true",
    "\ufeff",
    "\r",
    "= 1",
    "# " + "x" * 5_000,
)
VALUES = (
    "1",
    "0x" + "f" * 5_000,
    "9" * 5_000,
    "-1",
    "1e-3",
    "nan",
    "[8]",
    "[[[[",
    "{ a = 1 }",
    "true",
    '"x"',
    "",
    *("[" * 3_000, "2026-01-01", "1\nother = 2", "head", "none", *NASTY_TEXTS),
)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A study whose tables were changed, written as TOML."""
    raw: dict[str, Any] = mutate_values(draw, draw(st.sampled_from(TABLES)), NAMES)
    return tomli_w.dumps(raw).encode()


FILES = st.one_of(
    written(),
    written(),
    st.sampled_from(TEXTS).flatmap(lambda text: damaged_lines(text, NASTY_LINES)).map(str.encode),
    st.sampled_from(TEXTS).flatmap(lambda text: damaged_bytes(text.encode())),
    st.binary(max_size=100),
)
GOOD = (
    *("seed=3", "replicates=2", "batch_sizes=[8, 16]", "last_batch=drop", "probes=none", "probe_images=512"),
    "data.source=x",
    "data.limit=50",
    "data.validation_share=0.5",
    "model.weights=none",
    "model.backbone=é",
    *(f"stages.{name}.epochs=5" for name in ("one", "fine_tuning", "feature_extraction")),
    *(f"stages.{name}.trainable.from_layer=9" for name in ("one", "fine_tuning")),
)
ODD = st.tuples(st.one_of(st.sampled_from(KEYS), st.text(max_size=9)), st.sampled_from(VALUES)).map("=".join)
CHANGES = st.one_of(
    st.lists(st.sampled_from(GOOD), max_size=3), st.lists(st.one_of(st.sampled_from(GOOD), ODD), max_size=3)
)


@FUZZED
@given(content=FILES, changes=CHANGES)
def test_study_files_and_changes(
    attempt: Attempts, tmp_path: Path, content: bytes, changes: list[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    study = attempt(
        lambda: load_study(str(file), [parse_change(text) for text in changes]), tmp_path, str(file), "--set"
    )
    if study is not None:
        check(study)


@FUZZED
@given(changes=CHANGES, name=st.sampled_from((*built_in_studies() * 4, *NASTY_TEXTS)))
def test_changes_to_built_in_studies(
    attempt: Attempts, tmp_path: Path, changes: list[str], name: str
) -> None:
    study = attempt(
        lambda: load_study(name, [parse_change(text) for text in changes]), tmp_path, name, "--set"
    )
    if study is not None:
        check(study)


def check(study: Study) -> None:
    """What an accepted study must be good for: being written, read again, laid out and planned."""
    again = parse_study(read_toml(dump_study(study), "again"), "again")
    assert again == study
    assert difference(study, again) == []
    for size in study.batch_sizes:
        for images in (size, size + 1, 3 * size):
            first: int | None = 1
            for stage in schedule(study, size, images):
                assert stage.first_epoch == first
                if stage.epochs is None:
                    assert stage.stage.seconds
                    first = None
                    continue
                assert stage.epochs >= 1
                assert 1 <= stage.updates_in(stage.epochs) <= stage.updates_per_epoch
                assert stage.updates == (stage.epochs - 1) * stage.updates_per_epoch + stage.updates_in(
                    stage.epochs
                )
                assert 1 <= stage.examples_in(stage.epochs) <= stage.examples_per_epoch <= images
                first = None if first is None or stage.stage.until else first + stage.epochs
    if study.replicates <= 100:
        trials = plan_trials(study)
        count = study.replicates * len(study.batch_sizes) * len(study.grid or [None])
        assert len({trial.name for trial in trials}) == len(trials) == count
