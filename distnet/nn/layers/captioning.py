"""From the features of a picture to a sentence about it (book section 8.4.3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import Arithmetic, portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.attention import Attention
from distnet.nn.layer import Layer
from distnet.nn.layers.embedding import Embedding
from distnet.nn.layers.linear import Linear
from distnet.nn.layers.recurrent import LSTM
from distnet.nn.memory import Memory
from distnet.nn.parameters import Parameter

STOP = 0  # the word behind the last one of a sentence, and in front of the first


@portable
class CaptionDecoder(Layer):
    """Features x `(N, C, H, W)` to logits y `(N, V, 1 + T)` of V words at T places of a sentence.

    What is said depends on what was said before. With k `(N, P, C)` the features at the P = H W
    places, m their mean, and w_0 = `STOP`:

        h_t = LSTM([E w_(t-1), m])          what was said so far, and in front of which picture
        a_t = Attention(h_t Q, k)           where to look now
        y_t = [h_t, a_t] O                  the logits of w_t

    That is NIC (Vinyals et al. 2014, arXiv:1411.4555, equations 10 to 12, with the picture at
    every step) with the attention of Luong, Pham and Manning 2015, arXiv:1508.04025, section 3.1.
    The column y_0 is not about a place: which words occur in the sentence at all, told from the
    maximum of each channel of x. It is what teaches the features to read; see
    `objectives.Captioning`.

    given: words `(N, T)` that the sentences of the next forward passes have, and -1 behind their
    end: teacher forcing. None: they follow their own words, the likeliest at each place (greedy).
    said: the words `(N, T)` of the last forward pass without `given`, all `STOP` behind the end.
    looked_at: `(N, T, H, W)`, how much each place counted for each word of the last forward pass.
    """

    kind = "captions"

    def __init__(
        self, num_words: int, length: int, *, hidden: int = 128, embedding: int = 32
    ) -> None:
        super().__init__()
        owner = "CaptionDecoder"
        self.num_words = arguments.whole(owner, "num_words", num_words, minimum=2)
        self.length = arguments.whole(owner, "length", length)
        self.hidden = arguments.whole(owner, "hidden", hidden)
        self.embedding_size = arguments.whole(owner, "embedding", embedding)
        self.given: Array | None = None
        self.embedding = Embedding(self.num_words, self.embedding_size)
        self.lstm = LSTM(self.hidden)
        self.query = Linear(1)
        self.word = Linear(self.num_words, init="xavier")
        self.presence = Linear(self.num_words, init="xavier")

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, _, _ = arguments.image_shape("CaptionDecoder", shape)
        self.input_shape = shape
        self.query = Linear(c, init="xavier", bias=False)  # c is known only now
        self.query.compute_in(self.arithmetic)
        self.attention = Attention(self.arithmetic)
        inputs = self.embedding_size + c
        for layer, its_shape in (
            (self.embedding, (self.length,)),
            (self.lstm, (self.length, inputs)),
            (self.query, (self.hidden,)),
            (self.word, (self.hidden + c,)),
            (self.presence, (c,)),
        ):
            layer.input_shape = its_shape
            layer.output_shape = layer.build(its_shape, dtype)
        return (self.num_words, 1 + self.length)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of a sentence that is given."""
        c, h, w = self.input_shape
        each = self.query.multiply_adds + self.word.multiply_adds + 2 * h * w * c
        return self.lstm.multiply_adds + self.presence.multiply_adds + self.length * each

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        n, (c, h, w), t = len(x), self.input_shape, self.length
        self.keys = x.transpose(0, 2, 3, 1).reshape(n, h * w, c)  # (N, P, C)
        self.brightest = self.keys.argmax(axis=1)  # (N, C)
        self.mean = self.arithmetic.sum(self.keys, axis=1) * self.dtype.type(1 / (h * w))
        given = self.sentences(n)
        if given is None:
            self.said, logits = self._own_words(n)
        else:
            logits = self.logits_of(given[:, None])[:, 0]
        y = self.output((n, self.num_words, 1 + t), out)
        y[:, :, 1:] = logits.transpose(0, 2, 1)
        highest = np.take_along_axis(self.keys, self.brightest[:, None], axis=1)[:, 0]
        y[:, :, 0] = self.presence.forward(highest)
        return y

    def sentences(self, n: int) -> Array | None:
        """What is `given`, for `n` pictures; raises ValueError for another number of sentences."""
        if self.given is not None and self.given.shape != (n, self.length):
            raise ValueError(
                f"CaptionDecoder: found sentences {self.given.shape}, expected "
                f"{(n, self.length)}: one for each picture, of as many words as the longest"
            )
        return self.given

    def logits_of(self, words: Array) -> Array:
        """The logits of several sentences `(N, B, T)` for each picture of the last forward pass.

        `(N, B, T, V)`: the logits at a place depend on the words in front of it alone, so the
        words from there on may be anything.
        """
        n, b, t = words.shape
        before = np.full((n * b, t), STOP, self.dtype)
        before[:, 1:] = np.maximum(words.reshape(n * b, t)[:, :-1], STOP)
        size, c = self.embedding_size, self.mean.shape[1]
        read = np.empty((n * b, t, size + c), self.dtype)
        read[:, :, :size] = self.embedding.forward(before)
        read[:, :, size:] = np.repeat(self.mean, b, axis=0)[:, None]
        thought = self.lstm.forward(read).reshape(n * b * t, self.hidden)
        queries = self.query.forward(thought).reshape(n, b * t, c)
        found = self.attention.forward(queries, self.keys)
        both = np.concatenate([thought, found.reshape(n * b * t, c)], axis=1)
        return self.word.forward(both).reshape(n, b, t, self.num_words)

    @property
    def looked_at(self) -> Array:
        _, h, w = self.input_shape
        return self.attention.weights.reshape(-1, self.length, h, w)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        n, (c, h, w), t = len(dy), self.input_shape, self.length
        dlogits = dy[:, :, 1:].transpose(0, 2, 1).reshape(n * t, self.num_words)
        dboth = _gradient(self.word, dlogits)
        dfound = dboth[:, self.hidden :].reshape(n, t, c)
        dqueries, dkeys = self.attention.backward(dfound)
        dthought = dboth[:, : self.hidden] + _gradient(self.query, dqueries.reshape(n * t, c))
        dread = _gradient(self.lstm, dthought.reshape(n, t, self.hidden))
        self.embedding.backward(dread[:, :, : self.embedding_size], need_dx=False)
        dhighest = _gradient(self.presence, np.ascontiguousarray(dy[:, :, 0]))
        if not need_dx:
            return None
        dmean = self.arithmetic.sum(dread[:, :, self.embedding_size :], axis=1)
        dkeys += (dmean * self.dtype.type(1 / (h * w)))[:, None]
        images, channels = np.ogrid[:n, :c]
        dkeys[images, self.brightest, channels] += dhighest
        dx = self.input_gradient((n, c, h, w), out)
        np.copyto(dx, dkeys.reshape(n, h, w, c).transpose(0, 3, 1, 2))
        return dx

    def _own_words(self, n: int) -> tuple[Array, Array]:
        """What is said word by word, `(N, T)`, and the logits `(N, T, V)` on the way."""
        words = np.full((n, self.length), STOP, np.intp)
        ended = np.zeros(n, bool)
        for place in range(self.length):
            logits = self.logits_of(words[:, None])[:, 0]
            words[:, place] = np.where(ended, STOP, logits[:, place].argmax(axis=1))
            ended |= words[:, place] == STOP
            if ended.all():
                break
        return words, logits

    # What a container does: it hands on to the layers that it is made of.

    def named_leaves(self) -> Iterator[tuple[str, Layer]]:
        for name in ("embedding", "lstm", "query", "word", "presence"):
            yield name, getattr(self, name)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, layer in self.named_leaves():
            yield from ((f"{name}.{part}", each) for part, each in layer.parameters())

    def compute_in(self, arithmetic: Arithmetic) -> None:
        super().compute_in(arithmetic)
        for layer in self.leaves():
            layer.compute_in(arithmetic)

    def use(self, memory: Memory) -> None:
        super().use(memory)
        for layer in self.leaves():
            layer.use(memory.for_in_place())  # several gradients are there at a time

    def refresh(self) -> None:
        for layer in self.leaves():
            layer.refresh()


def _gradient(layer: Layer, dy: Array) -> Array:
    dx = layer.backward(dy)
    assert dx is not None
    return dx
