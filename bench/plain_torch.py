"""The protocol as a notebook's author writes it in PyTorch: `python plain_torch.py FOLDER`.

Channels-last images in memory, one gather a batch, the frozen part without gradients, validation in
inference mode.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from protocol import EVALUATION_BATCH, Augmentation, Event, Protocol, StagePlan, Work, emit
from torch_mobilenet import FEATURES, MobileNetV2

__all__ = ["Images", "batches", "thetas", "views"]


@dataclass(frozen=True, eq=False)
class Images:
    """Images as bytes, shape (n, 3, size, size) in channels-last order, and labels, float32, shape (n,)."""

    pixels: Tensor
    labels: Tensor

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> Images:
        """Enlarges small images by nearest neighbour and turns them, as `torch_mobilenet` wants them."""
        factor = size // pixels.shape[1]
        turned = pixels[:, ::-1, ::-1].repeat(factor, axis=1).repeat(factor, axis=2)
        return cls(torch.from_numpy(turned).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.float32)))

    def scaled(self, rows: Tensor, *, to_minus_one: bool) -> Tensor:
        """Some images as float32."""
        pixels = self.pixels[rows].float()
        return pixels.mul_(1 / 127.5).sub_(1) if to_minus_one else pixels.mul_(1 / 255)


def batches(count: int, batch_size: int, *, drop: bool) -> Iterator[Tensor]:
    """Rows of one epoch in random order, batch by batch."""
    for rows in torch.randperm(count).split(batch_size):
        if len(rows) == batch_size or not drop:
            yield rows


def thetas(uniform: Tensor, ranges: Augmentation) -> Tensor:
    """Maps from output to input in the coordinates of `affine_grid`, shape (n, 2, 3), in (x, y) order.

    Args:
        uniform: Seven numbers from 0 to 1 for each image: rotation, shift of rows and of columns, shear,
            zoom of rows and of columns, mirror.
        ranges: What they are spread over. Composed as by Keras' ImageDataGenerator.
    """
    low, high = ranges.zoom
    angle = torch.deg2rad((2 * uniform[:, 0] - 1) * ranges.rotation)
    # A shift by a share of the size is twice that share where the image spans -1 to 1.
    rows = (2 * uniform[:, 1] - 1) * ranges.height_shift * 2
    columns = (2 * uniform[:, 2] - 1) * ranges.width_shift * 2
    shear = torch.deg2rad((2 * uniform[:, 3] - 1) * ranges.shear)
    zoom = low + (high - low) * uniform[:, 4:6]
    mirror = torch.where((uniform[:, 6] < 0.5) & torch.tensor(ranges.horizontal_flip), -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    rr, rc = cos * zoom[:, 0], -torch.sin(angle + shear) * zoom[:, 1] * mirror
    cr, cc = sin * zoom[:, 0], torch.cos(angle + shear) * zoom[:, 1] * mirror
    r0, c0 = cos * rows - sin * columns, sin * rows + cos * columns
    return torch.stack((cc, cr, c0, rc, rr, r0), dim=1).view(-1, 2, 3)


def views(images: Tensor, theta: Tensor) -> Tensor:
    """Resamples images bilinearly; their border repeats. Channels-last order, which is lost, is restored."""
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    seen = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return seen.contiguous(memory_format=torch.channels_last)


class _Trial:
    """One trial: a fresh network, trained stage by stage."""

    def __init__(
        self, protocol: Protocol, weights: list[NDArray[np.float32]], training: Images, validation: Images
    ) -> None:
        self._protocol, self._training, self._validation = protocol, training, validation
        backbone = MobileNetV2(protocol.first_trained)
        backbone.load_keras(weights)
        self._backbone = backbone
        self._network = nn.Sequential(backbone, nn.Linear(FEATURES, 1)).to(memory_format=torch.channels_last)

    def run(self, batch_size: int, replicate: int) -> None:
        protocol = self._protocol
        work = Work.of(protocol, batch_size, len(self._training.labels), len(self._validation.labels))
        emit(Event("started", (batch_size, replicate)))
        for stage in protocol.stages:
            if stage.fine_tuning:
                self._backbone.unfreeze()
            trained = [weight for weight in self._network.parameters() if weight.requires_grad]
            optimizer = torch.optim.RMSprop(trained, lr=stage.learning_rate, alpha=0.9, eps=1e-7)
            for epoch in range(1, stage.epochs + 1):
                start = time.perf_counter()
                figures = self._train(stage, optimizer, batch_size)
                seconds = time.perf_counter() - start
                figures |= self._validate(work.validated)
                emit(Event("epoch", (batch_size, replicate), stage.name, epoch, work, seconds, figures))
        emit(Event("ended", (batch_size, replicate)))

    def _train(self, stage: StagePlan, optimizer: torch.optim.Optimizer, batch_size: int) -> dict[str, float]:
        self._network.train(self._protocol.batch_statistics)
        total, right, seen = torch.zeros(()), torch.zeros(()), 0
        for rows in batches(len(self._training.labels), batch_size, drop=self._protocol.drop):
            images = self._training.scaled(rows, to_minus_one=self._protocol.to_minus_one)
            if stage.augmentation is not None:
                images = views(images, thetas(torch.rand(len(rows), 7), stage.augmentation))
            labels = self._training.labels[rows]
            scores = self._network(images)[:, 0]
            loss = functional.binary_cross_entropy_with_logits(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                total += loss * len(rows)
                right += ((scores > 0) == (labels > 0.5)).sum()
            seen += len(rows)
        return {"train_loss": float(total / seen), "train_accuracy": float(right / seen)}

    def _validate(self, count: int) -> dict[str, float]:
        self._network.eval()
        total, right = torch.zeros(()), torch.zeros(())
        with torch.inference_mode():
            for rows in torch.arange(count).split(EVALUATION_BATCH):
                labels = self._validation.labels[rows]
                images = self._validation.scaled(rows, to_minus_one=self._protocol.to_minus_one)
                scores = self._network(images)[:, 0]
                total += functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
                right += ((scores > 0) == (labels > 0.5)).sum()
        return {"val_loss": float(total / count), "val_accuracy": float(right / count)}


def main(folder: Path) -> None:
    """Carries out the protocol in a folder that `prepare` filled."""
    protocol = Protocol.load(folder / "protocol.json")
    arrays = np.load(folder / "images.npz")
    stored = np.load(folder / "weights.npz")
    weights = [stored[f"w{index}"] for index in range(len(stored.files))]
    training, validation = (
        Images.of(arrays[f"{part}_images"], arrays[f"{part}_labels"], protocol.size)
        for part in ("training", "validation")
    )
    for batch_size, replicate in protocol.trials():
        torch.manual_seed(replicate)
        _Trial(protocol, weights, training, validation).run(batch_size, replicate)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
