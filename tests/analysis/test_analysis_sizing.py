"""Batch sizes that were tried: planted paces and memory, the interval by its formula, and what is said."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import norm as normal

from batchscope.analysis import Sizing, size_up, sizing_json
from batchscope.analysis.sizing_words import advice, size_text, sizing_notes
from batchscope.records import MemoryUse, SizesTried, StagePace, TriedSize

GB = 10**9


def stage_pace(
    seconds: Sequence[float],
    peak: int = GB,
    limit: int | None = 10 * GB,
    name: str = "one",
    examples: int = 100,
) -> StagePace:
    use = MemoryUse("resident", GB // 2, peak, limit)
    return StagePace(name, examples, block=4, seconds=tuple(seconds), memory=(use,))


def sized(
    rates: Mapping[int, float],
    peaks: Mapping[int, int] | None = None,
    fails: Sequence[int] = (),
    limit: int | None = 10 * GB,
) -> Sizing:
    """One stage at so many examples a second, with blocks that do not vary."""
    sizes = [
        TriedSize(size, (stage_pace([size / rate] * 5, (peaks or {}).get(size, GB), limit),))
        for size, rate in rates.items()
    ]
    sizes += [TriedSize(size, (), "no memory") for size in fails]
    ordered = tuple(sorted(sizes, key=lambda one: one.batch_size))
    return size_up(SizesTried("planted", ordered, 4096, "the end of the range that was asked for", {}))


def test_throughput_stops_growing_at_the_first_size_within_five_percent_of_the_best():
    found = sized({16: 100.0, 32: 190.0, 64: 286.0, 128: 300.0, 256: 295.0})
    assert (found.fastest, found.saturated, found.perhaps_saturated) == (128, 64, ())
    assert sized({16: 100.0, 32: 190.0, 64: 284.0, 128: 300.0}).saturated == 128


def test_doubling_pays_as_far_as_each_gives_half_of_the_perfect_growth():
    found = sized({16: 100.0, 32: 151.0, 64: 227.0, 128: 300.0, 256: 600.0})
    assert [round(row.growth, 3) for row in found.rows[1:]] == [1.51, 1.503, 1.322, 2.0]
    assert found.doubling_pays_to == 64
    assert sized({16: 100.0, 32: 149.0}).doubling_pays_to == 16
    assert sized({16: 100.0}).doubling_pays_to is None
    assert sized({16: 100.0, 24: 180.0}).doubling_pays_to is None


def test_sizes_of_the_bisection_have_their_growth_where_half_was_trained_with():
    found = sized({16: 100.0, 32: 200.0, 40: 220.0, 64: 330.0})
    assert [row.growth for row in found.rows] == [
        pytest.approx(value, nan_ok=True) for value in (math.nan, 2.0, math.nan, 1.65)
    ]


def test_the_interval_of_the_median_is_1_96_of_its_standard_errors():
    seconds = [0.2, 0.21, 0.19, 0.25, 0.22, 0.2, 0.3]
    found = size_up(SizesTried("s", (TriedSize(32, (stage_pace(seconds),)),), 32, "it", {}))
    lower, _, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    error = math.sqrt(math.pi / 2 / 7) * (upper - lower) / (2 * float(normal.ppf(0.75)))
    middle, half = statistics.median(seconds), float(normal.ppf(0.975)) * error
    [stage] = found.rows[0].stages
    assert (stage.seconds, stage.lower, stage.upper) == (middle, lower, pytest.approx(upper))
    assert stage.pace.median == pytest.approx(32 / middle)
    assert stage.pace.low == pytest.approx(32 / (middle + half))
    assert stage.pace.high == pytest.approx(32 / (middle - half))
    assert (stage.blocks, stage.block) == (7, 4)


@pytest.mark.parametrize(("blocks", "coverage"), [(5, 0.77), (20, 0.92), (400, 0.95)])
def test_the_interval_covers_one_median_as_often_as_is_told(blocks: int, coverage: float):
    rng, runs = np.random.default_rng(4), 1_500
    covered = 0
    for _ in range(runs):
        tried = TriedSize(32, (stage_pace(rng.normal(10.0, 0.1, blocks)),))
        pace = size_up(SizesTried("s", (tried,), 32, "it", {})).rows[0].stages[0].pace
        covered += pace.low <= 3.2 <= pace.high
    assert covered / runs == pytest.approx(coverage, abs=0.02)


def test_blocks_that_are_few_and_uneven_have_no_upper_end():
    found = size_up(SizesTried("s", (TriedSize(8, (stage_pace([0.1, 1.0, 9.0]),)),), 8, "it", {}))
    assert found.rows[0].pace is not None
    assert found.rows[0].pace.high == math.inf
    assert json.loads(sizing_json(found))["rows"][0]["pace"]["high"] is None


def test_a_smaller_size_that_its_spread_lets_be_as_fast_is_named():
    steady, shaky = [0.32] * 5, [0.12, 0.17, 0.18, 0.28, 0.3]
    sizes = (TriedSize(32, (stage_pace(shaky),)), TriedSize(64, (stage_pace(steady),)))
    found = size_up(SizesTried("s", sizes, 64, "it", {}))
    assert (found.saturated, found.perhaps_saturated) == (64, (32,))
    assert "perhaps at 32 already" in advice(found).text


def test_stages_count_by_their_examples():
    stages = (stage_pace([1.0] * 3, examples=300), stage_pace([4.0] * 3, name="two", examples=100))
    found = size_up(SizesTried("s", (TriedSize(10, stages),), 10, "it", {}))
    # 300 examples at 10/s and 100 at 2.5/s: 400 in 70 s.
    assert found.rows[0].pace is not None
    assert found.rows[0].pace.median == pytest.approx(400 / 70)
    assert [stage.pace.median for stage in found.rows[0].stages] == [10.0, 2.5]


def test_the_most_demanding_stage_and_kind_of_memory_decide():
    light = stage_pace([1.0] * 3, peak=2 * GB)
    tight = StagePace(
        "two",
        100,
        1,
        (1.0,) * 3,
        (MemoryUse("resident", 0, 5 * GB, 10 * GB), MemoryUse("address_space", 0, 8 * GB, 9 * GB)),
    )
    found = size_up(SizesTried("s", (TriedSize(10, (light, tight)),), 10, "it", {}))
    assert found.rows[0].memory == MemoryUse("address_space", 0, 8 * GB, 9 * GB)
    assert "What is nearest to its limit here is address space." in [one.text for one in sizing_notes(found)]


@pytest.mark.parametrize(
    ("peaks", "limit", "roomy"),
    [
        ({16: 5 * GB, 32: 9 * GB, 64: 9 * GB + 1}, 10 * GB, 32),
        ({16: 5 * GB, 32: 6 * GB, 64: 8 * GB}, 10 * GB, 64),
        ({16: 95 * GB // 10, 32: 96 * GB // 10, 64: 99 * GB // 10}, 10 * GB, None),
        ({16: GB, 32: GB, 64: GB}, None, None),
    ],
)
def test_what_leaves_room_leaves_a_tenth_of_the_memory(
    peaks: dict[int, int], limit: int | None, roomy: int | None
):
    found = sized({16: 1.0, 32: 2.0, 64: 3.0}, peaks, limit=limit)
    assert (found.largest_with_room, found.largest) == (roomy, 64)


def test_the_advice_is_one_sentence_with_its_figures():
    found = sized(
        {16: 100.0, 32: 190.0, 64: 286.0, 128: 300.0},
        {16: GB, 32: 2 * GB, 64: 4 * GB, 128: 95 * GB // 10},
        fails=[144, 256],
    )
    assert advice(found).text == (
        "Batch size 64 is the largest within 90% of the memory, at 4.00 GB of 10.00 GB of memory (128 was "
        "trained with, too, at 9.50 GB of 10.00 GB of memory; 144 does not fit); throughput stops growing "
        "at 64 (286 examples/s, within 5% of the 300 at 128); doubling pays no more from 64 on: to 128 it "
        "multiplies throughput by 1.05 (perfect is 2, and from 1.5 on it pays)."
    )
    assert dict(advice(found).figures) == {
        "largest_with_room": 64,
        "largest": 128,
        "too_large": 144,
        "fastest": 128,
        "saturated": 64,
        "doubling_pays_to": 64,
    }


def test_where_all_fit_the_advice_tells_the_bound():
    found = sized({16: 100.0, 32: 190.0})
    assert advice(found).text == (
        "Batch size 32 was trained with and leaves room, at 1.00 GB of 10.00 GB of memory (4,096 is the end "
        "of the range that was asked for; none above it was tried); throughput grows up to 32 (190 "
        "examples/s); each doubling up to 32 pays."
    )


def test_where_none_fits_the_advice_says_why():
    found = sized({}, fails=[16])
    assert (found.largest, found.too_large, found.fastest, found.largest_with_room) == (None, 16, None, None)
    assert advice(found).text == "Batch size 16 does not fit in memory (no memory); try smaller ones."
    assert json.loads(sizing_json(found))["rows"][0]["pace"] is None


@pytest.mark.parametrize(
    ("peaks", "limit", "said"),
    [
        ({16: 96 * GB // 10}, 10 * GB, "but none takes less than 90% of the memory"),
        ({16: GB}, None, "but nobody knows how much memory there is"),
    ],
)
def test_why_nothing_leaves_room_is_said(peaks: dict[int, int], limit: int | None, said: str):
    assert said in advice(sized({16: 1.0}, peaks, limit=limit)).text


def test_the_best_of_random_paces_is_found_by_a_plain_loop():
    rng = np.random.default_rng(3)
    for _ in range(50):
        rates = {2**power: float(rng.uniform(50, 500)) for power in range(3, 9)}
        found = sized(rates)
        best = max(rates, key=lambda size: rates[size])
        first = next(size for size in sorted(rates) if rates[size] >= 0.95 * rates[best] * (1 - 1e-12))
        assert (found.fastest, found.saturated) == (best, first)


@pytest.mark.parametrize(("size", "text"), [(999_499_999, "999 MB"), (10**9, "1.00 GB"), (123_456, "0 MB")])
def test_sizes_are_written_in_megabytes_and_gigabytes(size: int, text: str):
    assert size_text(size) == text
