"""Images or features and their labels from anywhere, as arrays."""

from batchscope.data.competition import fetch_competition
from batchscope.data.dataset import BadImage, Dataset
from batchscope.data.description import Description, describe, load_and_split
from batchscope.data.kaggle_writer import write_cacti, write_kaggle_layout
from batchscope.data.loading import load_dataset
from batchscope.data.prepared import TrainingData
from batchscope.data.resize import resize
from batchscope.data.sample import encoded_png, sample_rows
from batchscope.data.split import Split, selection_of, split_dataset, split_of
from batchscope.data.synthetic import generate_cacti

__all__ = [
    "BadImage",
    "Dataset",
    "Description",
    "Split",
    "TrainingData",
    "describe",
    "encoded_png",
    "fetch_competition",
    "generate_cacti",
    "load_and_split",
    "load_dataset",
    "resize",
    "sample_rows",
    "selection_of",
    "split_dataset",
    "split_of",
    "write_cacti",
    "write_kaggle_layout",
]
