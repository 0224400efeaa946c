"""From a study's description of its data to a dataset in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscope.data.dataset import BadImage, Dataset, is_images
from batchscope.data.decode import decode_all, several_sizes
from batchscope.data.listing import Listing
from batchscope.data.parts import Arrays, Parts
from batchscope.data.problems import first_ten, tell_bad_images
from batchscope.data.resize import check_interpolation, resize
from batchscope.data.sources import LAYOUTS, read_parts
from batchscope.data.split import stratified_subset
from batchscope.data.synthetic import SYNTHETIC, draw_cacti, generate_cacti, synthetic_labels
from batchscope.errors import DataError
from batchscope.spec import DataSpec

__all__ = ["load_dataset"]


def load_dataset(spec: DataSpec, image_size: int | None, interpolation: str) -> Dataset:
    """Loads the examples that a study names, each image decoded once.

    A limit is taken before decoding: then only the chosen images are examined, while ids and files
    are matched for all. Where the source gives a validation part, the limit is one of the training
    part alone. Images left out as bad are not replaced by others.

    Args:
        spec: Where the examples come from, the limit, its seed, and whether to skip bad images.
        image_size: Height and width in pixels that the network sees. Images that all have one
            size, no larger than this, keep it; otherwise each is brought to this size squared.
            None leaves them as they are; they must have one size then.
        interpolation: ``nearest`` or ``bilinear``.

    Returns:
        The dataset, in the order of the table, the archive, or of class and name; a part given for
        validation comes last.

    Raises:
        DataError: The source fits no layout or several, its content is wrong, images are bad and may
            not be skipped, a class is left without an example, the limit exceeds the examples, the
            two parts do not fit each other, or they do not fit into memory.
    """
    check_interpolation(interpolation)
    if spec.source is None:
        raise DataError(f"the study names no data: set data.source or --data to {LAYOUTS}")
    try:
        if spec.source == SYNTHETIC:
            return _load_synthetic(spec)
        with closing(read_parts(spec)) as parts:
            return _load(_limited(parts, spec), spec, image_size, interpolation)
    except MemoryError as error:
        raise DataError(
            f"{spec.source}: the examples must fit into memory, but do not; use fewer of them (--limit)"
        ) from error


def _load_synthetic(spec: DataSpec) -> Dataset:
    if spec.limit is None:
        return generate_cacti(spec.images)
    return draw_cacti(stratified_subset(synthetic_labels(spec.images), spec.limit, spec.split_seed))


def _limited(parts: Parts, spec: DataSpec) -> Parts:
    """A subset of the training part; where the run will be refused for bad images, all of it."""
    if spec.limit is None or (parts.bad and not spec.skip_bad_images):
        return parts
    rows = stratified_subset(parts.training.labels, spec.limit, spec.split_seed)
    return replace(parts, training=parts.training.take(rows))


@dataclass(frozen=True, eq=False)
class _Content:
    """Inputs of both parts, which of the examples they are, and what was left out."""

    inputs: NDArray[np.uint8] | NDArray[np.float32]
    kept: NDArray[np.int64]
    bad: tuple[BadImage, ...]
    sizes: tuple[tuple[int, int, int], ...]
    features: tuple[str, ...] = ()


def _load(parts: Parts, spec: DataSpec, image_size: int | None, interpolation: str) -> Dataset:
    source, given = str(spec.source), 0 if parts.validation is None else len(parts.validation.ids)
    labels, ids, notes = _joined(parts, source)
    content = _content(parts, ids, source, image_size, interpolation)
    bad = (*parts.bad, *content.bad)
    if bad and not spec.skip_bad_images:
        raise DataError(f"{source}: {tell_bad_images(bad)}")
    is_given = content.kept >= len(labels) - given
    classes = parts.training.classes
    _check_classes(labels[content.kept][~is_given], classes, source, bad)
    if given and not is_given.any():
        raise DataError(f"{source}: the validation part must have an example; {tell_bad_images(bad)}")
    if given and spec.validation_share != DataSpec().validation_share:
        notes = (
            *notes,
            f"validation_share = {spec.validation_share} has no effect: the validation part is given.",
        )
    return Dataset(
        inputs=content.inputs,
        labels=labels[content.kept],
        ids=tuple(ids[place] for place in content.kept),
        classes=classes,
        source=source,
        skipped=bad,
        given=int(is_given.sum()),
        features=content.features,
        sizes=content.sizes,
        notes=notes,
    )


def _joined(parts: Parts, source: str) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """Labels and ids of both parts, and notes for the reader."""
    training, validation = parts.training, parts.validation
    if validation is None:
        return training.labels, training.ids, parts.notes
    unknown = [name for name in validation.classes if name not in training.classes]
    if unknown:
        raise DataError(
            f"{source}: each class of the {parts.names[1]} part must be in the {parts.names[0]} part, but "
            f"{first_ten(unknown)} is not"
        )
    place = np.array([training.classes.index(name) for name in validation.classes], dtype=np.int64)
    ids = [
        f"{name}/{own}"
        for name, part in zip(parts.names, (training, validation), strict=True)
        for own in part.ids
    ]
    notes, absent = parts.notes, [name for name in training.classes if name not in validation.classes]
    if absent:
        notes = (
            *notes,
            f"The {parts.names[1]} part of {source} has no example of class {first_ten(absent)}.",
        )
    return np.concatenate([training.labels, place[validation.labels]]), tuple(ids), notes


def _content(
    parts: Parts, ids: tuple[str, ...], source: str, image_size: int | None, interpolation: str
) -> _Content:
    given = [part for part in (parts.training, parts.validation) if part is not None]
    arrays = [part for part in given if isinstance(part, Arrays)]
    if arrays:
        return _of_arrays(arrays, source, image_size, interpolation)
    read = _reader(parts.names, [part for part in given if isinstance(part, Listing)])
    try:
        decoded = decode_all(ids, read, image_size, interpolation)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    return _Content(decoded.images, decoded.kept, decoded.bad, decoded.sizes)


def _reader(names: Sequence[str], parts: Sequence[Listing]) -> Callable[[str], bytes]:
    """Reads image files of one part by their ids, of two by ids that begin with the part's name."""
    if len(parts) == 1:
        return parts[0].files.read
    files = {name: part.files for name, part in zip(names, parts, strict=True)}

    def read(name: str) -> bytes:
        part, _, own = name.partition("/")
        return files[part].read(own)

    return read


def _of_arrays(parts: Sequence[Arrays], source: str, image_size: int | None, interpolation: str) -> _Content:
    first = parts[0]
    for other in parts[1:]:
        if other.features != first.features:
            odd = sorted(set(first.features) ^ set(other.features)) or ["their order"]
            raise DataError(
                f"{source}: both parts must have the same features, but they differ in {first_ten(odd)}"
            )
        if other.inputs.dtype != first.inputs.dtype or _kind(other) != _kind(first):
            raise DataError(
                f"{source}: both parts must have inputs of one kind, but they are {first.inputs.dtype} "
                f"{first.inputs.shape} and {other.inputs.dtype} {other.inputs.shape}"
            )
    kept = np.arange(sum(len(part.ids) for part in parts), dtype=np.int64)
    if not is_images(first.inputs):
        return _Content(_together([part.inputs for part in parts]), kept, (), (), first.features)
    images = [np.asarray(part.inputs, np.uint8) for part in parts]
    counts: Counter[tuple[int, int]] = Counter()
    for array in images:
        counts[array.shape[1], array.shape[2]] += len(array)
    sizes = tuple((*size, count) for size, count in counts.most_common())
    if image_size is None and len(sizes) > 1:
        raise DataError(f"{source}: {several_sizes(sizes)}")
    if image_size is not None and (len(sizes) > 1 or max(max(size) for size in counts) > image_size):
        images = [resize(array, image_size, interpolation) for array in images]
    return _Content(_together(images), kept, (), sizes)


def _together(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array, which is not copied where there is no other."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _kind(part: Arrays) -> tuple[int, ...]:
    """What both parts must share: the number of features, or of colours."""
    return part.inputs.shape[3:] if part.inputs.ndim == 4 else part.inputs.shape[1:]


def _check_classes(
    labels: NDArray[np.int64], classes: tuple[str, ...], source: str, bad: tuple[BadImage, ...]
) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    lost = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if lost:
        skipped = f"; {tell_bad_images(bad)}" if bad else ""
        what = "images" if bad else "examples"
        raise DataError(
            f"{source}: each class must have an example to train on, but of {len(labels):,} usable {what} "
            f"none is of class {first_ten(lost)}{skipped}"
        )
