"""A whole run with workers that train nothing: states, sessions, data, and going on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscope.data import TrainingData
from batchscope.errors import DataError, RunFolderError
from batchscope.records import TrialState
from batchscope.running import provenance
from batchscope.running.folder import RunFolder
from batchscope.running.run import run_study
from batchscope.running.store import Store
from run_samples import Events, Stub, small_study

pytestmark = pytest.mark.usefixtures("machine")


def states(folder: Path) -> list[tuple[str, str, int]]:
    with Store(RunFolder(folder).database) as store:
        return [(status.trial.name, status.state.value, status.epochs) for status in store.trials()]


@pytest.mark.usefixtures("stub")
def test_a_run_stores_everything_and_tells_it(tmp_path: Path):
    seen, folder = Events(), tmp_path / "run"
    statuses = run_study(small_study(), folder, seen)
    assert [(status.trial.name, status.state, status.error) for status in statuses] == [
        ("b8-r1", TrialState.COMPLETE, None),
        ("b16-r1", TrialState.COMPLETE, None),
    ]
    assert seen.notes[0] == "reading the data of synthetic-cactus"
    assert seen.planned == [(2, 0, 2 * 2 * 48)]
    assert seen.starts == [("b8-r1", 0, 0.0), ("b16-r1", 0, 0.0)]
    assert seen.records == [("b8-r1", 1), ("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2)]
    assert seen.ends == [("b8-r1", TrialState.COMPLETE, None), ("b16-r1", TrialState.COMPLETE, None)]
    with Store(folder / "results.sqlite") as store:
        summary, samples = store.data() or pytest.fail("nothing kept")
        [(started, ended, facts)] = store.sessions()
    assert (summary.source, summary.classes) == ("synthetic-cactus", ("0", "1"))
    assert (summary.training, summary.validation) == ((12, 36), (3, 9))
    assert [sample.label for sample in samples] == ["0"] * 12 + ["1"] * 12
    assert started <= str(ended)
    assert facts["keras"] == "stub"
    assert (facts["workers"], facts["threads of a worker"]) == ("1", "1")
    assert facts["choice of workers"] == "there are trials for all cores"
    assert "1 worker with 1 thread: there are trials for all cores" in seen.notes


def test_a_diverged_trial_is_finished_and_not_tried_again(tmp_path: Path, stub: Stub):
    stub("diverge", "b8-r1")
    run_study(small_study(), tmp_path / "run", Events())
    assert states(tmp_path / "run") == [("b8-r1", "diverged", 1), ("b16-r1", "complete", 2)]
    again = Events()
    run_study(small_study(), tmp_path / "run", again)
    assert (again.planned, again.starts) == ([(2, 2, 0)], [])


def test_a_failed_trial_goes_on_next_time_from_what_is_stored(tmp_path: Path, stub: Stub):
    stub("be killed", "b8-r1")
    statuses = run_study(small_study(), tmp_path / "run", Events())
    assert states(tmp_path / "run") == [("b8-r1", "failed", 1), ("b16-r1", "complete", 2)]
    assert str(statuses[0].error).endswith(
        "the worker process was ended by SIGKILL, as where memory runs out (then give fewer --workers)"
    )
    stub("train")
    again = Events()
    run_study(small_study(), tmp_path / "run", again)
    assert again.planned == [(2, 1, 48)]
    assert again.starts == [("b8-r1", 48, 2.0)]
    assert again.records == [("b8-r1", 2)]
    assert states(tmp_path / "run") == [("b8-r1", "complete", 2), ("b16-r1", "complete", 2)]
    with Store(tmp_path / "run" / "results.sqlite") as store:
        assert store.trials()[0].error is None
        assert len(store.sessions()) == 2


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, stub: Stub):
    folder = tmp_path / "run"
    run_study(small_study(), folder, Events())
    shutil.rmtree(folder / "cache")
    with Store(folder / "results.sqlite") as store:
        before = store.sessions()
    stub("refuse")
    run_study(small_study(), folder, Events())
    with Store(folder / "results.sqlite") as store:
        assert store.sessions() == before
    assert not (folder / "cache").exists()


def test_checkpoints_of_finished_trials_are_removed_and_others_kept(tmp_path: Path, stub: Stub):
    place, study = RunFolder(tmp_path / "run"), small_study()
    with place.claim(study):
        place.checkpoints.mkdir()
    for name in ("b8-r1", "b16-r1"):
        (place.checkpoints / f"{name}.npz").write_bytes(b"state")
    stub("be killed", "b8-r1")
    run_study(study, place.path, Events())
    assert [entry.name for entry in place.checkpoints.iterdir()] == ["b8-r1.npz"]


class Stopping(Events):
    def epoch(self, *told: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("stub")
def test_ctrl_c_leaves_the_epoch_that_was_told_stored(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(), tmp_path / "run", Stopping())
    assert states(tmp_path / "run") == [("b8-r1", "running", 1), ("b16-r1", "waiting", 0)]
    again = Events()
    run_study(small_study(), tmp_path / "run", again)
    assert again.planned == [(2, 0, 3 * 48)]
    assert again.records == [("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2)]


def image_folder(path: Path, per_class: int = 30) -> Path:
    rng = np.random.default_rng(1)
    for label in ("cat", "dog"):
        (path / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / label / f"{number:02}.png")
    return path


def test_images_that_changed_since_are_refused(tmp_path: Path, stub: Stub):
    images = image_folder(tmp_path / "images")
    study = small_study(data={"source": str(images)})
    stub("be killed")
    run_study(study, tmp_path / "run", Events())
    before = states(tmp_path / "run")
    Image.new("RGB", (8, 8), "green").save(images / "cat" / "07.png")
    with pytest.raises(RunFolderError, match="must be those that the run began with") as caught:
        run_study(study, tmp_path / "run", Events())
    assert "restore the data" in str(caught.value)
    assert states(tmp_path / "run") == before


@pytest.mark.usefixtures("stub")
def test_skipped_images_are_recorded_and_told(tmp_path: Path):
    images = image_folder(tmp_path / "images")
    (images / "dog" / "03.png").write_bytes(b"no image")
    study = small_study(data={"source": str(images)})
    with pytest.raises(DataError, match=r"03\.png"):
        run_study(study, tmp_path / "refused", Events())
    seen = Events()
    run_study(small_study(data={"source": str(images), "skip_bad_images": True}), tmp_path / "run", seen)
    assert "bad images left out: 1; the page lists them" in seen.notes
    with Store(tmp_path / "run" / "results.sqlite") as store:
        summary, _ = store.data() or pytest.fail("nothing kept")
    assert [name for name, _ in summary.skipped] == ["dog/03.png"]
    assert sum(summary.training) + sum(summary.validation) == 59


@pytest.mark.usefixtures("stub")
def test_a_table_with_its_validation_part_is_kept_as_it_is(tmp_path: Path):
    for name, count in (("mine", 48), ("more", 8)):
        rows = "".join(f"{place},{place / 7},{'uvw'[place % 3]}\n" for place in range(count))
        (tmp_path / f"{name}.csv").write_text(f"a,b,y\n{rows}", encoding="utf-8")
    data = {
        "source": str(tmp_path / "mine.csv"),
        "validation": str(tmp_path / "more.csv"),
        "validation_share": 0.5,
    }
    seen = Events()
    run_study(small_study(data=data), tmp_path / "run", seen)
    kept = TrainingData.load(RunFolder(tmp_path / "run").cache)
    expected = np.array([[place, place / 7] for place in (*range(48), *range(8))], np.float32)
    np.testing.assert_array_equal(kept.inputs, expected)
    assert sorted(kept.split.training) == list(range(48))
    assert sorted(kept.split.validation) == list(range(48, 56))
    with Store(tmp_path / "run" / "results.sqlite") as store:
        summary, samples = store.data() or pytest.fail("nothing kept")
    assert (summary.training, summary.validation, summary.shape) == ((16, 16, 16), (3, 3, 2), (2,))
    assert samples == []
    assert summary.notes == ("validation_share = 0.5 has no effect: the validation part is given.",)
    assert summary.notes[0] in seen.notes


def test_too_large_a_batch_is_refused_before_anything_is_trained(tmp_path: Path):
    with pytest.raises(DataError, match="got batch size 64 and 48 examples"):
        run_study(small_study(batch_sizes=[8, 64]), tmp_path / "run", Events())
    assert states(tmp_path / "run") == []


def test_a_cache_that_finds_no_room_is_told(tmp_path: Path):
    study = small_study()
    with RunFolder(tmp_path / "run").claim(study):
        (tmp_path / "run" / "cache").touch()
    with pytest.raises(RunFolderError, match="the data must find room here, but"):
        run_study(study, tmp_path / "run", Events())


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/batchscope", "run", "demo", "--out", "my runs"], "batchscope run demo --out 'my runs'"),
        (["/x/batchscope/__main__.py", "run", "demo"], "python -m batchscope run demo"),
        (["notebook.py"], "notebook.py"),
    ],
)
def test_the_command_can_be_pasted_into_a_shell(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], command: str
):
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.surroundings()["command"] == command


def test_surroundings_tell_the_machine_and_no_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2hunter2")
    facts = provenance.surroundings()
    assert set(facts) == {"batchscope", "command", "system", "processor", "cores", "memory"}
    assert int(facts["cores"]) >= 1
    assert "hunter2" not in "".join(facts.values())
