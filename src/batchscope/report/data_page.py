"""What a dataset is, in a terminal and as a page: counts, ranges and a sample of its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from batchscope.data import Dataset, Description, Split, sample_rows
from batchscope.data.problems import first_ten
from batchscope.report.content import DataSample
from batchscope.report.data_words import class_table, description_rows, feature_table
from batchscope.report.files import replace_file
from batchscope.report.terminal import rich_table
from batchscope.report.terminal_images import image_row

__all__ = ["data_sample", "print_description", "write_data_page"]


def data_sample(dataset: Dataset, split: Split) -> DataSample:
    """A dataset at a glance, as a run's page shows it."""
    is_table = dataset.inputs.ndim == 2
    rows = [] if is_table else sample_rows(dataset, split)
    images = np.empty((0, 1, 1, 3), np.uint8) if is_table else np.asarray(dataset.inputs[rows], np.uint8)
    return DataSample(
        images=images,
        labels=tuple(int(dataset.labels[row]) for row in rows),
        ids=tuple(dataset.ids[row] for row in rows),
        classes=dataset.classes,
        training_counts=dataset.class_counts(split.training),
        validation_counts=dataset.class_counts(split.validation),
        skipped=tuple((bad.id, bad.reason) for bad in dataset.skipped),
        features=dataset.inputs.shape[1] if is_table else 0,
        notes=dataset.notes,
    )


def print_description(description: Description, sample: DataSample, console: Console) -> None:
    """Prints figures, notes, classes, features, the first images, and those that cannot be used.

    Text from files is printed as it is, with what does not print escaped: Rich markup in it means
    nothing.
    """
    facts = RichTable.grid(padding=(0, 2))
    for name, value in description_rows(description):
        facts.add_row(Text(name, style="dim"), Text(value))
    console.print(facts, "")
    for note in description.notes:
        console.print(Text(first_ten([note])), "")
    for table in (class_table(description), feature_table(description)):
        if table.rows:
            console.print(rich_table(replace(table, note="")))
            console.print(Text(table.note, style="dim"))  # a caption would be as narrow as its table
    if (images := image_row(sample, console)) is not None:
        console.print(images, "", soft_wrap=True)
    if description.skipped:
        count = len(description.skipped)
        told = [f"{name}: {reason}" for name, reason in description.skipped]
        noun = "image" if count == 1 else "images"
        head = f"{count:,} {noun} cannot be used; a run stops for them unless given --skip-bad-images:"
        console.print(Text(f"{head}\n  {first_ten(told, between=chr(10) + '  ')}"))


def write_data_page(description: Description, sample: DataSample, path: Path) -> None:
    """Writes a page of one file that needs nothing else and holds no script.

    Raises:
        ReportError: The file cannot be written.
    """
    replace_file(path, data_page_html(description, sample).encode())


def data_page_html(description: Description, sample: DataSample) -> str:
    """The page as text."""
    from batchscope.report.templating import data_values, environment, policy, variables
    from batchscope.report.theme import DARK, LIGHT

    return (
        environment()
        .get_template("description.html")
        .render(
            title=Path(description.source).name or description.source,
            rows=description_rows(description),
            features=feature_table(description),
            light=variables(LIGHT, 1),
            dark=variables(DARK, 1),
            policy=policy(),
            **data_values(sample),
        )
    )
