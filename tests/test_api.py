"""The Python API: the public names, how a study is resolved, and how a run is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import batchscope
from batchscope import api
from batchscope.errors import HistoryError, RunFolderError, StudyError
from batchscope.loading import dump_study
from batchscope.records import TrialState
from batchscope.resolving import resolve
from batchscope.running import pool
from batchscope.running.folder import RunFolder
from batchscope.studies import study_text
from run_samples import FIRST, STUB, record, small_study

MINE = """
name = "mine"
batch_sizes = [8, 16]
replicates = 1
[data]
source = "{source}"
[model]
backbone = "MobileNet"
weights = "{weights}"
image_size = 32
[[stages]]
name = "one"
trainable = "head"
learning_rate = 0.001
epochs = 2
"""


def study_file(folder: Path, source: str = "synthetic-cactus", weights: str = "none") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.toml"
    path.write_text(MINE.format(source=source, weights=weights), encoding="utf-8")
    return path


def test_the_public_names_are_chosen():
    assert batchscope.__all__ == [
        "BatchscopeError",
        "BatchscopeWarning",
        "DataError",
        "ExportError",
        "HistoryError",
        "ReportError",
        "Run",
        "RunFolderError",
        "Study",
        "StudyError",
        "TrainingError",
        "TrialHandle",
        "WeightsError",
        "load",
        "probe",
        "run",
    ]
    for name in batchscope.__all__:
        assert getattr(batchscope, name).__name__ == name
    assert dir(batchscope) == sorted([*batchscope.__all__, "__version__"])
    with pytest.raises(AttributeError, match="module 'batchscope' has no attribute 'train'"):
        _ = batchscope.train


def test_importing_is_silent_and_light():
    heavy = "pandas keras tensorflow numpy pydantic sklearn altair rich"
    code = f"import sys, batchscope; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_workers_and_runs_start_without_what_only_data_and_analyses_need():
    """Where much is started, as by tests and by those who go on often, it would be most of the time."""
    code = (
        "import sys, batchscope.own.function\n"
        "print([name for name in ('pandas', 'sklearn', 'scipy', 'altair') if name in sys.modules])\n"
        "import batchscope.running.run\n"
        "print([name for name in ('sklearn', 'scipy', 'altair') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_shortcuts_and_changes_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given: list[batchscope.Study] = []
    monkeypatch.setattr("batchscope.running.run.run_study", lambda study, *_: given.append(study) or [])
    monkeypatch.setattr(api.Run, "history", property(lambda _: __import__("pandas").DataFrame()))
    run = batchscope.run(
        "aerial-cactus",
        data=Path("images"),
        weights="none",
        batch_sizes=(16, 64),
        replicates=2,
        limit=2500,
        changes={"stages.fine_tuning.epochs": 2, "replicates": 5},
    )
    [study] = given
    assert run.path == Path("runs/aerial-cactus")
    assert (study.data.source, study.model.weights) == (str(Path("images").absolute()), "none")
    assert study.data.limit == 2500
    assert (study.batch_sizes, study.replicates) == ([16, 64], 5)
    assert [stage.epochs for stage in study.stages] == [10, 2]


def test_nothing_given_leaves_a_study_as_it_is():
    study = small_study()
    assert resolve(study, []) == study
    assert resolve("aerial-cactus", [("data.source", "x")]).replicates == 3


def test_a_study_object_is_changed_like_a_file():
    changed = resolve(small_study(), [("stages.one.epochs", 5), ("data.limit", 40)])
    assert (changed.stages[0].epochs, changed.data.limit) == (5, 40)
    with pytest.raises(StudyError, match=r"tiny: 1 problem\n  replicates: must be greater"):
        resolve(small_study(), [("replicates", 0)])


def test_a_study_without_data_says_where_to_get_some():
    with pytest.raises(StudyError) as caught:
        resolve("aerial-cactus", [])
    text = str(caught.value)
    assert text.startswith("aerial-cactus: 1 problem\n  data.source: is required: give --data a folder")
    assert "'batchscope data aerial-cactus --to DIR' fetches the competition" in text


def test_paths_in_a_study_file_start_from_its_folder(tmp_path: Path):
    path = study_file(tmp_path / "deep", source="../images", weights="net.h5")
    study = resolve(path, [])
    assert study.data.source == str(tmp_path / "images")
    assert study.model.weights == str(tmp_path / "deep" / "net.h5")


def test_paths_given_by_hand_start_from_where_one_stands(tmp_path: Path):
    path = study_file(tmp_path / "deep", source="../images")
    study = resolve(path, [("data.source", "elsewhere"), ("model.weights", "other.h5")])
    here = Path.cwd()
    assert (study.data.source, study.model.weights) == (str(here / "elsewhere"), str(here / "other.h5"))


def test_a_network_in_a_file_is_found_like_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = study_file(tmp_path / "deep")
    lines = path.read_text(encoding="utf-8").replace('weights = "none"\nimage_size = 32\n', "")
    for network, found in (("../net.keras", str(tmp_path / "net.keras")), ("nets:build", "nets:build")):
        path.write_text(lines.replace('backbone = "MobileNet"', f'network = "{network}"'), encoding="utf-8")
        assert resolve(path, []).model.network == found
    monkeypatch.chdir(tmp_path)
    by_hand = resolve(path, [("model.network", "other.keras"), ("model.weights", "file")]).model
    assert (by_hand.network, by_hand.weights) == (str(tmp_path / "other.keras"), "file")


def test_a_home_is_a_home_wherever_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = study_file(tmp_path / "deep", source="~/images")
    assert resolve(path, []).data.source == str(tmp_path / "images")
    assert resolve(path, [("data.source", "~/others/")]).data.source == str(tmp_path / "others")


def test_a_frozen_study_file_can_be_run_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    resolved = resolve(
        "aerial-cactus", [("data.source", "photos"), ("model.weights", "net.h5#sha256=" + "0" * 64)]
    )
    frozen = tmp_path / "runs" / "x" / "study.toml"
    frozen.parent.mkdir(parents=True)
    frozen.write_text(dump_study(resolved), encoding="utf-8")
    monkeypatch.chdir(frozen.parent)
    assert resolve(frozen, []) == resolved
    assert resolved.model.weights == f"{tmp_path / 'net.h5'}#sha256={'0' * 64}"


@pytest.mark.parametrize(("source", "weights"), [("/images", "/net.h5"), ("synthetic-cactus", "imagenet")])
def test_absolute_paths_and_names_stay(tmp_path: Path, source: str, weights: str):
    study = resolve(study_file(tmp_path, source, weights), [])
    assert (study.data.source, study.model.weights) == (source, weights)


def test_a_run_is_opened_by_its_folder(tmp_path: Path):
    place = RunFolder(tmp_path / "run")
    with place.claim(small_study()) as store:
        store.plan([FIRST])
        store.add(FIRST, record(1))
        store.set_state(FIRST, TrialState.RUNNING)
        run = batchscope.load(str(tmp_path / "run"))
        assert run.study == small_study()
        assert run.history["val_accuracy"].tolist() == [0.6]
        assert [(s.trial, s.state, s.epochs) for s in run.trials] == [(FIRST, TrialState.RUNNING, 1)]
        store.add(FIRST, record(2))
        assert len(run.history) == 2


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunFolderError, match="holds no run"):
        batchscope.load(tmp_path)
    (tmp_path / "study.toml").write_text(study_text("demo"), encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"there is no results\.sqlite"):
        batchscope.load(tmp_path)


def test_a_run_without_a_record_has_nothing_to_analyze_or_report(tmp_path: Path):
    with RunFolder(tmp_path / "run").claim(small_study()):
        pass
    run = batchscope.load(tmp_path / "run")
    assert run.history.empty
    for act in (run.analyze, run.write_report):
        with pytest.raises(HistoryError, match="at least one row"):
            act()
    assert not (tmp_path / "run" / "report").exists()


def test_a_run_without_a_record_ends_without_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = "import sys; sys.stdin.buffer.read(1); sys.exit(1)"
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, "-c", script))
    with pytest.raises(batchscope.TrainingError, match="could not be set up"):
        batchscope.run(small_study(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "report").exists()


def test_trials_that_failed_are_among_the_runs_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "be killed", "b16-r1"))
    with pytest.warns(batchscope.BatchscopeWarning, match="1 of 2 trials failed: b16-r1 "):
        run = batchscope.run(small_study(), out=tmp_path / "run")
    assert [status.state for status in run.trials] == [TrialState.COMPLETE, TrialState.FAILED]
    assert run.analyze().facts.batch_sizes == (8, 16)
    page = (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "1 of 2 trials failed; the same command tries them again: b16-r1." in page
