"""NIC: what a picture shows, in a sentence (book section 8.4.3).

Vinyals et al. 2014, "Show and Tell" (arXiv:1411.4555), in small, with attention. One network reads
the picture and says the sentence, so that `distnet.load(file).predict(pictures)` gives the logits
of what it says. `objectives.Captioning` trains it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.base.images import checked_images
from distnet.nn import (
    BatchNorm,
    CaptionDecoder,
    Conv2d,
    Layer,
    MaxPool2d,
    Network,
    PositionEmbedding,
    ReLU,
    arguments,
    log_softmax,
)
from distnet.nn.layers.captioning import STOP

BLOCK = 50  # pictures that are looked at together


class NIC(Network):
    """Pictures `(N, C, H, W)` to logits `(N, V, 1 + T)` of V words at T places.

    Five 3 x 3 convolutions with ReLU, two of them pooled, so that a cell of the features is 4 x 4
    pixels and knows the 30 x 30 around it; a vector for each place in front of the last two, so
    that features can tell above from below; and a `CaptionDecoder`, which explains the outputs.
    Word 0 ends a sentence. With `poolings` = 3, for larger pictures, the fourth convolution is
    pooled as well: a cell of 8 x 8 pixels knows the 42 x 42 around it. batchnorm: behind each
    convolution, after its pooling.

    For pictures of 40 x 40 pixels and 18 words it has 201,284 parameters.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_words: int,
        length: int,
        *,
        filters: tuple[int, int, int] = (16, 32, 64),
        hidden: int = 128,
        embedding: int = 32,
        poolings: int = 2,
        batchnorm: bool = False,
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _, h, w = arguments.image_shape("NIC", input_shape)
        if h % 4 or w % 4:
            expected = "height and width that 4 divides"
            raise arguments.refusal("NIC", "input_shape", input_shape, expected)
        poolings = arguments.whole("NIC", "poolings", poolings, minimum=2, maximum=3)
        first, second, third = filters

        def stage(filters: int, pooled: bool = False) -> list[Layer]:
            pool: list[Layer] = [MaxPool2d(2)] if pooled else []
            norm: list[Layer] = [BatchNorm()] if batchnorm else []
            return [Conv2d(filters, 3, pad=1, bias=not batchnorm), *pool, *norm, ReLU()]

        layers: list[Layer] = [
            *stage(first, pooled=True),
            *stage(second),
            *stage(second, pooled=True),
            PositionEmbedding(),
            *stage(third, pooled=poolings == 3),
            *stage(third),
            CaptionDecoder(num_words, length, hidden=hidden, embedding=embedding),
        ]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


def decoder_of(network: Network) -> CaptionDecoder:
    """The last layer of a network that says sentences; raises ValueError if it is another."""
    layer = network.body.layers[-1] if network.body.layers else None
    if not isinstance(layer, CaptionDecoder):
        kind = type(layer).__name__
        raise ValueError(f"found a network that ends in {kind}, expected a CaptionDecoder")
    return layer


def captions(network: Network, images: Array, beam: int = 1) -> Array:
    """The words `(N, T)` that the network says of images `(N, C, H, W)`; 0 from the end on.

    beam: how many sentences are kept in mind, see `beam_search`; with 1 it takes the likeliest word
    at each place. Images are those that `predict` takes.
    """
    decoder, said = decoder_of(network), []
    beam = arguments.whole("captions", "beam", beam)
    images = checked_images(images, network.input_shape)
    for start in range(0, len(images), BLOCK):
        network.forward(network.as_input(images[start : start + BLOCK]))
        said.append(decoder.said if beam == 1 else beam_search(decoder, beam))
    return np.concatenate(said)


def beam_search(decoder: CaptionDecoder, width: int) -> Array:
    """The likeliest sentences `(N, T)` that are found for the pictures of the last forward pass.

    At each place the `width` likeliest beginnings of each picture are kept, of all words behind all
    that were kept; an ended sentence stays what it is. The probability of a sentence is the product
    of those of its words, the stop included. Of equally likely ones the first in the order of those
    kept before and of the vocabulary counts.
    """
    n, t, v = len(decoder.mean), decoder.length, decoder.num_words
    words = np.full((n, width, t), STOP, np.intp)
    scores = np.full((n, width), -np.inf)
    scores[:, 0] = 0  # all begin alike: one of them is enough
    ended = np.zeros((n, width), bool)
    rows = np.arange(n)[:, None]
    for place in range(t):
        logits = decoder.logits_of(words)[:, :, place]
        log_p = log_softmax(logits, decoder.arithmetic).astype(np.float64)
        log_p[ended] = -np.inf  # behind its end there is one way to go on, at no cost
        log_p[ended, STOP] = 0
        reached = (scores[:, :, None] + log_p).reshape(n, width * v)
        best = np.argsort(-reached, axis=1, kind="stable")[:, :width]
        parents, chosen = np.divmod(best, v)
        scores = reached[rows, best]
        words, ended = words[rows, parents], ended[rows, parents]
        words[:, :, place] = chosen
        ended |= chosen == STOP
        if ended.all():
            break
    return words[:, 0]
