"""How a run may use the machine, as users say it."""

from __future__ import annotations

import pytest

from batchscope.errors import StudyError
from batchscope.running.options import RunOptions, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("0", 0), (7, 7)]
)
def test_sizes(text: str | int, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "8 XB", "-1", -1, "", "inf"])
def test_what_is_no_size_is_refused(text: str | int):
    with pytest.raises(StudyError) as caught:
        parse_size(text)
    expected = f"cache_limit: must be a number of bytes, or a size such as 500MB, 8GB or 8GiB (got {text!r})"
    assert str(caught.value) == f"run: 1 problem\n  {expected}"


@pytest.mark.parametrize("workers", [0, -1])
def test_no_worker_is_refused(workers: int):
    with pytest.raises(StudyError, match=rf"workers: must be at least 1 \(got {workers}\)"):
        RunOptions(workers=workers)
