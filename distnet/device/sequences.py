"""Words as vectors, vectors for places, and the LSTM: what reads a sequence `(G, N, T, K)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.device.elementwise import sigmoid
from distnet.device.images import channels_first, channels_last
from distnet.device.layer import DeviceLayer
from distnet.nn.layers.embedding import Embedding, PositionEmbedding, checked_words
from distnet.nn.layers.recurrent import LSTM
from distnet.nn.parameters import Parameter


class DeviceEmbedding(DeviceLayer[Embedding]):
    """y = W[x]. What is no word becomes NaN, unless the host could see it and has refused it."""

    def check(self, x: Array) -> None:
        checked_words(x / 255 if x.dtype == np.uint8 else x, self.layer.num_words)

    def load(self) -> None:
        self.weight = self.mirror.of(self.layer.weight).astype(self.layer.dtype)

    def forward(self, x: Any, training: bool) -> Any:
        xp = self.xp
        if x.ndim == 5:
            x = channels_first(x)
        is_word = xp.equal(x, xp.rint(x)) & (x > -1) & (x < self.layer.num_words)
        vectors = self.vectors_of(xp.where(is_word, x, 0).astype(np.int32))
        y = xp.where(is_word[..., None], vectors, self.layer.dtype.type(np.nan))
        return channels_last(y) if y.ndim == 5 else y

    def vectors_of(self, words: Any) -> Any:
        """The vectors of words `(G, ...)`, int32, which were checked before."""
        self.words, vectors = words, self.weight[words]
        if self.layer.padding is not None:
            vectors = self.xp.where(words[..., None] == self.layer.padding, 0, vectors)
        return vectors

    def backward(self, dy: Any, need_dx: bool) -> Any:
        layer, g = self.layer, len(dy)
        if dy.ndim == 5 and self.words.ndim == 4:
            dy = channels_first(dy)
        rows = dy.reshape(g, -1, layer.size)
        self.dweight = self.kernels.sum_by_word(rows, self.words.reshape(g, -1), layer.num_words)
        if layer.padding is not None:
            self.dweight[:, layer.padding] = 0
        if not need_dx:
            return None
        dx = self.xp.zeros(self.words.shape, dy.dtype)
        return channels_last(dx) if dx.ndim == 5 else dx

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight


class DevicePositionEmbedding(DeviceLayer[PositionEmbedding]):
    """y = x + W."""

    def load(self) -> None:
        weight = self.mirror.of(self.layer.weight).astype(self.layer.dtype)
        self.weight = channels_last(weight) if weight.ndim == 3 else weight

    def forward(self, x: Any, training: bool) -> Any:
        return x + self.weight

    def backward(self, dy: Any, need_dx: bool) -> Any:
        g, n, *shape = dy.shape
        terms = self.numbers.addends(dy, n).reshape(g, n, -1)
        total = self.kernels.sum_rows(terms).reshape(g, *shape)
        self.dweight = channels_first(total) if len(shape) == 3 else total
        return dy if need_dx else None

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight


class DeviceLSTM(DeviceLayer[LSTM]):
    """The steps one after another, of all micro-batches at a time; letters as in the layer.

    Kept from forward to backward: inputs x `(G, N, T, K)`; states h and cells c `(G, N, T + 1, H)`,
    before the first step and after each; of each step the gates i, f, o, g, tanh(c), and which
    samples it is no padding of, `(G, N, 1)`.
    """

    def load(self) -> None:
        layer, operand = self.layer, self.numbers.operand
        self.w, self.u = (
            operand(self.mirror.of(each)[None])[0] for each in (layer.weight, layer.recurrent)
        )
        self.bias = self.mirror.of(layer.bias)

    def forward(self, x: Any, training: bool) -> Any:
        layer, xp = self.layer, self.xp
        g, n, t, k = x.shape
        h = layer.hidden
        layer.arithmetic.check_terms("LSTM", max(n * t, k, 4 * h))
        self.x = x
        self.states, self.cells = (xp.zeros((g, n, t + 1, h), layer.dtype) for _ in range(2))
        self.present = xp.any(x != 0, axis=3, keepdims=True) if layer.masked else None
        self.kept: list[tuple[Any, ...]] = []
        rows = self.numbers.operand(x).reshape(g, n * t, k)
        products = self.kernels.matmul(rows, self.w).reshape(g, n, t, 4 * h)
        for step in range(t):
            self._forward_step(products[:, :, step], step)
        return self.states[:, :, -1] if layer.last else self.states[:, :, 1:]

    def backward(self, dy: Any, need_dx: bool) -> Any:
        layer, xp, kernels = self.layer, self.xp, self.kernels
        g, n, t, k = self.x.shape
        dz = xp.empty((g, n, t, 4 * layer.hidden), layer.dtype)
        dh, dc = (xp.zeros((g, n, layer.hidden), layer.dtype) for _ in range(2))
        for step in reversed(range(t)):
            if not layer.last:
                dh = dh + dy[:, :, step]
            elif step == t - 1:
                dh = dh + dy
            dh, dc, dz[:, :, step] = self._backward_step(step, dh, dc)
        dz = self.numbers.operand(dz).reshape(g, n * t, -1)
        self.of_weights = [
            kernels.matmul(self.numbers.operand(read).reshape(g, n * t, -1).transpose(0, 2, 1), dz)
            for read in (self.x, self.states[:, :, :-1])
        ]
        self.dbias = kernels.sum_rows(dz)  # of rounded numbers: exact
        return kernels.matmul(dz, self.w.T).reshape(g, n, t, k) if need_dx else None

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.of_weights[0]
        yield self.layer.recurrent, self.of_weights[1]
        yield self.layer.bias, self.dbias

    def _forward_step(self, products: Any, step: int) -> None:
        arithmetic, xp = self.layer.arithmetic, self.xp
        state, before = self.states[:, :, step], self.cells[:, :, step]
        z = products + self.kernels.matmul(self.numbers.operand(state), self.u)
        z = z + self.bias
        h = self.layer.hidden
        three, g = sigmoid(z[..., : 3 * h], arithmetic), arithmetic.tanh(z[..., 3 * h :])
        i, f, o = (three[..., q * h : (q + 1) * h] for q in range(3))
        cell = f * before + i * g
        squashed = arithmetic.tanh(cell)
        after = o * squashed
        if self.present is not None:
            present = self.present[:, :, step]
            cell, after = xp.where(present, cell, before), xp.where(present, after, state)
        self.cells[:, :, step + 1], self.states[:, :, step + 1] = cell, after
        self.kept.append((i, f, o, g, squashed))

    def _backward_step(self, step: int, dh: Any, dc: Any) -> tuple[Any, Any, Any]:
        """dh and dc of the state before the step, from those after it; and dz."""
        xp, h = self.xp, self.layer.hidden
        i, f, o, g, squashed = self.kept[step]
        inner = dc + dh * o * (1 - squashed * squashed)
        dz = xp.empty((*dh.shape[:2], 4 * h), dh.dtype)
        dz[..., :h] = inner * g * i * (1 - i)
        dz[..., h : 2 * h] = inner * self.cells[:, :, step] * f * (1 - f)
        dz[..., 2 * h : 3 * h] = dh * squashed * o * (1 - o)
        dz[..., 3 * h :] = inner * i * (1 - g * g)
        if self.present is not None:
            dz = xp.where(self.present[:, :, step], dz, 0)
        before = self.kernels.matmul(self.numbers.operand(dz), self.u.T), inner * f
        if self.present is not None:
            present = self.present[:, :, step]
            before = xp.where(present, before[0], dh), xp.where(present, before[1], dc)
        return *before, dz
