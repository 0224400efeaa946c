"""Ends what training code of one's own has left behind, once the Ray process of its task is gone.

A worker ends what its code has started when the process that it serves is gone. Ray however kills the
children of a process that it ends, the worker among them, and does not reach further. This program is no
child of anybody: ``python -m batchscope.running.cluster.guard MARK``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import BinaryIO, cast

from batchscope.own.leftovers import end_all

__all__ = ["main", "start_guard"]


def start_guard(mark: str) -> BinaryIO:
    """Has all who bear a mark ended as soon as what is returned is closed, or this process is gone."""
    command = [sys.executable, "-m", "batchscope.running.cluster.guard", mark]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    process.wait()
    return cast("BinaryIO", process.stdin)


def main(mark: str) -> None:
    """Leaves the process that started it, then waits for it to end."""
    if os.fork():
        os._exit(0)
    sys.stdin.buffer.read()
    end_all(mark)


if __name__ == "__main__":
    main(sys.argv[1])
