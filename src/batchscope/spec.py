"""The study file: what one characterisation consists of, as validated models.

A study is written in TOML. `Study` is its validated form; `load_study` reads one and reports
everything that is wrong with it at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from batchscope.model_spec import ModelSpec
from batchscope.recipe import Augmentation, Count, FromLayer, LearningRate, Name, Stage, TargetSpec, Until
from batchscope.strict import Strict

__all__ = [
    "NOISE_BATCHES",
    "Augmentation",
    "BaseStudy",
    "DataSpec",
    "FromLayer",
    "LearningRate",
    "ModelSpec",
    "Stage",
    "Study",
    "TargetSpec",
    "Until",
    "UntilCi",
]

Share = Annotated[float, Field(gt=0, lt=1)]
_PROBE_IMAGES = 2_000
NOISE_BATCHES = 3
"""The fewest that ``gradient_noise`` takes: two give both its estimates, a third their uncertainty."""

KERAS_PREFIX = "keras:"
KERAS_DATASETS = ("cifar10", "cifar100", "fashion_mnist", "mnist")
"""Those of ``keras.datasets`` that hold images of one size with one label each."""


def is_path(source: str) -> bool:
    """Whether a `DataSpec.source` names files, and not what is generated or fetched by its name."""
    return source != "synthetic-cactus" and not source.startswith(KERAS_PREFIX)


class DataSpec(Strict):
    """Where the labelled examples come from and how they are split.

    Attributes:
        source: A folder (Kaggle layout, a folder per class, such folders in ``train`` and ``val``,
            or IDX files), a file (``.npz``, or a ``.csv`` or ``.parquet`` table of features),
            ``keras:`` and the name of one of ``keras.datasets``, or ``synthetic-cactus``, which is
            generated. None in a built-in study that needs ``--data``.
        label: Name of the column of labels in a table of features.
        validation: A folder or file with the examples for validation, where `source` has none of
            its own and none shall be drawn from it.
        images: How many images to generate; only for ``synthetic-cactus``.
        limit: Use a stratified subset of this many examples; of those for training where the
            source gives a validation part.
        validation_share: Share of the examples held back for validation, 0 to 1. Without effect
            where the source gives a validation part.
        split_seed: Seed of the stratified split, of the subset, and of the order of given parts;
            the same for all replicates.
        selection_share: Share of the validation part by which the best learning rate of a grid is
            chosen; no other figure rests on it. Without a grid nothing is set apart, nor where trials
            end at a target.
        skip_bad_images: Leave out images that cannot be read, and record them, where otherwise
            the run stops.
    """

    source: Annotated[str, Field(min_length=1)] | None = None
    label: Annotated[str, Field(min_length=1)] | None = None
    validation: Annotated[str, Field(min_length=1)] | None = None
    images: Annotated[int, Field(ge=10)] = 17_500
    limit: Annotated[int, Field(ge=10)] | None = None
    validation_share: Share = 0.2
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 2019
    selection_share: Share = 0.5
    skip_bad_images: bool = False

    @field_validator("source", "validation")
    @classmethod
    def _keras_has_the_dataset(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(KERAS_PREFIX):
            name = value.removeprefix(KERAS_PREFIX)
            if name not in KERAS_DATASETS:
                raise ValueError(f"must be {KERAS_PREFIX} and one of {', '.join(KERAS_DATASETS)}")
        return value

    @model_validator(mode="after")
    def _validation_fits_the_source(self) -> DataSpec:
        if self.source == "synthetic-cactus" and (self.validation or self.label):
            raise ValueError(
                "synthetic-cactus has labels of its own and is split, so it takes no label or validation"
            )
        return self


class UntilCi(Strict):
    """Replicates are added to each batch size until its mean is known well enough.

    Attributes:
        half_width: Half of the 95% t-interval of the mean over replicates at the trials' ends, in the
            metric's unit: a mean that is "known to within" it.
        max_replicates: So many replicates a batch size has at most.
        metric: ``val_accuracy`` or ``val_loss``.
    """

    half_width: Annotated[float, Field(gt=0)]
    max_replicates: Annotated[int, Field(ge=4, le=100_000)] = 20
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"


class BaseStudy(Strict):
    """What every study has, whatever trains: batch sizes to compare, and how often to repeat each.

    Attributes:
        name: Identifies the study in the history.
        description: One paragraph for readers.
        batch_sizes: Mini-batch sizes to compare, each once, in any order.
        replicates: How many seed bundles; replicate r is the same bundle at every batch size.
        seed: Everything random derives from it, the replicate and the epoch.
        until_ci: Adds replicates to those batch sizes whose mean is not known well enough by
            `replicates`, which are then the fewest.
        targets: Of the analysis alone: how many updates each batch size takes to get to each of them.
    """

    name: Name
    description: str = ""
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    replicates: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    until_ci: UntilCi | None = None
    targets: Annotated[list[TargetSpec], Field(min_length=1)] | None = None

    @field_validator("targets")
    @classmethod
    def _targets_are_distinct(cls, value: list[TargetSpec] | None) -> list[TargetSpec] | None:
        if value is not None and any(target in value[:place] for place, target in enumerate(value)):
            raise ValueError("each target must be listed once")
        return value

    @field_validator("batch_sizes")
    @classmethod
    def _batch_sizes_are_distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("each batch size must be listed once")
        return value

    @model_validator(mode="after")
    def _replicates_can_be_added(self) -> BaseStudy:
        if self.until_ci is not None and not 3 <= self.replicates < self.until_ci.max_replicates:
            raise ValueError(
                "with until_ci, replicates must be at least 3, for two are often close by chance, and below "
                f"until_ci.max_replicates, {self.until_ci.max_replicates}; it is {self.replicates}"
            )
        return self


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
            at; all of them where there are fewer. By default 2,000, or for a `ModelSpec.network` the
            largest batch size where that is more.
        validations_per_epoch: Into how many even parts an epoch falls, after each of which validation
            is measured; 1 measures it at the epoch's end alone. What is measured before stands in the
            same row of the history, as ``within_1_updates``, ``within_1_val_accuracy`` and so on. A stage
            that ends at a target may do so at any of these.
        extra_probes: What else to measure where `probes` do, at the cost of gradients:
            ``gradient_noise``, what the gradient noise scale is made of; ``sharpness``, the loss' largest
            curvature and its maximum in a small box.
    """

    last_batch: Literal["keep", "drop"] = "keep"
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    probes: Literal["last", "every", "none"] = "last"
    probe_images: Annotated[int, Field(ge=1)] = _PROBE_IMAGES
    validations_per_epoch: Annotated[int, Field(ge=1, le=1000)] = 1
    extra_probes: list[Literal["gradient_noise", "sharpness"]] = Field(default=[])
    stages: Annotated[list[Stage], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_the_model(cls, raw: Any) -> Any:
        return _with_defaults_of_networks(raw) if isinstance(raw, Mapping) else raw

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
        return self

    @model_validator(mode="after")
    def _ends_tell_what_is_searched_for(self) -> Study:
        if self.until_ci is not None and self.goal is not None:
            raise ValueError(
                "until_ci adds replicates until the mean of a metric at the trials' ends is known, so the "
                "last stage needs another budget than until, which makes ends alike; "
                f"stages.{self.stages[-1].name} has until: take more replicates and leave until_ci out"
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
    def _extra_probes_go_with_probes(self) -> Study:
        if len(set(self.extra_probes)) < len(self.extra_probes):
            raise ValueError(f"extra_probes must be listed once each; they are {self.extra_probes}")
        if self.extra_probes and self.probes == "none":
            raise ValueError(
                'extra_probes are measured where probes are, so probes must be "last" or "every"; or leave '
                "extra_probes out"
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

    @property
    def goal(self) -> Until | None:
        """The target at which trials end; None where the last stage has another budget.

        With one, a grid's best gets there in the fewest updates, and no images are set apart to choose it.
        """
        return self.stages[-1].until


def _with_defaults_of_networks(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Spells out what is another default where the model is a whole network; all else is left alone."""
    model, stages, sizes = raw.get("model"), raw.get("stages"), raw.get("batch_sizes")
    network = model.get("network") if isinstance(model, Mapping) else getattr(model, "network", None)
    if network is None:
        return raw
    defaults: dict[str, Any] = {}
    if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes):
        defaults["probe_images"] = max([_PROBE_IMAGES, *sizes])
    changed = {"stages": [_in_training_mode(stage) for stage in stages]} if isinstance(stages, list) else {}
    return defaults | dict(raw) | changed


def _in_training_mode(stage: Any) -> Any:
    if isinstance(stage, Stage) and "batchnorm" not in stage.model_fields_set:
        return stage.model_copy(update={"batchnorm": "batch"})
    return {"batchnorm": "batch"} | stage if isinstance(stage, dict) else stage
