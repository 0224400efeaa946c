"""What a history says: pure functions, a history in, frozen results out. Nothing here draws."""

from batchscope.analysis.analyze import analyze
from batchscope.analysis.encode import to_dict, to_json
from batchscope.analysis.results import Analysis, Sentence
from batchscope.analysis.settings import Plan, RecipeFacts, Settings, Target
from batchscope.analysis.source import load_source
from batchscope.recipe import TargetSpec

__all__ = [
    "Analysis",
    "Plan",
    "RecipeFacts",
    "Sentence",
    "Settings",
    "Target",
    "TargetSpec",
    "analyze",
    "load_source",
    "to_dict",
    "to_json",
]
