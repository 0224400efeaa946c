"""The contenders do the same: network, augmentation, updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from batchscope.schedule import schedule
from batchscope.spec import Augmentation as Ranges
from batchscope.studies import load_study
from batchscope.training.augment import apply_views, draw_views
from contenders import Setting
from plain_keras import Classifier, training_batches, transforms, unfreeze, validation_batches
from prepare import protocol_of, reduced
from protocol import Augmentation, Protocol, Work
from random_weights import model_macs
from run import check_work
from timeline import EpochTime, Timeline
from watching import ContenderError

pytestmark = pytest.mark.keras

STUDIES = ("aerial-cactus", "aerial-cactus-2019")
BOUNDARY = "block_11_expand_BN"
RANGES = Ranges(
    rotation=40, width_shift=0.2, height_shift=0.15, shear=12, zoom=[0.7, 1.4], horizontal_flip=True
)
PLAIN = Augmentation(40, 0.2, 0.15, 12, (0.7, 1.4), horizontal_flip=True)


@pytest.fixture(scope="module")
def backbone() -> Any:
    """Small, with BatchNorm averages and scales that are not those of a new network."""
    keras.utils.set_random_seed(3)
    built = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    rng = np.random.default_rng(3)
    for layer in built.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [rng.uniform(0.8, 1.6, shape), *rng.normal(0, 0.1, (2, *shape)), np.full(shape, 0.2)]
            )
    return built


@pytest.mark.parametrize("name", STUDIES)
def test_the_protocol_is_the_studys(name: str, tmp_path: Path):
    study = reduced(name, 640, 2)
    protocol = protocol_of(study)
    protocol.save(tmp_path / "protocol.json")
    assert Protocol.load(tmp_path / "protocol.json") == protocol
    whole = load_study(name)
    assert protocol.batch_sizes == tuple(whole.batch_sizes)
    assert protocol.stages[1].augmentation == Augmentation(
        15, 0.1, 0.1, 0.1, (0.9, 1.25), horizontal_flip=True
    )
    assert [stage.epochs for stage in protocol.stages] == [2, 2]
    assert (protocol.to_minus_one, protocol.batch_statistics, protocol.drop) == (
        (True, False, False) if name == "aerial-cactus" else (False, True, True)
    )


def test_a_study_that_the_scripts_cannot_carry_out_is_refused():
    with pytest.raises(ValueError, match="but not"):
        protocol_of(load_study("aerial-cactus", [("stages.fine_tuning.optimizer", "adam")]))


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("batch_size", [16, 64])
def test_all_count_the_same_updates_and_examples(name: str, batch_size: int):
    study = reduced(name, 640, 2)
    protocol, training, validation = protocol_of(study), 200, 100
    work = Work.of(protocol, batch_size, training, validation)
    planned = schedule(study, batch_size, training)[0]
    assert (work.updates, work.examples) == (planned.updates_per_epoch, planned.examples_per_epoch)
    images, labels = np.zeros((training, 4, 4, 3), np.uint8), np.zeros((training, 1), np.float32)
    sizes = [len(y) for _, y in training_batches(images, labels, protocol, batch_size, None)]
    assert (len(sizes), sum(sizes)) == (work.updates, work.examples)
    scored = validation_batches(images[:validation], labels[:validation], protocol, work.validated)
    assert sum(len(y) for _, y in scored) == work.validated


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("batch_size", [16, 64])
def test_torch_counts_them_too(name: str, batch_size: int):
    pytest.importorskip("torch")
    from plain_torch import batches

    protocol = protocol_of(reduced(name, 640, 2))
    work = Work.of(protocol, batch_size, 200, 100)
    rows = list(batches(200, batch_size, drop=protocol.drop))
    assert (len(rows), sum(map(len, rows))) == (work.updates, work.examples)
    assert len({int(row) for batch in rows for row in batch}) == work.examples


def test_other_work_is_refused(tmp_path: Path):
    study = reduced("aerial-cactus", 640, 2)
    setting = Setting(study, protocol_of(study), (512, 128), tmp_path)
    epochs = tuple(
        EpochTime((size, 1), stage, epoch, setting.work(size), 1.0, 1.0, 0.0)
        for size in study.batch_sizes
        for stage in ("feature_extraction", "fine_tuning")
        for epoch in (1, 2)
    )
    check_work(Timeline(1.0, 0.0, 0.0, 1.0, epochs, 1), setting)
    with pytest.raises(ContenderError, match="should be"):
        check_work(Timeline(1.0, 0.0, 0.0, 1.0, epochs[:-1], 1), setting)


def drawn(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same draws as batchscope turns them into transforms, and raw."""
    views = draw_views(RANGES, count, (size, size), np.random.default_rng(5))
    return views, np.random.default_rng(5).random((count, 7)).astype(np.float32)


def test_keras_draws_batchscopes_views():
    views, uniform = drawn(50, 96)
    np.testing.assert_allclose(transforms(tf.constant(uniform), PLAIN, 96), views, atol=2e-4)


def test_torch_shows_batchscopes_views():
    torch = pytest.importorskip("torch")
    from plain_torch import thetas
    from plain_torch import views as shown

    views, uniform = drawn(20, 32)
    images = np.random.default_rng(1).uniform(0, 255, (20, 32, 32, 3)).astype(np.float32)
    theta = thetas(torch.from_numpy(uniform), PLAIN)
    seen = shown(torch.from_numpy(images).permute(0, 3, 1, 2), theta).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(seen, apply_views(images, views), atol=0.05)


def test_torchs_network_is_keras(backbone: Any):
    torch = pytest.importorskip("torch")
    from torch_mobilenet import MobileNetV2

    network = MobileNetV2(BOUNDARY).eval()
    network.load_keras([array for layer in backbone.layers for array in layer.get_weights()])
    assert [name for name, _ in network.weighted()] == [
        layer.name for layer in backbone.layers if layer.weights
    ]
    images = np.random.default_rng(2).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    turned = torch.from_numpy(images[:, ::-1, ::-1].copy()).permute(0, 3, 1, 2)
    expected = np.asarray(backbone(images, training=False)).mean(axis=(1, 2))
    assert expected.std() > 1e-2
    np.testing.assert_allclose(
        network(turned).detach().numpy(), expected, rtol=1e-4, atol=1e-4 * expected.std()
    )


def test_torch_trains_the_same_weights():
    pytest.importorskip("torch")
    from torch_mobilenet import MobileNetV2

    network = MobileNetV2(BOUNDARY)
    assert sum(weight.numel() for weight in network.parameters() if weight.requires_grad) == 0
    network.unfreeze()
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    assert trained + 1281 == 1_863_873


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_keras_trains_the_same_weights_in_the_same_mode(backbone: Any, batch_statistics: bool):
    model = Classifier(backbone, batch_statistics=batch_statistics)
    model(np.zeros((1, 32, 32, 3), np.float32))
    unfreeze(backbone, None, batch_statistics=batch_statistics)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 1281
    unfreeze(backbone, BOUNDARY, batch_statistics=batch_statistics)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 1_863_873
    averages = [layer.moving_mean for layer in backbone.layers if hasattr(layer, "moving_mean")]
    before = [np.array(average) for average in averages]
    images = np.random.default_rng(4).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    model.compile("rmsprop", "binary_crossentropy", run_eagerly=True)
    model.fit(images, np.ones((4, 1)), batch_size=4, verbose=0)
    moved = [bool((old != np.array(new)).any()) for old, new in zip(before, averages, strict=True)]
    assert set(moved) == {batch_statistics}


def test_multiplications_are_counted_from_the_model():
    whole, trained = model_macs(BOUNDARY)
    # Table of MobileNetV2's paper: 300 million at 224 px, of which 1.28 are the classifier left out here;
    # convolutions go with the area, (96 / 224)**2.
    assert whole == pytest.approx(300e6 * (96 / 224) ** 2, rel=0.02)
    # Block 11 from its depthwise convolution on, blocks 12 to 16 and the last convolution, by hand.
    by_hand = 36 * 576 * (9 + 96) + 36 * 96 * 576 + 36 * 576 * (9 + 96)
    by_hand += 36 * 96 * 576 + 9 * 576 * (9 + 160)
    by_hand += 2 * (9 * 160 * 960 + 9 * 960 * (9 + 160)) + 9 * 160 * 960 + 9 * 960 * (9 + 320)
    by_hand += 9 * 320 * 1280 + 1280
    assert trained == by_hand
