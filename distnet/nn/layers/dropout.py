"""Inverted dropout with keyed masks (Srivastava et al. 2014; book section 6.4.3)."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch, Purpose, Words
from distnet.nn import arguments
from distnet.nn.layer import Layer

_LEVELS = 1 << 16  # masks are cut from 16-bit words


@portable
class Dropout(Layer):
    """Sets elements to zero with probability `ratio` and scales up the rest; evaluation: identity.

    The mask of a micro-batch is a pure function of (seed, step, micro-batch, layer): each element
    is kept if its 16-bit word is at least `ratio` * 65536, rounded, and the scale is the inverse
    of exactly that probability.
    """

    kind = "dropout"
    in_place = True

    def __init__(self, ratio: float = 0.5) -> None:
        super().__init__()
        self.ratio = ratio
        self._words = Words(Purpose.DROPOUT)

    @property
    def ratio(self) -> float:
        """See above; another one holds from the next micro-batch on."""
        return self._ratio

    @ratio.setter
    def ratio(self, ratio: float) -> None:
        self._ratio = arguments.real(
            "Dropout", "ratio", ratio, "a number in [0, 1)", lambda r: 0 <= r < 1
        )
        self.threshold = min(round(self._ratio * _LEVELS), _LEVELS - 1)

    @property
    def scale(self) -> np.floating:
        """The factor of what is kept."""
        scale: np.floating = self.dtype.type(_LEVELS / (_LEVELS - self.threshold))
        return scale

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.mask = self._draw(x.shape, at) if at else None
        return self._masked(x, self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        return self._masked(dy, self.input_gradient(dy.shape, out)) if need_dx else None

    def keeps(self, shape: Shape, at: MicroBatch) -> Array:
        """Which elements of an input of that shape a micro-batch keeps, bool."""
        count = int(np.prod(shape))
        words = self._words.draw(at, -(-count // 4), self.index).astype("<u8", copy=False)
        return words.view("<u2")[:count].reshape(shape) >= self.threshold

    def _masked(self, x: Array, out: Array) -> Array:
        if self.mask is not None:
            return np.multiply(x, self.mask, out=out)
        if out is not x:
            np.copyto(out, x)
        return out

    def _draw(self, shape: Shape, at: MicroBatch) -> Array:
        mask = self.memory.array("mask", shape, self.dtype)
        return np.multiply(self.keeps(shape, at), self.scale, out=mask)
