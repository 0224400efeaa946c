"""The search for batch sizes that fit: bounds, bisection, and how each process may end."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.errors import DataError, StudyError, TrainingError
from batchscope.records import SizesTried, TriedSize
from batchscope.running import pool
from batchscope.running.sizing import Bound, SizingOptions, at_batch_size, bound_of, search, try_sizes
from run_samples import Events, small_study
from tiny import stage

WORKER = Path(__file__).parents[1] / "sizing_worker.py"


@given(
    low=st.integers(1, 40),
    extra=st.integers(0, 3000),
    fits=st.integers(0, 3000),
    step=st.sampled_from([1, 1, 4, 12]),
)
def test_what_is_found_was_tried_and_lies_next_to_what_does_not_fit(
    low: int, extra: int, fits: int, step: int
):
    low *= step
    bound = Bound(low + extra, "it", step)
    asked: list[int] = []

    def try_size(size: int) -> TriedSize:
        asked.append(size)
        return TriedSize(size, (), None if size <= fits else "no memory")

    tried = search(low, bound, try_size)
    sizes = [one.batch_size for one in tried]
    assert sizes == sorted(set(asked))
    assert len(sizes) == len(asked)
    assert min(sizes) == low
    assert max(sizes) <= bound.size
    assert all(size % step == 0 for size in sizes)
    largest = max((one.batch_size for one in tried if one.fits), default=None)
    failed = min((one.batch_size for one in tried if not one.fits), default=None)
    if failed is None:
        assert largest == bound.size - bound.size % step
    elif largest is not None:
        assert largest < failed <= largest + max(step, largest // 16)
    else:
        assert sizes == [low]
    assert len(sizes) <= math.log2(bound.size / low) + 2 + 5 + math.log2(step)


def fitting(most: int) -> Callable[[int], TriedSize]:
    return lambda size: TriedSize(size, (), None if size <= most else "no memory")


def test_sizes_double_and_end_with_the_bound():
    assert [one.batch_size for one in search(16, Bound(100, "it"), fitting(1000))] == [16, 32, 64, 100]
    assert [one.batch_size for one in search(16, Bound(64, "it"), fitting(1000))] == [16, 32, 64]
    assert [one.batch_size for one in search(16, Bound(256, "it"), fitting(100))] == [
        *(16, 32, 64, 96),
        *(100, 104, 112, 128),
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"low": 0},
            "batch_sizes: must be a range from a number of at least 1 to one that is no smaller (got 0",
        ),
        ({"low": 64, "high": 32}, "(got 64..32)"),
        ({"most": 8}, "max: must be no less than the smallest batch size, 16 (got 8)"),
        ({"seconds": 0.0}, "seconds: must be a number above 0 (got 0.0)"),
        ({"seconds": -1.0}, "(got -1.0)"),
        ({"seconds": math.nan}, "(got nan)"),
        ({"seconds": math.inf}, "(got inf)"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, float], problem: str):
    with pytest.raises(StudyError) as caught:
        SizingOptions(**changes)  # type: ignore[arg-type]
    assert problem in str(caught.value)


def test_all_bad_options_are_told_at_once():
    with pytest.raises(StudyError, match="3 problems"):
        SizingOptions(low=9, high=8, most=1, seconds=0)


ALL = (500, "the number of training examples")
WARMED = "the largest batch size at which no stage is over before its learning rate is warmed up"


def warming(updates: int, **more: object) -> dict[str, object]:
    return stage("one", "head", epochs=2) | {"learning_rate": {"base": 0.1, "warmup_updates": updates}} | more


@pytest.mark.parametrize(
    ("changes", "options", "size", "reason"),
    [
        ({}, {}, 500, "the number of training examples"),
        ({}, {"high": 128}, 128, "the end of the range that was asked for"),
        ({}, {"most": 100}, 100, "the largest that was allowed"),
        (
            {"last_batch": "drop"},
            {},
            120,
            'the number of validation examples, with last_batch = "drop"',
        ),
        (
            {"stages": [{"name": "one", "trainable": "head", "examples": 64, "learning_rate": 0.1}]},
            {},
            64,
            "the examples that the stage one presents",
        ),
        (
            {
                "stages": [stage("one", "all", epochs=1, batchnorm="batch")],
                "extra_probes": ["gradient_noise"],
            },
            {},
            166,
            'a third of the training examples, for extra_probes = ["gradient_noise"] in one',
        ),
        ({"stages": [stage("one", "all", epochs=1)], "extra_probes": ["gradient_noise"]}, {}, *ALL),
        (
            {"stages": [stage("one", "all", epochs=1, batchnorm="batch")], "extra_probes": ["sharpness"]},
            {},
            *ALL,
        ),
        ({"model": {"network": "cnn"}, "extra_probes": ["gradient_noise"]}, {}, *ALL),  # without BatchNorm
        # 2 epochs of 500 examples have 10 updates up to 100 examples each: 5 + 5.
        ({"stages": [warming(10)]}, {}, 124, WARMED),
        ({"stages": [warming(11)]}, {}, 99, WARMED),
        ({"stages": [warming(10)], "last_batch": "drop"}, {}, 100, WARMED),
        ({"stages": [warming(2)]}, {}, *ALL),
    ],
)
def test_the_bound_is_the_tightest_of_all(
    changes: dict[str, object], options: dict[str, int], size: int, reason: str
):
    found = bound_of(small_study(**changes), SizingOptions(**options), training=500, validation=120)  # type: ignore[arg-type]
    assert (found.size, found.reason, found.step) == (size, reason, 1)


def test_sizes_are_multiples_of_all_ghost_batches():
    stages = [
        stage(name, "all", epochs=1, batchnorm="batch", ghost_batch=size)
        for name, size in (("a", 4), ("b", 6))
    ]
    study = small_study(stages=stages, batch_sizes=[12], last_batch="drop")
    assert bound_of(study, SizingOptions(12), 500, 500).step == 12
    assert at_batch_size(study, 24).batch_sizes == [24]
    with pytest.raises(StudyError, match="ghost_batch must divide every batch size"):
        at_batch_size(study, 32)


def test_a_range_that_begins_beyond_the_data_is_refused():
    with pytest.raises(
        StudyError, match=r"must begin at no more than the number of training examples, 10 \(got 16"
    ):
        bound_of(small_study(), SizingOptions(), training=10, validation=10)


def test_a_smallest_size_at_which_nothing_warms_up_is_refused_as_a_run_refuses_it():
    with pytest.raises(
        DataError, match=r"at batch size 16 that of the stage one takes 65 updates and the stage has 64;"
    ):
        bound_of(small_study(stages=[warming(65)]), SizingOptions(), training=500, validation=10)
    epochs = {"epochs": None, "updates": 20, "learning_rate": {"base": 0.1, "warmup_epochs": 1}}
    with pytest.raises(DataError, match="at batch size 16 "):  # 32 updates; from size 25 on it would go
        bound_of(small_study(stages=[warming(1) | epochs]), SizingOptions(), training=500, validation=10)
    assert bound_of(small_study(stages=[warming(1) | epochs]), SizingOptions(25), 500, 10).size == 500


def test_the_probe_of_gradient_noise_is_given_three_batches():
    stages = [stage("one", "all", epochs=1, batchnorm="batch")]
    study = small_study(stages=stages, probe_images=20, extra_probes=["gradient_noise"])
    assert [at_batch_size(study, size).probe_images for size in (6, 7, 64)] == [20, 21, 192]
    ghosts = [stage("one", "all", epochs=1, batchnorm="batch", ghost_batch=4)]
    parts = small_study(stages=ghosts, probe_images=8, extra_probes=["gradient_noise"], last_batch="drop")
    assert [at_batch_size(parts, size).probe_images for size in (8, 12, 64)] == [12, 12, 64]


def test_probes_are_given_as_many_images_as_a_batch_has():
    stages = [stage("one", "head", epochs=1, batchnorm="batch")]
    study = small_study(stages=stages, probe_images=20)
    assert [at_batch_size(study, size).probe_images for size in (8, 20, 64)] == [20, 20, 64]


def tried(
    monkeypatch: pytest.MonkeyPatch, how: str, least: int, low: int = 4, watcher: Events | None = None
) -> SizesTried:
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(WORKER), how, str(least)))
    return try_sizes(small_study(), SizingOptions(low, 32, seconds=0.5), watcher or Events())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("SIGKILL", "the worker process was ended by SIGKILL, as where memory runs out"),
        ("SIGABRT", "the worker process was ended by SIGABRT, as where memory runs out"),
        ("says so", "OOM when allocating tensor"),
        ("killed while it is set up", "the worker process was ended by SIGKILL, as where memory runs out"),
    ],
)
def test_what_ends_for_want_of_memory_does_not_fit(monkeypatch: pytest.MonkeyPatch, how: str, reason: str):
    watcher = Events()
    found = tried(monkeypatch, how, 13, watcher=watcher)
    assert [(one.batch_size, one.fits) for one in found.sizes] == [
        *((4, True), (8, True), (12, True)),
        *((13, False), (14, False), (16, False)),
    ]
    assert {one.reason for one in found.sizes if not one.fits} == {found.sizes[-1].reason}
    assert str(found.sizes[-1].reason).startswith(reason)
    assert watcher.notes[1] == "batch size 4: trained"
    assert watcher.notes[3].startswith(f"batch size 16: does not fit in memory ({reason}")
    assert found.facts["keras"] == "stub"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("SIGSEGV", "ended by SIGSEGV"),
        ("ends", "ended with exit code 3"),
        ("error", "the recipe cannot be carried out"),
    ],
)
def test_any_other_end_is_an_error(monkeypatch: pytest.MonkeyPatch, how: str, said: str):
    with pytest.raises(TrainingError, match=said):
        tried(monkeypatch, how, 16)


def test_where_not_even_the_first_is_set_up_nothing_is_said_of_batch_sizes(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(TrainingError, match="a worker is gone that was to try a batch size"):
        tried(monkeypatch, "killed while it is set up", 1)


def test_where_the_smallest_does_not_fit_no_other_is_tried(monkeypatch: pytest.MonkeyPatch):
    found = tried(monkeypatch, "SIGKILL", 1)
    assert [(one.batch_size, one.fits) for one in found.sizes] == [(4, False)]


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tried(monkeypatch, "SIGKILL", 16)
    assert list(tmp_path.iterdir()) == []


def test_where_the_data_find_no_room_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchscope.data.prepared.np.save", full)
    with pytest.raises(TrainingError, match=r"No space left.*--limit.*TMPDIR"):
        tried(monkeypatch, "SIGKILL", 16)
