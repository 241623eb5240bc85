"""Grids of handwritten digits, to be read row by row."""

from __future__ import annotations

import numpy as np

from distnet.data.augment import Augment
from distnet.data.dataset import Samples
from distnet.data.scenes.scene import Part, Scene, random_of

INK = 64  # a pixel that belongs to a digit, of 255


class DigitGrids:
    """Scenes of `side` x `side` digits as they are in the data set, each in a cell of its own.

    digits: images `(N, 1, H, W)` of bytes and labels. The boxes are the cells, row by row; the mask
    has 0 for the background, 1 + label for a digit. augment: makes other images of the chosen
    digits, each by itself, see `data.augment`; its random bits belong to the scene.
    """

    def __init__(
        self,
        digits: Samples,
        *,
        seed: int = 0,
        part: Part = Part.TRAIN,
        side: int = 3,
        augment: Augment | None = None,
    ) -> None:
        if side < 1:
            raise ValueError(f"side: found {side}, expected at least 1")
        self.digits, self.seed, self.part, self.side = digits, seed, part, side
        self.augment = augment

    def __getitem__(self, number: int) -> Scene:
        side, rng = self.side, random_of(self.seed, self.part, number)
        chosen = rng.integers(len(self.digits.inputs), size=side * side)
        images = self.digits.inputs[chosen]
        if self.augment is not None:
            images = self.augment(images, rng.bit_generator.random_raw(len(images)))
        _, _, h, w = images.shape
        cells = images[:, 0].reshape(side, side, h, w)
        labels = self.digits.targets[chosen].astype(np.int64)
        image = cells.transpose(0, 2, 1, 3).reshape(side * h, side * w)
        of_cells = np.repeat(np.repeat(labels.reshape(side, side), h, axis=0), w, axis=1)
        mask = np.where(image >= INK, of_cells + 1, 0).astype(np.uint8)
        y, x = (each.ravel() for each in np.indices((side, side)))
        boxes = np.stack([x * w, y * h, (x + 1) * w, (y + 1) * h], axis=1).astype(np.int64)
        return Scene(image[None].copy(), mask, boxes, labels)
