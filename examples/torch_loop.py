"""Batch sizes compared in a PyTorch loop of one's own: a small network on scikit-learn's digits.

``python examples/torch_loop.py`` takes about a minute; the page is then
``runs/torch-loop/report/report.html``. It may be interrupted at any time: the same command goes on.
"""

import math

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import batchscope

EPOCHS = 15


def load_data():
    """Images and digits, for training and for validation."""
    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    parts = train_test_split(images, digits, test_size=0.25, stratify=digits, random_state=0)
    return [torch.from_numpy(part) for part in parts]


def train(trial: batchscope.TrialHandle) -> None:
    """Trains one trial; batchscope calls this in a process of its own."""
    images, val_images, digits, val_digits = load_data()
    torch.manual_seed(trial.seed)  # the same initial weights at every batch size
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=trial.learning_rate, momentum=0.9)

    checkpoint, done = trial.folder / "state.pt", 0
    if checkpoint.exists():  # the trial was interrupted
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]

    updates_per_epoch = math.ceil(len(images) / trial.batch_size)
    for epoch in range(done + 1, EPOCHS + 1):
        # An order that depends on seed and epoch alone needs no random state in the checkpoint.
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(trial.seed + epoch))
        loss_sum, right = 0.0, 0
        for rows in order.split(trial.batch_size):
            scores = network(images[rows])
            loss = nn.functional.cross_entropy(scores, digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(rows)
            right += (scores.argmax(1) == digits[rows]).sum().item()
        with torch.no_grad():
            scores = network(val_images)
        trial.report(
            epoch=epoch,
            updates=epoch * updates_per_epoch,
            examples=epoch * len(images),
            train_loss=loss_sum / len(images),
            train_accuracy=right / len(images),
            val_loss=nn.functional.cross_entropy(scores, val_digits),
            val_accuracy=(scores.argmax(1) == val_digits).float().mean(),
        )
        # After the report: if a kill comes between the two, the epoch is trained and reported again,
        # and the same figures pass. The file is replaced whole, so that a kill leaves no half of it.
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)


if __name__ == "__main__":
    run = batchscope.run(
        train,
        batch_sizes=[16, 64, 256],
        replicates=3,
        learning_rates=[0.05],
        epochs=EPOCHS,
        out="runs/torch-loop",
    )
    print(run.analyze().verdict[0].text)
