"""What a stage's network is fed: images, or ready features where part of the backbone stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batchscope.schedule import schedule
from batchscope.spec import Stage, Study
from batchscope.training.augment import draw_views
from batchscope.training.cut import Cut
from batchscope.training.features import FeatureStore
from batchscope.training.inputs import Feed
from batchscope.training.network import Network
from batchscope.training.prefix import Prefix
from batchscope.training.sources import ImageSource, PrefixedSource, ReadySource, Source
from batchscope.training.streams import Purpose, generator

__all__ = ["Examples", "Feeding", "ImageFeeding", "ReadyFeeding", "make_feeding"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a study, by what they are used for.

    Attributes:
        feed: Source of the examples.
        training: Rows of those for training.
        validation: Rows of those for validation.
        selection: Rows of those by which a learning rate is chosen; none without a grid, or where
            updates to a target choose.
        probed: Positions in `training` of those that probes look at.
        seed: The study's seed.
    """

    feed: Feed
    training: Rows
    validation: Rows
    selection: Rows
    probed: Rows
    seed: int

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the examples and of all else that says what `feed` gives."""
        digest = hashlib.sha256(self.feed.told.encode())
        for example in self.feed.inputs:
            digest.update(np.ascontiguousarray(example).tobytes())
        return digest.hexdigest()

    def augmented(self, stage: Stage, replicate: int, epoch: int) -> ImageSource:
        """The training images as an epoch of a stage shows them, the same at every batch size."""
        views = None
        if stage.augmentation is not None:
            stream = generator(Purpose.VIEWS, self.seed, replicate, epoch)
            height, width = self.feed.shape[:2]
            views = draw_views(stage.augmentation, len(self.training), (height, width), stream)
        return ImageSource(self.feed, self.training, views)

    def clean(self, rows: Rows) -> ImageSource:
        """Images as they are."""
        return ImageSource(self.feed, rows)

    def probed_images(self) -> ImageSource:
        """Those that probes look at, as they are."""
        return self.clean(self.training[self.probed])


class Feeding(Protocol):
    """Gives a stage its examples."""

    def training(self, replicate: int, epoch: int) -> Source:
        """The training images as the epoch shows them."""

    def probed(self, replicate: int) -> Source:
        """The training images that probes look at, as they are."""

    def validation(self, replicate: int) -> Source:
        """The validation images."""

    def selection(self, replicate: int) -> Source:
        """The images by which a learning rate is chosen."""


@dataclass(frozen=True, eq=False)
class ImageFeeding:
    """Images for a network that runs as a whole.

    Attributes:
        examples: Of the study.
        stage: The stage.
    """

    examples: Examples
    stage: Stage

    def training(self, replicate: int, epoch: int) -> Source:
        """The training images as the epoch shows them."""
        return self.examples.augmented(self.stage, replicate, epoch)

    def probed(self, replicate: int) -> Source:  # noqa: ARG002  # the same in all
        """The training images that probes look at, as they are."""
        return self.examples.probed_images()

    def validation(self, replicate: int) -> Source:  # noqa: ARG002  # the same in all
        """The validation images."""
        return self.examples.clean(self.examples.validation)

    def selection(self, replicate: int) -> Source:  # noqa: ARG002  # the same in all
        """The images by which a learning rate is chosen."""
        return self.examples.clean(self.examples.selection)


@dataclass(frozen=True, eq=False)
class ReadyFeeding:
    """Features for a network whose first part stays as it is.

    Attributes:
        examples: Of the study.
        stage: The stage.
        prefix: That part.
        store: Where features are kept.
        kept: What the store has room for: ``training``, ``probed``, ``validation``, ``selection``, and
            the epochs whose views are kept.
        pretrained: Whether that part has the same weights in all replicates.
    """

    examples: Examples
    stage: Stage
    prefix: Prefix
    store: FeatureStore
    kept: frozenset[str | int]
    pretrained: bool
    _prefixes: dict[int | None, str] = field(default_factory=dict)

    def training(self, replicate: int, epoch: int) -> Source:
        """The training images as the epoch shows them."""
        source = self.examples.augmented(self.stage, replicate, epoch)
        if source.views is None:
            return self._source("training", replicate, source)
        return self._source(epoch, replicate, source)

    def probed(self, replicate: int) -> Source:
        """The training images that probes look at, as they are."""
        return self._source("probed", replicate, self.examples.probed_images())

    def validation(self, replicate: int) -> Source:
        """The validation images."""
        return self._source("validation", replicate, self.examples.clean(self.examples.validation))

    def selection(self, replicate: int) -> Source:
        """The images by which a learning rate is chosen."""
        return self._source("selection", replicate, self.examples.clean(self.examples.selection))

    def _source(self, what: str | int, replicate: int, images: ImageSource) -> Source:
        lazy = PrefixedSource(images, self.prefix)
        if what not in self.kept:
            return lazy
        key = repr((self.examples.fingerprint, images.fingerprint(), self._prefix_of(replicate)))
        # What all replicates share is kept longer than what belongs to one.
        owner = "all" if self.pretrained and images.views is None else f"r{replicate}"
        features = self.store.ready(
            f"{owner}-{what}",
            key,
            (len(images), *self.prefix.shape),
            lambda positions: lazy.take(positions)[0],
        )
        return ReadySource(features, self.examples.feed.labels[images.rows])

    def _prefix_of(self, replicate: int) -> str:
        """The prefix's fingerprint, taken once: its weights depend on the replicate at most."""
        owner = None if self.pretrained else replicate
        if owner not in self._prefixes:
            self._prefixes[owner] = self.prefix.fingerprint()
        return self._prefixes[owner]


def make_feeding(
    study: Study,
    stage: Stage,
    cut: Cut,
    examples: Examples,
    network: Network,
    store: FeatureStore,
) -> Feeding:
    """Chooses what a stage is fed, and sets room aside for what is to be kept.

    Args:
        study: The study.
        stage: One of its stages.
        cut: What of the backbone stays as it is in this stage.
        examples: Of the study.
        network: Its layers; only what comes ahead of the head may be cut off.
        store: Where ready features are kept.
    """
    if cut.tensor is None:
        return ImageFeeding(examples, stage)
    prefix = Prefix(network, cut)
    kept = frozenset(
        what for what, count in _wanted(study, stage, examples) if store.admit(count * prefix.bytes_per_image)
    )
    pretrained = study.model.weights != "none"
    return ReadyFeeding(examples, stage, prefix, store, kept, pretrained)


def _wanted(study: Study, stage: Stage, examples: Examples) -> Iterator[tuple[str | int, int]]:
    """What is used more than once, and how many examples' room it takes; the most used first.

    Simplified: where epochs are not known ahead, behind or within a stage whose length is not, no
    augmented views are kept.
    """
    training = len(examples.training)
    yield "validation", len(examples.validation)
    yield "selection", len(examples.selection)
    yield "probed", len(examples.probed)
    if stage.augmentation is None:
        yield "training", training
    elif len(study.batch_sizes) * len(study.grid or [None]) > 1:
        planned = [
            part
            for batch_size in study.batch_sizes
            for part in schedule(study, batch_size, training)
            if part.stage is stage
        ]
        firsts = [part.first_epoch for part in planned if part.first_epoch is not None]
        lasts = [part.last_epoch for part in planned if part.last_epoch is not None]
        if firsts and lasts:
            # Twice, for trials of a replicate begin before the last of the one before has ended; where
            # replicates are added, each batch size may be at another.
            replicates = 2 if study.until_ci is None else max(2, len(study.batch_sizes))
            yield from ((epoch, replicates * training) for epoch in range(min(firsts), max(lasts) + 1))
