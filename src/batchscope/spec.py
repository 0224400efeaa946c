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
from batchscope.strict import Strict

__all__ = [
    "Augmentation",
    "DataSpec",
    "FromLayer",
    "ModelSpec",
    "Stage",
    "Study",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# Sums and products of counts then fit into the 64 bits of the store and of arrays.
_MOST = 1_000_000_000
Count = Annotated[int, Field(ge=1, le=_MOST)]
_PROBE_IMAGES = 2_000


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


class Augmentation(Strict):
    """Random views of a training image, drawn anew each epoch, as one affine resampling.

    The meaning of each number, and the order of composition, is that of Keras'
    ``ImageDataGenerator``; pixels outside the image repeat its border (fill mode ``nearest``) and
    the resampling is bilinear.

    Attributes:
        rotation: Largest rotation in degrees, either way.
        width_shift: Largest horizontal shift as a share of the width, either way.
        height_shift: Largest vertical shift as a share of the height, either way.
        shear: Largest shear angle in degrees, either way.
        zoom: Smallest and largest zoom factor, drawn apart for height and width; below 1
            magnifies.
        horizontal_flip: Mirror half of the images.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    width_shift: Fraction = 0.0
    height_shift: Fraction = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    zoom: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [1.0, 1.0]
    )
    horizontal_flip: bool = False

    @field_validator("zoom")
    @classmethod
    def _zoom_is_ordered(cls, value: list[float]) -> list[float]:
        if value[0] > value[1]:
            raise ValueError("must be [smallest, largest]")
        return value


class FromLayer(Strict):
    """The backbone's layers from one on are trained, together with the head.

    Attributes:
        from_layer: Index in the backbone's list of layers as Keras 3 builds it, or a layer's name.
    """

    from_layer: Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]


class Stage(Strict):
    """A part of a trial with its own trainable layers, learning rate and augmentation.

    Attributes:
        name: Used in the history and in keys such as ``stages.fine_tuning.epochs``.
        trainable: ``head`` (the dense layer alone), ``all``, or a table with ``from_layer``.
        optimizer: Keras optimizer, with Keras' defaults but for the learning rate; its state
            starts afresh with the stage.
        learning_rate: Constant through the stage.
        epochs: Budget in passes over the training images; either this or `updates`.
        updates: Budget in optimizer steps, the same at every batch size; the last epoch may be
            cut short by it.
        augmentation: Random views of the training images; without it they are shown as they are.
        batchnorm: ``inference``: the backbone runs in inference mode, so its BatchNorm layers use
            their stored averages, which do not move, and its dropout is off. ``batch``: it runs in
            training mode; all its BatchNorm layers normalise by the batch and move their averages,
            the frozen ones too, as in TensorFlow 2.0's Keras of 2019, and its dropout is on. In a study
            whose model is a `ModelSpec.network` the default is ``batch``, as for Keras' ``fit``.
        batchnorm_momentum: Instead of the backbone's own (0.999 in MobileNetV2): the weight that
            a BatchNorm average keeps at each batch. Only with ``batchnorm = "batch"``.
        ghost_batch: BatchNorm normalises by this many examples whatever the batch size: a batch
            passes the network in parts of this size and their gradients are averaged into one
            update (ghost batches, Hoffer et al. 2017). Only with ``batchnorm = "batch"``.
        evaluation: Which BatchNorm statistics validation uses: the ``moving`` averages, or those
            ``recalibrated`` on clean training images after each epoch.
    """

    name: Name
    trainable: Literal["head", "all"] | FromLayer
    optimizer: Literal["rmsprop", "adam", "sgd"] = "rmsprop"
    learning_rate: Annotated[float, Field(gt=0)]
    epochs: Count | None = None
    updates: Count | None = None
    augmentation: Augmentation | None = None
    batchnorm: Literal["inference", "batch"] = "inference"
    batchnorm_momentum: Fraction | None = None
    ghost_batch: Annotated[int, Field(ge=2)] | None = None
    evaluation: Literal["moving", "recalibrated"] = "moving"

    @model_validator(mode="after")
    def _one_budget(self) -> Stage:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("needs a budget, either epochs or updates")
        return self

    @model_validator(mode="after")
    def _batchnorm_keys_have_an_effect(self) -> Stage:
        idle = [key for key in ("batchnorm_momentum", "ghost_batch") if getattr(self, key) is not None]
        if idle and self.batchnorm == "inference":
            raise ValueError(f'{" and ".join(idle)} has no effect with batchnorm = "inference"')
        return self


class Study(Strict):
    """One characterisation: a recipe, the batch sizes to compare, and how often to repeat it.

    Attributes:
        name: Identifies the study in the history.
        description: One paragraph for readers.
        batch_sizes: Mini-batch sizes to compare, each once, in any order.
        replicates: How many seed bundles; replicate r is the same bundle at every batch size.
        seed: Everything random derives from it, the replicate and the epoch.
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
    """

    name: Name
    description: str = ""
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    replicates: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    last_batch: Literal["keep", "drop"] = "keep"
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    probes: Literal["last", "every", "none"] = "last"
    probe_images: Annotated[int, Field(ge=1)] = _PROBE_IMAGES
    stages: Annotated[list[Stage], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_the_model(cls, raw: Any) -> Any:
        return _with_defaults_of_networks(raw) if isinstance(raw, Mapping) else raw

    @field_validator("batch_sizes")
    @classmethod
    def _batch_sizes_are_distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("each batch size must be listed once")
        return value

    @model_validator(mode="after")
    def _stage_names_are_distinct(self) -> Study:
        twice = [name for name, count in Counter(s.name for s in self.stages).items() if count > 1]
        if twice:
            raise ValueError(f"each stage needs a name of its own, but {', '.join(twice)} is repeated")
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
