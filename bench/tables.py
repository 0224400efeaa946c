"""The bench's results as Markdown, put between two marks of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contenders import CONTENDERS
from projection import Full, Parts, Spread, project, spread
from timeline import Timeline

__all__ = ["Measured", "marks", "protocol_table", "put_between_marks"]

_OURS, *_OTHERS = CONTENDERS


@dataclass(frozen=True)
class Measured:
    """All of one protocol's measurements.

    Attributes:
        full: The full protocol.
        runs: Each contender's reduced runs, repeat by repeat.
        parts: What each of them is made of.
        trained_macs: Multiplications of one image's forward pass through the trained layers.
        matrix_rate: float32 GFLOP/s of a large matrix product.
        check: Wall time of a run of batchscope at a size the projection has not seen, as predicted and as
            measured.
    """

    full: Full
    runs: Mapping[str, Sequence[Timeline]]
    parts: Mapping[str, Sequence[Parts]]
    trained_macs: int
    matrix_rate: float
    check: tuple[float, float]


Row = tuple[str, ...]


def protocol_table(measured: Measured) -> str:
    """Measurements, projections and ratios of one protocol."""
    head: Row = ("", *CONTENDERS)
    rows = [*_measured_rows(measured), *_projected_rows(measured)]
    lines = [_line(head), _line(("---",) * len(head)), *map(_line, rows)]
    predicted, seen = measured.check
    notes = (
        f"Fine-tuning's training in batchscope reaches {_share_of_rate(measured):.0%} of this machine's "
        f"{measured.matrix_rate:.0f} GFLOP/s (float32 product of two large matrices), at three times "
        f"{measured.trained_macs / 1e6:.1f} million multiplications an image.\n\n"
        "The projection's check: a run of batchscope with three times the images and three epochs a stage "
        f"took {seen:.0f} s; the parts of the runs above predict {predicted:.0f} s "
        f"({predicted / seen - 1:+.0%})."
    )
    return "\n".join(lines) + "\n\n" + notes


def _measured_rows(measured: Measured) -> list[Row]:
    runs, parts = measured.runs, measured.parts
    rows = [
        ("Reduced protocol, s", *(_seconds([run.wall for run in runs[name]]) for name in CONTENDERS)),
        ("of which start-up", *(_seconds([run.start_up for run in runs[name]]) for name in CONTENDERS)),
        (
            "of which analysis and page",
            _seconds([run.closing for run in runs[_OURS]]),
            *("" for _ in _OTHERS),
        ),
        (
            "of which probes, which only batchscope has",
            _seconds([run.probe_seconds for run in runs[_OURS]]),
            *("" for _ in _OTHERS),
        ),
    ]
    for stage in measured.full.protocol.stages:
        rows += [
            (
                f"{stage.name}: one epoch at all batch sizes, with evaluation, s",
                *(_seconds([part.epoch_seconds(stage.name) for part in parts[name]]) for name in CONTENDERS),
            ),
            (
                f"{stage.name}: training, images/s",
                *(f"{_rate(runs[name], stage.name).median:,.0f}" for name in CONTENDERS),
            ),
        ]
    peaks = (max(run.peak_bytes for run in runs[name]) / 1e9 for name in CONTENDERS)
    rows.append(("Peak memory, GB", *(f"{peak:.1f}" for peak in peaks)))
    return rows


def _projected_rows(measured: Measured) -> list[Row]:
    runs = measured.runs
    whole = _projections(measured, probes=True)
    same = _projections(measured, probes=False)
    walls = {name: [run.wall for run in runs[name]] for name in CONTENDERS}
    without = walls | {_OURS: [run.wall - run.probe_seconds for run in runs[_OURS]]}
    stages = [(stage.name, _stage_seconds(measured, stage.name)) for stage in measured.full.protocol.stages]
    return [
        (
            "**Full protocol, projected, h**",
            *(f"**{spread(whole[name]).median / 3600:.2f}**" for name in CONTENDERS),
        ),
        ("without probes, h", f"{spread(same[_OURS]).median / 3600:.2f}", *("" for _ in _OTHERS)),
        ("**batchscope is faster by, full protocol**", "", *(f"**{text}**" for text in _ratios(whole))),
        ("the same without probes", "", *_ratios(same)),
        *((f"one epoch of {name}", "", *_ratios(seconds)) for name, seconds in stages),
        ("reduced protocol as a whole", "", *_ratios(walls)),
        ("the same without probes", "", *_ratios(without)),
    ]


def _projections(measured: Measured, *, probes: bool) -> dict[str, list[float]]:
    return {
        name: [project(part, measured.full, probes=probes) for part in measured.parts[name]]
        for name in CONTENDERS
    }


def _stage_seconds(measured: Measured, stage: str) -> dict[str, list[float]]:
    return {name: [part.epoch_seconds(stage) for part in measured.parts[name]] for name in CONTENDERS}


def _ratios(seconds: Mapping[str, Sequence[float]]) -> list[str]:
    """How many times as long each other contender took, repeat by repeat: median and range."""
    return [
        _times(spread([theirs / ours for theirs, ours in zip(seconds[name], seconds[_OURS], strict=True)]))
        for name in _OTHERS
    ]


def _rate(runs: Sequence[Timeline], stage: str) -> Spread:
    """Training images a second of a stage, all trials that run at once together, without first epochs."""
    rates = []
    for run in runs:
        epochs = [epoch for epoch in run.epochs if epoch.stage == stage and epoch.epoch > 1]
        seconds = sum(epoch.training_seconds for epoch in epochs) / run.parallel
        rates.append(sum(epoch.work.examples for epoch in epochs) / seconds)
    return spread(rates)


def _share_of_rate(measured: Measured) -> float:
    """Of a large matrix product's rate; forward pass and both gradients cost three times the forward pass."""
    stage = next(stage for stage in measured.full.protocol.stages if stage.fine_tuning)
    operations = 3 * 2 * measured.trained_macs * _rate(measured.runs[_OURS], stage.name).median
    return operations / (measured.matrix_rate * 1e9)


def _seconds(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{found.median:.1f} ({found.low:.1f} to {found.high:.1f})"


def _times(found: Spread) -> str:
    return f"{found.median:.1f} times ({found.low:.1f} to {found.high:.1f})"


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


def marks(name: str) -> tuple[str, str]:
    """The lines before and after what is put into a document under a name."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def put_between_marks(path: Path, name: str, text: str) -> None:
    """Replaces what stands between a document's marks of a name.

    Raises:
        ValueError: The marks are not there once each, in this order.
    """
    first, last = marks(name)
    old = path.read_text(encoding="utf-8")
    before, begin, rest = old.partition(first)
    inside, end, after = rest.partition(last)
    if not (begin and end) or first in inside + after or last in before + after:
        raise ValueError(f"{path} must hold {first} and {last} once each, in this order")
    path.write_text(f"{before}{first}\n{text.strip()}\n{last}{after}", encoding="utf-8")
