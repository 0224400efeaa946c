"""A study whose answer is known: scikit-learn's SGDClassifier, on handwritten digits.

`partial_fit` makes an update after each example, however many it is given at a time. So the batch size cannot
matter, and the page must not say that it does. Studies like this one show whether a method finds what is not
there.

Run `python sgd_classifier.py`; the page is runs/sgd/report/report.html.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import batchscope as bs


def train(trial: bs.TrialHandle) -> None:
    """Trains one trial; batchscope calls this in a process of its own."""
    x, y = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(x / 16, y, test_size=0.25, random_state=0, stratify=y)
    orders = np.random.default_rng(trial.seed)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, shuffle=False)
    for epoch in range(1, 11):
        order = orders.permutation(len(x_train))
        for start in range(0, len(order), trial.batch_size):
            batch = order[start : start + trial.batch_size]
            model.partial_fit(x_train[batch], y_train[batch], classes=range(10))
        trial.report(
            updates=epoch * len(order),
            examples=epoch * len(order),
            train_accuracy=model.score(x_train, y_train),
            val_accuracy=model.score(x_val, y_val),
        )


if __name__ == "__main__":
    bs.run(train, batch_sizes=[32, 128, 512], replicates=3, out="runs/sgd")
