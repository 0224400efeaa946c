"""The same network in fewer and larger operations.

Layers are replaced where the result is the same but for rounding: a 1x1 convolution is a matrix
product; a convolution followed by BatchNorm in inference mode is one convolution whose kernel
holds BatchNorm's scale; BatchNorm over a batch is one fused operation. The new layers read the
variables of those they stand for, so nothing is copied back and forth, and gradients reach the
kernel, gamma and beta as before. A layer that penalises its outputs stays as it is.

Source of the folding: with y = gamma (w x - mean) / sqrt(variance + epsilon) + beta, the scale
s = gamma / sqrt(variance + epsilon) gives y = (s w) x + (beta - s mean).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Literal

import keras

from batchscope.training.graphs import draws_random_numbers, nodes_of
from batchscope.training.network import FixedMode

__all__ = ["Mode", "is_kerass_batchnorm", "rewrite"]

Tensor = Any  # of whatever backend Keras runs on
Mode = Literal["batch", "inference", "steady", "twice_differentiable"]


def rewrite(model: keras.Model, mode: Mode) -> keras.Model:
    """Rewrites a functional model for one BatchNorm mode.

    Args:
        model: Convolutions and BatchNorm in it are replaced where that is possible; all other
            layers are shared with the new model, as all variables are.
        mode: ``inference``: BatchNorm uses its moving averages; the new model is to be called with
            ``training=False``. ``batch``: it normalises by the batch and moves its averages; the
            new model is to be called with ``training=True``. ``steady``: the same, but random layers,
            such as dropout, rest. ``twice_differentiable``: the same, but the averages are
            left alone, and second derivatives are right (`SmoothBatchNorm`). Each of its BatchNorm
            layers must be Keras' own (`is_kerass_batchnorm`).

    Returns:
        A model with the inputs and outputs of `model`.
    """
    folded = _foldable(model) if mode == "inference" else {}
    followers = {id(norm) for norm in folded.values()}

    def replacement(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.InputLayer):
            return keras.layers.InputLayer(batch_shape=layer.batch_shape, dtype=layer.dtype)
        if id(layer) in followers:
            return _Passed()
        if id(layer) in folded:
            return FoldedConvolution(layer, folded[id(layer)])
        if mode in ("steady", "twice_differentiable") and draws_random_numbers(layer):
            return FixedMode(layer, training=False)
        if mode != "inference" and isinstance(layer, keras.layers.BatchNormalization):
            return _over_the_batch(layer, mode)
        return MatrixProduct(layer) if _is_matrix_product(layer) else layer

    return keras.models.clone_model(model, clone_function=replacement)


def _over_the_batch(norm: keras.layers.BatchNormalization, mode: Mode) -> keras.layers.Layer:
    if mode == "twice_differentiable":
        return SmoothBatchNorm(norm)
    fuses = _is_plain_batchnorm(norm) and keras.backend.backend() == "tensorflow"
    return FusedBatchNorm(norm) if fuses else norm


class _Passed(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Stands where a BatchNorm layer was folded into the convolution before it."""

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: ARG002
        """The inputs; the arguments are those that Keras gives to BatchNorm."""
        return inputs


class MatrixProduct(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """A 1x1 convolution of stride 1 as a product of matrices.

    Args:
        convolution: The layer whose variables are used.
    """

    def __init__(self, convolution: keras.layers.Conv2D) -> None:
        super().__init__(name=f"{convolution.name}_product")
        self.convolution = convolution

    def call(self, inputs: Tensor) -> Tensor:
        """Output of the convolution."""
        convolution = self.convolution
        product = _product(inputs, convolution.kernel[0, 0])
        if convolution.use_bias:
            product = product + convolution.bias
        return convolution.activation(product)


class FoldedConvolution(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """A convolution and the BatchNorm layer behind it, in inference mode, as one convolution.

    Args:
        convolution: An ordinary or a depthwise convolution.
        batchnorm: The layer behind it.
    """

    def __init__(self, convolution: keras.layers.Layer, batchnorm: keras.layers.BatchNormalization) -> None:
        super().__init__(name=f"{convolution.name}_folded")
        self.convolution, self.batchnorm = convolution, batchnorm

    def call(self, inputs: Tensor) -> Tensor:
        """Output of the BatchNorm layer."""
        convolution = self.convolution
        scale, shift = self._scale_and_shift()
        if convolution.use_bias:
            shift = shift + convolution.bias * scale
        if _is_matrix_product(convolution):
            return _product(inputs, convolution.kernel[0, 0] * scale) + shift
        convolve, kernel = keras.ops.conv, convolution.kernel
        if isinstance(convolution, keras.layers.DepthwiseConv2D):
            # A depthwise kernel's last two axes, channels and multiplier, are its outputs in their order.
            convolve, scale = keras.ops.depthwise_conv, keras.ops.reshape(scale, kernel.shape[-2:])
        return (
            convolve(
                inputs,
                kernel * scale,
                strides=convolution.strides,
                padding=convolution.padding,
                data_format=convolution.data_format,
                dilation_rate=convolution.dilation_rate,
            )
            + shift
        )

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        norm = self.batchnorm
        scale = keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
        if norm.scale:
            scale = scale * norm.gamma
        shift = -norm.moving_mean * scale
        return scale, shift + norm.beta if norm.center else shift


class FusedBatchNorm(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """BatchNorm over the batch by TensorFlow's fused operation; it moves the averages.

    Args:
        batchnorm: The layer whose variables are used.
    """

    def __init__(self, batchnorm: keras.layers.BatchNormalization) -> None:
        super().__init__(name=f"{batchnorm.name}_fused")
        self.batchnorm = batchnorm

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: ARG002
        """Normalised inputs; the arguments are those that Keras gives to BatchNorm."""
        import tensorflow as tf

        norm, channels = self.batchnorm, inputs.shape[-1]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            keras.ops.convert_to_tensor(norm.gamma) if norm.scale else tf.ones(channels),
            keras.ops.convert_to_tensor(norm.beta) if norm.center else tf.zeros(channels),
            epsilon=norm.epsilon,
            is_training=True,
        )
        # The operation gives the unbiased variance, while Keras averages the biased one.
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        biased = variance * (count - 1) / count
        for average, value in ((norm.moving_mean, mean), (norm.moving_variance, biased)):
            average.assign(average * norm.momentum + value * (1 - norm.momentum))
        return outputs


class SmoothBatchNorm(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """BatchNorm over the batch whose second derivatives are right; it moves no averages.

    Keras takes the variance by ``tf.nn.moments``, which stops gradients at the mean. The first derivative
    is right all the same, for that path adds nothing to it; to the second it would.

    Args:
        batchnorm: The layer whose variables are used.
    """

    def __init__(self, batchnorm: keras.layers.BatchNormalization) -> None:
        super().__init__(name=f"{batchnorm.name}_smooth")
        self.batchnorm = batchnorm

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: ARG002
        """Normalised inputs; the arguments are those that Keras gives to BatchNorm."""
        norm, rank = self.batchnorm, len(inputs.shape)
        channels = norm.axis % rank
        axes = [axis for axis in range(rank) if axis != channels]
        shape = [1 if axis != channels else inputs.shape[channels] for axis in range(rank)]
        apart = inputs - keras.ops.mean(inputs, axis=axes, keepdims=True)
        variance = keras.ops.mean(apart * apart, axis=axes, keepdims=True)
        outputs = apart * keras.ops.rsqrt(variance + norm.epsilon)
        if norm.scale:
            outputs = outputs * keras.ops.reshape(norm.gamma, shape)
        return outputs + keras.ops.reshape(norm.beta, shape) if norm.center else outputs


def _product(inputs: Tensor, matrix: Tensor) -> Tensor:
    """Product over the last axis, as one product of two matrices."""
    rows = keras.ops.reshape(inputs, (-1, inputs.shape[-1]))
    return keras.ops.reshape(rows @ matrix, (-1, *inputs.shape[1:-1], matrix.shape[-1]))


def _foldable(model: keras.Model) -> dict[int, keras.layers.BatchNormalization]:
    """BatchNorm layers that alone take what a linear convolution gives, by that convolution's id."""
    nodes = nodes_of(model)
    calls = Counter(id(node.operation) for node in nodes)
    takers: dict[int, list[keras.Operation]] = defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            takers[id(tensor)].append(node.operation)
    given = {id(tensor) for tensor in model.outputs}
    found = {}
    for node in nodes:
        layer, output = node.operation, node.outputs[0]
        behind = takers[id(output)]
        if not _is_linear_convolution(layer) or len(behind) != 1 or id(output) in given:
            continue
        # A layer called twice computes something else as well, which its replacement would not.
        if _is_plain_batchnorm(behind[0]) and calls[id(layer)] == calls[id(behind[0])] == 1:
            found[id(layer)] = behind[0]
    return found


def _is_linear_convolution(layer: keras.layers.Layer) -> bool:
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    # Exactly these: what derives from them, such as SeparableConv2D, computes something else.
    return (
        type(layer) in kinds
        and layer.activation is keras.activations.linear
        and _channels_last(layer)
        and _only_computes(layer)
    )


def _is_matrix_product(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and _channels_last(layer)
        and layer.kernel_size == (1, 1)
        and layer.strides == (1, 1)
        and layer.groups == 1
        and _only_computes(layer)
    )


def is_kerass_batchnorm(layer: keras.layers.Layer) -> bool:
    """Whether the layer is BatchNorm as Keras has it, and nothing that derives from it or does more."""
    return type(layer) is keras.layers.BatchNormalization and _only_computes(layer)


def _is_plain_batchnorm(layer: keras.layers.Layer) -> bool:
    images = 4  # rows, height, width, channels
    return is_kerass_batchnorm(layer) and len(layer.input.shape) == images and layer.axis in (-1, 3)


def _only_computes(layer: keras.layers.Layer) -> bool:
    """Whether the layer adds no loss for what it gives, which a replacement would not."""
    return layer.activity_regularizer is None


def _channels_last(layer: keras.layers.Layer) -> bool:
    return bool(layer.data_format == "channels_last")
