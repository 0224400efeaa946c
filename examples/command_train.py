"""A training program that batchscope runs as a command: softmax regression on scikit-learn's digits.

It uses NumPy and knows nothing of batchscope; it prints a JSON object for each epoch. Where it is
given a checkpoint it goes on from there::

    batchscope run --command "python examples/command_train.py --batch-size {batch_size}
        --seed {seed} --checkpoint {folder}/state.npz" --batch-sizes 16,64,256 --replicates 3
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

LEARNING_RATE = 0.1


def scores(images, weights):
    """Logarithms of the probabilities of the ten digits."""
    products = images @ weights
    return products - np.log(np.exp(products).sum(axis=1, keepdims=True))


def measure(images, digits, weights):
    """Loss and accuracy."""
    found = scores(images, weights)
    loss = -found[np.arange(len(digits)), digits].mean()
    return float(loss), float((found.argmax(axis=1) == digits).mean())


def train_epoch(images, digits, weights, order, batch_size):
    """One pass over the training images, in this order."""
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        errors = np.exp(scores(images[rows], weights))
        errors[np.arange(len(rows)), digits[rows]] -= 1
        weights = weights - LEARNING_RATE * images[rows].T @ errors / len(rows)
    return weights


def main() -> None:
    """Trains, and prints a record an epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()

    images, digits = load_digits(return_X_y=True)
    images = np.c_[images / 16, np.ones(len(images))]
    images, val_images, digits, val_digits = train_test_split(
        images, digits, test_size=0.25, stratify=digits, random_state=0
    )

    weights, lines = np.random.default_rng(given.seed).normal(0, 0.1, (images.shape[1], 10)), []
    if given.checkpoint and given.checkpoint.exists():
        with np.load(given.checkpoint) as state:
            weights, lines = state["weights"], state["lines"].tolist()
    # All lines so far are printed again: the program cannot know which of them were stored before it
    # was interrupted, and those that were pass.
    for line in lines:
        print(line, flush=True)

    for epoch in range(len(lines) + 1, given.epochs + 1):
        order = np.random.default_rng([given.seed, epoch]).permutation(len(images))
        weights = train_epoch(images, digits, weights, order, given.batch_size)
        train_loss, train_accuracy = measure(images, digits, weights)
        val_loss, val_accuracy = measure(val_images, val_digits, weights)
        record = {
            "epoch": epoch,
            "updates": epoch * math.ceil(len(images) / given.batch_size),
            "examples": epoch * len(images),
            "learning_rate": LEARNING_RATE,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
        }
        lines.append(json.dumps(record))
        if given.checkpoint:
            partial = given.checkpoint.with_suffix(".new.npz")
            np.savez(partial, weights=weights, lines=lines)
            partial.replace(given.checkpoint)
        print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
