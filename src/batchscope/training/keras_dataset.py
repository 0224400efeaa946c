"""A program that fetches one of ``keras.datasets`` and writes it as an archive of arrays.

``python -m batchscope.training.keras_dataset NAME TARGET``. Keras downloads and checks the files
against the digests that it knows; where it fails, the last line of the error output says why.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from batchscope.replacing import replacing

__all__ = ["main"]


def main(name: str, target: Path) -> None:
    """Writes ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Raises:
        SystemExit: Keras is not installed, the data cannot be had, or the archive cannot be written.
    """
    try:
        import keras

        keras.config.set_image_data_format("channels_last")  # whatever the user's settings say
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        with replacing(target) as file:
            np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    except ImportError as error:
        sys.exit(f"Keras cannot be imported ({error}): pip install 'batchscope[tensorflow]'")
    except Exception as error:  # noqa: BLE001 - a download fails in many ways, and each is told in a line
        sys.exit(" ".join(str(error).split()) or type(error).__name__)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
