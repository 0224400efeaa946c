"""`make bench`: batchscope, plain Keras and plain PyTorch, each at the same protocol, in turns.

Writes all figures to docs/performance/bench.json and the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from contenders import CONTENDERS, Setting, run_batchscope, run_plain
from prepare import keras_study, prepare_images, protocol_of, reduced
from projection import Full, Parts, line_through, parts_of, project
from protocol import Work
from tables import Measured, protocol_table, put_between_marks
from timeline import Timeline
from watching import ContenderError

__all__ = ["check_work", "main"]

_ROOT = Path(__file__).parents[1]
_STUDIES = ("aerial-cactus", "aerial-cactus-2019")
# One more run of batchscope gives the lines of the projection, another one checks it.
_LINE = (2, 2)
_CHECK = (3, 3)
"""Times the images of the reduced protocol, and epochs of a stage."""
_OURS = CONTENDERS[0]


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    images: int
    epochs: int
    repeats: int
    studies: tuple[str, ...]
    torch_python: str
    document: Path
    results: Path
    work: Path


@dataclass(frozen=True)
class Further:
    """Runs of batchscope beside the repeats.

    Attributes:
        line_setting: Another size, for the lines through two sizes.
        line: What was seen there.
        check_setting: A third size, which the projection has not seen.
        check: What was seen there.
    """

    line_setting: Setting
    line: Timeline
    check_setting: Setting
    check: Timeline


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the documents."""
    options = _options(arguments)
    started = time.time()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    settings = {name: _prepared(options, name, options.images, options.epochs) for name in options.studies}
    lines, checks = (
        {name: _prepared(options, name, options.images * scale, epochs) for name in options.studies}
        for scale, epochs in (_LINE, _CHECK)
    )
    places = [*settings.values(), *lines.values(), *checks.values()]
    trained_macs = _give_weights(options.work / "weights", places)
    further = {
        name: Further(lines[name], _run(_OURS, lines[name]), checks[name], _run(_OURS, checks[name]))
        for name in options.studies
    }
    runs: dict[str, dict[str, list[Timeline]]] = {name: {who: [] for who in CONTENDERS} for name in settings}
    rates: list[float] = []
    for repeat in range(options.repeats):
        rates.append(float(_python("matrix_rate.py")))
        for name, setting in settings.items():
            for who in _turn(repeat):
                runs[name][who].append(_run(who, setting))
    tables, measurements = [], {}
    for name, setting in settings.items():
        rate = statistics.median(rates)
        measured = _evaluate(setting, runs[name], further[name], trained_macs, rate)
        tables.append(f"### {name}\n\n{protocol_table(measured)}")
        measurements[name] = {
            "runs": _plain(runs[name]),
            "line": asdict(further[name].line),
            "check": asdict(further[name].check),
        }
    surroundings = _surroundings(options)
    results = {
        "surroundings": surroundings,
        "options": {name: getattr(options, name) for name in ("images", "epochs", "repeats", "studies")},
        "matrix_rates": rates,
        "trained_macs": trained_macs,
        "protocols": measurements,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
    put_between_marks(options.document, "bench", "\n\n".join([_caption(options, surroundings), *tables]))
    _say(f"{options.document} and {options.results} are written; {time.time() - started:.0f} s in all")


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=960, help="training and validation, in the reduced protocol"
    )
    parser.add_argument("--epochs", type=int, default=2, help="of each stage, in the reduced protocol")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--studies", nargs="+", default=list(_STUDIES), choices=_STUDIES)
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch 2.13.0")
    parser.add_argument("--document", type=Path, default=_ROOT / "docs" / "performance.md")
    parser.add_argument("--results", type=Path, default=_ROOT / "docs" / "performance" / "bench.json")
    parser.add_argument(
        "--work", type=Path, default=_ROOT / "build" / "bench", help="folder for images and runs"
    )
    found = parser.parse_args(arguments)
    return Options(**vars(found) | {"studies": tuple(found.studies)})


def _prepared(options: Options, name: str, images: int, epochs: int) -> Setting:
    study = reduced(name, images, epochs)
    folder = options.work / f"{name}-{images}"
    folder.mkdir(parents=True, exist_ok=True)
    training, validation = prepare_images(folder, images, study)
    protocol = protocol_of(study)
    protocol.save(folder / "protocol.json")
    return Setting(study, protocol, (training, validation), folder, options.torch_python)


def _give_weights(place: Path, settings: Sequence[Setting]) -> int:
    """Makes weights and gives them to all; returns the multiplications of the trained layers."""
    place.mkdir()
    first = settings[0]
    images = str(first.folder / "images.npz")
    printed = _python("random_weights.py", images, str(place), first.protocol.first_trained)
    for setting in settings:
        shutil.copytree(place, setting.folder, dirs_exist_ok=True)
    return int(printed)


def _run(who: str, setting: Setting) -> Timeline:
    timeline = run_batchscope(setting) if who == _OURS else run_plain(who, setting)
    check_work(timeline, setting)
    _say(f"{setting.folder.name}, {who}: {timeline.wall:.1f} s")
    return timeline


def _turn(repeat: int) -> tuple[str, ...]:
    """The contenders, another one first in each repeat, so that none always runs on a machine just rested."""
    first = repeat % len(CONTENDERS)
    return CONTENDERS[first:] + CONTENDERS[:first]


def check_work(timeline: Timeline, setting: Setting) -> None:
    """Holds a contender to the protocol: every epoch of every trial, with its updates and examples.

    Raises:
        ContenderError: It did something else.
    """
    protocol = setting.protocol
    expected = {
        (trial, stage.name, epoch): setting.work(trial[0])
        for trial in protocol.trials()
        for stage in protocol.stages
        for epoch in range(1, stage.epochs + 1)
    }
    done: dict[tuple[tuple[int, int], str, int], Work] = {
        (epoch.trial, epoch.stage, epoch.epoch): epoch.work for epoch in timeline.epochs
    }
    wrong = sorted(key for key in expected.keys() | done.keys() if expected.get(key) != done.get(key))
    if wrong:
        key = wrong[0]
        raise ContenderError(
            f"every contender must do the same work, but {key} of {protocol.name} should be "
            f"{expected.get(key)} and is {done.get(key)}"
        )


def _python(script: str, *arguments: str) -> str:
    """The last word that one of the bench's scripts prints."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()[-1]


def _evaluate(
    setting: Setting,
    runs: dict[str, list[Timeline]],
    further: Further,
    trained_macs: int,
    matrix_rate: float,
) -> Measured:
    parts = {who: [parts_of(run) for run in runs[who]] for who in CONTENDERS}
    other, other_images = parts_of(further.line), further.line_setting.images[0]
    parts[_OURS] = [_with_lines(part, setting.images[0], other, other_images) for part in parts[_OURS]]
    checked = further.check_setting
    scale = Full(checked.protocol, checked.images, _probes(setting, checked))
    predicted = statistics.median(project(part, scale, probes=True) for part in parts[_OURS])
    full, check = _full(setting.study.name, setting), (predicted, further.check.wall)
    return Measured(full, runs, parts, trained_macs, matrix_rate, check)


def _with_lines(part: Parts, images: int, other: Parts, other_images: int) -> Parts:
    """The parts of a run, its start-up and first epochs as lines through another run's."""
    return replace(
        part,
        start_up=line_through(part.start_up.constant, images, other.start_up.constant, other_images),
        first=line_through(part.first.constant, images, other.first.constant, other_images),
    )


def _probes(setting: Setting, other: Setting) -> float:
    """How much more probes cost there: their images and the validation images, whichever grows more."""
    images = other.study.probe_images / setting.study.probe_images
    return max(images, other.images[1] / setting.images[1])


def _full(name: str, setting: Setting) -> Full:
    study = keras_study(name)
    validation = round(study.data.images * study.data.validation_share)
    images = (study.data.images - validation, validation)
    whole = replace(setting, study=study, protocol=protocol_of(study), images=images)
    return Full(whole.protocol, images, _probes(setting, whole))


def _plain(runs: dict[str, list[Timeline]]) -> dict[str, list[dict[str, object]]]:
    return {who: [asdict(run) for run in timelines] for who, timelines in runs.items()}


def _surroundings(options: Options) -> dict[str, str]:
    torch = subprocess.run(
        [options.torch_python, "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": names[0] if names else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "batchscope": version("batchscope"),
        "keras": version("keras"),
        "tensorflow": _tensorflow_version(),
        "torch": torch.stdout.strip(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _cpu_lines() -> list[str]:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()


def _tensorflow_version() -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import tensorflow; print(tensorflow.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _caption(options: Options, facts: dict[str, str]) -> str:
    training = round(options.images * 0.8)
    return (
        f"Measured on {facts['date']}: {facts['processor']}, {facts['cores']} cores, {facts['system']}; "
        f"Python {facts['python']}, batchscope {facts['batchscope']}, Keras {facts['keras']} on TensorFlow "
        f"{facts['tensorflow']}, PyTorch {facts['torch']}. Reduced protocol: {training} training and "
        f"{options.images - training} validation images, {options.epochs} epochs a stage, one trial of each "
        f"batch size; medians of {options.repeats} interleaved repeats, in brackets the smallest and the "
        "largest. Ratios are taken repeat by repeat."
    )


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
