"""What this machine has to offer a run: cores, memory, a GPU; and how a process is held to its share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "look_around", "offer_to_be_ended", "thread_settings", "usable_cores"]

_ROOT = Path("/")
_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
_GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # NVIDIA; AMD; Windows' subsystem for Linux


@dataclass(frozen=True)
class Machine:
    """What a run may use.

    Attributes:
        cores: Cores that this process may run on.
        memory: Bytes that are free; None where the system does not tell.
        gpu: Whether a GPU is visible.
    """

    cores: int
    memory: int | None
    gpu: bool


def look_around() -> Machine:
    """The machine as it is now."""
    return Machine(usable_cores(), _free_memory(_ROOT), _gpu_visible(_ROOT / "dev"))


def usable_cores() -> int:
    """Cores that this process may run on, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_settings(threads: int) -> Mapping[str, str]:
    """Environment variables that hold a process to so many threads; libraries read them when imported.

    TensorFlow reads the first two, OpenMP (PyTorch, parts of TensorFlow) and NumPy's linear algebra
    the next three, XLA's CPU client (JAX) the last. Threads that only wait are not counted.
    """
    names = (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NPROC",
    )
    return dict.fromkeys(names, str(threads))


def offer_to_be_ended() -> None:
    """Has Linux end this process first where memory runs out, before what others have at work."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _free_memory(root: Path) -> int | None:
    """What Linux calls available, and no more than the limit of the container.

    Simplified: what the container uses already is not taken off its limit.
    """
    free = re.findall(r"^MemAvailable: +(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    limits = [_text(root / name).strip() for name in _LIMITS]
    amounts = [1024 * int(kib) for kib in free] + [int(limit) for limit in limits if limit.isdecimal()]
    return min(amounts, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""  # another system, or another kind of container


def _gpu_visible(devices: Path) -> bool:
    """Whether there is a GPU that ``CUDA_VISIBLE_DEVICES`` does not hide.

    Simplified: without importing a backend nobody knows whether it can use the GPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    return any(next(devices.glob(pattern), None) is not None for pattern in _GPUS)
