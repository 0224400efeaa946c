"""`make growth`: batchscope's time and memory against images, replicates and batch sizes.

Writes the figures to docs/performance/growth.json, the chart beside it and the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from batchscope.data import generate_cacti, write_kaggle_layout
from growth_page import SERIES, Measurement, Point, growth_chart, growth_table
from tables import put_between_marks
from watching import ContenderError, watch

__all__ = ["main", "points"]

_ROOT = Path(__file__).parents[1]
_SEED = 2019
_REPLICATES = (1, 2, 4, 8)
_BATCH_SIZES = (2, 4, 8)  # one alone would have both cores to itself
_SMALLEST, _USUAL = 8, (32, 128)
_DATASET = "images"
_COMPLETE = re.compile(r"b\d+-r\d+ complete\b")


def points(images: Sequence[int]) -> Iterator[Point]:
    """What is measured: one of images, replicates and batch sizes grows, the others stay."""
    few = min(images) // 2
    for count in images:
        yield Point(SERIES[0], count, count, 1, _USUAL)
    for count in _REPLICATES:
        yield Point(SERIES[1], count, few, count, _USUAL)
    for count in _BATCH_SIZES:
        yield Point(SERIES[2], count, few * 2, 1, tuple(_SMALLEST * 2**power for power in range(count)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the documents."""
    options = _options(arguments)
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    facts = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "cores": len(os.sched_getaffinity(0))}
    measured = []
    for point in points(options.images):
        found = _measure(point, options.work)
        measured.append(found)
        print(time.strftime("%H:%M:%S"), point.series, point.count, f"{found.seconds:.0f} s", flush=True)
        # Each time, for what was measured cost minutes.
        text = json.dumps({**facts, "points": [asdict(each) for each in measured]}, indent=1)
        options.results.write_text(text + "\n", encoding="utf-8")
    options.results.with_suffix(".png").write_bytes(growth_chart(measured))
    caption = f"Measured on {facts['date']}, {facts['cores']} cores."
    put_between_marks(options.document, "growth", f"{caption}\n\n{growth_table(measured)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 5000, 10_000, 20_000, 50_000])
    parser.add_argument("--document", type=Path, default=_ROOT / "docs" / "performance.md")
    parser.add_argument("--results", type=Path, default=_ROOT / "docs" / "performance" / "growth.json")
    parser.add_argument("--work", type=Path, default=_ROOT / "build" / "growth")
    return parser.parse_args(arguments)


def _measure(point: Point, work: Path) -> Measurement:
    data, out = work / f"{_DATASET}-{point.images}", work / "run"
    if not data.exists():
        write_kaggle_layout(generate_cacti(point.images, _SEED), data)
    shutil.rmtree(out, ignore_errors=True)
    disk = _Disk(out / "cache")
    seen = watch(_command(point, data, out), work / "run.log", disk.look)
    ended = [at for at, line in seen.lines if _COMPLETE.match(line)]
    expected = point.replicates * len(point.batch_sizes)
    if len(ended) != expected:
        raise ContenderError(f"{expected} trials must complete, but {len(ended)} did; see {work / 'run.log'}")
    return Measurement(
        point, seen.wall, seen.wall - max(ended), seen.peak.whole, seen.peak.private, disk.most
    )


def _command(point: Point, data: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "batchscope", "run", "aerial-cactus"),
        *("--data", str(data), "--out", str(out), "--replicates", str(point.replicates)),
        *("--batch-sizes", ",".join(map(str, point.batch_sizes)), "--set", "model.weights=none"),
        *("--set", "stages.feature_extraction.epochs=1", "--set", "stages.fine_tuning.epochs=1"),
    ]


@dataclass
class _Disk:
    """The most that a folder's files take up, looked at five times a second."""

    folder: Path
    most: int = field(default=0)

    def look(self, _: float) -> None:
        """Adds up what is there now."""
        taken = 0
        for path in self.folder.rglob("*"):
            try:
                taken += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue  # it was deleted meanwhile
        self.most = max(self.most, taken)


if __name__ == "__main__":
    main()
