"""The competition is fetched through Kaggle's client, here replaced at the network's edge."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscope.data import fetch_competition, load_dataset
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from image_samples import some_images, write_kaggle

SECRET = "KGAT_0123456789abcdef"


class UnauthenticatedError(Exception):
    """Named as kagglehub's."""


class KaggleApiHTTPError(Exception):
    """Named as kagglehub's; carries a response."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} for https://someone:{SECRET}@www.kaggle.com")
        self.response = types.SimpleNamespace(status_code=status, request={"Authorization": SECRET})


def install(monkeypatch: pytest.MonkeyPatch, download: Callable[[str], str]) -> None:
    client = types.ModuleType("kagglehub")
    client.competition_download = download
    monkeypatch.setitem(sys.modules, "kagglehub", client)


@pytest.mark.parametrize("unzipped", [False, True])
def test_files_are_copied_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unzipped: bool
) -> None:
    cache = write_kaggle(tmp_path / "cache", some_images(12))
    (cache / "test.zip").write_bytes(b"not wanted")
    if unzipped:
        import zipfile

        zipfile.ZipFile(cache / "train.zip").extractall(cache / "train")
        (cache / "train.zip").unlink()
    asked = []
    install(monkeypatch, lambda handle: asked.append(handle) or str(cache))
    folder = fetch_competition(tmp_path / "new" / "cacti")
    assert asked == ["aerial-cactus-identification"]
    assert {path.name for path in folder.iterdir()} == {"train.csv", "train" if unzipped else "train.zip"}
    assert len(load_dataset(DataSpec(source=str(folder)), 32, "nearest")) == 12


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (UnauthenticatedError(f"token {SECRET}"), "only to an account that has accepted its rules: sign in"),
        (KaggleApiHTTPError(401), "accepted its rules (it answered 401): sign in"),
        (KaggleApiHTTPError(403), "accepted its rules (it answered 403): sign in"),
        (KaggleApiHTTPError(503), "could not be fetched from Kaggle (KaggleApiHTTPError, HTTP status 503)"),
        (ConnectionError(f"https://x:{SECRET}@kaggle"), "could not be fetched from Kaggle (ConnectionError)"),
        (TimeoutError(), "could not be fetched from Kaggle (TimeoutError)"),
    ],
)
def test_a_refusal_says_what_to_do_without_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, what: str
) -> None:
    def refuse(handle: str) -> str:
        raise error

    install(monkeypatch, refuse)
    with pytest.raises(DataError) as caught:
        fetch_competition(tmp_path / "cacti")
    message = str(caught.value)
    assert what in message
    for way in ("--data synthetic-cactus", "a subfolder per class", "train.csv and train.zip in a browser"):
        assert way in message
    assert SECRET not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not (tmp_path / "cacti").exists()


def test_without_kagglehub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match=r"pip install 'batchscope\[kaggle\]'.*--data synthetic-cactus"):
        fetch_competition(tmp_path / "cacti")


def test_a_folder_in_use_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, lambda handle: pytest.fail("fetched"))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="must be a new or an empty folder"):
        fetch_competition(tmp_path)


def test_an_unexpected_download_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "other.csv").write_text("x")
    install(monkeypatch, lambda handle: str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"must hold train.csv and train.zip or train/, but holds other.csv"):
        fetch_competition(tmp_path / "cacti")


def test_the_real_client_is_called_as_it_wants() -> None:
    import inspect

    import kagglehub

    inspect.signature(kagglehub.competition_download).bind("aerial-cactus-identification")
