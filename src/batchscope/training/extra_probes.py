"""Probes that need gradients: what the gradient noise scale is made of, and sharpness."""

from __future__ import annotations

import math

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.errors import TrainingError
from batchscope.spec import NOISE_BATCHES, Stage, Study
from batchscope.training.derivatives import Derivatives
from batchscope.training.gradient_noise import measure_noise
from batchscope.training.network import Network, set_trainable
from batchscope.training.recalibration import averages_kept, batchnorm_layers, normalises_by_the_batch
from batchscope.training.rewriting import is_kerass_batchnorm
from batchscope.training.sharpness import box_sharpness, top_eigenvalue
from batchscope.training.sources import ReadySource, Source
from batchscope.training.stage_program import StageProgram, evaluation_model

__all__ = ["NOISE_BATCH", "SHARPNESS_EXAMPLES", "ExtraProbes", "check_extra_probes"]

NOISE_BATCH = 8
"""Examples a batch where each has a gradient of its own, which no batch changes."""
SHARPNESS_EXAMPLES = 256
"""Sharpness takes dozens of passes, so it looks at the first of the probes' images alone."""
MOST_WEIGHTS = 10_000_000
"""That sharpness is measured for: SciPy takes about 400 bytes and 10 microseconds for each trained weight."""

_AT_A_TIME = 32

Vector = NDArray[np.float64]


class ExtraProbes:
    """Measures what a study asks for in `Study.extra_probes`; each stage's graphs are traced once.

    Everything is in the stage's mode with random layers at rest, with respect to the weights that the stage
    trains. Weights, averages and optimizer are the same afterwards as before.

    Args:
        study: The recipe.
        network: Its layers.
    """

    def __init__(self, study: Study, network: Network) -> None:
        self._wanted, self._network = study.extra_probes, network
        self._derivatives: dict[str, Derivatives] = {}

    def measure(self, program: StageProgram, clean: Source, batch_size: int) -> dict[str, float]:
        """Figures by column name.

        Args:
            program: Of the stage, which has been entered.
            clean: The probes' training images as they are.
            batch_size: That the network is trained with; the parts' where a batch passes in parts.
        """
        if not self._wanted:
            return {}
        derivatives = self._of(program)
        # Where BatchNorm normalises by the batch, an example has no gradient but as one of a batch.
        in_batches = normalises_by_the_batch(program.stage, self._network.backbone)
        columns: dict[str, float] = {}
        with averages_kept(self._network.backbone), derivatives.weights_kept():
            if "gradient_noise" in self._wanted:
                size = batch_size if in_batches else min(NOISE_BATCH, len(clean) // NOISE_BATCHES)
                columns |= _noise_columns(derivatives, clean, size)
            if "sharpness" in self._wanted:
                columns |= _sharpness_columns(derivatives, clean, batch_size if in_batches else None)
        return columns

    def _of(self, program: StageProgram) -> Derivatives:
        stage = program.stage
        if stage.name not in self._derivatives:
            model = program.evaluator.own_mode.model
            if normalises_by_the_batch(stage, self._network.backbone):
                model = evaluation_model(self._network, "twice_differentiable")
            self._derivatives[stage.name] = Derivatives(model)
        return self._derivatives[stage.name]


def check_extra_probes(study: Study, network: Network, probed: int) -> None:
    """Refuses what cannot be measured, before any trial begins.

    Args:
        study: The recipe.
        network: Its network.
        probed: How many training images probes look at.

    Raises:
        TrainingError: The backend is not TensorFlow, the images fill too few batches, or the network's
            layers or weights do not allow it.
    """
    if not study.extra_probes:
        return
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise TrainingError(
            f"extra_probes need Keras' TensorFlow backend, but this is {backend}; set "
            "KERAS_BACKEND=tensorflow or leave extra_probes out"
        )
    for stage in study.stages:
        if normalises_by_the_batch(stage, network.backbone):
            _check_batchnorms(stage, network)
        if "gradient_noise" in study.extra_probes:
            _check_batches(study, stage, network, probed)
        if "sharpness" in study.extra_probes:
            _check_weights(stage, network)
    if "sharpness" in study.extra_probes:
        _check_layers(network)


def _check_batches(study: Study, stage: Stage, network: Network, probed: int) -> None:
    together = 1
    if normalises_by_the_batch(stage, network.backbone):
        together = stage.ghost_batch or max(study.batch_sizes)
    needed = NOISE_BATCHES * together
    if probed < needed:
        raise TrainingError(
            f'extra_probes = ["gradient_noise"] needs {NOISE_BATCHES} batches of training images, '
            f"{needed} images for stages.{stage.name} at the largest batch size, but probes look at "
            f"{probed}; set probe_images higher if there are as many training images, or leave the probe out"
        )


def _check_batchnorms(stage: Stage, network: Network) -> None:
    """Refuses BatchNorm that `SmoothBatchNorm` would not compute as it does itself."""
    other = [layer for layer in batchnorm_layers(network.backbone) if not is_kerass_batchnorm(layer)]
    if other:
        raise TrainingError(
            "extra_probes compute BatchNorm over the batch anew, as Keras' own layer does without an "
            f"activity_regularizer, but {network.backbone.name} has {len(other)} that are not so, first "
            f'{other[0].name}, a {type(other[0]).__name__}; set batchnorm = "inference" in '
            f"stages.{stage.name}, or leave extra_probes out"
        )


def _check_weights(stage: Stage, network: Network) -> None:
    set_trainable(network, stage)
    layers = (network.backbone, network.head)
    trained = sum(math.prod(each.shape) for layer in layers for each in layer.trainable_variables)
    if trained > MOST_WEIGHTS:
        raise TrainingError(
            f'extra_probes = ["sharpness"] takes at most {MOST_WEIGHTS:,} trained weights, for it would need '
            f"minutes and gigabytes for more, but stages.{stage.name} trains {trained:,}; leave the probe "
            "out, or train fewer layers"
        )


def _check_layers(network: Network) -> None:
    """Other layers that take moments by ``tf.nn.moments``, see `rewriting.SmoothBatchNorm`."""
    kinds = (keras.layers.LayerNormalization, keras.layers.GroupNormalization)
    everywhere = network.backbone._flatten_layers(include_self=False)  # noqa: SLF001  # Keras has no public walk
    found = [layer.name for layer in everywhere if isinstance(layer, kinds)]
    if found:
        raise TrainingError(
            'extra_probes = ["sharpness"] needs second derivatives, which TensorFlow has wrong for '
            f"LayerNormalization and GroupNormalization, but {network.backbone.name} has {len(found)} of "
            f"them, first {found[0]}; leave the probe out"
        )


def _noise_columns(derivatives: Derivatives, clean: Source, batch_size: int) -> dict[str, float]:
    noise = measure_noise(derivatives, clean, batch_size)
    return {
        "probe_gradient_norm2": noise.norm2,
        "probe_gradient_trace": noise.trace,
        "probe_gradient_norm2_error": noise.norm2_error,
        "probe_gradient_trace_error": noise.trace_error,
        "probe_gradient_correlation": noise.correlation,
        "probe_gradient_batches": noise.batches,
    }


def _sharpness_columns(derivatives: Derivatives, clean: Source, together: int | None) -> dict[str, float]:
    """Of the first images; in whole batches where they are normalised together, and at least one."""
    count, batch_size = min(len(clean), SHARPNESS_EXAMPLES), together or _AT_A_TIME
    if together is not None:
        count = min(max(count - count % together, together), len(clean))
    order = np.arange(count)
    inputs, labels = clean.take(order)
    images = ReadySource(inputs, labels[:, 0].astype(np.int64))

    def product(vector: Vector) -> Vector:
        return derivatives.product(images, order, batch_size, vector)

    def loss_and_gradient(weights: Vector) -> tuple[float, Vector]:
        derivatives.move_to(weights)
        found = derivatives.gradients(images, order, batch_size)
        return found.loss, found.gradient

    return {
        "probe_hessian_top": top_eigenvalue(product, derivatives.size),
        "probe_sharpness": box_sharpness(loss_and_gradient, derivatives.weights()),
    }
