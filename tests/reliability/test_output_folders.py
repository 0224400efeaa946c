"""Writing images where there is no room or no right, and reading where there is none."""

from __future__ import annotations

import errno
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscope.data import fetch_competition, kaggle_writer, load_dataset, write_cacti
from batchscope.data.new_folder import UNFINISHED
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from data_faults import no_room_beyond, open_folder, tree, without_rights
from image_samples import some_images, write_kaggle

FULL_DISK = r"cannot be written: File too large; free space, or name a folder on another disk"
NO_RIGHT = r"cannot be written: Permission denied; name a folder in which you may write"


def cacti(folder: Path) -> None:
    write_cacti(folder, 40, 3)


@pytest.fixture(params=["zip", "folder"])
def fetch(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], object]:
    """Fetches the competition from a client that has it already, as an archive or unpacked."""
    cache = write_kaggle(tmp_path / "cache", some_images(40, 32, 32))
    if request.param == "folder":
        with zipfile.ZipFile(cache / "train.zip") as archive:
            archive.extractall(cache)
        (cache / "train.zip").unlink()
    install(monkeypatch, lambda _: str(cache))
    return fetch_competition


def install(monkeypatch: pytest.MonkeyPatch, download: Callable[[str], str]) -> None:
    client = types.ModuleType("kagglehub")
    client.competition_download = download
    monkeypatch.setitem(sys.modules, "kagglehub", client)


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("room", [0, 2_000, 30_000])
def test_a_full_disk_leaves_nothing_half(tmp_path: Path, room: int, made: bool) -> None:
    folder = tmp_path / "new" / "cacti"
    if made:
        folder.mkdir(parents=True)
    before = {name: content for name, (_, _, content) in tree(tmp_path).items()}
    with no_room_beyond(room), pytest.raises(DataError, match=f"{folder}: {FULL_DISK}"):
        cacti(folder)
    assert {name: content for name, (_, _, content) in tree(tmp_path).items()} == before
    cacti(folder)
    assert {path.name for path in folder.iterdir()} == {"train.csv", "train.zip"}


def test_what_appears_in_part_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, renamed = Path.rename, []

    def once(self: Path, target: Path) -> Path:
        renamed.append(target.name)
        if len(renamed) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(DataError, match="Input/output error"):
        cacti(tmp_path / "cacti")
    assert len(renamed) == 2
    assert not (tmp_path / "cacti").exists()


@pytest.mark.parametrize("room", [0, 1_000])
def test_a_full_disk_while_the_competition_is_copied(
    tmp_path: Path, fetch: Callable[[Path], object], room: int
) -> None:
    before = tree(tmp_path / "cache")
    with no_room_beyond(room), pytest.raises(DataError, match=FULL_DISK) as caught:
        fetch(tmp_path / "new")
    assert len(str(caught.value)) < 300
    assert not (tmp_path / "new").exists()
    fetch(tmp_path / "new")
    assert len(load_dataset(DataSpec(source=str(tmp_path / "new")), 32, "nearest")) == 40
    assert tree(tmp_path / "cache") == before


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
def test_a_cache_of_the_client_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def download(_: str) -> str:
        raise OSError(number, "https://someone:KGAT_0123@kaggle", "/cache/KGAT_0123")

    install(monkeypatch, download)
    with pytest.raises(
        DataError, match=f"cache must be writable.*{said}; free space, or set KAGGLEHUB_CACHE"
    ) as caught:
        fetch_competition(tmp_path / "new")
    assert "KGAT" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [cacti, fetch_competition])
@pytest.mark.parametrize("name", ["", "new", "new/deep"])
def test_a_folder_that_may_not_be_written_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], name: str
) -> None:
    monkeypatch.setattr(kaggle_writer, "generate_cacti", lambda *_: pytest.fail("drawn"))
    install(monkeypatch, lambda _: pytest.fail("fetched"))
    with open_folder() as place:
        place.chmod(0o555)
        with without_rights(), pytest.raises(DataError, match=f"{place / name}: {NO_RIGHT}"):
            write(place / name)
        assert list(place.iterdir()) == []
        place.chmod(0o755)


@pytest.mark.parametrize("left", ["mine.txt", f"{UNFINISHED}/train.zip"])
def test_a_folder_in_use_is_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(kaggle_writer, "generate_cacti", lambda *_: pytest.fail("drawn"))
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_bytes(b"mine")
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"must be a new or an empty folder, but it holds"):
        cacti(tmp_path)
    assert tree(tmp_path) == before


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kaggle_writer, "_jpeg", stop)
    with pytest.raises(KeyboardInterrupt):
        cacti(tmp_path / "new" / "cacti")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from batchscope.data import kaggle_writer

drawn, jpeg = [], kaggle_writer._jpeg

def count(image):
    drawn.append(image)
    if len(drawn) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return jpeg(image)

kaggle_writer._jpeg = count
kaggle_writer.write_cacti(Path(sys.argv[1]), 40, 3)
"""


def test_what_a_kill_leaves_is_recognised(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert subprocess.run([sys.executable, "-c", KILLED, str(killed)], check=False).returncode == -9
    assert [path.name for path in killed.iterdir()] == [UNFINISHED]
    with pytest.raises(
        DataError, match=f"must be complete, but {UNFINISHED}/ in it shows that writing it was stopped"
    ):
        load_dataset(DataSpec(source=str(killed)), 32, "nearest")
    with pytest.raises(
        DataError, match=f"it holds {UNFINISHED}/, from a command that was stopped .*remove it"
    ):
        cacti(killed)
    for path in (killed / UNFINISHED).iterdir():
        path.unlink()
    (killed / UNFINISHED).rmdir()
    cacti(killed)
    cacti(whole)
    for name in ("train.csv", "train.zip"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("locked", "message"),
    [
        ("data", "cannot be read: Permission denied; give yourself the right"),
        ("data/train", "train: the folder cannot be read: Permission denied; give yourself the right"),
        ("data/train.csv", "train.csv: the table cannot be read: Permission denied; give yourself the right"),
        ("data/train/0001.png", "0001.png: cannot be read: Permission denied; give yourself the right"),
        ("zipped/train.zip", "train.zip: cannot be read: Permission denied; give yourself the right"),
        ("classes/a", "a: the folder cannot be read: Permission denied; give yourself the right"),
    ],
)
def test_what_may_not_be_read_is_named(locked: str, message: str) -> None:
    with open_folder() as place:
        write_kaggle(place / "zipped", some_images(4))
        write_kaggle(place / "data", some_images(4))
        for folder in (place / "data", place / "classes" / "a", place / "classes" / "b"):
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(place / "zipped" / "train.zip") as archive:
                archive.extractall(folder)
        (place / "data" / "train.zip").unlink()
        for name in ("a", "b"):
            for path in (place / "classes" / name / "train").iterdir():
                path.rename(path.parents[1] / path.name)
            (place / "classes" / name / "train").rmdir()
        spec = DataSpec(source=str(place / locked.partition("/")[0]))
        assert len(load_dataset(spec, 32, "nearest")) == (8 if locked.startswith("classes") else 4)
        mode = (place / locked).stat().st_mode
        (place / locked).chmod(0)
        with without_rights(), pytest.raises(DataError, match=message):
            load_dataset(spec, 32, "nearest")
        (place / locked).chmod(mode)
