from pathlib import Path

import pandas as pd
import pytest

from batchscope.analysis import analyze, load_source
from batchscope.errors import HistoryError
from batchscope.history import COLUMNS
from batchscope.published import published_history


def test_published_history_is_complete() -> None:
    history = published_history()
    assert len(history) == 240
    assert list(history.columns) == [name for name in COLUMNS if name != "seconds"]
    assert set(history.study) == {"aerial-cactus-2019-published"}
    assert history.trial.nunique() == 12
    assert history.trial.iloc[0] == "b16-r1"
    rates = history.groupby("stage").learning_rate.unique()
    assert rates["feature_extraction"].tolist() == [1e-4]
    assert rates["fine_tuning"].tolist() == [2e-5]
    assert (history.updates == 14_000 // history.batch_size * history.epoch).all()
    assert (history.examples == history.updates * history.batch_size).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_give_the_same_analysis(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"history{suffix}"
    history = load_source("published")
    if suffix == ".csv":
        history.to_csv(path, index=False)
    else:
        history.to_parquet(path, index=False)
    pd.testing.assert_frame_equal(load_source(str(path)), published_history())
    assert repr(analyze(load_source(str(path)))) == repr(analyze(published_history()))


@pytest.mark.parametrize("source", ["Published", "runs/one", "history.xlsx"])
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(
        HistoryError, match=r"'published', a history that ends in \.csv or \.parquet, or the folder of a run"
    ):
        load_source(source)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot be read as a history"):
        load_source(str(tmp_path / "none.csv"))
