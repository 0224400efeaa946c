"""A run's folder: taken up again for the same study, refused for anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from batchscope.errors import RunFolderError, StudyError
from batchscope.records import Trial
from batchscope.running import folder
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store
from run_samples import FIRST, record, small_study


def begun(path: Path) -> RunFolder:
    place = RunFolder(path)
    with place.claim(small_study()) as store:
        store.plan([FIRST])
        store.add(FIRST, record(1))
    return place


def test_a_new_folder_is_made_and_the_same_study_goes_on_there(tmp_path: Path):
    place = begun(tmp_path / "deep" / "run")
    assert place.study() == small_study()
    with place.claim(small_study()) as store:
        assert store.trials()[0].epochs == 1


def test_an_empty_folder_may_be_used(tmp_path: Path):
    assert begun(tmp_path).study_file.is_file()


def test_another_study_is_refused_with_every_difference(tmp_path: Path):
    place = begun(tmp_path / "run")
    before = place.study_file.read_bytes()
    other = small_study(seed=8, batch_sizes=[8, 32], data={"source": "synthetic-cactus", "images": 70})
    with pytest.raises(RunFolderError) as caught, place.claim(other):
        pass
    assert str(caught.value).splitlines() == [
        f"{place.path}: holds a run of a study that differs from this one:",
        "  batch_sizes: [8, 16] -> [8, 32]",
        "  seed: 7 -> 8",
        "  data.images: 60 -> 70",
        "Give --out another folder, or repeat the command that began the run.",
    ]
    assert place.study_file.read_bytes() == before


def test_a_run_that_never_stored_an_epoch_gives_way_to_another_study(tmp_path: Path):
    place = RunFolder(tmp_path / "run")
    with place.claim(small_study()) as store:  # as when bad images or weights stop it
        store.plan([Trial(8, 1), Trial(16, 1)])
    # A kill between the two leaves the checkpoint of an epoch that never reached the store.
    for left in (place.checkpoints / "b8-r1.npz", place.features / "all-training.npy"):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()
    other = small_study(seed=8, batch_sizes=[8, 32])
    with place.claim(other) as store:
        assert store.trials() == []
    assert place.study() == other
    assert not any(
        path.is_file() for folder in (place.checkpoints, place.cache) for path in folder.rglob("*")
    )


def test_another_study_in_the_folder_ends_what_the_first_ones_session_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ended: list[str] = []
    monkeypatch.setattr(folder, "end_all", ended.append)
    place = RunFolder(tmp_path / "run")
    with place.claim(small_study()) as store:
        assert place.mark(store) == ""
        store.start_session("2026-01-01T00:00:00+00:00", {})
        first = place.mark(store)
    with place.claim(small_study()) as store:  # the same study, for whose session it is to end them
        assert (place.mark(store), ended) == (first, [])
    with place.claim(small_study(seed=8)) as store:
        store.start_session("2026-01-01T00:00:01+00:00", {})
        assert place.mark(store) != first
    assert ended == [first]


def test_results_of_a_run_that_ends_just_before_the_lock_is_free_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = RunFolder(tmp_path / "run")
    with place.claim(small_study()):
        pass
    lock = folder.sole_writer

    @contextmanager
    def after_another(path: Path) -> Iterator[None]:
        monkeypatch.setattr(folder, "sole_writer", lock)
        begun(place.path)
        with lock(path):
            yield

    monkeypatch.setattr(folder, "sole_writer", after_another)
    with pytest.raises(RunFolderError, match="differs from this one"), place.claim(small_study(seed=8)):
        pass
    with Store(place.database) as store:
        assert store.trials()[0].epochs == 1


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(RunFolderError, match="must be empty or hold a run"),
        RunFolder(tmp_path).claim(small_study()),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_beginning_that_was_interrupted_is_taken_up_again(tmp_path: Path):
    (tmp_path / "study.partial").write_text("name = ")
    assert begun(tmp_path).study() == small_study()
    assert not (tmp_path / "study.partial").exists()


def test_a_study_file_without_its_database_begins_anew(tmp_path: Path):
    place = begun(tmp_path / "run")
    place.database.unlink()
    with place.claim(small_study()) as store:
        assert store.trials() == []


@pytest.mark.parametrize("below", ["", "run"])
def test_where_no_folder_can_be_made_it_is_refused(tmp_path: Path, below: str):
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(RunFolderError, match="must be a folder that can be written"),
        RunFolder(file / below).claim(small_study()),
    ):
        pass


def test_a_frozen_study_edited_into_nonsense_is_refused(tmp_path: Path):
    place = begun(tmp_path / "run")
    place.study_file.write_text("name = = 1")
    with (
        pytest.raises(StudyError, match=r"run/study\.toml: 1 problem\n  the file: must be TOML"),
        place.claim(small_study()),
    ):
        pass
    place.study_file.write_text('name = "tiny"\nreplicates = 0')
    with pytest.raises(StudyError, match=r"replicates: must be greater than or equal to 1"):
        place.study()
    place.study_file.write_bytes(b"name = '\xff'")
    with pytest.raises(RunFolderError, match=r"holds no run \(its study\.toml cannot be read: .*utf-8"):
        place.study()


def test_a_folder_without_a_run_is_refused_for_reading(tmp_path: Path):
    with pytest.raises(RunFolderError, match=r"holds no run \(its study\.toml cannot be read: No such file"):
        RunFolder(tmp_path / "nowhere").study()


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path: Path):
    place = RunFolder(tmp_path / "run")
    with (
        place.claim(small_study()) as store,
        pytest.raises(RunFolderError, match="another is at it"),
        place.claim(small_study()),
    ):
        pass
    stops_inside(place)
    with place.claim(small_study()) as store:
        assert len(store.trials()) == 1


def stops_inside(place: RunFolder) -> None:
    """A run that ends by an error; its folder is free again."""
    with suppress(RuntimeError), place.claim(small_study()) as store:
        store.plan([FIRST])
        raise RuntimeError
