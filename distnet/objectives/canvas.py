"""Pictures as parameters, and the tiles in which they are looked at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape, ceil_divide
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.nn.initializers import constant
from distnet.nn.parameters import Parameter, Statistic

DARKEST = 0.02  # of a picture that is begun with: a sigmoid never leaves 0 and 1 themselves

Place = tuple[int, slice, slice, slice]  # a part of pictures: number, channels, rows, columns


class Canvas:
    """Pictures as parameters: pixels `(P, C, H, W)` are sigmoids of what is trained.

    So no step, however long, leaves 0 to 1.
    """

    def __init__(self, pictures: Array, arithmetic: Arithmetic = FLOAT) -> None:
        start = np.clip(pictures, DARKEST, 1 - DARKEST)
        self._dtype, self._arithmetic = start.dtype, arithmetic
        self.logits = Parameter(start.shape, constant(0), decays=False)
        self.logits.value = arithmetic.log(start / (1 - start))

    def pixels(self, place: Place | tuple[()] = ()) -> Array:
        """What lies at a place of the pictures, in a new array."""
        logits = self.logits.value[place].astype(self._dtype, copy=False)
        return 1 / (1 + self._arithmetic.exp(-logits))

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "logits", self.logits

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        return iter(())

    def update_statistics(self) -> None:
        """There are none."""

    def refresh(self) -> None:
        """Nothing is derived from the values."""


class Grid:
    """Tiles of pictures `(P, C, H, W)`, side by side on a grid that begins elsewhere in each step.

    So their borders leave no traces; those that would stick out are moved inside. side: that of a
    tile, which is a square; None: a tile is a whole picture, which stays where it is.
    """

    def __init__(self, shape: Shape, side: int | None) -> None:
        num_pictures, _, h, w = shape
        self._size = h, w
        self.tile_shape = (h, w) if side is None else (min(side, h), min(side, w))
        self._down, self._across = map(ceil_divide, self._size, self.tile_shape)
        self.num_tiles = num_pictures * self._down * self._across

    def place(self, tile: int, at: MicroBatch | None) -> Place:
        """Where a tile lies in this step, or, at None, in an evaluation."""
        number, in_picture = divmod(tile, self._down * self._across)
        down, across = divmod(in_picture, self._across)
        shifts = np.zeros(2, int)
        if at is not None:
            rng = np.random.Generator(stream(at.seed, Purpose.TILES, at.step))
            shifts = rng.integers(self.tile_shape) - np.array(self.tile_shape) // 2
        (h, w), (tile_h, tile_w), (shift_y, shift_x) = self._size, self.tile_shape, shifts.tolist()
        y = min(max(0, down * tile_h + shift_y), h - tile_h)
        x = min(max(0, across * tile_w + shift_x), w - tile_w)
        return number, slice(None), slice(y, y + tile_h), slice(x, x + tile_w)
