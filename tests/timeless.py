"""Figures without what clocks and the system's memory tell, which no two runs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from batchscope.records import PEAK_MEMORY, EpochRecord


def without_time(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    """Records as a trainer gives them."""
    return [
        replace(
            record,
            seconds=0.0,
            probes={name: _timeless(name, value) for name, value in record.probes.items()},
        )
        for record in records
    ]


def _timeless(name: str, value: float) -> float:
    return 0.0 if name == "probe_seconds" else value


def history_without_time(history: pd.DataFrame) -> pd.DataFrame:
    """A history as a run has it."""
    clocks = [name for name in history.columns if name.endswith("seconds") or name == PEAK_MEMORY]
    return history.drop(columns=clocks)
