"""The real worker program, which may take so many MiB more of its address space once it is set up."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

from batchscope.running import worker

prepare = worker._prepare


def limited(set_up: Any) -> Any:
    prepared = prepare(set_up)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return prepared


if __name__ == "__main__":
    worker._prepare = limited
    worker.main()
