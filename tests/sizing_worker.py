"""A worker that trains nothing: it says a made-up pace, and fails from a batch size on as its arguments say.

Arguments: how to fail, and the smallest batch size that does.
"""

from __future__ import annotations

import os
import signal
import sys

from batchscope.errors import TrainingError
from batchscope.records import MemoryUse, StagePace
from batchscope.running.messages import Fatal, Ready, Rehearse, Rehearsed, SetUp, TooLarge, receive, send

OUT, IN = sys.stdout.buffer, sys.stdin.buffer
LIMIT = 10**9


def main() -> None:
    how, least = sys.argv[1], int(sys.argv[2])
    set_up = receive(IN)
    assert isinstance(set_up, SetUp)
    [size] = set_up.study.batch_sizes
    fails = size >= least
    if fails and how == "killed while it is set up":
        os.kill(os.getpid(), signal.SIGKILL)
    send(OUT, Ready({"keras": "stub"}))
    command = receive(IN)
    assert isinstance(command, Rehearse)
    assert command.trial.batch_size == size
    sys.stderr.write(f"{size} {command.seconds} {command.memory} {command.trial.learning_rate}\n")
    sys.stderr.flush()
    if not fails:
        # A tenth of a second and a millisecond an example; a megabyte an example.
        memory = MemoryUse("resident", 10**8, 10**8 + 10**6 * size, LIMIT)
        pace = StagePace("one", 96, 1, (0.1 + 0.001 * size,) * 3, (memory,))
        send(OUT, Rehearsed((pace,)))
        return
    match how:
        case "SIGKILL" | "SIGABRT" | "SIGSEGV":
            os.kill(os.getpid(), getattr(signal, how))
        case "says so":
            send(OUT, TooLarge("OOM when allocating tensor"))
        case "error":
            send(OUT, Fatal(TrainingError("the recipe cannot be carried out")))
        case "ends":
            os._exit(3)
    raise ValueError(how)


if __name__ == "__main__":
    main()
