"""The recipe's stages: what is trained, for how long, at which learning rate, on which views."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from batchscope.strict import Strict

__all__ = [
    "BUDGETS",
    "Augmentation",
    "Budget",
    "Count",
    "FromLayer",
    "LearningRate",
    "Name",
    "Stage",
    "TargetSpec",
    "Until",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]
# Sums and products of counts then fit into the 64 bits of the store and of arrays.
_MOST = 1_000_000_000
Count = Annotated[int, Field(ge=1, le=_MOST)]

Budget = Literal["epochs", "updates", "examples", "seconds", "until"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)
"""Keys of a stage that say how long it is; each stage has one of them."""


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


class LearningRate(Strict):
    """A learning rate that follows a rule, is warmed up, or is searched for on a grid.

    Attributes:
        base: The learning rate at `base_batch_size`; either this or `grid`.
        grid: Several of them, each tried at every batch size and replicate.
        rule: How it goes with batch size: ``constant`` is the same at all; ``linear`` multiplies it by
            batch size / `base_batch_size` (Goyal et al. 2017), ``sqrt`` by the square root of that
            (Krizhevsky 2014).
        base_batch_size: Where the rule multiplies by 1; needed by, and only with, ``linear`` and ``sqrt``.
        warmup_epochs: The first so many epochs' worth of the stage's updates warm up: update u of W
            takes u / W of the learning rate (Goyal et al. 2017, here from 0).
        warmup_updates: The same, counted in updates; either this or `warmup_epochs`.
    """

    base: Rate | None = None
    grid: Annotated[list[Rate], Field(min_length=2)] | None = None
    rule: Literal["constant", "linear", "sqrt"] = "constant"
    base_batch_size: Count | None = None
    warmup_epochs: Count | None = None
    warmup_updates: Count | None = None

    @field_validator("grid")
    @classmethod
    def _grid_is_distinct(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("each learning rate must be listed once")
        return value

    @model_validator(mode="after")
    def _keys_fit_together(self) -> LearningRate:
        if (self.base is None) == (self.grid is None):
            raise ValueError("needs either base, one learning rate, or grid, several of them")
        if (self.rule == "constant") != (self.base_batch_size is None):
            raise ValueError('rule = "linear" and rule = "sqrt" need base_batch_size, and only they do')
        if self.warmup_epochs is not None and self.warmup_updates is not None:
            raise ValueError("warms up by either warmup_epochs or warmup_updates")
        return self


class TargetSpec(Strict):
    """Validation that is good enough.

    Attributes:
        metric: ``val_accuracy`` must be at least `value`, ``val_loss`` at most.
        value: The target.
    """

    metric: Literal["val_accuracy", "val_loss"]
    value: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _accuracy_is_a_share(self) -> Self:
        if self.metric == "val_accuracy" and self.value > 1:
            raise ValueError(f"value must be at most 1 for val_accuracy; it is {self.value}")
        return self


class Until(TargetSpec):
    """A budget that ends as soon as validation is measured to be good enough.

    That is at the end of an epoch, or within it with ``validations_per_epoch``; such an epoch ends there.

    Attributes:
        metric: As of any target.
        value: The target.
        epochs: The most epochs, for trials that never get there.
    """

    epochs: Count


class Stage(Strict):
    """A part of a trial with its own trainable layers, learning rate and augmentation.

    Attributes:
        name: Used in the history and in keys such as ``stages.fine_tuning.epochs``.
        trainable: ``head`` (the dense layer alone), ``all``, or a table with ``from_layer``.
        optimizer: Keras optimizer, with Keras' defaults but for the learning rate; its state
            starts afresh with the stage.
        learning_rate: Constant through the stage, or a table with a rule, a warm-up or a grid.
        epochs: Budget in passes over the training images; a stage has one of the five budgets.
        updates: Budget in optimizer steps, the same at every batch size; the last epoch may be
            cut short by it.
        examples: Budget in images presented; the last epoch may be cut short by it. With
            ``last_batch = "drop"`` a last batch that would not be full is left out.
        seconds: Budget in training time; the stage ends with the epoch in which it is used up.
        until: Budget that ends when validation is good enough.
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
    learning_rate: Rate | LearningRate
    epochs: Count | None = None
    updates: Count | None = None
    examples: Count | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    until: Until | None = None
    augmentation: Augmentation | None = None
    batchnorm: Literal["inference", "batch"] = "inference"
    batchnorm_momentum: Fraction | None = None
    ghost_batch: Annotated[int, Field(ge=2)] | None = None
    evaluation: Literal["moving", "recalibrated"] = "moving"

    @model_validator(mode="after")
    def _one_budget(self) -> Stage:
        given = [key for key in BUDGETS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs a budget, exactly one of {', '.join(BUDGETS)}; it has {', '.join(given) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Stage:
        rate = self.learning_rate
        most = None if self.until is None else self.until.epochs
        budgets = (("epochs", "epochs", self.epochs), ("updates", "updates", self.updates))
        for unit, key, budget in (*budgets, ("epochs", "until.epochs", most)):
            warmup = getattr(rate, f"warmup_{unit}", None)
            if warmup is not None and budget is not None and warmup > budget:
                raise ValueError(
                    f"learning_rate.warmup_{unit} must not exceed the stage's {key}, {budget}; it is {warmup}"
                )
        return self

    @model_validator(mode="after")
    def _batchnorm_keys_have_an_effect(self) -> Stage:
        idle = [key for key in ("batchnorm_momentum", "ghost_batch") if getattr(self, key) is not None]
        if idle and self.batchnorm == "inference":
            raise ValueError(f'{" and ".join(idle)} has no effect with batchnorm = "inference"')
        return self

    @property
    def budget(self) -> Budget:
        """Which of `BUDGETS` the stage has."""
        return next(key for key in BUDGETS if getattr(self, key) is not None)

    @property
    def is_open(self) -> bool:
        """Whether only training tells how long the stage is."""
        return self.budget in ("seconds", "until")

    @property
    def grid(self) -> list[float] | None:
        """The learning rates to choose from; None where there is one."""
        return self.learning_rate.grid if isinstance(self.learning_rate, LearningRate) else None
