from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import batchscope
from batchscope.analysis import Analysis, analyze
from batchscope.history import read_history


@pytest.fixture(scope="session")
def published() -> pd.DataFrame:
    return read_history(Path(batchscope.__file__).parent / "published" / "published_2019.csv")


@pytest.fixture(scope="session")
def analysis(published: pd.DataFrame) -> Analysis:
    return analyze(published)
