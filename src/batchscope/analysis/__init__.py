"""What a history says: pure functions, a history in, frozen results out. Nothing here draws."""

from batchscope.analysis.analyze import analyze
from batchscope.analysis.encode import sizing_json, to_dict, to_json
from batchscope.analysis.results import Analysis, Sentence
from batchscope.analysis.settings import Plan, RecipeFacts, Settings, Target, WorkersUsed
from batchscope.analysis.sizing import Sizing, size_up
from batchscope.analysis.source import load_source
from batchscope.recipe import TargetSpec

__all__ = [
    "Analysis",
    "Plan",
    "RecipeFacts",
    "Sentence",
    "Settings",
    "Sizing",
    "Target",
    "TargetSpec",
    "WorkersUsed",
    "analyze",
    "load_source",
    "size_up",
    "sizing_json",
    "to_dict",
    "to_json",
]
