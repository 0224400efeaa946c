"""The built-in studies are what they claim to be."""

from __future__ import annotations

from batchscope.spec import Augmentation, FromLayer
from batchscope.studies import load_study

AUGMENTATION_2019 = Augmentation(
    rotation=15, width_shift=0.1, height_shift=0.1, shear=0.1, zoom=[0.9, 1.25], horizontal_flip=True
)


def test_aerial_cactus_2019_is_the_published_recipe_to_the_letter():
    study = load_study("aerial-cactus-2019")
    assert study.batch_sizes == [16, 32, 64, 128]
    assert study.replicates == 3
    assert study.last_batch == "drop"
    assert (study.data.validation_share, study.data.split_seed, study.data.limit) == (0.2, 2019, None)
    model = study.model
    assert (model.backbone, model.weights, model.image_size) == ("MobileNetV2", "imagenet", 96)
    assert (model.interpolation, model.input_scaling) == ("nearest", "unit")
    first, second = study.stages
    assert (first.name, first.trainable, first.epochs) == ("feature_extraction", "head", 10)
    assert (first.optimizer, first.learning_rate, first.batchnorm) == ("rmsprop", 1e-4, "batch")
    assert first.augmentation is None
    assert (second.name, second.epochs) == ("fine_tuning", 10)
    assert second.trainable == FromLayer(from_layer="block_11_expand_BN")
    assert (second.optimizer, second.learning_rate, second.batchnorm) == ("rmsprop", 2e-5, "batch")
    assert second.augmentation == AUGMENTATION_2019


def test_the_corrected_study_differs_only_in_what_it_corrects():
    letter, corrected = load_study("aerial-cactus-2019"), load_study("aerial-cactus")
    assert corrected.last_batch == "keep"
    assert corrected.model.input_scaling == "symmetric"
    assert [stage.batchnorm for stage in corrected.stages] == ["inference", "inference"]
    same = {"last_batch": "drop", "name": letter.name, "description": letter.description}
    back = corrected.model_copy(
        update={
            **same,
            "model": corrected.model.model_copy(update={"input_scaling": "unit"}),
            "stages": [stage.model_copy(update={"batchnorm": "batch"}) for stage in corrected.stages],
        }
    )
    assert back == letter


def test_the_demo_compares_all_four_batch_sizes_on_generated_images_and_pinned_weights():
    study = load_study("demo")
    assert study.batch_sizes == [16, 32, 64, 128]
    assert study.data.source == "synthetic-cactus"
    assert "#sha256=" in study.model.weights


def test_fashion_mnist_trains_the_simple_cnn_from_scratch_at_two_learning_rates():
    study = load_study("fashion-mnist")
    [stage] = study.stages
    assert study.data.source == "keras:fashion_mnist"
    assert (study.model.network, study.model.weights) == ("cnn", "none")
    assert (min(study.batch_sizes), max(study.batch_sizes), study.replicates) == (32, 2048, 2)
    assert (stage.trainable, len(study.grid or [])) == ("all", 2)
