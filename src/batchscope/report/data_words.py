"""A dataset's description as rows and tables, the same for terminal and page."""

from __future__ import annotations

from batchscope.data import Description
from batchscope.data.problems import first_ten
from batchscope.report.tables import Cell, Table

__all__ = ["class_table", "description_rows", "feature_table"]

_SHOWN = 20
_SIZES = 3


def description_rows(description: Description) -> tuple[tuple[str, str], ...]:
    """Name and value of what there is to say about a dataset as a whole."""
    training, validation = sum(description.training), sum(description.validation)
    how = "given by the source" if description.is_given else "drawn from them, stratified"
    rows = [
        ("source", first_ten([description.source])),
        (
            "examples",
            f"{training + validation:,}: {training:,} for training, {validation:,} for validation ({how})",
        ),
        ("classes", f"{len(description.classes):,}"),
        ("each", _inputs(description)),
        ("values", f"{description.dtype}, {description.least:g} to {description.most:g}"),
    ]
    if description.sizes:
        rows.append(("sizes", _sizes(description)))
    if constant := [feature.name for feature in description.features if feature.is_constant]:
        told = "1 feature never changes" if len(constant) == 1 else f"{len(constant):,} features never change"
        rows.append(("constant", f"{told}: {first_ten(constant)}"))
    rows.append(("first ids", first_ten(description.ids)))
    rows.append(("fingerprint", description.fingerprint))
    return tuple(rows)


def class_table(description: Description) -> Table:
    """Examples per class; of many classes those with the most and with the fewest."""
    rows = sorted(
        zip(description.classes, description.training, description.validation, strict=True),
        key=lambda row: -row[1],
    )
    left = len(rows) - _SHOWN
    if left <= 0:
        shown = list(zip(description.classes, description.training, description.validation, strict=True))
    else:
        shown = [*rows[: _SHOWN // 2], *rows[-_SHOWN // 2 :]]
    return Table(
        "classes",
        "Examples per class",
        f"The 10 classes with the most training examples and the 10 with the fewest; {left:,} lie between."
        if left > 0
        else "",
        ("class", "training", "validation"),
        tuple(
            (Cell(first_ten([name])), Cell(f"{training:,}", training), Cell(f"{validation:,}", validation))
            for name, training, validation in shown
        ),
    )


def feature_table(description: Description) -> Table:
    """The first columns of a table with their range and mean; without rows for images."""
    left = len(description.features) - _SHOWN
    return Table(
        "features",
        "Features",
        f"The first {_SHOWN} of {len(description.features):,}." if left > 0 else "",
        ("feature", "least", "mean", "most"),
        tuple(
            (
                Cell(first_ten([feature.name])),
                *(Cell(f"{value:.6g}", value) for value in (feature.least, feature.mean, feature.most)),
            )
            for feature in description.features[:_SHOWN]
        ),
    )


def _inputs(description: Description) -> str:
    if len(description.shape) == 1:
        return f"a row of {description.shape[0]:,} feature{'' if description.shape[0] == 1 else 's'}"
    height, width, colours = description.shape
    return f"an image of {width} x {height} px in {'grey' if colours == 1 else 'colour'}"


def _sizes(description: Description) -> str:
    listed = [f"{width} x {height} px ({count:,})" for height, width, count in description.sizes[:_SIZES]]
    more = len(description.sizes) - _SIZES
    listed += [f"and {more:,} other sizes"] if more > 0 else []
    kept = tuple(description.sizes[0][:2]) == description.shape[:2] and len(description.sizes) == 1
    height, width = description.shape[:2]
    return ", ".join(listed) + ("" if kept else f"; brought to {width} x {height} px")
