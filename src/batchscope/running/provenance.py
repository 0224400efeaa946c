"""What a run notes of the machine and the software it ran on."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from batchscope.masking import masked, secrets_in
from batchscope.running.machine import usable_cores

__all__ = ["now", "surroundings"]


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def surroundings() -> Mapping[str, str]:
    """Version, command and hardware, as readable texts.

    Nothing of the environment's variables is noted: they may hold secrets. What looks like one in the
    command is masked.
    """
    command = shlex.join([*_program(), *sys.argv[1:]])
    return {
        "batchscope": metadata.version("batchscope"),
        "command": masked(command, secrets_in(command)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
        "memory": _memory(),
    }


def _program() -> list[str]:
    started = Path(sys.argv[0])
    return ["python", "-m", started.parent.name] if started.name == "__main__.py" else [started.name]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
