"""What the batch size does to scikit-learn's small neural network, on handwritten digits.

Run `python mlp_classifier.py`; the page is runs/mlp/report/report.html.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import batchscope as bs


def train(trial: bs.TrialHandle) -> None:
    """Trains one trial; batchscope calls this in a process of its own."""
    x, y = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(x / 16, y, test_size=0.25, random_state=0, stratify=y)
    model = MLPClassifier(
        hidden_layer_sizes=64,
        solver="sgd",
        learning_rate_init=0.05,
        batch_size=trial.batch_size,
        random_state=np.random.RandomState(trial.seed),  # the same at every batch size
    )
    for epoch in range(1, 21):
        model.partial_fit(x_train, y_train, classes=range(10))  # one pass over the images
        trial.report(
            updates=epoch * -(-len(x_train) // trial.batch_size),
            examples=epoch * len(x_train),
            train_loss=model.loss_,
            train_accuracy=model.score(x_train, y_train),
            val_accuracy=model.score(x_val, y_val),
        )


if __name__ == "__main__":
    bs.run(train, batch_sizes=[8, 32, 128], replicates=3, out="runs/mlp")
