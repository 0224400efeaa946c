"""Stages whose networks evaluate alike share one evaluator."""

from __future__ import annotations

import pytest
from backbones import SMALL_TAIL, small_study

from batchscope.training.loops import CompiledLoop
from batchscope.training.trial import Trainer
from tiny import stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]

BATCH, INFERENCE = {"batchnorm": "batch"}, {"batchnorm": "inference"}


@pytest.mark.parametrize(
    ("first", "second", "traces"),
    [
        # Two trainings; evaluation by the batch and by averages, once or for each stage.
        pytest.param(BATCH, BATCH, 4, id="alike"),
        pytest.param(BATCH, {**BATCH, "batchnorm_momentum": 0.9}, 6, id="another momentum"),
        pytest.param(BATCH, INFERENCE, 5, id="another mode"),
        pytest.param(INFERENCE, INFERENCE, 4, id="another cut"),
    ],
)
def test_what_is_alike_is_traced_once(
    first: dict[str, object], second: dict[str, object], traces: int, monkeypatch: pytest.MonkeyPatch
):
    traced = []
    for name in ("_train_block", "_evaluate_block"):
        block = getattr(CompiledLoop, name)

        def counted(self: CompiledLoop, *tensors: object, block: object = block) -> object:
            traced.append(block)
            return block(self, *tensors)  # type: ignore[operator]

        monkeypatch.setattr(CompiledLoop, name, counted)
    stages = [
        stage("head_stage", "head", epochs=1, **first),
        stage("tail_stage", SMALL_TAIL, epochs=1, **second),
    ]
    Trainer(small_study(stages=stages), tiny_data())
    assert len(traced) == traces
