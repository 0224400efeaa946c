"""The protocol as a notebook's author writes it in Keras: `python plain_keras.py FOLDER`.

Images enlarged once and kept in memory, a tf.data pipeline that augments ahead of training, one model
a trial, `fit` with validation data.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from protocol import EVALUATION_BATCH, Augmentation, Event, Protocol, StagePlan, Work, emit

__all__ = ["Classifier", "training_batches", "transforms", "unfreeze", "validation_batches"]


def transforms(uniform: tf.Tensor, ranges: Augmentation, size: int) -> tf.Tensor:
    """Maps from output to input pixels for ImageProjectiveTransformV3, shape (n, 8).

    Args:
        uniform: Seven numbers from 0 to 1 for each image: rotation, shift of rows and of columns, shear,
            zoom of rows and of columns, mirror.
        ranges: What they are spread over. Composed as by ImageDataGenerator, about the image's centre.
        size: Height and width in pixels.
    """
    low, high = ranges.zoom
    radians = np.pi / 180
    angle = (2 * uniform[:, 0] - 1) * ranges.rotation * radians
    rows = (2 * uniform[:, 1] - 1) * ranges.height_shift * size
    columns = (2 * uniform[:, 2] - 1) * ranges.width_shift * size
    shear = (2 * uniform[:, 3] - 1) * ranges.shear * radians
    zoom = low + (high - low) * uniform[:, 4:6]
    mirror = tf.where((uniform[:, 6] < 0.5) & ranges.horizontal_flip, -1.0, 1.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    rr, rc = cos * zoom[:, 0], -tf.sin(angle + shear) * zoom[:, 1] * mirror
    cr, cc = sin * zoom[:, 0], tf.cos(angle + shear) * zoom[:, 1] * mirror
    centre = size / 2 - 0.5
    r0 = cos * rows - sin * columns + centre - (rr + rc) * centre
    c0 = sin * rows + cos * columns + centre - (cr + cc) * centre
    nothing = tf.zeros_like(angle)
    return tf.stack((cc, cr, c0, rc, rr, r0, nothing, nothing), axis=1)


def _augmented(images: tf.Tensor, ranges: Augmentation, size: int) -> tf.Tensor:
    uniform = tf.random.uniform((tf.shape(images)[0], 7))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms(uniform, ranges, size),
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def training_batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.float32],
    protocol: Protocol,
    batch_size: int,
    ranges: Augmentation | None,
) -> tf.data.Dataset:
    """Shuffled anew each epoch, augmented and scaled batch by batch, ahead of training."""

    def prepared(batch: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(batch, tf.float32)
        if ranges is not None:
            pixels = _augmented(pixels, ranges, protocol.size)
        return _scaled(pixels, protocol), targets

    ordered = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images))
    batched = ordered.batch(batch_size, drop_remainder=protocol.drop)
    return batched.map(prepared, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def validation_batches(
    images: NDArray[np.uint8], labels: NDArray[np.float32], protocol: Protocol, count: int
) -> tf.data.Dataset:
    """The first images, in large batches."""
    batched = tf.data.Dataset.from_tensor_slices((images[:count], labels[:count])).batch(EVALUATION_BATCH)
    return batched.map(
        lambda batch, targets: (_scaled(tf.cast(batch, tf.float32), protocol), targets),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def _scaled(pixels: tf.Tensor, protocol: Protocol) -> tf.Tensor:
    return pixels * (1 / 127.5) - 1.0 if protocol.to_minus_one else pixels * (1 / 255)


class Classifier(keras.Model):  # type: ignore[misc]  # Keras is untyped
    """Backbone, average, one sigmoid unit.

    The guide on transfer learning writes `base(x, training=False)` into a functional model, where Keras
    3's `fit` overrides the argument (keras-team/keras, issue 20285). In a model's own `call` it holds,
    and costs less: BatchNorm then computes no batch statistics.
    """

    def __init__(self, backbone: keras.Model, *, batch_statistics: bool) -> None:
        super().__init__()
        self.backbone, self._batch_statistics = backbone, batch_statistics
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(1, activation="sigmoid")

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Probabilities, shape (n, 1)."""
        features = self.backbone(images, training=training if self._batch_statistics else False)
        return self.head(self.pool(features))


def unfreeze(backbone: keras.Model, first_trained: str | None, *, batch_statistics: bool) -> None:
    """Trains the backbone from a layer on; None trains nothing of it.

    With batch statistics, frozen BatchNorm layers too normalise by the batch and move their averages,
    as in TensorFlow 2.0; Keras 3 does so where the layer is trainable and its gamma and beta are not.
    """
    backbone.trainable = True
    names = [layer.name for layer in backbone.layers]
    first = len(names) if first_trained is None else names.index(first_trained)
    for index, layer in enumerate(backbone.layers):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = index >= first or (normalises and batch_statistics)
        if normalises:
            layer.gamma.trainable = layer.beta.trainable = index >= first


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Reports each epoch, and how much of it was training."""

    def __init__(self, trial: tuple[int, int], stage: StagePlan, work: Work) -> None:
        super().__init__()
        self._trial, self._stage, self._work = trial, stage, work
        self._start = self._seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._start = time.perf_counter()

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        names = {"loss": "train_loss", "accuracy": "train_accuracy"}
        figures = {names.get(name, name): float(value) for name, value in (logs or {}).items()}
        emit(Event("epoch", self._trial, self._stage.name, epoch + 1, self._work, self._seconds, figures))


def _run_trial(
    protocol: Protocol, trial: tuple[int, int], arrays: Mapping[str, NDArray[Any]], weights: Path
) -> None:
    batch_size, replicate = trial
    images, labels = arrays["training_images"], arrays["training_labels"]
    work = Work.of(protocol, batch_size, len(images), len(arrays["validation_images"]))
    emit(Event("started", trial))
    keras.backend.clear_session()
    keras.utils.set_random_seed(replicate)
    shape = (protocol.size, protocol.size, 3)
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape)
    backbone.load_weights(weights)
    model = Classifier(backbone, batch_statistics=protocol.batch_statistics)
    validation = validation_batches(
        arrays["validation_images"], arrays["validation_labels"], protocol, work.validated
    )
    for stage in protocol.stages:
        first = protocol.first_trained if stage.fine_tuning else None
        unfreeze(backbone, first, batch_statistics=protocol.batch_statistics)
        model.compile(
            keras.optimizers.RMSprop(stage.learning_rate), "binary_crossentropy", metrics=["accuracy"]
        )
        model.fit(
            training_batches(images, labels, protocol, batch_size, stage.augmentation),
            epochs=stage.epochs,
            validation_data=validation,
            callbacks=[_Clock(trial, stage, work)],
            verbose=0,
        )
    emit(Event("ended", trial))


def main(folder: Path) -> None:
    """Carries out the protocol in a folder that `prepare` filled."""
    protocol = Protocol.load(folder / "protocol.json")
    stored = np.load(folder / "images.npz")
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("training", "validation"):
        small = stored[f"{part}_images"]
        factor = protocol.size // small.shape[1]
        arrays[f"{part}_images"] = small.repeat(factor, axis=1).repeat(factor, axis=2)
        arrays[f"{part}_labels"] = stored[f"{part}_labels"].astype(np.float32)[:, None]
    for trial in protocol.trials():
        _run_trial(protocol, trial, arrays, folder / "backbone.weights.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
