"""How much memory this process takes, and took at most: of the machine, of its address space, of a GPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscope.records import MemoryUse

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["MemoryMeter", "peak_since_reset", "reset_peaks"]

_PROC = Path("/proc/self")
_GPU = "GPU:0"


@dataclass(frozen=True)
class _Level:
    """Bytes taken now, and at most."""

    now: int
    peak: int


class MemoryMeter:
    """Tells the high-water marks of this process beside what it took when the meter was made.

    Args:
        memory: Bytes of the machine's memory that this process may have; None where nobody knows.
    """

    def __init__(self, memory: int | None) -> None:
        self._limits = {"resident": memory, "address_space": _address_space(), "gpu": _gpu_limit()}
        self._idle = _levels()

    def reset(self) -> None:
        """Begins a new high-water mark, where the system lets; elsewhere the old one goes on."""
        reset_peaks()

    def uses(self) -> tuple[MemoryUse, ...]:
        """What was taken since; of an address space, where it is limited, since the process began."""
        return tuple(
            MemoryUse(kind, self._idle[kind].now, level.peak, self._limits[kind])
            for kind, level in _levels().items()
            if kind in self._idle and (kind != "address_space" or self._limits[kind] is not None)
        )


def reset_peaks() -> bool:
    """Sets the high-water marks of memory to what is taken now; returns whether the system lets.

    Linux does by a 5 in ``clear_refs``, see proc(5). What was freed before, but not given back, is given
    back first, as far as the C library can: else a trial would be charged with a larger one's before it.
    """
    _give_back()
    with suppress(OSError):
        (_PROC / "clear_refs").write_text("5", encoding="ascii")
        if (tensorflow := _tensorflow_with_gpu()) is not None:
            tensorflow.config.experimental.reset_memory_stats(_GPU)
        return True
    return False


def _give_back() -> None:
    """By glibc's malloc_trim(3); other systems' libraries have none."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_since_reset() -> int | None:
    """The most bytes since `reset_peaks`: of the GPU where one is used, else of the machine's memory.

    None where the system does not tell.
    """
    levels = _levels()
    level = levels.get("gpu", levels.get("resident"))
    return None if level is None else level.peak


def _levels() -> Mapping[str, _Level]:
    """By kind of memory, those that can be told here.

    Simplified: of a GPU, TensorFlow's alone, and the first one's; JAX and PyTorch are not asked.
    """
    levels = _of_system()
    if (tensorflow := _tensorflow_with_gpu()) is not None:
        told = tensorflow.config.experimental.get_memory_info(_GPU)
        levels["gpu"] = _Level(told["current"], told["peak"])
    return levels


def _of_system() -> dict[str, _Level]:
    """From Linux's status; elsewhere getrusage knows the peak alone, which stands for both."""
    with suppress(OSError):
        lines = (_PROC / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        told = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
        if "VmHWM" in told:
            kib = {name: int(told[name][0]) * 1024 for name in ("VmRSS", "VmHWM", "VmSize", "VmPeak")}
            return {
                "resident": _Level(kib["VmRSS"], kib["VmHWM"]),
                "address_space": _Level(kib["VmSize"], kib["VmPeak"]),
            }
    if resource is None:
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"resident": _Level(most, most)}


def _address_space() -> int | None:
    """The limit that is set on it; None for none."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _tensorflow_with_gpu() -> Any | None:
    """TensorFlow, where this process has imported it and it has a GPU; nothing is imported for it."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow if tensorflow is not None and tensorflow.config.list_physical_devices("GPU") else None


def _gpu_limit() -> int | None:
    """Bytes that TensorFlow may take of the GPU; None where there is none."""
    if _tensorflow_with_gpu() is None:
        return None
    from tensorflow.python.client import device_lib

    limits = {device.name: device.memory_limit for device in device_lib.list_local_devices()}
    return next((int(limit) for name, limit in limits.items() if name.endswith(_GPU)), None)
