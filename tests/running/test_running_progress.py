"""What a person sees: exact lines on a recorded console, with a clock that the test moves."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from batchscope.records import BatchProgress, Trial, TrialState
from batchscope.running import course, progress
from batchscope.running.course import time_left
from batchscope.running.progress import LinePrinter, LiveDisplay, Silent, Watcher
from run_samples import FIRST, SECOND, record

LONG = Trial(batch_size=16, replicate=100_000)


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(course, "time", SimpleNamespace(monotonic=lambda: moved.now))
    return moved


@pytest.mark.parametrize(
    ("running", "waiting", "images"),
    [
        ([40.0], [], 40),
        ([40.0], [10.0, 20.0], 70),
        ([40.0, 30.0], [], 40),
        ([40.0, 30.0], [20.0], 50),  # the second worker is free first, and takes it
        ([40.0, 30.0], [20.0, 20.0], 60),  # then the first
        ([0.0, 0.0], [96.0, 96.0, 96.0], 192),
    ],
)
def test_time_is_left_until_the_last_worker_is_done(
    running: list[float], waiting: list[float], images: float
):
    assert time_left(running, waiting, pace=2.0) == images / 2


@pytest.fixture
def page() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(page: io.StringIO) -> LinePrinter:
    return LinePrinter(Console(file=page, width=40))


def test_a_line_an_epoch(lines: LinePrinter, page: io.StringIO, clock: Clock):
    with lines as watcher:
        watcher.note("reading the data of [red]here[/red]")
        watcher.plan([FIRST, SECOND], 0, {FIRST: 96, SECOND: 96})
        clock.now += 60  # workers start
        watcher.started(FIRST, 0, 0.0)
        clock.now += 4
        watcher.batch(FIRST, BatchProgress("one", 1, 16, 48, 0.5, 1.0))
        watcher.epoch(FIRST, record(1))
        clock.now += 4
        watcher.epoch(FIRST, record(2, train_loss=float("nan")))
        watcher.ended(FIRST, TrialState.DIVERGED, None)
        watcher.started(SECOND, 0, 0.0)
        watcher.ended(SECOND, TrialState.FAILED, "Traceback:\nValueError: [bold] broken")
    pace = "24 examples/s"
    assert page.getvalue().splitlines() == [
        "reading the data of [red]here[/red]",
        "2 trials, 0 done before",
        f"b8-r1 epoch 1 one: accuracy 0.7000 val 0.6000, loss 0.5000 val 0.3333, {pace}, 0 min 12 s left",
        f"b8-r1 epoch 2 one: accuracy 0.8000 val 0.7000, loss nan val 0.2500, {pace}, 0 min 08 s left",
        "b8-r1 diverged (1 of 2 trials)",
        "b16-r1 failed (2 of 2 trials)",
        "Traceback:",
        "ValueError: [bold] broken",
    ]


def test_a_resumed_trials_pace_counts_new_images_only(lines: LinePrinter, page: io.StringIO, clock: Clock):
    lines.plan([FIRST, SECOND], 1, {FIRST: 96})
    lines.started(FIRST, 480, 20.0)
    clock.now += 8
    lines.epoch(FIRST, record(11, seconds=24.0))
    lines.ended(FIRST, TrialState.COMPLETE, None)
    text = page.getvalue().splitlines()
    assert text[0] == "2 trials, 1 done before"
    assert text[1].endswith("12 examples/s, 0 min 08 s left")
    assert text[2] == "b8-r1 complete (2 of 2 trials)"


def test_a_trial_that_begins_anew_counts_its_images_again(
    lines: LinePrinter, page: io.StringIO, clock: Clock
):
    lines.plan([FIRST], 0, {FIRST: 48})
    lines.started(FIRST, 96, 4.0)
    for epoch in (1, 2, 3):
        clock.now += 3
        lines.epoch(FIRST, record(epoch))
    endings = [line.rpartition(", loss ")[2].split(", ", 1)[1] for line in page.getvalue().splitlines()[1:]]
    assert endings == [
        "24 examples/s, 0 min 06 s left",
        "24 examples/s, 0 min 03 s left",
        "24 examples/s, 0 min 00 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0 min 00 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (90_061.0, "25 h 01 min"),
    ],
)
def test_durations_as_text(seconds: float | None, text: str):
    assert progress._duration(seconds) == text


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), record=True, force_terminal=True, width=100, height=20)


@pytest.fixture
def live(terminal: Console, clock: Clock) -> Iterator[LiveDisplay]:
    with LiveDisplay(terminal) as display:
        display.plan([FIRST, SECOND, LONG], 1, {FIRST: 96, LONG: 96})
        yield display


def shown(live: LiveDisplay, width: int = 80) -> list[str]:
    """The display's lines as they stand, on another terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with console.capture() as captured:
        console.print(live._render())
    return [line.rstrip() for line in Text.from_ansi(captured.get()).plain.splitlines()]


def test_the_display_shows_trials_stage_epoch_accuracy_pace_and_time_left(live: LiveDisplay, clock: Clock):
    bar, current = shown(live)
    assert bar.startswith("trials ")
    assert bar.endswith(" 1/3 ? left")
    assert current == "setting up"
    live.started(FIRST, 0, 0.0)
    assert shown(live)[1] == "b8-r1  starting"
    clock.now += 8
    live.batch(FIRST, BatchProgress("feature_extraction", 1, 32, 48, 0.71875, 4.0))
    bar, current = shown(live)
    assert bar.endswith(" 1/3 0 min 40 s left")
    assert current == "b8-r1  feature_extraction  epoch 1, 67%  accuracy 0.7188  8 examples/s"
    live.epoch(FIRST, record(1))
    bar, current = shown(live)
    assert bar.endswith(" 1/3 0 min 24 s left")
    assert current == "b8-r1  one  epoch 1  val 0.6000"
    live.ended(FIRST, TrialState.COMPLETE, None)
    assert " 2/3 " in shown(live)[0]


def test_long_names_are_cut_to_one_line(live: LiveDisplay):
    live.started(LONG, 0, 0.0)
    live.batch(LONG, BatchProgress("a" * 64, 1, 16, 48, 0.5, 1.0))
    rows = shown(live)
    assert len(rows) == 2
    assert len(rows[1]) == 80
    assert rows[1].endswith("…")


def test_the_2019_studys_lines_fit_a_terminal_of_80_columns(live: LiveDisplay):
    trial = Trial(batch_size=128, replicate=3)
    live.started(trial, 0, 0.0)
    live.batch(trial, BatchProgress("feature_extraction", 10, 13_952, 13_952, 0.98765, 12.0))
    expected = "b128-r3  feature_extraction  epoch 10, 100%  accuracy 0.9877  1163 examples/s"
    assert shown(live)[1] == expected


def test_trials_at_once_have_a_line_each_and_a_pace_together(live: LiveDisplay, clock: Clock):
    live.started(FIRST, 0, 0.0)
    clock.now += 4
    live.batch(FIRST, BatchProgress("one", 1, 32, 48, 0.5, 4.0))
    live.started(LONG, 0, 0.0)
    clock.now += 4
    live.batch(LONG, BatchProgress("one", 1, 16, 48, 0.75, 4.0))
    bar, *lines = shown(live)
    # 48 images in 12 s of workers' time; 80 are left to the slower.
    assert bar.endswith(" 1/3 0 min 20 s left, 12 examples/s")
    assert lines == [
        "b8-r1  one  epoch 1, 67%  accuracy 0.5000  8 examples/s",
        "b16-r100000  one  epoch 1, 33%  accuracy 0.7500  4 examples/s",
    ]
    live.ended(FIRST, TrialState.COMPLETE, None)
    clock.now += 4
    live.batch(LONG, BatchProgress("one", 1, 32, 48, 0.75, 8.0))
    bar, *lines = shown(live)
    assert bar.endswith("left")
    assert [line.split()[0] for line in lines] == ["b16-r100000"]
    live.ended(LONG, TrialState.COMPLETE, None)
    assert shown(live)[1:] == ["setting up"]


def test_lines_tell_the_time_left_to_trials_at_once(lines: LinePrinter, page: io.StringIO, clock: Clock):
    third = Trial(batch_size=8, replicate=2)
    lines.plan([FIRST, SECOND, third], 0, dict.fromkeys((FIRST, SECOND, third), 96))
    for trial in (FIRST, SECOND):
        lines.started(trial, 0, 0.0)
    clock.now += 4
    lines.batch(SECOND, BatchProgress("one", 1, 48, 48, 0.5, 4.0))
    lines.epoch(FIRST, record(1))  # 12 examples/s a worker: 4 s of each running trial, then 8 s of the third
    lines.epoch(SECOND, record(1))
    clock.now += 4
    lines.epoch(FIRST, record(2))
    lines.ended(FIRST, TrialState.COMPLETE, None)
    lines.started(third, 0, 0.0)
    lines.ended(SECOND, TrialState.FAILED, None)  # what it leaves undone is nobody's work any more
    clock.now += 4
    lines.epoch(third, record(1))
    endings = [line.rpartition(", ")[2] for line in page.getvalue().splitlines() if "epoch" in line]
    assert endings == ["0 min 12 s left", "0 min 12 s left", "0 min 11 s left", "0 min 05 s left"]


def test_the_display_tells_failures_above_itself_and_vanishes(terminal: Console, clock: Clock):
    with LiveDisplay(terminal) as display:
        display.plan([FIRST, SECOND], 0, {FIRST: 48, SECOND: 48})
        display.note("2 bad images [skipped]")
        display.started(FIRST, 0, 0.0)
        display.ended(FIRST, TrialState.FAILED, "ValueError: broken")
        display.started(SECOND, 0, 0.0)
        display.ended(SECOND, TrialState.COMPLETE, None)
    text = terminal.export_text()
    for line in ("2 bad images [skipped]", "b8-r1 failed", "ValueError: broken"):
        assert line in text
    assert "b16-r1 complete" not in text
    assert not display._live.is_started


def test_silence(capfd: pytest.CaptureFixture[str]):
    watcher: Watcher = Silent()
    with watcher as entered:
        assert entered is watcher
        watcher.note("x")
        watcher.plan([FIRST], 0, {FIRST: 1})
        watcher.started(FIRST, 0, 0.0)
        watcher.batch(FIRST, BatchProgress("one", 1, 16, 48, 0.5, 1.0))
        watcher.epoch(FIRST, record(1))
        watcher.ended(FIRST, TrialState.FAILED, "Traceback")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("left", [{FIRST: float("nan"), SECOND: float("nan")}, {FIRST: 96, SECOND: 480}])
def test_a_trial_that_ends_before_its_most_images_leaves_none_and_unknown_ones_tell_no_time(
    left: dict[Trial, float], lines: LinePrinter, page: io.StringIO, clock: Clock
):
    lines.plan([FIRST, SECOND], 0, left)
    for trial in (SECOND, FIRST):
        lines.started(trial, 0, 0.0)
        clock.now += 4
        lines.epoch(trial, record(1))
        lines.ended(trial, TrialState.COMPLETE, None)
    told = [line.rpartition(", ")[2] for line in page.getvalue().splitlines() if " left" in line]
    unknown = left[FIRST] != 96
    # At 12 a second: what SECOND leaves of its 480 is gone when FIRST, of whose 96 48 are left, runs.
    assert told == (["? left"] * 2 if unknown else ["0 min 44 s left", "0 min 04 s left"])
