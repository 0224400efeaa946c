"""What a page holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.errors import ReportError

if TYPE_CHECKING:
    from batchscope.report.figure import Figure

__all__ = ["DataSample", "PageContent", "Provenance"]


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from, and what repeats them.

    Attributes:
        rows: (name, value) pairs in the order of reading: versions, hardware, seeds, start and
            duration, weights, data source and fingerprint, and whatever else is known.
        command: Repeats the run; None where it is not known.
    """

    rows: tuple[tuple[str, str], ...]
    command: str | None = None


@dataclass(frozen=True)
class DataSample:
    """The data at a glance.

    Attributes:
        images: A few of them, uint8 of shape (k, height, width, 3), or (k, height, width, 1) for
            grey; none (k = 0) of a table of features.
        labels: Index into `classes` of each image, k of them.
        ids: Name of each image, k of them.
        classes: Names of the classes.
        training_counts: Examples per class in the training part, in the order of `classes`.
        validation_counts: Likewise of the validation part.
        skipped: (id, reason) of images that were left out.
        features: Number of features of an example; 0 where examples are images.
        notes: What a reader must know of where the parts came from.

    Raises:
        ReportError: Lengths, shape, dtype or counts are not as described.
    """

    images: npt.NDArray[np.uint8]
    labels: tuple[int, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    training_counts: tuple[int, ...]
    validation_counts: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    features: int = 0
    notes: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        """What the examples are called: images, or examples where they are rows of features."""
        return "examples" if self.features else "images"

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
            raise ReportError(
                f"sample images must be uint8 of shape (k, height, width, 3 or 1), "
                f"but got {self.images.dtype} of shape {shape}"
            )
        if not len(self.labels) == len(self.ids) == shape[0]:
            raise ReportError(
                f"each sample image needs a label and an id, but got {shape[0]} images, "
                f"{len(self.labels)} labels and {len(self.ids)} ids"
            )
        counts = len(self.training_counts), len(self.validation_counts)
        if counts != (len(self.classes),) * 2:
            raise ReportError(
                f"each class needs its two counts, but got {len(self.classes)} classes and {counts} counts"
            )
        numbers = (*self.training_counts, *self.validation_counts)
        if not all(isinstance(number, int) for number in numbers):
            raise ReportError(f"counts of examples must be whole numbers, but got {numbers}")


@dataclass(frozen=True)
class PageContent:
    """Everything on a page.

    Attributes:
        title: Heads the page; as a rule the study's name.
        history: In standard form, see `batchscope.history.check_history`.
        analysis: Of that history.
        description: The study's own words about itself; empty for none.
        study_toml: The study file as text; None where there is none.
        provenance: None where nothing is known.
        data: None where the images are not at hand.
        notices: What the reader must know first, for example that the run still goes on.
    """

    title: str
    history: pd.DataFrame
    analysis: Analysis
    description: str = ""
    study_toml: str | None = None
    provenance: Provenance | None = None
    data: DataSample | None = None
    notices: tuple[str, ...] = ()

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """All figures, drawn once for the page and for pictures.

        Raises:
            HistoryError: The history has neither an accuracy nor a loss.
        """
        from batchscope.report.figures import all_figures

        return all_figures(self.history, self.analysis)
