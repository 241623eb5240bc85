"""Words, and places, as vectors that are learned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import Generator, portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.initializers import gaussian
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter


@portable
class Embedding(Layer):
    """y = W[x] for words x `(N, T)`, numbers from 0 to V - 1; y `(N, T, size)`, W `(V, size)`.

    That is the product of W and one-hot vectors, of which nothing but a row is left (Bengio et al.
    2003, "A Neural Probabilistic Language Model", section 2). In backward the rows of dW are summed
    in the order of the words, so that their bits do not depend on anything else. Words have no
    gradient: dx is zero.

    num_words: V. padding: the word that stands for none, where texts are shorter than T; its vector
    is zero and stays so, see `LSTM`. init: the standard deviation of W.

    Raises ValueError for an x that is no word.
    """

    kind = "embedding"

    def __init__(
        self, num_words: int, size: int, *, padding: int | None = None, init: float = 1.0
    ) -> None:
        super().__init__()
        self.num_words = arguments.whole("Embedding", "num_words", num_words)
        self.size = arguments.whole("Embedding", "size", size)
        self.padding = padding
        if padding is not None:
            last = self.num_words - 1
            self.padding = arguments.whole("Embedding", "padding", padding, 0, maximum=last)
        self.init = _checked_deviation("Embedding", init)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        init = partial(_vectors, self.init, self.padding)
        self.weight = Parameter((self.num_words, self.size), init)
        return (*shape, self.size)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.words = checked_words(x, self.num_words)
        y = self.output((*x.shape, self.size), out)
        y[...] = self.weight.value[self.words]
        if self.padding is not None:
            y[self.words == self.padding] = 0
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        self.weight.grad[...] = 0
        np.add.at(self.weight.grad, self.words, dy)
        if self.padding is not None:
            self.weight.grad[self.padding] = 0
        if not need_dx:
            return None
        dx = self.input_gradient(self.words.shape, out)
        dx[...] = 0
        return dx


@portable
class PositionEmbedding(Layer):
    """y = x + W for x `(N, C, H, W)` or `(N, T, D)`, W of the shape of a sample: where things are.

    A convolution sees the same everywhere, and so does attention; with a vector for each place they
    can tell above from below (Gehring et al. 2017, arXiv:1705.03122, section 3.1).

    init: the standard deviation of W.
    """

    kind = "position"
    in_place = True

    def __init__(self, *, init: float = 0.1) -> None:
        super().__init__()
        self.init = _checked_deviation("PositionEmbedding", init)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        self.weight = Parameter(shape, gaussian(self.init))
        return super().build(shape, dtype)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        return np.add(x, self.weight.value, out=self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        self.weight.grad[...] = self.arithmetic.sum(dy, axis=0)
        if not need_dx:
            return None
        dx = self.input_gradient(dy.shape, out)
        if dx is not dy:
            np.copyto(dx, dy)
        return dx


def _checked_deviation(owner: str, init: float) -> float:
    expected = "a standard deviation of at least 0"
    return arguments.real(owner, "init", init, expected, lambda std: std >= 0)


def checked_words(x: Array, num_words: int) -> Array:
    """`x` as integers; raises ValueError unless they are numbers of words."""
    words = x.astype(np.intp)
    wrong = (words != x) | (words < 0) | (words >= num_words)
    if wrong.any():
        found = x[wrong].flat[0]
        raise ValueError(
            f"Embedding: found the word {found:g}, expected whole numbers from 0 to "
            f"{num_words - 1}; as floats, since bytes are pixels, and mean 0 to 1"
        )
    return words


def _vectors(std: float, padding: int | None, rng: Generator, shape: Shape) -> Array:
    values = rng.standard_normal(shape) * std
    if padding is not None:
        values[padding] = 0
    return values
