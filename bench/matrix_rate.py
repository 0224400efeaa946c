"""How fast this machine multiplies matrices: prints float32 GFLOP/s of the fastest library at hand.

One product of two square matrices with all threads, best of several, by NumPy and by TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

__all__ = ["gigaflops"]

_SIZE = 3072
_TIMES = 8


def gigaflops(multiply: Callable[[], object], size: int) -> float:
    """Best rate of a product of two (size, size) matrices; one product before warms up."""
    multiply()
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def main() -> None:
    """Measures and prints."""
    matrix = np.random.default_rng(0).standard_normal((_SIZE, _SIZE), dtype=np.float32)
    tensor = tf.constant(matrix)

    def by_tensorflow() -> object:
        return (tensor @ tensor).numpy()

    print(max(gigaflops(lambda: matrix @ matrix, _SIZE), gigaflops(by_tensorflow, _SIZE)))


if __name__ == "__main__":
    main()
