import json

import numpy as np
import pandas as pd
import pytest

from analysis_samples import made_history
from batchscope.analysis import Settings, analyze, to_json
from batchscope.errors import HistoryError

METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def _damaged(seed: int) -> pd.DataFrame:
    """A history with rows, columns and figures missing, in any order."""
    random = np.random.default_rng(seed)
    sizes = sorted(random.choice([1, 2, 16, 17, 64, 256], random.integers(1, 5), replace=False).tolist())
    stages = [None, (("a", int(random.integers(1, 4))), ("b", int(random.integers(1, 4))))][seed % 2]
    constant = [None, lambda *_: 0.5, lambda b, *_: 1 - b / 512][seed % 3]
    history = made_history(
        sizes, int(random.integers(1, 5)), int(random.integers(1, 7)), stages=stages, val=constant
    )
    history = history.sample(frac=random.choice([0.5, 0.9, 1.0]), random_state=seed)
    for name in METRICS:
        if random.random() < 0.3:
            lost = random.random(len(history)) < random.choice([0.1, 0.5, 1])
            history.loc[lost, name] = random.choice([np.nan, np.inf])
    optional = [name for name in history.columns if name not in ("batch_size", "replicate", "epoch")]
    return history.drop(columns=[name for name in optional if random.random() < 0.15])


@pytest.mark.parametrize("seed", range(80))
def test_damaged_histories_are_analysed_or_refused_by_name(seed: int) -> None:
    history = _damaged(seed)
    try:
        analysis = analyze(history, Settings(resamples=100))
    except HistoryError as error:
        assert "column" in str(error) or "needs" in str(error)  # noqa: PT017
        return
    json.loads(to_json(analysis))
    assert analysis.verdict
    for sentence in (*analysis.verdict, *analysis.notes):
        assert not {"nan", "inf", "unknown"} & set(sentence.text.replace("(", " ").split())
    for row in analysis.summary:
        metric = getattr(row, analysis.facts.metric)
        assert row.n_trials == row.n_diverged + row.n_missing + metric.n
    if analysis.recommendation.status == "recommended":
        assert analysis.recommendation.within_margin


def test_200_000_rows_give_the_means_that_pandas_gives() -> None:
    sizes, replicates, epochs = np.meshgrid(
        2 ** np.arange(3, 13), np.arange(1, 101), np.arange(1, 201), indexing="ij"
    )
    random = np.random.default_rng(0)
    history = pd.DataFrame(
        {"batch_size": sizes.ravel(), "replicate": replicates.ravel(), "epoch": epochs.ravel()}
    )
    history["updates"] = -(-14_000 // history.batch_size) * history.epoch
    history["train_accuracy"] = 0.9 + 0.05 * random.random(len(history))
    history["val_accuracy"] = 0.9 - 0.01 * np.log2(history.batch_size) + 0.05 * random.random(len(history))
    analysis = analyze(history.sample(frac=1, random_state=0))
    assert analysis.facts.n_trials == 1000
    means = history[history.epoch == 200].groupby("batch_size").val_accuracy.mean()
    assert [row.val_accuracy.mean for row in analysis.final if row.val_accuracy] == pytest.approx(
        means.tolist()
    )
    assert analysis.trend[0].p < 1e-6
    assert analysis.verdict[0].rule == "gap_beyond_updates"
