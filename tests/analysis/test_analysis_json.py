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
from batchscope.analysis import (
    Analysis,
    Plan,
    RecipeFacts,
    Settings,
    Sizing,
    Target,
    TargetSpec,
    WorkersUsed,
    analyze,
    load_source,
    size_up,
    sizing_json,
    to_dict,
    to_json,
)
from batchscope.analysis.estimates import TERMS
from batchscope.records import MemoryUse, SizesTried, StagePace, TriedSize
from budgeted import budgeted_history
from probed import ONE_TRIAL, Terms, in_inference_mode, probed_history, with_gradients
from recipe_samples import recipe, tried, until_history
from to_target_samples import planted_history, until_reached

ESTIMATES = ("train_accuracy", "val_accuracy", "gap", "train_loss", "val_loss")
PARTS = ("observed", *TERMS, "batchnorm_training", "batchnorm_validation")
PROBE = "\n# What `batchscope probe` finds"
TIMED = ("examples_per_second", "seconds_per_update", "peak_memory")
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
        "a clock that stands still": made.assign(seconds=1.0),
        "without updates": made.drop(columns="updates"),
        "memory of one replicate": made[made.replicate == 1].assign(probe_peak_memory=1e9),
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
    beside = RecipeFacts(workers=(WorkersUsed(2, 1),))
    return found | {
        "side by side": analyze(made_history(epochs=2).assign(probe_peak_memory=1e9), recipe=beside),
        "until": analyze(until_history(), recipe=recipe()),
        "until, bare": analyze(bare, recipe=recipe()),
        **_with_targets(),
        **_tuned_to_targets(),
        "gradients": analyze(with_gradients(probed_history(batch_sizes=(16, 64)))),
        "gradients, unbounded": analyze(with_gradients(probed_history(), norm2=0.05)),
        "gradients, one replicate": analyze(lost_gradients()),
        "scaled": analyze(made_history(epochs=2), recipe=RecipeFacts(learning_rate_rule="sqrt")),
    }


def _with_targets() -> dict[str, Analysis]:
    """Targets that all reach, some, one and none; of grids, of single trials, and without columns."""
    grid, plain = planted_history(parts=2), planted_history(rates=(0.1,), replicates=2, epochs=40)
    dead = plain.copy()
    dead.loc[dead["epoch"] == 2, ["val_loss", "val_accuracy"]] = np.nan
    flat = made_history(epochs=3).assign(updates=lambda table: table["epoch"] * 100)
    named = {
        "target, grid": grid,
        "target": plain,
        "target, one replicate": plain[plain["replicate"] == 1],
        "target, diverged": dead[dead["epoch"] <= 2],
        "target, bare": plain.drop(columns=["examples", "seconds"]),
        "target, no updates": plain.drop(columns="updates"),
        "target, plateau": flat,
        "target, perfect scaling": made_history(replicates=4, epochs=2),
    }
    levels = {"target, plateau": 0.915, "target, perfect scaling": 0.903}
    return {
        name: analyze(
            history,
            Settings(
                resamples=100, targets=(TargetSpec(metric="val_accuracy", value=levels.get(name, 0.85)),)
            ),
        )
        for name, history in named.items()
    }


def _tuned_to_targets() -> dict[str, Analysis]:
    """Grids whose trials end at a target, which not all reach."""
    history = until_reached(planted_history((8, 32, 512), parts=2)).assign(stage="one")
    plan = Plan(
        {"one": "until"}, None, {"one": Target("val_accuracy", 0.85, 16)}, frozenset(history["trial"])
    )
    named = {
        "until, grid": history,
        "until, grid, bare": history.drop(columns=["examples", "seconds"]),
        "until, grid, one replicate": history[history["replicate"] == 1],
    }
    return {
        name: analyze(rows, Settings(resamples=100), RecipeFacts(plan=plan)) for name, rows in named.items()
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
    return found


def _of_analyses(project: Path) -> dict[str, tuple[str, str]]:
    page = (project / "docs/json.md").read_text(encoding="utf-8").partition(PROBE)[0]
    found = _documented(page)
    names = [
        *(f"summary[].{name}" for name in ESTIMATES),
        *(f"targets[].{name}" for name in ("epochs", "updates", "examples", "seconds")),
        *(f"learning_rates.points[].{name}" for name in ("selection", "metric")),
        *(f"decomposition.rows[].{name}" for name in (*PARTS, *LAGS)),
        *(f"throughput.rows[].{name}" for name in TIMED),
        *(f"sharpness.rows[].{name}" for name in ("hessian_top", "box")),
    ]
    for name, key in product(names, ("n", "mean", "sd", "low", "high")):
        found[f"{name}.{key}"] = found[f"summary[].gap.{key}"]
    alike = {
        "updates_to_target[].trials[]": "learning_rates.trials[]",
        "updates_to_target[].rates[]": "learning_rates.points[].to_target",
    }
    for path, other in alike.items():
        found |= {name.replace(path, other): row for name, row in found.items() if f"{path}." in name}
    # These learning rates are of a grid.
    found |= {f"{other}.learning_rate": ("number", "never") for other in alike.values()}
    # A row stands there only where some trial has all the terms.
    found |= {f"decomposition.rows[].{name}.mean": ("number", "never") for name in PARTS}
    found |= {"sharpness.rows[].box.mean": ("number", "never")}
    return found | {"throughput.rows[].peak_memory.mean": ("number", "never")}


TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "list of integers": list,
    "list of numbers": list,
    "list of strings": list,
    "list of objects": list,
}


def test_documented_and_produced_keys_are_the_same(analyses: dict[str, Analysis], project: Path) -> None:
    documented = _of_analyses(project)
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


def _sizings() -> list[Sizing]:
    uses = (MemoryUse("resident", 1, 2, 3), MemoryUse("gpu", 1, 2, None))
    pace = StagePace("one", 8, 1, (0.1, 0.2, 0.9), uses)
    unknown = StagePace("one", 8, 1, (0.1,) * 3, ())
    unlimited = StagePace("one", 8, 1, (0.1,) * 3, uses[1:])
    tried = (
        [TriedSize(4, (pace,)), TriedSize(8, (pace,)), TriedSize(16, (), "no memory")],
        [TriedSize(4, (), "no memory")],
        [TriedSize(4, (unknown,))],
        [TriedSize(4, (unlimited,))],
    )
    return [size_up(SizesTried("s", tuple(sizes), 16, "it", {"cores": "2"})) for sizes in tried]


def test_what_a_probe_prints_is_documented(project: Path) -> None:
    page = (project / "docs/json.md").read_text(encoding="utf-8").partition(PROBE)[2]
    documented = _documented(page)
    for sentence in ("advice", "notes[]"):
        documented |= {f"{sentence}.rule": ("string", "never"), f"{sentence}.text": ("string", "never")}
        documented[f"{sentence}.figures"] = ("object", "never")
    produced, null = set(), set()
    for found in _sizings():
        for path, value in _paths(json.loads(sizing_json(found))):
            if re.match(r"facts\.", path) or path.endswith("[]"):
                continue
            produced.add(path)
            null |= {path} if value is None else set()
            assert value is None or isinstance(value, TYPES[documented[path][0]]), path
    assert produced == set(documented)
    assert null == {path for path, (_, rule) in documented.items() if rule != "never"}


def test_every_key_that_may_be_null_was_seen_null(analyses: dict[str, Analysis], project: Path) -> None:
    documented = _of_analyses(project)
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
