"""A network of one's own for a study: keras_model.toml beside this file names it.

Run `batchscope run keras_model.toml` in this folder; the page is runs/keras-model/report/report.html.
"""

import keras


def build(input_shape, classes):
    """A small convolutional network from images to class probabilities.

    Args:
        input_shape: Height, width and channels of an image.
        classes: How many there are.
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(16, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 5, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
