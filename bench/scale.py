"""`make scale`: ten thousand trials through both executors, and two nodes against one.

Writes the figures to docs/performance/scale.json and the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from desk_run import DeskRun
from nodes_run import NodesRun
from scale_run import ScaleRun
from tables import put_between_marks

__all__ = ["main", "nodes_table", "scale_table"]

_ROOT = Path(__file__).parents[1]
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measured:
    """All that is measured.

    Attributes:
        date: Of the measurement.
        cores: That it had.
        runs: Of the function that only reports, by executor.
        nodes: Of a Keras study, in pairs: one node, two nodes, one node, ...
        desk: Of the desk alone.
    """

    date: str
    cores: int
    runs: tuple[ScaleRun, ...]
    nodes: tuple[NodesRun, ...]
    desk: DeskRun


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the documents."""
    options = _options(arguments)
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    nodes = [
        NodesRun(**_run("nodes_run.py", str(count), str(options.work / f"nodes-{pair}-{count}")))
        for pair in range(options.pairs)
        for count in (1, 2)
    ]
    asked = str(options.replicates), str(options.epochs)
    runs = [
        ScaleRun(**_run("scale_run.py", executor, str(options.work / executor), *asked))
        for executor in ("local", "ray")
    ]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    desk = DeskRun(**_run("desk_run.py", str(options.letters)))
    measured = Measured(date, len(os.sched_getaffinity(0)), tuple(runs), tuple(nodes), desk)
    options.results.write_text(json.dumps(asdict(measured), indent=1) + "\n", encoding="utf-8")
    caption = f"Measured on {measured.date}, {measured.cores} cores."
    parts = (caption, scale_table(runs), nodes_table(nodes), desk_sentence(desk))
    put_between_marks(options.document, "scale", "\n\n".join(parts))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=1000, help="of ten batch sizes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=2, help="of one node and two")
    parser.add_argument("--letters", type=int, default=20_000, help="that the desk takes of each kind")
    parser.add_argument("--document", type=Path, default=_ROOT / "docs" / "performance.md")
    parser.add_argument("--results", type=Path, default=_ROOT / "docs" / "performance" / "scale.json")
    parser.add_argument("--work", type=Path, default=_ROOT / "build" / "scale")
    return parser.parse_args(arguments)


def _run(program: str, *arguments: str) -> dict[str, Any]:
    print(time.strftime("%H:%M:%S"), program, *arguments, flush=True)
    command = [sys.executable, str(_HERE / program), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def scale_table(runs: Sequence[ScaleRun]) -> str:
    """A row for each executor."""
    head = (
        "| Executor | Trials | Records | First trial after, s | Records/s | Cost of a trial, ms | "
        "After the last, s | The same call again, s | Driver's memory, MB |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "\n".join(
        f"| {run.executor} | {run.trials:,} | {run.records:,} | {run.start:.1f} | "
        f"{run.records / run.trained:,.0f} | {1000 * run.cost_of_trial:.1f} | {run.after:.1f} | "
        f"{run.again:.1f} | {run.memory / 1e6:.0f} |"
        for run in runs
    )


def nodes_table(runs: Sequence[NodesRun]) -> str:
    """A row for each pair."""
    head = (
        "| Pair | One node, s | Two nodes, s | Ratio | of which training: one, s | two, s | Ratio |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    return head + "\n".join(
        f"| {number} | {one.whole:.0f} | {two.whole:.0f} | {two.whole / one.whole:.2f} | {one.trained:.0f} | "
        f"{two.trained:.0f} | {two.trained / one.trained:.2f} |"
        for number, (one, two) in enumerate(pairs, 1)
    )


def desk_sentence(run: DeskRun) -> str:
    """What the desk took."""
    return (
        f"The desk alone, 400 letters at a time from two processes and nobody storing them, took "
        f"{run.answered:,.0f} letters a second that wait for an answer and {run.unanswered:,.0f} "
        "that do not."
    )


if __name__ == "__main__":
    main()
