"""A worker that trains nothing: it speaks the protocol, and misbehaves as its arguments say.

Arguments: what to do, and the name of the trial to do it at, or the number of threads where no trial
is concerned. ``STUB_PACE`` gives the examples/s of a worker with 1, 2, ... threads.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from batchscope.errors import WeightsError
from batchscope.records import BatchProgress, EpochRecord
from batchscope.running.messages import (
    BatchDone,
    EpochDone,
    Fatal,
    Measure,
    Measured,
    Ready,
    RunTrial,
    SetUp,
    TrialEnded,
    receive,
    send,
)
from batchscope.running.worker import leave_signals_to_the_run

OUT, IN = sys.stdout.buffer, sys.stdin.buffer
IMAGES = 48


def main() -> None:
    what, at = [*sys.argv[1:], ""][:2]
    leave_signals_to_the_run()
    threads = os.environ["TF_NUM_INTRAOP_THREADS"]
    sys.stderr.write(f"{os.getpid()} {threads} {what}\n")
    sys.stderr.flush()
    set_up = receive(IN)
    assert isinstance(set_up, SetUp)
    misbehave_at_set_up(what, at, threads, set_up.data)
    send(OUT, Ready({"keras": "stub"}))
    while isinstance(command := receive(IN), RunTrial | Measure):
        if isinstance(command, Measure):
            send(OUT, measured(what if at in ("", threads) else "train", command, int(threads)))
            continue
        hit = at in ("", command.trial.name)
        if what == "die when done":
            wait_for(set_up.data / ("both are at work" if hit else "one is gone"))
        if what == "be killed last" and hit:
            wait_for(set_up.data / "another is idle")
        if what == "be killed for good":
            wait_for(set_up.data / ("both are at work" if hit else "three died"))
        send(OUT, carry_out(command, set_up, what if hit else "train"))
        if what == "die when done" and hit:
            os._exit(1)


def misbehave_at_set_up(what: str, at: str, threads: str, data: Path) -> None:
    if what == "die at set-up" and at in ("", threads):
        sys.exit(3)
    if what == "die at first set-ups":
        (data / f"born-{os.getpid()}").touch()
        if len(list(data.glob("born-*"))) <= int(at):
            sys.exit(3)
    if what == "be killed for good" and (data / "one was killed").exists():
        sys.exit(3)
    if what == "refuse":
        send(OUT, Fatal(WeightsError("weights must be somewhere, but are nowhere")))
    if what == "talk at set-up":
        OUT.write(b"a library greets\n")
        OUT.flush()
    if what in ("refuse", "talk at set-up", "never answer"):
        time.sleep(600)


def measured(what: str, command: Measure, threads: int) -> Measured | Fatal:
    if what == "die when measured":
        os._exit(4)
    if what == "fail when measured":
        return Fatal(WeightsError("nothing can be measured"))
    sys.stderr.write(f"measured for {command.seconds} s\n")
    return Measured(float(os.environ["STUB_PACE"].split(",")[threads - 1]))


def carry_out(command: RunTrial, set_up: SetUp, what: str) -> TrialEnded:
    trial = command.trial
    if what == "be killed before the first epoch":
        os.kill(os.getpid(), signal.SIGKILL)
    for epoch in range(
        command.stored_epochs + 1, sum(stage.epochs or 0 for stage in set_up.study.stages) + 1
    ):
        loss = float("nan") if what == "diverge" else 1 / (epoch + trial.replicate)
        send(OUT, BatchDone(BatchProgress("one", epoch, 16, IMAGES, 0.5, 0.1)))
        record = made_up(epoch, trial.batch_size, loss)
        send(OUT, EpochDone(replace(record, probes={"probe_seconds": 0.5}) if what == "probe" else record))
        receive(IN)
        if what == "diverge":
            break
        if what == "be killed for good":
            (set_up.data / "one was killed").touch()
        misbehave(what, command)
    return TrialEnded()


def wait_for(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.01)


def misbehave(what: str, command: RunTrial) -> None:
    if what in ("be killed", "be killed last", "be killed for good"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "be cut off":
        whole = pickle.dumps(EpochDone(made_up(2, command.trial.batch_size, 0.5)))
        OUT.write(whole[: len(whole) // 2])
        OUT.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "talk":
        OUT.write(b"hello\n")
        OUT.flush()
        time.sleep(600)
    elif what == "train slowly":
        time.sleep(0.05)
    elif what == "wait":
        sys.exit(receive(IN) is not None)
    elif what == "hang":
        Path(command.checkpoint).parent.mkdir(exist_ok=True)
        Path(command.checkpoint).with_suffix(".hangs").touch()
        time.sleep(600)


def made_up(epoch: int, batch_size: int, loss: float) -> EpochRecord:
    accuracy = 0.6 + 0.05 * epoch - 0.001 * batch_size
    updates, examples = epoch * IMAGES // batch_size, epoch * IMAGES
    return EpochRecord(
        "one", epoch, updates, examples, 2.0 * epoch, 1e-3, loss, accuracy, loss, accuracy - 0.05
    )


if __name__ == "__main__":
    main()
