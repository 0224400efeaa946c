"""Where a history to analyse may come from: the published one, or a file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from batchscope.errors import HistoryError
from batchscope.history import SUFFIXES, read_history
from batchscope.published import published_history

__all__ = ["PUBLISHED", "load_source"]

PUBLISHED = "published"


def load_source(source: str) -> pd.DataFrame:
    """Reads ``published`` or a CSV or Parquet file.

    A run's folder is not read here: it holds a database, which is `batchscope.running`'s.

    Raises:
        HistoryError: It is neither, or the file cannot be read as a history.
    """
    if source == PUBLISHED:
        return published_history()
    path = Path(source)
    if path.suffix not in SUFFIXES:
        raise HistoryError(
            f"a source must be {PUBLISHED!r}, a history that ends in {' or '.join(SUFFIXES)}, or the folder "
            f"of a run, but got {source!r}, which is none of these"
        )
    return read_history(path)
