"""Runs as event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_samples import NAMES, TRIALS, Stored, expected, stored, whole
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from batchscope import load
from batchscope.errors import ExportError
from batchscope.export.content import read_run
from batchscope.export.tensorboard_tracker import TensorboardTracker
from batchscope.history import METRICS

BEGAN = 1767323045.0
HPARAMS = "_hparams_/session_start_info"


def trials(folder: Path) -> dict[str, Path]:
    """Event files by trial, one each."""
    [run] = folder.iterdir()
    assert run.name.startswith("sorting-")
    found = {}
    for entry in run.iterdir():
        [found[entry.name]] = entry.iterdir()
    return found


def read(path: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def points(path: Path) -> list[tuple[str, int, float, float]]:
    """(tag, step, value, seconds since the start) of everything in a file, in order."""
    found = read(path)
    return sorted(
        (tag, event.step, event.value, event.wall_time - BEGAN)
        for tag in found.Tags()["scalars"]
        for event in found.Scalars(tag)
    )


def assert_holds(folder: Path, run: Stored) -> None:
    """The event files have each figure once by epochs, the metrics once by updates, and nothing else."""
    files = trials(folder)
    begun = {name: told for name, told in run.told.items() if told.records}
    assert sorted(files) == sorted(NAMES[name] for name in begun)
    for name, told in begun.items():
        entries = {entry.epoch: entry for entry in told.records}
        wanted = [
            (f"by_epoch/{key}", epoch, float(np.float32(value)), entries[epoch].seconds)
            for key, epoch, value in expected(told)
        ] + [
            (f"by_updates/{key}", entries[epoch].updates, float(np.float32(value)), entries[epoch].seconds)
            for key, epoch, value in expected(told)
            if key in METRICS
        ]
        assert list(map(repr, points(files[NAMES[name]]))) == list(map(repr, sorted(wanted)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stored]:
    """A run that was exported twice."""
    folder = tmp_path_factory.mktemp("exported")
    run = stored(folder / "run")
    told = load(run.folder.path).export("tensorboard")
    before = {name: path.read_bytes() for name, path in trials(Path(told)).items()}
    assert load(run.folder.path).export("tensorboard") == told
    assert {name: path.read_bytes() for name, path in trials(Path(told)).items()} == before
    assert Path(told) == run.folder.path / "export" / "tensorboard"
    return Path(told), run


def test_every_figure_is_there_once_after_two_exports(exported: tuple[Path, Stored]):
    assert_holds(*exported)


def test_writing_needs_no_tensorflow(exported: tuple[Path, Stored], tmp_path: Path):
    code = (
        "import sys, batchscope; "
        f"batchscope.load({str(exported[1].folder.path)!r}).export('tensorboard', out={str(tmp_path)!r}); "
        "print('tensorboard' in sys.modules, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_what_is_not_finite_is_there_as_it_is(exported: tuple[Path, Stored]):
    found = read(trials(exported[0])["b0016-r01"])
    assert [event.value for event in found.Scalars("by_epoch/train_loss")][1] == math.inf
    assert math.isnan([event.value for event in found.Scalars("by_updates/val_loss")][1])


def test_parameters_are_there_but_for_the_replicate(exported: tuple[Path, Stored]):
    for name, path in trials(exported[0]).items():
        content = read(path).SummaryMetadata(HPARAMS).plugin_data.content
        found = HParamsPluginData.FromString(content).session_start_info
        values = dict(found.hparams.items())
        assert values["batch_size"].number_value == int(name[1:5])
        assert values["stages.one.learning_rate"].number_value == 1e-3
        assert values["stages.one.batchnorm"].string_value == "inference"
        assert values["batch_sizes"].string_value == "[8, 16]"
        assert "replicate" not in values
        assert found.start_time_secs == BEGAN


def test_a_run_that_went_on_is_gone_on_with(tmp_path: Path):
    """By the process that wrote it and by another; both leave what a single export writes."""
    run = stored(tmp_path / "run")
    tracker = TensorboardTracker(tmp_path / "live")
    tracker.update(read_run(run.folder))
    load(run.folder.path).export("tensorboard", out=tmp_path / "again")
    begun = {name: path.stat().st_ino for name, path in trials(tmp_path / "again").items()}
    later = stored(tmp_path / "run", run.told | {"b8-r2": whole(TRIALS[2], 3), "b16-r2": whole(TRIALS[3], 1)})
    tracker.update(read_run(run.folder))
    for name in ("again", "once"):
        load(run.folder.path).export("tensorboard", out=tmp_path / name)
    for name in ("live", "again", "once"):
        assert_holds(tmp_path / name, later)
    files = [trials(tmp_path / name) for name in ("live", "again", "once")]
    for name in files[0]:
        assert len({path[name].read_bytes() for path in files}) == 1
    # A reader that has a file open goes on reading it.
    assert {name: path.stat().st_ino for name, path in files[1].items() if name in begun} == begun


@pytest.mark.parametrize("left", [0, 1, 20, 200, -1])
def test_a_file_that_a_kill_cut_short_is_mended(tmp_path: Path, left: int):
    run = stored(tmp_path / "run")
    load(run.folder.path).export("tensorboard", out=tmp_path / "logs")
    path = trials(tmp_path / "logs")["b0008-r01"]
    path.write_bytes(path.read_bytes()[:left])
    load(run.folder.path).export("tensorboard", out=tmp_path / "logs")
    assert_holds(tmp_path / "logs", run)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_trial_that_began_anew_takes_the_place_of_what_it_was(tmp_path: Path, epochs: int):
    run = stored(tmp_path / "run")
    content = read_run(run.folder)
    slower = tuple(dataclasses.replace(point, seconds=9.0) for point in content.trials[0].points)
    longer = dataclasses.replace(content.trials[2], points=slower[:epochs])
    tracker = TensorboardTracker(tmp_path / "logs")
    tracker.update(dataclasses.replace(content, trials=(*content.trials[:2], longer)))
    tracker.update(content)
    assert_holds(tmp_path / "logs", run)


def test_runs_in_one_folder_keep_apart(tmp_path: Path):
    for name in ("one", "two"):
        load(stored(tmp_path / name).folder.path).export("tensorboard", out=tmp_path / "logs")
    names = sorted(path.parent.name for path in (tmp_path / "logs").glob("*/*/*"))[::2]
    assert names == sorted(list(NAMES.values())[:3])
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"file.* must be writable, but: .*; choose another folder"):
        load(stored(tmp_path / "run").folder.path).export("tensorboard", out=tmp_path / "file")
