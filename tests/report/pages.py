"""Contents of pages, kind and hostile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from batchscope.analysis import Analysis, Sentence, Settings, analyze
from batchscope.report.content import DataSample, PageContent, Provenance

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028'\"&lt;{{7*7}}\\"


def sample(
    classes: tuple[str, str] = ("other", "cactus"),
    ids: tuple[str, ...] = ("a.jpg", "b.jpg"),
    skipped: tuple[str, str] = ("bad.jpg", "truncated"),
) -> DataSample:
    images = np.zeros((len(ids), 32, 32, 3), dtype=np.uint8)
    images[0, :16] = (200, 30, 40)
    return DataSample(
        images=images,
        labels=tuple(index % 2 for index in range(len(ids))),
        ids=ids,
        classes=classes,
        training_counts=(25, 75),
        validation_counts=(5, 15),
        skipped=(skipped,),
    )


def kind(published: pd.DataFrame, analysis: Analysis) -> PageContent:
    return PageContent(
        title="published",
        history=published,
        analysis=analysis,
        description="Figures of the 2019 study.",
        study_toml='name = "published"\n',
        provenance=Provenance((("Python", "3.11"), ("Seed", "2019")), "batchscope analyze published"),
        data=sample(),
        notices=("The run still goes on.",),
    )


def hostile(published: pd.DataFrame) -> PageContent:
    """Every text that comes from outside tries to become markup or script."""
    history = published.copy()
    history["stage"] = HOSTILE + history["stage"]
    history["study"] = HOSTILE
    history[f"probe_{HOSTILE}"] = 0.5
    history["trial"] = HOSTILE + history["batch_size"].astype(str) + "/" + history["replicate"].astype(str)
    analysis = analyze(history, Settings(resamples=100))
    sentence = Sentence("planted", HOSTILE)
    return PageContent(
        title="<script>alert(1)</script>",
        history=history,
        analysis=replace(analysis, verdict=(sentence,), notes=(sentence,)),
        description=HOSTILE,
        study_toml=HOSTILE,
        provenance=Provenance(((HOSTILE, HOSTILE),), HOSTILE),
        data=sample(
            classes=("<b>other</b>", HOSTILE),
            ids=("<img src=x onerror=alert(1)>", HOSTILE),
            skipped=(HOSTILE, HOSTILE),
        ),
        notices=(HOSTILE,),
    )
