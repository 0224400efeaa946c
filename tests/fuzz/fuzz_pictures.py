"""Pictures of a few bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

__all__ = ["picture", "pixels"]


def pixels(seed: int) -> np.ndarray:
    """Random pixels, uint8 (4, 4, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)


def picture(seed: int, form: str = "PNG") -> bytes:
    """The file of such an image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, form)
    return buffer.getvalue()
