"""Batch sizes that were tried without a study's run: which fit, and from where on larger ones gain nothing.

Throughput is the examples that are trained with in a second. The Deep Learning Tuning Playbook (Godbole et
al. 2023, "Determining the feasible batch sizes and estimating training throughput") has it measured at
powers of two until memory is exceeded: while the hardware is not saturated, it about doubles with the batch
size, and sizes beyond the one where it stops growing are not worth considering. The playbook gives no
numbers; those here are `FAST` and `PAYS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchscope.records import MemoryUse, SizesTried, StagePace, TriedSize

__all__ = ["FAST", "MARGIN", "PAYS", "Pace", "SizedStage", "Sizing", "SizingRow", "size_up"]

FAST = 0.95
"""From this share of the best throughput on, a batch size counts as equally fast."""
PAYS = 1.5
"""Doubling pays where throughput grows at least by this factor, half of the growth that were perfect."""
MARGIN = 0.9
"""Share of the memory up to which a batch size leaves room: other trials vary, and so do machines."""
# Of the normal distribution: 1.96 standard errors, root of pi / 2 times sd / root of n, in interquartile
# ranges of 1.35 sd; 1.82.
_HALF_WIDTH = 1.95996 * math.sqrt(math.pi / 2) / (2 * 0.67449)


@dataclass(frozen=True)
class Pace:
    """Examples per second.

    Attributes:
        median: Over blocks of updates, those of the stages put together as in a trial.
        low: Lower end of the median's 95% interval: in seconds an example, 1.82 interquartile ranges over
            the root of the number of blocks to each side. That is how notches are made (McGill, Tukey and
            Larsen 1978), whose 1.57 is for comparing two medians and some 91% for one. It holds for many
            independent normal blocks; of 20 it covers 92%, of 5 77%. Blocks follow each other in time, and
            where slow ones come together it covers less.
        high: Upper end; infinite where the blocks are too few and too uneven to tell.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class SizedStage:
    """One stage at one batch size.

    Attributes:
        stage: Its name.
        blocks: How many were timed.
        block: Updates of each.
        seconds: Of an update: the median over blocks.
        lower: Lower quartile.
        upper: Upper quartile.
        pace: Examples per second.
        memory: Each kind that could be told.
    """

    stage: str
    blocks: int
    block: int
    seconds: float
    lower: float
    upper: float
    pace: Pace
    memory: tuple[MemoryUse, ...]


@dataclass(frozen=True)
class SizingRow:
    """One batch size.

    Attributes:
        batch_size: Examples per update.
        reason: Why it does not fit in memory; None where it was trained with.
        pace: Over a whole trial, each stage by the examples that it presents; None where it does not fit.
        growth: Throughput as a multiple of that at half the batch size; NaN where that was not measured.
        memory: Of the kind and stage that comes closest to its limit, or takes most where there is none;
            None where nothing could be told.
        stages: In the order of training; empty where it does not fit.
    """

    batch_size: int
    reason: str | None
    pace: Pace | None
    growth: float
    memory: MemoryUse | None
    stages: tuple[SizedStage, ...]

    @property
    def fits(self) -> bool:
        """Whether it was trained with."""
        return self.reason is None


@dataclass(frozen=True)
class Sizing:
    """What batch sizes were tried, and what follows.

    Attributes:
        study: Its name.
        rows: By batch size, ascending.
        largest: The largest that was trained with; None where none fits.
        too_large: The smallest that did not fit; None where all did.
        largest_with_room: The largest that took no more than `MARGIN` of the memory; None where none did,
            or nobody knows how much there is. It may be larger than is of any use.
        fastest: The batch size with the best throughput; None where none fits.
        saturated: The smallest with at least `FAST` of it.
        perhaps_saturated: Smaller ones that reach that share within their interval.
        doubling_pays_to: From the smallest on, as far as each doubling paid (`PAYS`); None where no
            batch size and its double were trained with.
        bound: No larger one was to be tried.
        bound_by: Why.
        facts: Threads, versions and hardware: pairs of name and value.
    """

    study: str
    rows: tuple[SizingRow, ...]
    largest: int | None
    too_large: int | None
    largest_with_room: int | None
    fastest: int | None
    saturated: int | None
    perhaps_saturated: tuple[int, ...]
    doubling_pays_to: int | None
    bound: int
    bound_by: str
    facts: tuple[tuple[str, str], ...]

    def row(self, batch_size: int) -> SizingRow:
        """That of a batch size that was tried."""
        return next(row for row in self.rows if row.batch_size == batch_size)


def size_up(tried: SizesTried) -> Sizing:
    """Finds what batch sizes are possible, and which of them are worth considering.

    Args:
        tried: At least one batch size.
    """
    paces = {one.batch_size: _pace_of_trial(one) for one in tried.sizes if one.fits}
    rows = tuple(_row(one, paces) for one in tried.sizes)
    fitting = [row for row in rows if row.fits]
    roomy = [row.batch_size for row in fitting if row.memory is not None and row.memory.share <= MARGIN]
    fastest = max(paces, key=lambda size: paces[size].median, default=None)
    saturated: int | None = None
    perhaps: tuple[int, ...] = ()
    if fastest is not None:
        wanted = FAST * paces[fastest].median
        saturated = min(size for size, pace in paces.items() if pace.median >= wanted)
        perhaps = tuple(size for size, pace in paces.items() if size < saturated and pace.high >= wanted)
    return Sizing(
        study=tried.study,
        rows=rows,
        largest=max(paces, default=None),
        too_large=min((row.batch_size for row in rows if not row.fits), default=None),
        largest_with_room=max(roomy, default=None),
        fastest=fastest,
        saturated=saturated,
        perhaps_saturated=perhaps,
        doubling_pays_to=_doubling_pays_to(fitting),
        bound=tried.bound,
        bound_by=tried.bound_by,
        facts=tuple(tried.facts.items()),
    )


def _doubling_pays_to(rows: Sequence[SizingRow]) -> int | None:
    growths = {row.batch_size: row.growth for row in rows if math.isfinite(row.growth)}
    if not growths:
        return None
    size = min(growths) // 2
    while growths.get(2 * size, 0.0) >= PAYS:
        size *= 2
    return size


def _row(one: TriedSize, paces: dict[int, Pace]) -> SizingRow:
    pace, half = paces.get(one.batch_size), paces.get(one.batch_size // 2)
    doubled = pace is not None and half is not None and one.batch_size % 2 == 0
    uses = [use for stage in one.stages for use in stage.memory]
    return SizingRow(
        batch_size=one.batch_size,
        reason=one.reason,
        pace=pace,
        growth=pace.median / half.median if doubled and pace and half else math.nan,
        memory=max(uses, key=_nearness, default=None),
        stages=tuple(_sized(stage, one.batch_size) for stage in one.stages),
    )


def _nearness(use: MemoryUse) -> tuple[float, int]:
    """How near a kind of memory is to its end; those of which nobody knows it come last."""
    return (-1.0 if use.limit is None else use.share), use.peak


def _sized(stage: StagePace, batch_size: int) -> SizedStage:
    lower, middle, upper = np.quantile(stage.seconds, [0.25, 0.5, 0.75]).tolist()
    return SizedStage(
        stage=stage.stage,
        blocks=len(stage.seconds),
        block=stage.block,
        seconds=middle,
        lower=lower,
        upper=upper,
        pace=_pace(middle / batch_size, _half_width(stage) / batch_size),
        memory=stage.memory,
    )


def _pace_of_trial(one: TriedSize) -> Pace:
    """Seconds an example are means over the stages by their examples; their half widths add up in squares."""
    examples = sum(stage.examples for stage in one.stages)
    shares = [stage.examples / examples / one.batch_size for stage in one.stages]
    pairs = list(zip(shares, one.stages, strict=True))
    middle = sum(share * float(np.median(stage.seconds)) for share, stage in pairs)
    return _pace(middle, math.hypot(*(share * _half_width(stage) for share, stage in pairs)))


def _half_width(stage: StagePace) -> float:
    """Of the 95% interval of the median of an update's seconds, see `Pace`."""
    lower, upper = np.quantile(stage.seconds, [0.25, 0.75])
    return float(_HALF_WIDTH * (upper - lower) / math.sqrt(len(stage.seconds)))


def _pace(seconds: float, half: float) -> Pace:
    """From seconds an example."""
    return Pace(1 / seconds, 1 / (seconds + half), math.inf if half >= seconds else 1 / (seconds - half))
