"""Whole runs of commands: what they are given, which of their lines are records, and how they end."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest

from batchscope.errors import TrainingError
from batchscope.resolving import resolve
from batchscope.running.folder import RunFolder
from batchscope.running.run import run_study
from own_runs import outcomes, read_pid, run_program
from run_samples import Events, is_alive

pytestmark = pytest.mark.usefixtures("machine")
BOTH = [("b16-r1", "complete", 3), ("b32-r1", "complete", 3)]


def log_of(folder: Path, trial: str = "b16-r1") -> str:
    return (folder / "logs" / f"{trial}.log").read_text(encoding="utf-8")


def test_a_command_is_given_its_trial_and_its_json_lines_are_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SERVICE_TOKEN", "planted-secret")
    text = (
        "names = 'batch_size', 'replicate', 'seed', 'learning_rate', 'folder', 'trial'\n"
        "assert sys.argv[1:] == [now[f'BATCHSCOPE_{name.upper()}'] for name in names]\n"
        "assert (now['BATCHSCOPE_EPOCHS'], now['BATCHSCOPE_LEARNING_RATE']) == ('0', '0.05')\n"
        "assert os.path.isdir(now['BATCHSCOPE_FOLDER']) and sys.stdin.read() == ''\n"
        "print('{no json}', now['SERVICE_TOKEN'])\n"
        "print('[1, 2]')\n"
        "print(record(9), file=sys.stderr)\n"
        "for epoch in (1, 2, 3):\n"
        "    report(epoch, seed=int(now['BATCHSCOPE_SEED']), threads=int(now['OMP_NUM_THREADS']))\n"
    )
    placeholders = ["{batch_size}", "{replicate}", "{seed}", "{learning_rate}", "{folder}", "{trial}"]
    folder = tmp_path / "my run"
    run = run_program(text, folder, placeholders, learning_rates=[0.05], replicates=2)
    assert outcomes(run) == [(f"b{size}-r{r}", "complete", 3) for r in (1, 2) for size in (16, 32)]
    history = run.history
    assert history["val_accuracy"].tolist() == [
        epoch / 10 + size / 1000 for size in (16, 32) for _ in (1, 2) for epoch in (1, 2, 3)
    ]
    assert history["examples"].tolist() == [64, 128, 192] * 4
    assert (history["learning_rate"].unique(), history["threads"].unique()) == ([0.05], [1])
    assert history.groupby("replicate")["seed"].nunique().tolist() == [1, 1]
    assert history["seed"].nunique() == 2
    log = log_of(folder)
    assert log.splitlines()[0].startswith(f"$ {sys.executable} ")
    assert "{no json} ***\n" in log
    assert "planted-secret" not in log
    assert log.count('"updates": 36') == 1  # what standard error says is no record
    assert log.count('"updates": 4,') == 1
    assert list(RunFolder(folder).checkpoints.iterdir()) == []


def test_a_command_that_fails_keeps_its_log_and_goes_on_where_it_stood(tmp_path: Path):
    text = (
        "done = int(now['BATCHSCOPE_EPOCHS'])\n"
        "for epoch in range(done + 1, 4):\n"
        "    if size == 16 and epoch == 3 and not os.path.exists('mended'):\n"
        "        sys.exit('no third epoch')\n"
        "    report(epoch, epoch=epoch)\n"
    )
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        run = run_program(text, folder)
        assert outcomes(run) == [("b16-r1", "failed", 2), BOTH[1]]
        lines = str(run.trials[0].error).splitlines()
        assert "no third epoch" in lines
        assert lines[-1].startswith(f"the command ended with exit code 1: {sys.executable}")
        (tmp_path / "mended").touch()
        seen = Events()
        run = run_program(text, folder, watcher=seen)
    assert outcomes(run) == BOTH
    assert seen.records == [("b16-r1", 3)]
    log = log_of(folder)
    assert (log.count("$ "), log.count('"epoch": 1,'), log.count('"epoch": 3,')) == (2, 0, 0)
    assert [log.count(f'"epoch": {epoch}}}') for epoch in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"val_accuracy": 0.5}', "a report must hold updates or examples since the trial's start"),
        ('{"updates": 8, "val_accuracy": "good"}', "val_accuracy must be one number, but got 'good'"),
        ('{"updates": 8, "val_accuracy": null}', "val_accuracy must be one number, but got None"),
        ('{"updates": 4, "val_accuracy": 0.5}', "updates must count on from the trial's start"),
        ('{"event": "end"}', "a report must hold val_accuracy or val_loss, but has event"),
        ('{"updates": 8, "val_loss": 0.5}', "every epoch of a run must report the same figures"),
    ],
)
def test_an_object_that_is_no_record_ends_its_trial_with_the_line_told(
    tmp_path: Path, line: str, reason: str
):
    pid = tmp_path / "pid"
    text = (
        "report(1)\n"
        f"if size == 16:\n    open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        f"    print({line!r})\n    time.sleep(600)\n"
    )
    run = run_program(text, tmp_path / "run")
    assert outcomes(run) == [("b16-r1", "failed", 1), ("b32-r1", "complete", 1)]
    last = str(run.trials[0].error).strip().splitlines()[-1]
    assert f"each JSON object on a line of its own must be an epoch's record, but: {reason}" in last
    assert last.endswith(f"; the line is: {line}")
    assert not is_alive(read_pid(pid))
    assert line in log_of(tmp_path / "run")


@pytest.mark.parametrize("own_session", [False, True])
def test_a_command_that_diverges_is_ended_with_what_it_started(tmp_path: Path, own_session: bool):
    pid = tmp_path / "pid"
    text = (
        "import subprocess\n"
        "report(1)\n"
        "if size == 16:\n"
        f"    child = subprocess.Popen(['sleep', '600'], start_new_session={own_session})\n"
        f"    open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "    report(2, val_accuracy=float('nan'))\n"
        "    time.sleep(600)\n"
        "report(2)\nreport(3)\n"
    )
    run = run_program(text, tmp_path / "run")
    assert outcomes(run) == [("b16-r1", "diverged", 2), BOTH[1]]
    assert not is_alive(read_pid(pid))


@pytest.mark.parametrize("own_session", [False, True])
def test_what_a_command_leaves_behind_is_ended_and_keeps_no_trial_from_ending(
    tmp_path: Path, own_session: bool
):
    """It holds the command's output open."""
    pid = tmp_path / "pid"
    text = (
        "import subprocess\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        f"child = subprocess.Popen(sleep, start_new_session={own_session})\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "for epoch in (1, 2, 3):\n    report(epoch)\n"
    )
    started = time.monotonic()
    assert outcomes(run_program(text, tmp_path / "run", batch_sizes=[16])) == BOTH[:1]
    assert not is_alive(read_pid(pid))
    assert time.monotonic() - started < 300


def test_a_command_that_is_no_program_is_refused(tmp_path: Path):
    raw = {"name": "x", "command": "no-such-program --x", "batch_sizes": [16], "replicates": 1}
    with pytest.raises(
        TrainingError, match="must be an executable file or be found on PATH, but no-such-pro"
    ):
        run_study(resolve(raw, []), tmp_path / "run", Events())


def test_a_program_named_by_a_placeholder_that_is_not_there_fails_its_trial(tmp_path: Path):
    raw = {"name": "x", "command": "./{trial}.sh", "batch_sizes": [16], "replicates": 1}
    [status] = run_study(resolve(raw, []), tmp_path / "run", Events())
    assert status.state.value == "failed"
    assert "the command must be startable, but: " in str(status.error)


FILE = (
    "path = sys.argv[1]\n"
    "os.makedirs(os.path.dirname(path), exist_ok=True)\n"
    "done = int(now['BATCHSCOPE_EPOCHS']) if {goes_on} else 0\n"
    "with open(path, {mode!r}) as file:\n"
    "    for epoch in range(done + 1, 4):\n"
    "        if epoch == 3 and not os.path.exists({mended!r}):\n"
    "            sys.exit(1)\n"
    "        text = record(epoch)\n"
    "        print(text)\n"
    "        file.write(text[:10])\n"
    "        file.flush()\n"
    "        time.sleep(0.12)\n"
    "        file.write(text[10:] + ('\\n' if epoch < 3 else ''))\n"
    "        file.flush()\n"
)


@pytest.mark.parametrize(
    ("mode", "goes_on", "where"),
    [
        ("a", True, "{folder}/r.jsonl"),
        ("a", False, "logs of {trial}/r.jsonl"),
        ("w", True, "logs of {trial}/r.jsonl"),
        ("w", False, "{folder}/r.jsonl"),
    ],
)
def test_records_come_from_a_file_however_the_program_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, goes_on: bool, where: str
):
    monkeypatch.chdir(tmp_path)
    folder, mended = tmp_path / "run", tmp_path / "mended"
    text = FILE.format(mode=mode, goes_on=goes_on, mended=str(mended))
    run = run_program(text, folder, [where], records=where)
    assert outcomes(run) == [("b16-r1", "failed", 2), ("b32-r1", "failed", 2)]
    mended.touch()
    seen = Events()
    run = run_program(text, folder, [where], watcher=seen, records=where)
    assert outcomes(run) == BOTH
    assert seen.records == [("b16-r1", 3), ("b32-r1", 3)]
    assert run.history["updates"].tolist() == [4, 8, 12, 2, 4, 6]
    assert not [note for note in seen.notes if "anew" in note]


def test_a_file_of_records_from_another_run_is_moved_aside(tmp_path: Path):
    """And those that were moved before stay."""
    path = tmp_path / "b16-r1.jsonl"
    text = "with open(sys.argv[1], 'a') as file:\n    file.write(record(1) + '\\n')\n"
    where = str(tmp_path / "{trial}.jsonl")
    of_others = [f'{{"updates": 1, "val_accuracy": {accuracy}}}\n' for accuracy in (0.97, 0.98, 0.99)]
    for number, content in enumerate(of_others):
        path.write_text(content)
        run = run_program(text, tmp_path / f"run-{number}", [where], records=where, batch_sizes=[16])
        assert run.history["val_accuracy"].tolist() == [0.116]
    aside = [path.with_name(f"{path.name}.{ending}") for ending in ("before", "before-2", "before-3")]
    assert [moved.read_text() for moved in aside] == of_others


def test_a_line_in_the_file_that_is_no_object_ends_the_trial(tmp_path: Path):
    text = "open(sys.argv[1], 'w').write(record(1) + '\\noops\\n')\n"
    path = "{folder}/r.jsonl"
    run = run_program(text, tmp_path / "run", [path], records=path, batch_sizes=[16])
    assert outcomes(run) == [("b16-r1", "failed", 1)]
    assert "but: it is none; the line is: oops" in str(run.trials[0].error)


def test_a_command_runs_without_a_shell(tmp_path: Path):
    text = "assert sys.argv[1:] == ['$HOME', '; touch x', '{}'], sys.argv\nreport(1)\n"
    run = run_program(text, tmp_path / "run", ["$HOME", "; touch x", "{{}}"], batch_sizes=[16])
    assert outcomes(run) == [("b16-r1", "complete", 1)]
    assert shlex.split(run.study.command)[-1] == "{{}}"  # type: ignore[union-attr]
