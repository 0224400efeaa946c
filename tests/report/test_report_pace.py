"""Throughput and memory: tables, figures and the page of sizes that were tried."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from batchscope.analysis import Sizing, analyze, size_up
from batchscope.records import PEAK_MEMORY, MemoryUse, SizesTried, StagePace, TriedSize
from batchscope.report.encodings import log_axis
from batchscope.report.figures import all_figures
from batchscope.report.pace import sizing_figure, sizing_info, throughput_info
from batchscope.report.pace_tables import sizing_tables, throughput_table
from batchscope.report.render import png
from batchscope.report.sizing import print_sizing, sizing_page_html, write_sizing_page, write_sizing_pictures
from batchscope.report.table import NOTHING

NASTY = "<b>[red]one"


def history(memory: bool = True) -> pd.DataFrame:
    """Two stages of two epochs, two replicates: 100 and 150 examples/s at batch 8 and 16 in the second."""
    rows = []
    for size, rate in ((8, 100.0), (16, 150.0)):
        for replicate in (1, 2):
            seconds = 0.0
            for epoch in (1, 2, 3, 4):
                seconds += 9.0 if epoch % 2 else 300 / rate
                row = {"batch_size": size, "replicate": replicate, "epoch": epoch, "examples": 300 * epoch}
                row |= {"updates": 300 // size * epoch, "seconds": seconds, "val_loss": 1.0}
                rows.append(
                    row | {"stage": "head_part" if epoch < 3 else "tail_part", PEAK_MEMORY: 1e9 * size}
                )
    made = pd.DataFrame(rows)
    return made if memory else made.drop(columns=PEAK_MEMORY)


def sizing(limit: int | None = 10**9) -> Sizing:
    def tried(size: int) -> TriedSize:
        memory = (MemoryUse("resident", 10**8, 10**8 + 10**6 * size, limit),)
        return TriedSize(size, (StagePace(NASTY, 64, 2, (0.1, 0.11, 0.12, 0.13), memory),))

    failed = TriedSize(128, (), NASTY)
    facts = {"threads": "2", "command": NASTY}
    return size_up(SizesTried(NASTY, (tried(32), tried(64), failed), 128, "the end", facts))


def test_the_table_has_the_figures_of_each_stage_and_batch_size():
    table = throughput_table(analyze(history()))
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["head_part", "8", "2", "100", "81.1", "8.00 GB"],
        ["head_part", "16", "2", "150", "111", "16.00 GB"],
        ["tail_part", "8", "2", "100", "81.1", "8.00 GB"],
        ["tail_part", "16", "2", "150", "111", "16.00 GB"],
    ]
    assert table.rows[0][3].detail == "100 to 100"
    assert throughput_table(analyze(history().drop(columns="seconds"))).rows == ()


def test_the_figure_has_a_panel_for_each_stage_and_its_memory():
    info = throughput_info(analyze(history()))
    assert info is not None
    assert [(panel.title, panel.axis, panel.proportional) for panel in info.panels] == [
        ("head part", "Examples per second", True),
        ("tail part", "Examples per second", True),
        ("head part", "Peak memory (MB)", False),
        ("tail part", "Peak memory (MB)", False),
    ]
    assert info.panels[1].points["value"].tolist() == pytest.approx([100, 150])
    assert info.panels[3].points["value"].tolist() == [8000, 16000]
    assert (
        info.title
        == "Throughput in tail part rises from 100 examples/s at batch 8 to 150 examples/s at batch 16"
    )
    bare = throughput_info(analyze(history(memory=False)))
    assert bare is not None
    assert len(bare.panels) == 2
    assert "memory" not in bare.caption
    assert throughput_info(analyze(history().drop(columns="examples"))) is None


def test_the_page_has_the_figure_where_there_are_figures():
    keys = [
        [figure.key for figure in all_figures(one, analyze(one))]
        for one in (history(), history().drop(columns="seconds"))
    ]
    assert ["throughput" in found for found in keys] == [True, False]
    labels = [figure.label for figure in all_figures(history(), analyze(history()))]
    assert labels == sorted(labels)


def test_throughputs_within_five_percent_are_no_rise():
    made = history()
    made["seconds"] = 9.0 * made["epoch"]
    info = throughput_info(analyze(made))
    assert info is not None
    assert info.title == "Throughput in tail part hardly depends on batch size: 33.3 to 33.3 examples/s"


def test_sizes_that_were_tried_have_a_row_each_and_one_by_stage():
    overall, stages = sizing_tables(sizing())
    assert [[cell.text for cell in row] for row in overall.rows] == [
        ["32", "278", NOTHING, "132 MB", "13%", ""],
        [
            "64",
            "557",
            "2.00",
            "164 MB",
            "16%",
            "largest that leaves room, fastest, as fast as any larger one, doubling pays up to here",
        ],
        ["128", NOTHING, NOTHING, NOTHING, NOTHING, f"does not fit: {NASTY}"],
    ]
    assert [cell.text for cell in stages.rows[0]] == [
        NASTY,
        "32",
        "4",
        "115",
        "278",
        "memory",
        "132 MB",
        "32 MB",
    ]
    assert stages.rows[0][2].detail == "of 2"
    assert "says nothing of speed or accuracy" in overall.note


def test_the_figure_of_sizes_has_the_limit_where_it_is_near():
    near = sizing_info(sizing(limit=400 * 10**6))
    assert near is not None
    assert [panel.limit for panel in near.panels] == [pytest.approx(math.nan, nan_ok=True), 400.0]
    shapes = [len(panel["layer"]) for panel in sizing_figure(near).spec()["concat"]]
    far = sizing_info(sizing(limit=10**12))
    assert far is not None
    assert [len(panel["layer"]) for panel in sizing_figure(far).spec()["concat"]] == [
        shapes[0],
        shapes[1] - 1,
    ]
    picture = Image.open(io.BytesIO(png(sizing_figure(near), 2)))
    assert picture.size[0] > 600
    assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_where_none_fits_there_is_no_figure_and_the_page_still_is(tmp_path: Path):
    found = size_up(SizesTried("s", (TriedSize(4, (), "no memory"),), 4, "the end", {}))
    assert sizing_info(found) is None
    assert write_sizing_pictures(found, tmp_path) == []
    text = sizing_page_html(found)
    assert "<img" not in text
    assert "Batch size 4 does not fit in memory (no memory)" in text


def test_the_page_escapes_names_and_holds_no_script(tmp_path: Path):
    write_sizing_page(sizing(), tmp_path / "sizes.html")
    text = (tmp_path / "sizes.html").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "<script" not in text
    assert "script-src &#39;none&#39;" in text
    assert text.count("data:image/svg+xml;base64,") == 1
    assert [path.name for path in write_sizing_pictures(sizing(), tmp_path)] == [
        "throughput-and-memory.png",
        "throughput-and-memory.svg",
    ]


def test_the_terminal_shows_advice_notes_and_names_as_they_are():
    console = Console(width=200, file=io.StringIO())
    print_sizing(sizing(), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.startswith(
        "Batch size 64 was trained with and leaves room, at 164 MB of 1.00 GB of memory (128 does not fit)"
    )
    assert NASTY in shown


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([10.0, 900.0], [10, 20, 50, 100, 200, 500, 1000]),
        ([950.0, 1050.0], [900, 1000, 1100, 1200]),
        ([math.nan, 0.0, -1.0], [1, 2, 5, 10]),
    ],
)
def test_logarithmic_axes_have_ticks_inside(values: list[float], ticks: list[float]):
    axis = log_axis("value", "x", pd.Series(values)).to_dict()
    low, high = axis["scale"]["domain"]
    assert axis["axis"]["values"] == ticks
    assert all(low <= tick <= high for tick in ticks)
