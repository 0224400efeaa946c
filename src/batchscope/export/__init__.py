"""Runs taken to other tools: MLflow and TensorBoard, also while they go on, and files.

The only part of the project that imports MLflow and TensorBoard.
"""

from batchscope.export.live import following
from batchscope.export.targets import export_run, trackers_for

__all__ = ["export_run", "following", "trackers_for"]
