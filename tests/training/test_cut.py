"""Where a network is cut, against a search through the graph of its configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import keras
import numpy as np
import pytest
from backbones import backbone, unsettle
from own_models import costly, penalised, penalised_outputs

from batchscope.spec import Stage
from batchscope.studies import load_study
from batchscope.training.cut import WHOLE, find_cut
from batchscope.training.rewriting import rewrite
from tiny import stage

pytestmark = pytest.mark.keras


def stages(*raw: dict[str, object]) -> list[Stage]:
    return [Stage.model_validate(each) for each in raw]


def tail(first: int | str, name: str = "tail", **keys: object) -> dict[str, object]:
    return stage(name, {"from_layer": first}, epochs=1, **keys)


HEAD = stage("head", "head", epochs=1)


def test_mobilenet_v2_is_cut_ahead_of_its_eleventh_block():
    network = backbone("MobileNetV2")
    cut = find_cut(stages(HEAD, tail("block_11_expand_BN")), 1, network)
    assert (cut.layer, cut.whole) == ("block_10_project_BN", False)
    assert tuple(cut.tensor.shape) == (None, 6, 6, 96)
    assert cut.reason == "layers up to block_10_project_BN are computed once for each view"


def test_the_built_in_studies_are_cut_where_they_can_be():
    network = backbone("MobileNetV2")
    corrected = load_study("aerial-cactus").stages
    layers = [find_cut(corrected, index, network).layer for index in range(2)]
    assert layers == ["out_relu", "block_10_project_BN"]
    assert all(
        find_cut(load_study("aerial-cactus-2019").stages, index, network).tensor is None for index in range(2)
    )


@cache
def gates(name: str) -> list[int]:
    """Layers without which nothing goes from a backbone's input to its output, by trying each."""
    network = backbone(name)
    places = {layer.name: index for index, layer in enumerate(network.layers)}
    ahead = [_names(layer["inbound_nodes"]) for layer in network.get_config()["layers"]]
    found = []
    for gone in range(1, len(places) - 1):
        reached = {0}
        for index in range(1, len(places)):
            if index != gone and any(places[each] in reached for each in ahead[index]):
                reached.add(index)
        if len(places) - 1 not in reached:
            found.append(gone)
    return found


def _names(config: object) -> list[str]:
    """Layers whose outputs a layer takes, by its configuration."""
    if isinstance(config, dict):
        history = config.get("config", {}).get("keras_history") if config.get("class_name") else None
        return [history[0]] if history else [name for value in config.values() for name in _names(value)]
    return [name for value in config for name in _names(value)] if isinstance(config, list | tuple) else []


@pytest.mark.parametrize(
    ("name", "count"),
    # Between input and output: all 84 of MobileNet; of the others those of the stem and those where branches
    # meet, such as both behind ResNet50's blocks (6 + 32 - 1), and all concatenations of DenseNet121.
    [("MobileNet", 84), ("MobileNetV2", 72), ("ResNet50", 37), ("DenseNet121", 77), ("InceptionV3", 27)],
)
def test_the_cut_is_the_last_layer_that_all_goes_through(name: str, count: int):
    network, found = backbone(name), gates(name)
    assert len(found) == count
    for first in range(len(network.layers)):
        cut = find_cut(stages(tail(first)), 0, network)
        expected = [index for index in found if index < first]
        if expected:
            layer = network.layers[expected[-1]]
            assert (cut.layer, cut.whole) == (layer.name, False)
            assert cut.tensor is layer.output
        else:
            assert cut.tensor is None
            why = f"no layer ahead of {network.layers[first].name} carries all that passes there"
            assert cut.reason.endswith(why if first else "all its layers are trained")


@pytest.mark.parametrize(
    ("name", "first"),
    [("MobileNetV2", 99), ("ResNet50", 100), ("DenseNet121", 200), ("MobileNetV3Small", 99)],
)
def test_both_parts_together_are_the_backbone(name: str, first: int):
    network = backbone(name)
    unsettle(network)
    cut = find_cut(stages(tail(first)), 0, network)
    ahead, behind = keras.Model(network.input, cut.tensor), keras.Model(cut.tensor, network.output)
    trained = {id(variable) for layer in network.layers[first:] for variable in layer.variables}
    assert {id(variable) for variable in behind.variables} >= trained
    assert not {id(variable) for variable in ahead.variables} & trained
    images = np.random.default_rng(0).uniform(-1, 1, (2, *network.input_shape[1:])).astype(np.float32)
    expected = np.asarray(network(images, training=False))
    found = np.asarray(rewrite(behind, "inference")(rewrite(ahead, "inference")(images, training=False)))
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_a_stage_that_trains_the_head_alone_has_all_of_the_backbone_ready():
    network = backbone("MobileNet")
    cut = find_cut(stages(HEAD, HEAD | {"name": "again"}), 1, network)
    assert (cut.tensor is network.output, cut.whole) == (True, True)
    assert cut.reason == "only the head is trained, on ready features"


def test_what_an_earlier_stage_trained_is_not_cut_off():
    network = backbone("MobileNet")
    deep, shallow = tail("conv_dw_6", "deep"), tail("conv_dw_12", "shallow")
    assert [find_cut(stages(shallow, deep), index, network).layer for index in (0, 1)] == [
        "conv_pad_12",
        "conv_pad_6",
    ]
    assert find_cut(stages(deep, shallow), 1, network).layer == "conv_pad_6"
    after = find_cut(stages(deep, HEAD), 1, network)
    assert (after.layer, after.whole) == ("conv_pad_6", False)
    assert find_cut(stages(HEAD, deep), 0, network).whole


@pytest.mark.parametrize(
    ("raw", "index", "reason"),
    [
        ([HEAD | {"batchnorm": "batch"}], 0, "BatchNorm normalises by the batch"),
        ([HEAD | {"batchnorm": "batch"}, tail(80)], 1, "BatchNorm normalises by the batch in head"),
        ([HEAD, tail(80, batchnorm="batch")], 1, "BatchNorm normalises by the batch"),
        (
            [HEAD | {"evaluation": "recalibrated"}],
            0,
            "validation recalibrates the BatchNorm statistics of all layers",
        ),
        ([tail(0)], 0, "all its layers are trained"),
        ([tail(1)], 0, "no layer ahead of conv1 carries all that passes there"),
    ],
)
def test_where_nothing_stays_the_same_the_reason_is_told(
    raw: list[dict[str, object]], index: int, reason: str
):
    cut = find_cut(stages(*raw), index, backbone("MobileNet"))
    assert (cut.tensor, cut.layer, cut.whole) == (WHOLE.tensor, "", False)
    assert re.fullmatch(f"the whole network runs: {reason}", cut.reason)


def test_a_layer_that_is_used_twice_keeps_the_network_whole():
    inputs = keras.Input((8, 8, 3))
    twice = keras.layers.Conv2D(3, 1, name="twice")
    x = keras.layers.Conv2D(4, 1, name="last")(twice(keras.layers.ReLU(name="relu")(twice(inputs))))
    cut = find_cut(stages(tail("last")), 0, keras.Model(inputs, x))
    assert (cut.tensor, cut.reason) == (None, "the whole network runs: twice is used more than once")


def test_training_mode_without_batchnorm_is_called_what_it_is():
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))
    cut = find_cut(stages(HEAD | {"batchnorm": "batch"}), 0, network)
    assert cut.reason == "the whole network runs: it is in training mode"
    still = find_cut(stages(HEAD | {"evaluation": "recalibrated"}), 0, network)
    assert still.whole


def test_later_stages_do_not_matter():
    made = stages(HEAD, tail(80, batchnorm="batch"))
    assert find_cut(made, 0, backbone("MobileNet")).whole


@pytest.mark.parametrize("build", [penalised_outputs, costly])
def test_outputs_that_count_in_the_loss_keep_the_network_whole(build: Callable[..., keras.Model]):
    network = build((4, 4, 3), 3)
    inference = [{**each, "batchnorm": "inference"} for each in (HEAD, tail("dense"))]
    for index in range(2):
        cut = find_cut(stages(*inference), index, network)
        assert cut.tensor is None
        assert cut.reason == f"{WHOLE.reason}: the loss counts outputs of its layers"
    # Penalties on weights need no layer to run.
    assert find_cut(stages(*inference), 1, penalised((4, 4, 3), 3)).layer == "flat"
