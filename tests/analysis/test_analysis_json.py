import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from analysis_samples import made_history, noisy
from recipe_samples import recipe, tried, until_history

from batchscope.analysis import Analysis, RecipeFacts, analyze, load_source, to_dict, to_json
from batchscope.analysis.estimates import TERMS
from budgeted import budgeted_history
from probed import ONE_TRIAL, Terms, in_inference_mode, probed_history, with_gradients

ESTIMATES = ("train_accuracy", "val_accuracy", "gap", "train_loss", "val_loss")
PARTS = ("observed", *TERMS, "batchnorm_training", "batchnorm_validation")
LAGS = ("lag_mean", "lag_max", "stale_weight")


def _rising(batch_size: int, replicate: int, epoch: int, updates: float) -> float:
    return 0.5 + 0.04 * epoch + noisy(batch_size, replicate, epoch, 1e-4)


def _histories() -> dict[str, pd.DataFrame]:
    made = made_history(epochs=6, val=_rising)
    diverged = made.copy()
    diverged.loc[(made.batch_size == 128) & (made.epoch > 3), ["train_loss", "val_loss"]] = np.nan
    return {
        "published": load_source("published"),
        "made": made,
        "one replicate": made[made.replicate == 1],
        "one batch size": made[made.batch_size == 16],
        "one trial, one epoch": made.iloc[:1],
        "diverged": diverged,
        "bare": made[["batch_size", "replicate", "epoch", "val_loss"]],
        "all diverged": made.assign(val_loss=np.inf),
        "accuracies": made.drop(columns=["train_loss", "val_loss"]),
        "probed": probed_history(),
        "probed once, without lag": probed_history(replicates=1, lag=False),
        "lag unknown": probed_history().assign(**{f"probe_batchnorm_{name}": np.nan for name in LAGS}),
        "inference mode": in_inference_mode(probed_history(), "feature_extraction"),
        "probed in part": probed_history().drop(columns="probe_train_clean_accuracy"),
        "no BatchNorm": probed_history(lambda size, replicate, epoch: Terms(generalization=0.1)),
        "budget in updates": budgeted_history(),
        "grid": tried(),
        "grid, optimistic": tried(selection=None),
        "grid, diverged": tried().assign(train_loss=np.nan),
        "lengths": made[(made.epoch <= 4) | (made.batch_size < 64)],
    }


def lost_gradients() -> pd.DataFrame:
    """One replicate whose gradient is not told from none, with no word of how far, and no eigenvalue."""
    history = with_gradients(probed_history(replicates=1), norm2=-1.0)
    return history.drop(columns=list(ONE_TRIAL)).assign(probe_hessian_top=np.nan)


@pytest.fixture(scope="module")
def analyses() -> dict[str, Analysis]:
    found = {name: analyze(history) for name, history in _histories().items()}
    bare = until_history().drop(columns=["updates", "examples", "seconds"])
    return found | {
        "until": analyze(until_history(), recipe=recipe()),
        "until, bare": analyze(bare, recipe=recipe()),
        "gradients": analyze(with_gradients(probed_history(batch_sizes=(16, 64)))),
        "gradients, unbounded": analyze(with_gradients(probed_history(), norm2=0.05)),
        "gradients, one replicate": analyze(lost_gradients()),
        "scaled": analyze(made_history(epochs=2), recipe=RecipeFacts(learning_rate_rule="sqrt")),
    }


def _paths(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _paths(item, f"{path}[]")
        return
    if path:
        yield path, value
    if isinstance(value, dict) and not path.endswith("figures"):
        for key, item in value.items():
            yield f"{path}.{key}".lstrip("."), item
            yield from _paths(item, f"{path}.{key}".lstrip("."))


def _documented(page: str) -> dict[str, tuple[str, str]]:
    """Key path to (type, null rule), read from the tables under each heading."""
    found: dict[str, tuple[str, str]] = {}
    for section in page.split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        places = re.findall(r"`([^`]+)`", heading) or [""]
        for row in section.splitlines():
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            if len(cells) != 5 or not cells[0].startswith("`"):
                continue
            for place in places:
                path = f"{place}.{cells[0].strip('`')}".lstrip(".")
                found[path] = (cells[1], cells[4])
    names = [
        *(f"summary[].{name}" for name in ESTIMATES),
        *(f"targets[].{name}" for name in ("epochs", "updates", "examples", "seconds")),
        *(f"learning_rates.points[].{name}" for name in ("selection", "metric")),
        *(f"decomposition.rows[].{name}" for name in (*PARTS, *LAGS)),
        *(f"sharpness.rows[].{name}" for name in ("hessian_top", "box")),
    ]
    for name, key in product(names, ("n", "mean", "sd", "low", "high")):
        found[f"{name}.{key}"] = found[f"summary[].gap.{key}"]
    # A row stands there only where some trial has all the terms.
    found |= {f"decomposition.rows[].{name}.mean": ("number", "never") for name in PARTS}
    found["sharpness.rows[].box.mean"] = ("number", "never")
    return found


TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "list of integers": list,
    "list of numbers": list,
    "list of objects": list,
}


def test_documented_and_produced_keys_are_the_same(analyses: dict[str, Analysis], project: Path) -> None:
    documented = _documented((project / "docs/json.md").read_text(encoding="utf-8"))
    produced: set[str] = set()
    for analysis in analyses.values():
        for path, value in _paths(to_dict(analysis)):
            if re.search(r"\[\]$", path) or not path:
                continue
            produced.add(path)
            kind, null = documented[path]
            if value is None:
                assert not null.startswith("never"), path
            else:
                assert isinstance(value, TYPES[kind]), path
    assert produced == set(documented)


def test_every_key_that_may_be_null_was_seen_null(analyses: dict[str, Analysis], project: Path) -> None:
    documented = _documented((project / "docs/json.md").read_text(encoding="utf-8"))
    null = {
        path for analysis in analyses.values() for path, value in _paths(to_dict(analysis)) if value is None
    }
    assert {path for path, (_, rule) in documented.items() if not rule.startswith("never")} - null == set()


def test_rules_are_documented(analyses: dict[str, Analysis], project: Path) -> None:
    page = (project / "docs/json.md").read_text(encoding="utf-8")
    for analysis in analyses.values():
        for sentence in (*analysis.verdict, *analysis.notes, *analysis.recommendation.reasons):
            assert f"`{sentence.rule.replace('metric_', 'gap_')}`" in page or f"`{sentence.rule}`" in page


def test_json_is_strict_and_round_trips(analyses: dict[str, Analysis]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    for analysis in analyses.values():
        text = to_json(analysis)
        assert json.loads(text, parse_constant=refuse) == to_dict(analysis)
        assert text.endswith("}\n")


def test_nan_becomes_null(analyses: dict[str, Analysis]) -> None:
    row = json.loads(to_json(analyses["one replicate"]))["summary"][0]["val_accuracy"]
    assert row["sd"] is None
    assert row["low"] is None
    assert row["n"] == 1
    assert row["mean"] > 0
