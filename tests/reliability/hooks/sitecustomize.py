"""Tells which epochs a worker trains, and kills it in the middle of a checkpoint where a test wants that.

Python imports this module when it starts, where this folder is on its path. Environment variables:
``EPOCHS_LOG``, a file for lines such as ``began b8-r1 3`` and ``kept b8-r1 3``; ``CHECKPOINT_KILLS``, a
folder of files such as ``b8-r1-3-torn``, each a kill that happens once: ``torn`` when half of the
file is written, ``before`` and ``after`` it takes the place of the older one.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# So that a blow falls into the epoch that it is meant for, whatever the machine.
EPOCH_SECONDS = 0.2
LOG, KILLS = Path(os.environ["EPOCHS_LOG"]), Path(os.environ["CHECKPOINT_KILLS"])
MODULE = "batchscope.training.trial"


class Finder(importlib.abc.MetaPathFinder):
    """Wraps the module of trials as soon as it is imported."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            watch_epochs(module)
            watch_checkpoints(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def tell(text: str) -> None:
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"{text}\n")


def watch_epochs(module: Any) -> None:
    train = module.Trainer._train_epoch

    def train_epoch(self: Any, planned: Any, order: Any, starts: Any, last: Any) -> Any:
        tell(f"began {order.trial.name} {last.epoch + 1}")
        time.sleep(EPOCH_SECONDS)
        return train(self, planned, order, starts, last)

    module.Trainer._train_epoch = train_epoch


def watch_checkpoints(module: Any) -> None:
    save, replace = module.save_checkpoint, Path.replace

    def save_checkpoint(checkpoint: Any, path: Path) -> None:
        trial, epoch = checkpoint.trial, checkpoint.record.epoch

        def replacing(self: Path, target: Path) -> Path:
            if is_due(f"{trial}-{epoch}-torn"):
                os.truncate(self, self.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            if is_due(f"{trial}-{epoch}-before"):
                os.kill(os.getpid(), signal.SIGKILL)
            result = replace(self, target)
            tell(f"kept {trial} {epoch}")
            if is_due(f"{trial}-{epoch}-after"):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        Path.replace = replacing  # type: ignore[method-assign,assignment]
        try:
            save(checkpoint, path)
        finally:
            Path.replace = replace  # type: ignore[method-assign]

    module.save_checkpoint = save_checkpoint


def is_due(name: str) -> bool:
    try:
        (KILLS / name).unlink()
    except FileNotFoundError:
        return False
    return True


sys.meta_path.insert(0, Finder())
