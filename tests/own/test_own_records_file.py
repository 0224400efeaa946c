"""A file of records, followed while a program writes it in whatever way it likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.errors import TrainingError
from batchscope.own.records_file import RecordsFile


def test_each_line_is_given_once_and_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    followed = RecordsFile(path)
    assert followed.new_lines() == (False, [])
    path.write_bytes(b"one\n\n  \ntw")
    assert followed.new_lines() == (False, ["one"])
    assert followed.new_lines() == (False, [])
    with path.open("ab") as file:
        file.write(b"o\r\nthr\xc3")
    assert followed.new_lines() == (False, ["two\r"])
    with path.open("ab") as file:
        file.write(b"\xa4\xff")
    assert followed.new_lines() == (False, [])
    assert followed.new_lines(complete=True) == (False, ["thr\u00e4\ufffd"])
    assert followed.new_lines(complete=True) == (False, [])


@pytest.mark.parametrize(
    "begun_again", [b"", b"one\n", b"One\ntwo\nthree\n", b"other\nthings that are longer\n"]
)
def test_a_file_that_is_begun_again_is_read_again(tmp_path: Path, begun_again: bytes):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"one\ntwo\n")
    followed = RecordsFile(path)
    followed.new_lines()
    path.write_bytes(begun_again)
    assert followed.new_lines() == (True, begun_again.decode().splitlines())


def test_a_file_that_is_written_whole_each_time_is_as_good_as_one_that_grows(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    followed, seen = RecordsFile(path), []
    for count in range(1, 5):
        path.write_text("".join(f"line {number}\n" for number in range(count)))
        begun_again, lines = followed.new_lines()
        assert not begun_again
        seen += lines
    assert seen == ["line 0", "line 1", "line 2", "line 3"]


def test_what_cannot_be_read_is_told(tmp_path: Path):
    with pytest.raises(TrainingError, match="the records must be readable, but: "):
        RecordsFile(tmp_path).new_lines()
