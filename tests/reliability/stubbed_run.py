"""The command line with workers that train nothing, which may kill itself at a chosen point.

Arguments: what the stub worker does (empty: the workers are real); where this process kills itself
(empty: nowhere), or one of the words below; and those of batchscope.

The points: ``before COMMIT in add`` or ``after COMMIT in add``, for any statement of SQL and method of
the store, with the state that is set behind ``set_state``; ``before replacing report.html``, for any file
that is replaced in one step. The words: ``no report`` writes none; ``slow end`` waits, before the workers
are ended, until there is a file ``end`` in the working directory, and says so.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from batchscope import api
from batchscope.cli import main
from batchscope.running import pool
from batchscope.running.store import Store
from run_samples import STUB

METHODS = ("start_session", "update_session", "keep_data", "plan", "set_state", "add")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Connection(sqlite3.Connection):
    """Kills the process before or after a statement of the store's method that is at work."""

    point, method = "", ""

    def _run(self, run: Callable[..., Any], sql: str, *values: Any) -> Any:
        what = f"{sql.split(maxsplit=1)[0]} in {Connection.method}"
        if Connection.point == f"before {what}":
            die()
        result = run(sql, *values)
        if Connection.point == f"after {what}":
            die()
        return result

    def execute(self, sql: str, *values: Any) -> Any:
        return self._run(super().execute, sql, *values)

    def executemany(self, sql: str, *values: Any) -> Any:
        return self._run(super().executemany, sql, *values)


def told(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, known to `Connection` while it is at work."""

    def call(self: Store, *arguments: Any, **named: Any) -> Any:
        Connection.method = f"set_state {arguments[1]}" if name == "set_state" else name
        try:
            return method(self, *arguments, **named)
        finally:
            Connection.method = ""

    return call


def die_in_the_store(point: str) -> None:
    Connection.point = point
    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
    for name in METHODS:
        setattr(Store, name, told(name, getattr(Store, name)))


def die_replacing(name: str) -> None:
    replace = Path.replace

    def replacing(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            die()
        return replace(self, target)

    Path.replace = replacing  # type: ignore[method-assign,assignment]


def end_slowly() -> None:
    leave = pool.Pool.__exit__

    def slowly(self: pool.Pool, *how: object) -> None:
        sys.stdout.write("ending\n")
        sys.stdout.flush()
        while not Path("end").exists():
            time.sleep(0.01)
        leave(self, *how)

    pool.Pool.__exit__ = slowly  # type: ignore[method-assign]


def prepare(stub: str, point: str) -> None:
    if stub:
        pool._COMMAND = (sys.executable, str(STUB), *stub.split("/"))
    if point == "no report":
        api.Run.write_report = lambda self: self.path  # type: ignore[method-assign]
    elif point == "slow end":
        end_slowly()
    elif point.startswith("before replacing "):
        die_replacing(point.removeprefix("before replacing "))
    elif point:
        die_in_the_store(point)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
    stub, point, *sys.argv[1:] = sys.argv[1:]
    prepare(stub, point)
    main()
