"""Images and labels from anywhere, as arrays."""

from batchscope.data.competition import fetch_competition
from batchscope.data.dataset import BadImage, Dataset
from batchscope.data.kaggle_writer import write_cacti, write_kaggle_layout
from batchscope.data.loading import load_dataset
from batchscope.data.prepared import TrainingData
from batchscope.data.resize import resize
from batchscope.data.split import Split, selection_rows, split_dataset
from batchscope.data.synthetic import generate_cacti

__all__ = [
    "BadImage",
    "Dataset",
    "Split",
    "TrainingData",
    "fetch_competition",
    "generate_cacti",
    "load_dataset",
    "resize",
    "selection_rows",
    "split_dataset",
    "write_cacti",
    "write_kaggle_layout",
]
