"""Whether a recipe can be carried out with this network and these examples: told before any trial."""

from __future__ import annotations

from batchscope.errors import TrainingError
from batchscope.spec import Study
from batchscope.training.network import Network, first_trained_layer
from batchscope.training.recalibration import batchnorm_layers, hidden_batchnorms

__all__ = ["check_recipe"]


def check_recipe(study: Study, network: Network, shape: tuple[int, ...]) -> None:
    """Refuses what cannot be carried out, or would have no effect.

    Args:
        study: The recipe.
        network: Its network.
        shape: Of one example.

    Raises:
        TrainingError: With the key at fault.
    """
    for stage in study.stages:
        told = f"stages.{stage.name}"
        if stage.augmentation is not None and len(shape) == 1:
            raise TrainingError(
                f"{told}.augmentation needs images, but the data are a table of {shape[0]} features; "
                "leave it out"
            )
        if stage.trainable == "head" and not network.head.weights:
            raise TrainingError(
                f'{told}.trainable = "head" needs a network that ends in a dense layer behind others, but '
                f'{network.backbone.name} does not; take "all"'
            )
        first_trained_layer(stage, network.backbone)
        if stage.batchnorm_momentum is not None and not batchnorm_layers(network.backbone):
            raise TrainingError(
                f"{told}.batchnorm_momentum needs BatchNorm layers, but {network.backbone.name} has none; "
                "leave it out"
            )
    _check_hidden_batchnorms(study, network)


def _check_hidden_batchnorms(study: Study, network: Network) -> None:
    hidden = hidden_batchnorms(network.backbone)
    recalibrated = any(stage.evaluation == "recalibrated" for stage in study.stages)
    given = any(stage.batchnorm_momentum is not None for stage in study.stages)
    if hidden and (study.probes != "none" or recalibrated or given):
        raise TrainingError(
            f"{hidden} BatchNorm layers of {network.backbone.name} lie inside layers that compute in their "
            'own way, where they cannot be recalibrated; set probes = "none", evaluation = "moving" and no '
            "batchnorm_momentum, or build the model of Keras' layers by keras.Model(inputs, outputs)"
        )
