"""Attention, and the decoder that says a sentence about a picture."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from distnet.base.arithmetic import Arithmetic
from distnet.base.keys import MicroBatch
from distnet.device.devices import Device
from distnet.device.kernels import Sums
from distnet.device.layer import Composed, Shown
from distnet.device.linear import DeviceLinear
from distnet.device.mirror import Mirror
from distnet.device.numbers import Numbers
from distnet.device.sequences import DeviceEmbedding, DeviceLSTM
from distnet.nn.layers.captioning import STOP, CaptionDecoder
from distnet.nn.layers.embedding import checked_words


class DeviceAttention:
    """Queries `(G, N, T, D)` and keys `(G, N, P, D)` to mean keys; formulas in `nn.attention`."""

    def __init__(self, device: Device, arithmetic: Arithmetic) -> None:
        self.xp, self.kernels, self.arithmetic = device.xp, device.kernels, arithmetic
        self.operand = Numbers(device, arithmetic).operand
        self.sums = Sums(device.kernels, arithmetic)

    def forward(self, queries: Any, keys: Any) -> Any:
        matmul, arithmetic = self.kernels.matmul, self.arithmetic
        d = keys.shape[3]
        arithmetic.check_terms("Attention", max(d, keys.shape[2], queries.shape[2]))
        self.scale = queries.dtype.type(1 / math.sqrt(d))
        self.queries, self.keys = self.operand(queries), self.operand(keys)
        scores = matmul(self.queries, self.keys.swapaxes(-1, -2)) * self.scale
        shifted = arithmetic.exp(scores - self.xp.max(scores, axis=3, keepdims=True))
        self.weights = shifted / self.sums.over(shifted, 3)  # (G, N, T, P)
        return matmul(self.operand(self.weights), self.keys)

    def backward(self, dy: Any) -> tuple[Any, Any]:
        a, matmul = self.weights, self.kernels.matmul
        dy = self.operand(dy)
        da = matmul(dy, self.keys.swapaxes(-1, -2))
        ds = a * (da - self.sums.over(a * da, 3)) * self.scale
        ds = self.operand(ds)
        of_values = matmul(self.operand(a).swapaxes(-1, -2), dy)
        return matmul(ds, self.keys), matmul(ds.swapaxes(-1, -2), self.queries) + of_values


class DeviceCaptionDecoder(Composed[CaptionDecoder]):
    """Logits `(G, N, V, 1 + T)` of features `(G, N, H, W, C)`; letters as in the layer.

    The layer itself is shown what it has said, and where it looked, by every pass in evaluation;
    so a search for the likeliest sentences goes on from there, on the host.
    """

    def __init__(self, layer: CaptionDecoder, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.embedding = DeviceEmbedding(layer.embedding, device, mirror)
        self.lstm = DeviceLSTM(layer.lstm, device, mirror)
        self.query, self.word, self.presence = (
            DeviceLinear(each, device, mirror) for each in (layer.query, layer.word, layer.presence)
        )
        self.inner = [self.embedding, self.lstm, self.query, self.word, self.presence]
        self.attention = DeviceAttention(device, layer.arithmetic)
        self._given: dict[int, Any] = {}  # words by their number: an array stays where it is

    def prepare(self, at: Sequence[MicroBatch], n: int) -> None:
        given = self.layer.sentences(n)
        if given is None:
            return
        words = np.maximum(given, STOP)[None].astype(np.int32)  # (1, N, T)
        checked_words(words[..., :-1], self.layer.num_words)
        if n in self._given:
            self.device.fill(self._given[n], words)
        else:
            self._given[n] = self.device.to_device(words)

    def manner(self) -> Hashable:
        return self.layer.given is None

    def forward(self, x: Any, training: bool) -> Any:
        layer, xp = self.layer, self.xp
        g, n, h, w, c = x.shape
        self.shape = x.shape
        self.keys = x.reshape(g, n, h * w, c)  # (G, N, P, C)
        self.brightest = xp.argmax(self.keys, axis=2)  # (G, N, C)
        total = xp.sum(self.numbers.addends(self.keys, h * w), axis=2)
        self.mean = total * layer.dtype.type(1 / (h * w))
        if layer.given is None:
            self.words, logits = self._own_words()
        else:
            self.words, logits = None, self._logits_of(self._given[n])
        y = xp.empty((g, n, layer.num_words, 1 + layer.length), layer.dtype)
        y[..., 1:] = logits.swapaxes(-1, -2)
        y[..., 0] = self.presence.forward(xp.max(self.keys, axis=2), training)
        return y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        layer, xp = self.layer, self.xp
        g, n, h, w, c = self.shape
        t, size = layer.length, layer.embedding_size
        dlogits = dy[..., 1:].swapaxes(-1, -2).reshape(g, n * t, layer.num_words)
        dboth = self.word.backward(dlogits, True)
        dfound = dboth[..., layer.hidden :].reshape(g, n, t, c)
        dqueries, dkeys = self.attention.backward(dfound)
        of_queries = self.query.backward(dqueries.reshape(g, n * t, c), True)
        dthought = dboth[..., : layer.hidden] + of_queries
        dread = self.lstm.backward(dthought.reshape(g, n, t, layer.hidden), True)
        self.embedding.backward(dread[..., :size], False)
        dhighest = self.presence.backward(dy[..., 0], True)
        if not need_dx:
            return None
        dmean = xp.sum(self.numbers.addends(dread[..., size:], t), axis=2)
        dkeys = dkeys + (dmean * layer.dtype.type(1 / (h * w)))[:, :, None]
        is_brightest = xp.equal(self.brightest[:, :, None], xp.arange(h * w)[:, None])
        dkeys = xp.where(is_brightest, dkeys + dhighest[:, :, None], dkeys)
        return dkeys.reshape(g, n, h, w, c)

    def shown(self) -> Iterator[Shown]:
        yield Shown(self.layer, "keys", self.keys)
        yield Shown(self.layer, "mean", self.mean)
        yield Shown(self.layer.attention, "weights", self.attention.weights)
        if self.words is not None:
            yield Shown(self.layer, "said", self.words)

    def _logits_of(self, words: Any) -> Any:
        """The logits `(G, N, T, V)` of sentences `(G, N, T)`, int32."""
        layer, xp = self.layer, self.xp
        g, n, t = words.shape
        size, c = layer.embedding_size, self.mean.shape[2]
        before = xp.full((g, n, t), STOP, np.int32)
        before[:, :, 1:] = words[:, :, :-1]
        read = xp.empty((g, n, t, size + c), layer.dtype)
        read[..., :size] = self.embedding.vectors_of(before)
        read[..., size:] = self.mean[:, :, None]
        thought = self.lstm.forward(read, True).reshape(g, n * t, layer.hidden)
        queries = self.query.forward(thought, True).reshape(g, n, t, c)
        found = self.attention.forward(queries, self.keys).reshape(g, n * t, c)
        both = self.kernels.concatenate([thought, found], 2)
        return self.word.forward(both, True).reshape(g, n, t, layer.num_words)

    def _own_words(self) -> tuple[Any, Any]:
        """As the layer's, without a look at whether all sentences have ended."""
        xp = self.xp
        g, n, _ = self.mean.shape
        words = xp.full((g, n, self.layer.length), STOP, np.int32)
        ended = xp.zeros((g, n), bool)
        for place in range(self.layer.length):
            logits = self._logits_of(words)
            likeliest = xp.argmax(logits[:, :, place], axis=2).astype(np.int32)
            words[:, :, place] = xp.where(ended, np.int32(STOP), likeliest)
            ended = xp.equal(words[:, :, place], STOP)
        return words, logits
