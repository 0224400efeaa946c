"""Draws aerial views of desert ground, with or without a columnar cactus, many at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.data.shapes import ABSENT, Canvas, Capsule, Draws, Floats, per_image, value_noise

__all__ = ["COLUMNS", "SIZE", "draw_desert"]

SIZE = 32
"""Height and width of a picture in pixels."""

COLUMNS = 3072
"""Random numbers that a picture takes, at most."""

_SAMPLES = 2
_SIDE = SIZE * _SAMPLES
_CANVAS = Canvas(SIZE, _SAMPLES)
_TURN = 2 * np.pi


def _colour(*bytes_: int) -> Floats:
    return np.array(bytes_, np.float32)


_SOILS = np.stack(
    [_colour(190, 160, 124), _colour(164, 122, 94), _colour(150, 141, 128), _colour(178, 152, 104)]
)
_GRASS, _WOOD, _STONE = _colour(128, 128, 84), _colour(150, 128, 104), _colour(172, 164, 150)
_OLIVE, _PALE = _colour(126, 134, 80), _colour(128, 158, 118)


def draw_desert(draws: Draws, positive: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draws one picture per image.

    Args:
        draws: `COLUMNS` random numbers per image.
        positive: Which pictures hold a cactus, bool of shape (images,).

    Returns:
        Red, green and blue bytes, uint8 of shape (images, 32, 32, 3).
    """
    return _Scene(draws, positive).render()


@dataclass(frozen=True)
class _Layer:
    """What is painted over some of the pictures: a colour per picture, shaded per sample."""

    rows: NDArray[np.intp]
    mask: Floats
    colour: Floats
    shade: Floats

    def paint(self, pictures: Floats) -> None:
        below = pictures[self.rows]
        below += (self.colour[:, :, None, None] * self.shade[:, None] - below) * self.mask[:, None]
        pictures[self.rows] = below


class _Scene:
    """Pictures while they are being drawn: ground, then shadows, then what stands on it."""

    def __init__(self, draws: Draws, positive: NDArray[np.bool_]) -> None:
        self._draws = draws
        self._positive = positive
        self._noise = {cells: value_noise(draws, cells, _SIDE) for cells in (3, 8, 16, 32)}
        self._ragged = self._noise[16] * np.float32(0.9) + self._noise[32] * np.float32(0.8)
        self._ground = self._soil()
        self._shadow = np.zeros((len(positive), _SIDE, _SIDE), np.float32)
        self._layers: list[_Layer] = []
        # Upright things lean away from the camera in one direction, and their shadows lie in another.
        self._lean = draws.uniform(0, _TURN)
        self._sun = self._lean + draws.uniform(0.6, _TURN - 0.6)
        self._sun_length = draws.uniform(0.6, 1.3)
        # One green for all that grows in a picture: colour alone tells no cactus from a bush.
        mix = draws.uniform(0, 1)[:, None]
        self._green = (_OLIVE * (1 - mix) + _PALE * mix) * draws.uniform(0.75, 1.1)[:, None]

    def render(self) -> NDArray[np.uint8]:
        self._add_track()
        for _ in range(4):
            self._add_bush((0.9, 2.6), (0.0, 1.5), (0.45, 0.8), self._presence(0.5, 0.5))
        self._add_log()
        self._add_boulder()
        self._add_bush((1.5, 2.8), (0.0, 0.5), (0.9, 1.3), self._presence(0.2, 0.7))
        self._add_bush((1.1, 2.0), (4.0, 10.0), (0.9, 1.3), self._presence(0.15, 0.75))
        self._add_cactus()
        depth = per_image(self._draws.uniform(0.4, 0.68))
        pictures = self._ground * (1 - self._shadow * depth)[:, None]
        for layer in self._layers:
            layer.paint(pictures)
        return self._expose(pictures)

    def _expose(self, pictures: Floats) -> NDArray[np.uint8]:
        """Reduces samples to pixels, then adds exposure, haze and sensor noise."""
        halves = pictures[:, :, 0::2] + pictures[:, :, 1::2]
        pixels = (halves[..., 0::2] + halves[..., 1::2]) / 4
        pixels *= self._draws.uniform(0.75, 1.15)[:, None, None, None]
        pixels += (150 - pixels) * self._draws.uniform(0.0, 0.25)[:, None, None, None]
        grain = self._draws.block(SIZE * SIZE).reshape(-1, 1, SIZE, SIZE) - np.float32(0.5)
        pixels += grain * self._draws.uniform(4, 18)[:, None, None, None]
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)

    def _soil(self) -> Floats:
        """Ground of a drawn hue, mottled at four scales, with patches of dry grass."""
        draws = self._draws
        mix = draws.uniform(0, 1)[:, None]
        soil = draws.choice(_SOILS) * mix + draws.choice(_SOILS) * (1 - mix)
        soil *= draws.uniform(0.7, 1.15)[:, None]
        grass = _GRASS * draws.uniform(0.7, 1.1)[:, None]
        texture = np.ones_like(self._noise[3])
        for cells, strength in ((3, 0.15), (8, 0.18), (16, 0.16), (32, 0.16)):
            texture += self._noise[cells] * per_image(draws.uniform(0.2 * strength, strength))
        wet = self._noise[8] + self._noise[3] + per_image(draws.uniform(-1.0, 0.3))
        cover = np.clip(wet, 0, 1) * np.float32(0.6)
        mixed = soil[:, :, None, None] + (grass - soil)[:, :, None, None] * cover[:, None]
        ground: Floats = mixed * texture[:, None]
        return ground

    def _presence(self, with_cactus: float, without: float) -> NDArray[np.bool_]:
        """Draws where a thing stands; more of them where there is no cactus even the colours out."""
        return self._draws.chance(np.where(self._positive, np.float32(with_cactus), np.float32(without)))

    def _spot(self, margin: float) -> tuple[Floats, Floats]:
        return self._draws.uniform(margin, SIZE - margin), self._draws.uniform(margin, SIZE - margin)

    def _cast(self, shape: Capsule) -> None:
        """Darkens the ground under a flat shape; where shadows meet they do not add up."""
        rows = shape.rows()
        edge, _ = _CANVAS.measure(shape, rows)
        self._shadow[rows] = np.maximum(self._shadow[rows], _coverage(edge, 1.2))

    def _paint(self, shape: Capsule, colour: Floats, *, ragged: float, mottled: float) -> None:
        rows = shape.rows()
        edge, _ = _CANVAS.measure(shape, rows)
        edge += self._ragged[rows] * np.float32(ragged)
        shade = 1 + self._noise[32][rows] * np.float32(mottled)
        self._layers.append(_Layer(rows, _coverage(edge, 0.8), colour[rows], shade))

    def _add_track(self) -> None:
        """A long line of lighter or darker ground: as straight as a cactus, but flat."""
        x, y = self._spot(4)
        radius = np.where(self._presence(0.15, 0.3), self._draws.uniform(0.4, 1.1), ABSENT)
        angle, tone = self._draws.uniform(0, _TURN), self._draws.uniform(0.75, 1.3)
        line = Capsule(x, y, angle, np.full_like(x, 4 * SIZE), radius, radius).moved(angle, -2.0 * SIZE)
        rows = line.rows()
        edge, _ = _CANVAS.measure(line, rows)
        mask = _coverage(edge + self._noise[16][rows] * np.float32(0.4), 1.0)
        self._ground[rows] *= (1 + per_image(tone[rows] - 1) * mask)[:, None]

    def _add_bush(
        self,
        width: tuple[float, float],
        length: tuple[float, float],
        tone: tuple[float, float],
        present: NDArray[np.bool_],
    ) -> None:
        """A bush: a ragged outline, mottled, with a shadow about as long as it is high."""
        draws = self._draws
        x, y = self._spot(0)
        radius = np.where(present, draws.uniform(*width), ABSENT)
        end_radius = radius * draws.uniform(0.7, 1.1)
        body = Capsule(x, y, draws.uniform(0, _TURN), draws.uniform(*length), radius, end_radius)
        self._cast(body.moved(self._sun, radius * draws.uniform(0.5, 1.2)))
        self._paint(body, self._green * draws.uniform(*tone)[:, None], ragged=1.0, mottled=0.3)

    def _add_log(self) -> None:
        """A fallen trunk: straight and smooth, but brown and lying on its shadow."""
        draws = self._draws
        x, y = self._spot(2)
        radius = np.where(self._presence(0.25, 0.5), draws.uniform(0.5, 1.1), ABSENT)
        angle, length = draws.uniform(0, _TURN), draws.uniform(5, 14)
        log = Capsule(x, y, angle, length, radius, radius * np.float32(0.7))
        self._cast(log.moved(self._sun, 0.8))
        self._paint(log, _WOOD * draws.uniform(0.6, 1.3)[:, None], ragged=0.0, mottled=0.15)

    def _add_boulder(self) -> None:
        """A standing stone: its shadow is as long as that of a cactus."""
        draws = self._draws
        x, y = self._spot(2)
        radius = np.where(self._presence(0.3, 0.6), draws.uniform(0.9, 1.9), ABSENT)
        slim = radius * np.float32(0.8)
        self._cast(Capsule(x, y, self._sun, draws.uniform(5, 13), radius, slim))
        stone = Capsule(x, y, self._lean, draws.uniform(0, 1.5), radius, slim)
        self._paint(stone, _STONE * draws.uniform(0.75, 1.15)[:, None], ragged=0.3, mottled=0.15)

    def _add_cactus(self) -> None:
        """The column, its arms, and the shadows of both, which start at the same foot."""
        draws = self._draws
        height, tone = draws.uniform(7, 14), draws.uniform(0.95, 1.25)
        radius = np.where(self._positive, draws.uniform(0.9, 1.6), ABSENT)
        # Placed by its middle, so that a part of it may lie beyond the border.
        x, y = self._spot(5)
        standing = Capsule(x, y, self._lean, height, radius, radius * np.float32(0.85))
        column = standing.moved(self._lean, height * np.float32(-0.5))
        length = height * self._sun_length
        shadow = Capsule(column.x, column.y, self._sun, length, radius, column.end_radius)
        for side in (-1, 1):
            slim = np.where(draws.chance(0.45), radius * np.float32(0.75), ABSENT)
            at, out, up = draws.uniform(0.3, 0.6), draws.uniform(2.2, 3.2), draws.uniform(0.2, 0.4)
            for part in _arm(shadow, side, slim, at, out, up):
                self._cast(part)
            for part in _arm(column, side, slim, at, out, up):
                self._paint_stem(part, tone)
        self._cast(shadow)
        self._paint_stem(column, tone)

    def _paint_stem(self, part: Capsule, tone: Floats) -> None:
        """Paints a ribbed green cylinder, brighter on the side of the light."""
        rows = part.rows()
        edge, across = _CANVAS.measure(part, rows)
        place = np.clip(across / per_image(part.radius[rows]), -1, 1)
        away = per_image(np.sin(part.angle - self._sun)[rows])
        across_ribs = place * np.float32(1.5)
        rib = np.abs(across_ribs - np.rint(across_ribs))
        shade = np.float32(0.825) + np.float32(0.3) * away * place + np.float32(0.7) * rib
        colour = (self._green * tone[:, None])[rows]
        self._layers.append(_Layer(rows, _coverage(edge, 0.6), colour, shade))


def _arm(
    stem: Capsule, side: int, radius: Floats, at: Floats, out: Floats, up: Floats
) -> tuple[Capsule, Capsule]:
    """An arm as two capsules: out from the stem at a right angle, then along it."""
    x, y = stem.point(at)
    elbow = Capsule(x, y, stem.angle + np.float32(np.pi / 2) * side, out, radius, radius)
    x_end, y_end = elbow.point(1.0)
    return elbow, Capsule(x_end, y_end, stem.angle, stem.length * up, radius, radius * np.float32(0.85))


def _coverage(edge: Floats, softness: float) -> Floats:
    """Share of a sample inside an edge, from its distance; the edge is `softness` pixels wide."""
    share: Floats = np.clip(np.float32(0.5) - edge / np.float32(softness), 0, 1)
    return share
