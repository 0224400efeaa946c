"""How many workers with how many threads: the rule, with planted machines, work and paces."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.running import machine
from batchscope.running.layout import (
    BYTES_PER_WORKER,
    MEASURED_FROM_EXAMPLES,
    Layout,
    WorkLeft,
    choose,
    fastest,
    told,
)
from batchscope.running.machine import Machine, look_around, thread_settings

LONG, SHORT = MEASURED_FROM_EXAMPLES, MEASURED_FROM_EXAMPLES - 1
GB = 10**9

Pairs = list[tuple[int, int]]


def chosen(
    cores: int,
    trials: int,
    examples: int = SHORT,
    *,
    room: int | None = None,
    gpu: bool = False,
    asked: int | None = None,
    before: int | None = None,
    own: bool = False,
) -> tuple[Pairs, str]:
    """Pairs of workers and threads, and the reason, where memory has room for `room` workers and no more."""
    memory = None if room is None else (room + 1) * BYTES_PER_WORKER - 1
    choice = choose(Machine(cores, memory, gpu), WorkLeft(trials, examples, own), asked, before)
    return [(layout.workers, layout.threads) for layout in choice.layouts], choice.reason


@pytest.mark.parametrize(
    ("cores", "trials", "expected"),
    [
        (1, 12, [(1, 1)]),
        (2, 12, [(1, 2), (2, 1)]),
        (4, 12, [(1, 4), (4, 1)]),
        (5, 12, [(1, 5), (2, 2), (5, 1)]),
        (16, 12, [(1, 16), (3, 5), (12, 1)]),
        (64, 99, [(1, 64), (8, 8), (64, 1)]),
        (64, 5, [(1, 64), (2, 32), (5, 12)]),
        (8, 2, [(1, 8), (2, 4)]),
        (2, 1, [(1, 2)]),
    ],
)
def test_where_much_is_left_to_do_layouts_are_measured(cores: int, trials: int, expected: Pairs):
    pairs, _ = chosen(cores, trials, LONG)
    assert pairs == expected
    assert all(workers * threads <= cores and workers <= trials for workers, threads in pairs)


@pytest.mark.parametrize(
    ("cores", "trials", "expected"),
    [(2, 2, (2, 1)), (2, 1, (1, 2)), (8, 8, (8, 1)), (8, 7, (1, 8)), (1, 5, (1, 1))],
)
def test_where_little_is_left_nothing_is_measured(cores: int, trials: int, expected: tuple[int, int]):
    pairs, reason = chosen(cores, trials)
    assert pairs == [expected]
    many = "there are trials for all cores"
    assert reason == (many if trials >= cores else "fewer trials are left than there are cores")


@pytest.mark.parametrize(
    ("cores", "trials", "expected"),
    [(8, 3, (3, 2)), (8, 7, (7, 1)), (8, 1, (1, 8)), (8, 12, (8, 1)), (2, 2, (2, 1)), (1, 5, (1, 1))],
)
def test_trials_of_own_code_run_side_by_side_also_where_there_are_few(
    cores: int, trials: int, expected: tuple[int, int]
):
    few = "each trial has its share of the cores"
    many = "there are trials for all cores"
    assert chosen(cores, trials, 0, own=True) == ([expected], many if trials >= cores else few)


def test_few_trials_of_own_code_heed_memory_gpu_and_what_came_before():
    limited = "each trial has its share of the cores, but memory has room for 2 of 3 workers"
    assert chosen(8, 3, 0, room=2, own=True) == ([(2, 4)], limited)
    assert chosen(8, 3, 0, gpu=True, own=True) == ([(1, 8)], "a GPU is visible")
    assert chosen(8, 3, 0, before=1, own=True)[0] == [(3, 1)]
    assert chosen(8, 3, 0, asked=4, own=True)[0] == [(3, 2)]


def test_memory_limits_the_workers_and_the_threads_take_what_is_free():
    limited = "there are trials for all cores, but memory has room for 3 of 8 workers"
    assert chosen(8, 12, room=3) == ([(3, 2)], limited)
    assert chosen(2, 12, room=0)[0] == [(1, 2)]
    assert chosen(8, 12, room=8) == ([(8, 1)], "there are trials for all cores")


def test_what_is_measured_fits_into_memory_beside_the_best_so_far():
    assert chosen(2, 12, LONG, room=3)[0] == [(1, 2), (2, 1)]
    assert chosen(2, 12, LONG, room=2) == ([(2, 1)], "there are trials for all cores")
    assert chosen(16, 40, LONG, room=13)[0] == [(1, 16), (4, 4), (9, 1)]
    assert chosen(16, 40, LONG, room=4)[0] == [(4, 4)]


def test_on_a_gpu_one_worker_is_taken_unless_more_are_asked_for():
    assert chosen(8, 12, LONG, gpu=True) == ([(1, 8)], "a GPU is visible")
    assert chosen(8, 12, LONG, gpu=True, before=8)[0] == [(1, 8)]
    assert chosen(8, 12, LONG, gpu=True, before=2)[0] == [(1, 2)]
    assert chosen(8, 12, LONG, gpu=True, asked=2)[0] == [(2, 4)]


@pytest.mark.parametrize("examples", [SHORT, LONG])
def test_what_is_asked_for_is_taken(examples: int):
    assert chosen(8, 12, examples, asked=3) == ([(3, 2)], "as asked for")
    assert chosen(8, 12, examples, asked=3, before=8)[0] == [(3, 2)]
    assert chosen(2, 12, examples, asked=5)[0] == [(5, 1)]


def test_fewer_workers_than_asked_for_keep_the_threads_and_so_the_figures():
    assert chosen(8, 1, asked=4) == ([(1, 2)], "as asked for")
    said = "as asked for, but memory has room for 2 of 4 workers"
    assert chosen(8, 12, asked=4, room=2) == ([(2, 2)], said)


@pytest.mark.parametrize("examples", [SHORT, LONG])
@pytest.mark.parametrize(
    ("cores", "trials", "before", "expected"),
    [(4, 12, 1, (4, 1)), (4, 12, 4, (1, 4)), (8, 12, 3, (2, 3)), (2, 12, 4, (1, 4)), (8, 1, 1, (1, 1))],
)
def test_a_run_goes_on_with_the_threads_that_it_had(
    cores: int, trials: int, before: int, expected: tuple[int, int], examples: int
):
    assert chosen(cores, trials, examples, before=before) == ([expected], "threads as in the session before")


def test_the_fastest_is_taken_and_of_equals_the_one_with_the_fewest_workers():
    one, two, four = Layout(1, 4), Layout(2, 2), Layout(4, 1)
    assert fastest({one: 180.0, two: 230.5, four: 230.4}) == two
    assert fastest({one: 180.0, four: 180.0}) == one
    assert told({one: 180.4, four: 0.0}) == (
        "fastest of 1 worker with 4 threads (180 examples/s), 4 workers with 1 thread each (0 examples/s)"
    )
    assert str(Layout(1, 1)) == "1 worker with 1 thread"


def system(root: Path, **files: str) -> Path:
    """A root with /proc/meminfo and the limits of both versions of control groups."""
    places = {
        "meminfo": "proc/meminfo",
        "v2": "sys/fs/cgroup/memory.max",
        "v1": "sys/fs/cgroup/memory/memory.limit_in_bytes",
    }
    for name, text in files.items():
        path = root / places[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


MEMINFO = "MemTotal:       24684092 kB\nMemFree:        1 kB\nMemAvailable:   4000000 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"meminfo": MEMINFO}, 4_096_000_000),
        ({"meminfo": MEMINFO, "v2": "max\n"}, 4_096_000_000),
        ({"meminfo": MEMINFO, "v2": "3000000000\n"}, 3_000_000_000),
        ({"meminfo": MEMINFO, "v1": "2000000000\n"}, 2_000_000_000),
        ({"meminfo": MEMINFO, "v1": "9223372036854771712\n"}, 4_096_000_000),
        ({"meminfo": "MemTotal: 5 kB\n"}, None),
    ],
)
def test_free_memory_is_what_is_available_and_no_more_than_the_containers_limit(
    tmp_path: Path, files: dict[str, str], expected: int | None
):
    assert machine._free_memory(system(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    ("device", "hidden", "expected"),
    [
        ("nvidia0", None, True),
        ("nvidia3", "3", True),
        ("nvidia0", "", False),
        ("nvidia0", "-1", False),
        ("nvidiactl", None, False),
        ("kfd", None, True),
        ("null", None, False),
    ],
)
def test_a_gpu_is_visible_where_it_has_a_device_and_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, hidden: str | None, expected: bool
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (tmp_path / device).touch()
    assert machine._gpu_visible(tmp_path) is expected


def test_this_machines_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert look_around().cores == 3
    assert machine.usable_cores() == 3


def test_all_libraries_are_given_the_same_number_of_threads():
    settings = thread_settings(3)
    assert set(settings.values()) == {"3"}
    assert {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "NPROC"} <= set(settings)
