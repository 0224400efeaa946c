from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from planted import planted
from rich.console import Console

from batchscope.analysis import Analysis, Sentence, Settings, analyze
from batchscope.report.tables import analysis_tables
from batchscope.report.terminal import print_analysis, summary_table
from probed import probed_history


def test_tables_of_the_published_study(analysis: Analysis) -> None:
    tables = {table.key: table for table in analysis_tables(analysis)}
    assert list(tables) == [
        "summary",
        "comparisons",
        "trend",
        "updates-share",
        "spread",
        "flags",
        "exchangeability",
        "choices",
    ]
    for table in tables.values():
        assert all(len(row) == len(table.columns) for row in table.rows), table.key
    summary = tables["summary"]
    assert summary.columns == (
        "Epoch",
        "Batch size",
        "Replicates",
        "Training accuracy",
        "Validation accuracy",
        "Observed gap",
    )
    last = summary.rows[-1]
    assert [cell.text for cell in last] == ["20", "128", "3", "0.992", "0.736", "0.256"]
    assert last[5].detail == "sd 0.035\n0.169 to 0.343"
    flags = tables["flags"]
    assert flags.columns == (
        "Stage",
        "Batch size",
        "Replicate",
        "Its mean",
        "Others",
        "Studentised residual",
    )
    assert [cell.text for cell in flags.rows[0]] == ["fine_tuning", "32", "1", "0.948", "0.988", "60.0"]
    assert [row[5].value for row in flags.rows] == [flag.score for flag in analysis.flags]
    assert [row[3].detail for row in flags.rows] == ["epochs\n16 to 20"] * 2
    assert [row[5].detail for row in flags.rows] == ["threshold 5.2"] * 2
    assert flags.note.startswith("Mean training accuracy over the epochs named, against the other replicates")
    assert tables["comparisons"].rows[2][4].text == "\u22120.245"
    shares = tables["updates-share"].rows
    assert [cell.text for cell in shares[0][:3]] == ["feature_extraction", "88%", "77%"]
    assert shares[1][2].detail == "\u22127% to 11%"


def test_cells_sort_by_unrounded_numbers(analysis: Analysis, published: pd.DataFrame) -> None:
    summary = analysis_tables(analysis)[0]
    here = published[(published["batch_size"] == 128) & (published["epoch"] == 20)]
    assert summary.rows[-1][4].value == pytest.approx(here["val_accuracy"].mean(), abs=1e-15)
    assert all(summary.numeric(index) for index in range(len(summary.columns)))


def test_empty_columns_are_left_out(analysis: Analysis) -> None:
    names = {table.key: table.columns for table in analysis_tables(analysis)}
    assert "Remark" not in names["comparisons"]
    plain = replace(analysis, comparisons=(replace(analysis.comparisons[0], reason="too few"),))
    remarked = {table.key: table.columns for table in analysis_tables(plain)}
    assert "Remark" in remarked["comparisons"]


def test_what_does_not_exist_is_a_dash_and_says_why() -> None:
    history = planted(
        lambda size, replicate, epoch: math.nan if size == 32 else 0.8, batch_sizes=(16, 32), replicates=1
    )
    summary = analysis_tables(analyze(history, Settings(resamples=100)))[0]
    alone, lost = summary.rows[-2:]
    assert alone[4].detail == "no interval from one replicate"
    assert lost[4].text == "\u2013"
    assert lost[2].detail == "1 diverged"
    assert lost[2].value == 0


def test_terminal_prints_the_verdict_first(analysis: Analysis) -> None:
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        print_analysis(analysis, console)
    text = capture.get()
    assert text.splitlines()[0].strip() == "Verdict"
    first = analysis.verdict[0].text.split(":")[0]
    assert text.index(first) < text.index("Summary by batch size") < text.index("Updates or epochs?")
    assert "0.169 to 0.343" in text


def test_flags_fit_into_80_columns_without_a_broken_word(analysis: Analysis) -> None:
    stages = ("feature_extraction", "feature_extraction")
    flags = [replace(flag, stage=stage) for flag, stage in zip(analysis.flags, stages, strict=True)]
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        print_analysis(replace(analysis, flags=tuple(flags)), console)
    lines = [line.split() for line in capture.get().splitlines()]
    start = lines.index(["Replicates", "that", "do", "not", "look", "like", "the", "others"])
    assert lines[start + 1 : start + 3] == [
        ["Batch", "Studentised"],
        ["Stage", "size", "Replicate", "Its", "mean", "Others", "residual"],
    ]
    assert lines[start + 4 : start + 7] == [
        ["feature_extraction", "32", "1", "0.948", "0.988", "60.0"],
        ["epochs", "threshold", "5.2"],
        ["16", "to", "20"],
    ]


@pytest.mark.parametrize(("width", "parts"), [(80, 2), (120, 1)])
def test_terms_fit_into_80_columns_stage_by_stage(width: int, parts: int) -> None:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        print_analysis(analyze(probed_history(), Settings(resamples=100)), console)
    lines = [" ".join(line.split()) for line in capture.get().splitlines()]
    titles = [line for line in lines if line.startswith("What the observed gap is made of")]
    assert len(titles) == parts
    start = lines.index(titles[-1])
    if parts > 1:
        assert titles == [
            f"What the observed gap is made of: {stage}" for stage in ("feature_extraction", "fine_tuning")
        ]
        assert lines[start + 2] == "Epoch size Gap Averaging Augmentation BatchNorm Generalization Lag"
    # The note on how to read it stands once, below the last part.
    assert sum("The observed gap is the sum of" in line for line in lines) == 1


def test_terminal_takes_markup_as_text(analysis: Analysis) -> None:
    hostile = replace(analysis, verdict=(Sentence("x", "[red]stage[/] [link=file:///]x", ()),))
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        print_analysis(hostile, console)
    assert "[red]stage[/] [link=file:///]x" in capture.get()


def test_summary_table_has_a_row_per_batch_size_and_epoch(analysis: Analysis) -> None:
    table = summary_table(analysis)
    assert table.row_count == 8
    assert [str(column.header) for column in table.columns][:3] == ["Epoch", "Batch\nsize", "Replicates"]
