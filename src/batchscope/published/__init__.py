"""The figures published with the 2019 study "batch_size_characterization" (Meena Mani)."""

from __future__ import annotations

from importlib import resources

import pandas as pd

from batchscope.history import check_history

__all__ = ["STUDY", "published_history"]

STUDY = "aerial-cactus-2019-published"
# The study's own learning rates: one for each stage, the same at every batch size.
_LEARNING_RATES = {"feature_extraction": 1e-4, "fine_tuning": 2e-5}


def published_history() -> pd.DataFrame:
    """The 240 rows of the 2019 study: 4 batch sizes x 3 replicates x 20 epochs.

    MobileNetV2 on the Kaggle competition Aerial Cactus Identification, TensorFlow 2.0.0-alpha0, one
    Tesla T4. `updates` is floor(14000 / batch_size) an epoch. Validation scored
    floor(3500 / batch_size) batches. Seconds were not published.

    Returns:
        A checked history with `study`, `trial` (for example ``b16-r1``) and `learning_rate` added
        to the published columns.
    """
    file = resources.files(__name__) / "published_2019.csv"
    with resources.as_file(file) as path:
        table = pd.read_csv(path)
    named = table.assign(
        study=STUDY,
        trial=[f"b{b}-r{r}" for b, r in zip(table["batch_size"], table["replicate"], strict=True)],
        learning_rate=table["stage"].map(_LEARNING_RATES),
    )
    return check_history(named, STUDY)
