"""What a folder of images holds, before any of them is decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchscope.data.dataset import BadImage
from batchscope.data.image_files import ImageFiles

__all__ = ["Listing"]


@dataclass(frozen=True, eq=False)
class Listing:
    """Labelled image files.

    Attributes:
        ids: Those that have both a label and a file, in the order of the table or of the names.
        labels: Index into `classes`, int64 of shape (n,).
        classes: Names of the classes.
        files: Gives the bytes of each id; to be closed.
        bad: Ids without a file, and files without a label.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    files: ImageFiles
    bad: tuple[BadImage, ...]

    def take(self, rows: NDArray[np.int64]) -> Listing:
        """Some of the images, in this order."""
        return replace(self, ids=tuple(self.ids[row] for row in rows), labels=self.labels[rows])
