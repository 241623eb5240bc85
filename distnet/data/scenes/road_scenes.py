"""Road scenes as a driver sees them, with the class of every pixel: what SegNet was made for.

A road that may bend runs to the horizon, with lane markings, cars and signs on it and beside it,
houses and trees behind, in any light and with shadows across.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.data.scenes.scene import Part, Scene, random_of

ROAD_CLASSES = ("sky", "building", "tree", "grass", "road", "lane", "car", "sign")
SKY, BUILDING, TREE, GRASS, ROAD, LANE, CAR, SIGN = range(8)
NOISE = 22  # grey values up or down
SIGN_COLOURS = ((217, 26, 26), (38, 64, 204), (230, 204, 26))


class RoadScenes:
    """Scenes of `size` pixels (rows, columns) in colour; the classes are `ROAD_CLASSES`."""

    def __init__(
        self, *, seed: int = 0, part: Part = Part.TRAIN, size: tuple[int, int] = (48, 64)
    ) -> None:
        self.seed, self.part, self.size = seed, part, size

    def __getitem__(self, number: int) -> Scene:
        rng = random_of(self.seed, self.part, number)
        canvas = _Canvas(self.size, rng)
        canvas.paint_ground()
        canvas.paint_horizon()
        road = canvas.paint_road()
        for _ in range(rng.integers(4)):
            canvas.paint_car(road)
        for _ in range(rng.integers(3)):
            canvas.paint_sign(road)
        nobody = np.zeros((0, 4), np.int64)
        return Scene(canvas.developed(), canvas.mask, nobody, np.zeros(0, np.int64))


@dataclass(frozen=True)
class _Road:
    """Where the road is, by how far below the horizon one looks: t, 1 at the lower edge."""

    far: float  # its middle at the horizon, in pixels
    near: float  # and at the lower edge
    bend: float
    width: float  # half of what it has at the lower edge

    def middle(self, t: Any) -> Any:
        return self.far + (self.near - self.far) * t + self.bend * t * (1 - t)

    def half_width(self, t: Any) -> Any:
        return 1.5 + self.width * t


class _Canvas:
    """A scene while it is painted, from the back to the front: what comes later hides.

    y, x: the middles of its pixels, `(H, 1)` and `(1, W)`. picture: `(H, W, 3)` grey values.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.rng, self.height, self.width = rng, *size
        self.y, self.x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
        self.picture = np.empty((*size, 3), np.float32)
        self.mask = np.zeros(size, np.uint8)
        self.horizon = rng.uniform(0.32, 0.5) * self.height

    def patch(self, left: float, top: float, right: float, bottom: float) -> _Canvas:
        """The part of the canvas that holds a thing: painting a small one does not take long."""
        rows = slice(max(0, int(top)), max(0, int(bottom) + 2))
        columns = slice(max(0, int(left)), max(0, int(right) + 2))
        part = copy(self)
        part.y, part.x = self.y[rows], self.x[:, columns]
        part.picture, part.mask = self.picture[rows, columns], self.mask[rows, columns]
        return part

    def around(self, colour: tuple[int, ...], spread: int = 20) -> Array:
        """A colour near the given one: lighter or darker, and a little of another hue."""
        light, *hue = self.rng.integers(-spread, spread + 1, 4).tolist()
        return np.array(
            [min(max(c + 2 * light + h, 0), 255) for c, h in zip(colour, hue, strict=True)], float
        )

    def paint(self, where: Array, colour: Array, kind: int, texture: int = 0) -> None:
        """Colours pixels, with grey values more or less; they are now of that class."""
        pixels = colour
        if texture:
            count = np.count_nonzero(where)
            pixels = colour + self.rng.integers(-texture, texture + 1, (count, 1))
        self.picture[where] = pixels
        self.mask[where] = kind

    def paint_ground(self) -> None:
        sky, grass = self.around((140, 178, 230)), self.around((89, 128, 64))
        self.picture[...] = sky * (1 - 0.25 * self.y / self.height)[:, :, None]
        below = np.broadcast_to(self.y > self.horizon, self.mask.shape)
        self.paint(below, grass, GRASS, texture=26)

    def paint_horizon(self) -> None:
        """Houses and trees, from left to right, with gaps."""
        x = self.rng.uniform(-6, 4)
        while x < self.width:
            width = self.rng.uniform(6, 14)
            kind = self.rng.integers(10)
            if kind < 5:
                self._paint_house(x, width)
            elif kind < 9:
                self._paint_tree(x + width / 2, width / 2)
            x += width + self.rng.uniform(-1, 6)

    def _paint_house(self, left: float, width: float) -> None:
        top = self.horizon - self.rng.uniform(4, 0.8 * self.horizon)
        at = self.patch(left, top, left + width, self.horizon + 1)
        wall = (at.x > left) & (at.x < left + width) & (at.y > top) & (at.y < self.horizon + 1)
        colour = self.around((140, 128, 122), spread=30)
        at.paint(wall, colour, BUILDING)
        windows = wall & (at.x // 1 % 4 < 2) & (at.y // 1 % 5 < 2)
        at.paint(windows, colour * 0.6, BUILDING)

    def _paint_tree(self, middle: float, radius: float) -> None:
        crown = self.horizon - self.rng.uniform(3, 8)
        at = self.patch(middle - radius, crown - radius, middle + radius, self.horizon + 2)
        trunk = (abs(at.x - middle) < 1) & (at.y > crown) & (at.y < self.horizon + 2)
        at.paint(trunk, self.around((89, 64, 38)), TREE)
        across, down = at.x - middle, (at.y - crown) * 1.2
        leaves = across * across + down * down < radius * radius
        at.paint(leaves, self.around((51, 97, 41)), TREE, texture=36)

    def paint_road(self) -> _Road:
        rng, middle = self.rng, self.width / 2
        far, near, bend = (rng.uniform(-14, 14) for _ in range(3))
        road = _Road(middle + far, middle + near, bend, rng.uniform(18, 30))
        at = self.patch(0, self.horizon, self.width, self.height)
        t = np.clip((at.y - self.horizon) / (self.height - self.horizon), 0, 1)
        away, half_width = at.x - road.middle(t), road.half_width(t)
        surface = (at.y > self.horizon) & (abs(away) < half_width)
        at.paint(surface, self.around((97, 97, 102), spread=12), ROAD, texture=13)
        line = np.maximum(0.6, 0.06 * half_width)
        dashed = (np.sqrt(t) * 6 + rng.uniform(0, 1)) % 1 < 0.55  # evenly far apart for the driver
        at.paint(surface & (abs(away) < line) & dashed, self.around((217, 217, 191)), LANE)
        side = abs(abs(away) - half_width * 0.88) < line * 0.7
        at.paint(surface & side, self.around((209, 209, 199)), LANE)
        return road

    def paint_car(self, road: _Road) -> None:
        """The back of a car in one of the two lanes."""
        t = self.rng.uniform(0.12, 0.9)
        bottom = self.horizon + t * (self.height - self.horizon)
        lane = 0.45 if self.rng.integers(2) else -0.45
        middle = road.middle(t) + lane * road.half_width(t)
        width = max(3.0, road.half_width(t) * 0.5)
        height = width * self.rng.uniform(0.6, 0.85)
        colour = self.rng.integers(26, 230, 3) * 1.0
        at = self.patch(middle - width / 2, bottom - 1.5 * height, middle + width / 2, bottom)
        away, above = abs(at.x - middle), bottom - at.y
        body = (away < width / 2) & (above >= 0) & (above < height)
        cabin = (away < width * 0.36) & (above >= height) & (above < height * 1.5)
        at.paint(body | cabin, colour, CAR)
        at.paint(cabin & (above < height * 1.35), colour * 0.3 + 26, CAR)
        wheels = abs(away - width * 0.35) < width * 0.12
        at.paint(body & (above < height * 0.25) & wheels, np.full(3, 20.0), CAR)

    def paint_sign(self, road: _Road) -> None:
        """A post beside the road with a round or an angular plate."""
        t = self.rng.uniform(0.1, 0.6)
        side = 1 if self.rng.integers(2) else -1
        middle = road.middle(t) + side * (road.half_width(t) + self.rng.uniform(1, 5))
        bottom = self.horizon + t * (self.height - self.horizon)
        radius = 2 + 3.5 * t
        top = bottom - 5 * radius
        at = self.patch(middle - radius, top - radius, middle + radius, bottom)
        across, down = at.x - middle, at.y - top
        post = (abs(across) < 0.7) & (down > 0) & (at.y < bottom)
        at.paint(post, np.full(3, 128.0), SIGN)
        if self.rng.integers(2):
            plate = across * across + down * down < radius * radius
        else:
            plate = (abs(across) < radius) & (abs(down) < radius * 0.8)
        at.paint(plate, self.around(SIGN_COLOURS[self.rng.integers(3)]), SIGN)

    def developed(self) -> Array:
        """The picture `(3, H, W)` in bytes, in the light of some hour, perhaps with a shadow."""
        self.picture *= np.float32(self.rng.uniform(0.6, 1.1))
        if self.rng.integers(2):
            edge = self.x - self.rng.uniform(0, self.width)
            edge = edge - (self.y - self.horizon) * self.rng.uniform(-1, 1)
            shadow = (abs(edge) < self.rng.uniform(3, 10)) & (self.y > self.horizon)
            self.picture[shadow] *= np.float32(0.65)
        self.picture += self.rng.integers(-NOISE, NOISE + 1, self.picture.shape, np.int16)
        pixels = np.clip(self.picture, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
