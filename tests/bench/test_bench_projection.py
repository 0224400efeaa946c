"""Timelines, parts, projections and tables of the bench, on planted figures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from contenders import CONTENDERS, batchscope_events, moved_back
from projection import Full, Line, line_through, parts_of, project, spread
from protocol import Event, Protocol, StagePlan, Work, emit, emitted
from tables import Measured, marks, protocol_table, put_between_marks
from timeline import Stamped, Timeline, assemble
from watching import ContenderError, watch

STAGES = ("feature_extraction", "fine_tuning")
PROTOCOL = Protocol(
    name="planted",
    size=96,
    to_minus_one=True,
    batch_statistics=False,
    drop=False,
    first_trained="block_11_expand_BN",
    batch_sizes=(16, 64),
    replicates=1,
    stages=tuple(StagePlan(name, 2, 1e-4, name == "fine_tuning", None) for name in STAGES),
)
IMAGES = (512, 128)
FULL = Full(
    protocol=replace(PROTOCOL, replicates=3, stages=tuple(replace(s, epochs=10) for s in PROTOCOL.stages)),
    images=(5120, 1280),
    probes=4.0,
)
START_UP, FIRST, CLOSING, PROBES = 7.0, 3.0, 2.0, 0.5
SECONDS = {("feature_extraction", 16): 2.0, ("feature_extraction", 64): 1.0, ("fine_tuning", 16): 8.0}
SECONDS |= {("fine_tuning", 64): 4.0}


def planted(workers: int = 1, start_up: float = START_UP, first: float = FIRST) -> Timeline:
    """Trials of the same known parts; on two workers, both begin at once and the second is done sooner."""
    stamped, at, ends = [], start_up, []
    for size in PROTOCOL.batch_sizes:
        at = start_up if workers == 2 else at
        stamped.append(Stamped(at, Event("started", (size, 1))))
        for stage in STAGES:
            for epoch in (1, 2):
                probes = PROBES if epoch == 2 else 0.0
                at += SECONDS[stage, size] + (first if epoch == 1 else 0.0) + probes
                work = Work.of(PROTOCOL, size, *IMAGES)
                event = Event("epoch", (size, 1), stage, epoch, work, SECONDS[stage, size] / 2)
                stamped.append(Stamped(at, event, probes))
        stamped.append(Stamped(at, Event("ended", (size, 1))))
        ends.append(at)
    return assemble(stamped, max(ends) + CLOSING, 2_500_000_000)


def test_a_timeline_has_what_was_planted():
    timeline = planted()
    assert timeline.start_up == START_UP
    assert timeline.closing == pytest.approx(CLOSING)
    assert timeline.parallel == pytest.approx(1.0)
    assert timeline.probe_seconds == pytest.approx(4 * PROBES)
    assert timeline.wall == pytest.approx(
        START_UP + 2 * sum(SECONDS.values()) + 4 * (FIRST + PROBES) + CLOSING
    )
    assert [epoch.seconds for epoch in timeline.epochs[:4]] == pytest.approx([5.0, 2.0, 11.0, 8.0])


def test_parts_are_found_again():
    parts = parts_of(planted())
    assert parts.start_up == Line(START_UP)
    assert parts.first.constant == pytest.approx(4 * FIRST)
    assert parts.probes == pytest.approx(4 * PROBES)
    assert {key: seconds for key, (seconds, _) in parts.epochs.items()} == pytest.approx(SECONDS)
    assert parts.epoch_seconds("fine_tuning") == pytest.approx(12.0)


@pytest.mark.parametrize("probes", [False, True])
def test_the_projection_is_the_formula_in_the_document(probes: bool):
    # Ten times the images, ten epochs a stage, three replicates.
    expected = START_UP + CLOSING + 3 * (4 * FIRST + 10 * 10 * sum(SECONDS.values()))
    expected += 3 * 4 * PROBES * 4.0 if probes else 0.0
    assert project(parts_of(planted()), FULL, probes=probes) == pytest.approx(expected)


def test_a_reduced_run_projects_to_itself():
    itself = Full(PROTOCOL, IMAGES, probes=1.0)
    for workers in (1, 2):
        timeline = planted(workers)
        assert project(parts_of(timeline), itself, probes=True) == pytest.approx(timeline.wall)


def test_trials_that_run_at_once_share_the_time():
    alone, together = planted(1), planted(2)
    durations = [
        2 * sum(SECONDS[stage, size] for stage in STAGES) + 2 * (FIRST + PROBES) for size in (16, 64)
    ]
    assert together.busy == pytest.approx(sum(durations)) == pytest.approx(alone.busy)
    assert together.parallel == pytest.approx(sum(durations) / max(durations))


def test_what_grows_with_images_is_told_from_what_does_not():
    line = line_through(10.0, 512, 14.0, 1024)
    assert (line.at(512), line.at(1024), line.at(14_000)) == pytest.approx((10, 14, 6 + 4 * 14_000 / 512))
    assert line_through(10.0, 512, 9.0, 1024) == Line(10.0)
    parts = replace(parts_of(planted()), start_up=line)
    difference = project(parts, FULL, probes=False) - project(parts_of(planted()), FULL, probes=False)
    assert difference == pytest.approx(line.at(5120) - START_UP)


def test_dropped_examples_are_not_counted():
    dropping = replace(FULL.protocol, drop=True)
    expected = (
        START_UP
        + CLOSING
        + 3 * (4 * FIRST + 10 * sum(t * (5130 // b * b) / 512 for (_, b), t in SECONDS.items()))
    )
    full = Full(dropping, (5130, 1280), 1.0)
    assert project(parts_of(planted()), full, probes=False) == pytest.approx(expected)


def test_one_epoch_a_stage_is_refused():
    timeline = planted()
    short = replace(timeline, epochs=tuple(epoch for epoch in timeline.epochs if epoch.epoch == 1))
    with pytest.raises(ValueError, match="at least two epochs"):
        parts_of(short)


def test_a_trial_that_does_not_end_is_refused():
    with pytest.raises(ValueError, match="every trial must end"):
        assemble([Stamped(1.0, Event("started", (16, 1)))], 2.0, 1)


def test_events_survive_the_pipe(capsys: pytest.CaptureFixture[str]):
    event = Event("epoch", (16, 1), "fine_tuning", 2, Work(32, 512, 128), 1.5, {"val_loss": 0.25})
    emit(event)
    assert emitted(capsys.readouterr().out) == event
    assert emitted("some other line") is None


HISTORY = pd.DataFrame(
    {
        "batch_size": [16, 16, 16],
        "replicate": 1,
        "epoch": [1, 2, 3],
        "stage": ["feature_extraction", "fine_tuning", "fine_tuning"],
        "updates": [32, 64, 96],
        "examples": [512, 1024, 1536],
        "seconds": [2.0, 10.0, 17.0],
        "probe_seconds": [0.5, float("nan"), 0.25],
    }
)
LINES = [
    (0.5, "reading the data of data"),
    (3.0, "b16-r1 epoch 1 feature_extraction: accuracy 0.5 val 0.5, loss 1 val 1, 9 examples/s, 1 min left"),
    (12.0, "b16-r1 epoch 2 fine_tuning: accuracy 0.5 val 0.5"),
    (20.0, "b16-r1 epoch 3 fine_tuning: accuracy 0.5 val 0.5"),
    (20.1, "b16-r1 complete (1 of 1 trials)"),
]


def test_batchscopes_lines_and_history_make_events():
    *epochs, ended = batchscope_events(LINES, HISTORY, {16: 128})
    assert [(item.at, item.event.epoch, item.probe_seconds) for item in epochs] == [
        (3.0, 1, 0.5),
        (12.0, 1, 0.0),
        (20.0, 2, 0.25),
    ]
    assert {item.event.work for item in epochs} == {Work(32, 512, 128)}
    assert [item.event.training_seconds for item in epochs] == [2.0, 8.0, 7.0]
    assert (ended.at, ended.event) == (20.1, Event("ended", (16, 1)))


def test_a_start_is_never_behind_the_first_epoch():
    late, early, other = (
        Stamped(at, Event("started", (size, 1))) for at, size in ((9.2, 16), (1.0, 32), (5.0, 64))
    )
    epochs = [
        Stamped(9.0, Event("epoch", (16, 1), "one", 1, Work(1, 8, 2), 0.5), probe_seconds=0.25),
        Stamped(9.5, Event("epoch", (16, 1), "one", 2, Work(1, 8, 2), 0.1)),
        Stamped(9.0, Event("epoch", (32, 1), "one", 1, Work(1, 8, 2), 0.5)),
        Stamped(9.0, Event("epoch", (64, 1), "one", 1, Work(1, 8, 2), 4.0)),
    ]
    assert [start.at for start in moved_back([late, early, other], epochs)] == [8.25, 1.0, 5.0]


def test_a_trial_that_failed_stops_the_bench():
    with pytest.raises(ContenderError, match="b16-r1 failed"):
        list(batchscope_events([(1.0, "b16-r1 failed (1 of 1 trials)")], HISTORY, {16: 128}))


def test_a_contender_is_watched(tmp_path: Path):
    seen = watch(["sh", "-c", "echo one; sleep 0.3; echo two"], tmp_path / "log")
    assert [text for _, text in seen.lines] == ["one", "two"]
    assert seen.lines[0][0] < seen.lines[1][0] <= seen.wall
    assert seen.peak.whole >= seen.peak.private > 0
    with pytest.raises(ContenderError, match=r"exit code 3:\nwhy"):
        watch(["sh", "-c", "echo why >&2; exit 3"], tmp_path / "log")


def test_memory_is_that_of_the_whole_tree_and_what_is_shared_counts_once(tmp_path: Path):
    ready, stop, shared = (tmp_path / name for name in ("ready", "stop", "shared"))
    shared.write_bytes(b"x" * 60_000_000)
    hold = (
        f"import mmap; block = bytearray(b'x') * 60_000_000; file = open('{shared}', 'rb'); "
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(mapped[::4096])"
    )
    child = (
        f"{hold}; from pathlib import Path; Path('{ready}').touch()\nwhile not Path('{stop}').exists(): pass"
    )
    parent = f"{hold}; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    looks: list[float] = []

    def poll(at: float) -> None:
        looks.extend([at] if ready.exists() else [])
        if len(looks) == 7:  # a whole look at memory lies between
            stop.touch()

    peak = watch([sys.executable, "-c", parent], tmp_path / "log", poll).peak
    assert 120e6 < peak.private < 160e6
    assert peak.private + 60e6 < peak.whole < peak.private + 100e6


def measured() -> Measured:
    slow = planted(start_up=9.0)
    runs = {CONTENDERS[0]: [planted(2)] * 3, CONTENDERS[1]: [slow] * 3, CONTENDERS[2]: [planted()] * 3}
    parts = {name: [parts_of(run) for run in found] for name, found in runs.items()}
    return Measured(FULL, runs, parts, trained_macs=10_000_000, matrix_rate=100.0, check=(55.0, 50.0))


def test_the_table_has_the_planted_figures():
    figures = measured()
    rows = {row[0]: row[1:] for row in _cells(protocol_table(figures))}
    ours, _, torch = (figures.runs[name][0] for name in CONTENDERS)
    assert rows["Reduced protocol, s"][2] == f"{torch.wall:.1f} ({torch.wall:.1f} to {torch.wall:.1f})"
    assert rows["of which start-up"][1].startswith("9.0 ")
    assert rows["of which analysis and page"] == ["2.0 (2.0 to 2.0)", "", ""]
    assert rows["Peak memory, GB"] == ["2.5"] * 3
    # Two trials of 512 images, in half of 8 and of 4 seconds.
    assert rows["fine_tuning: training, images/s"][2] == f"{2 * 512 / 6:,.0f}"
    ratio = torch.wall / ours.wall
    assert rows["reduced protocol as a whole"][2] == f"{ratio:.1f} times ({ratio:.1f} to {ratio:.1f})"
    whole = [project(figures.parts[name][0], FULL, probes=True) for name in CONTENDERS]
    assert rows["**Full protocol, projected, h**"] == [f"**{seconds / 3600:.2f}**" for seconds in whole]


def test_the_share_of_the_matrix_rate():
    figures = measured()
    rate = 2 * 512 / (6 / figures.runs[CONTENDERS[0]][0].parallel)
    text = protocol_table(figures)
    assert f"reaches {6 * 10_000_000 * rate / 100e9:.0%} of" in text
    assert "took 50 s; the parts of the runs above predict 55 s (+10%)" in text


def _cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


BEGIN, END = marks("bench")


def test_the_median_and_range():
    assert spread([3.0, 1.0, 2.0]) == spread([2.0, 3.0, 1.0])
    found = spread([3.0, 1.0, 2.5])
    assert (found.low, found.median, found.high) == (1.0, 2.5, 3.0)


def test_the_table_stands_between_the_marks(tmp_path: Path):
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for text in ("new", "newer\n"):
        put_between_marks(document, "bench", text)
    assert document.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnewer\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["none", f"{BEGIN} only", f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_missing_marks_are_refused(tmp_path: Path, text: str):
    document = tmp_path / "page.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="once each"):
        put_between_marks(document, "bench", "new")
    assert document.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["bench", "growth", "operations"])
def test_the_document_has_the_marks(project: Path, name: str):
    text = (project / "docs" / "performance.md").read_text(encoding="utf-8")
    assert [text.count(mark) for mark in marks(name)] == [1, 1]
