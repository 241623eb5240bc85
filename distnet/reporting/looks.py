"""What a network makes of pictures: mistakes, filters, and what each layer answers, as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distnet.base.arrays import Array
from distnet.nn import Network, softmax

MAX_CHANNELS = 32  # of a layer's answer
MAX_FILTERS = 64
MAX_NUMBERS = 256  # of an answer that is a vector
ANSWER_DOTS = 300  # of a page, that the longer side of an answer takes
LARGEST_SQUARE = 14  # dots, of a number in an answer


@dataclass(frozen=True)
class Mistake:
    """A sample that was taken for another class: its number, and the probabilities `(K,)`."""

    sample: int
    target: int
    taken_for: int
    probabilities: Array


def confusion(logits: Array, targets: Array, num_classes: int) -> Array:
    """`(K, K)` counts: classes in rows, what they are taken for in columns."""
    pairs = num_classes * targets.astype(np.int64) + logits.argmax(axis=1)
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def worst_mistakes(logits: Array, targets: Array, number: int) -> list[Mistake]:
    """The samples that were taken for another class with the least doubt, the worst first.

    By the probability that was left for the right class.
    """
    probabilities = softmax(logits)
    right = probabilities[np.arange(len(targets)), targets]
    wrong = np.flatnonzero(logits.argmax(axis=1) != targets)
    order = wrong[np.argsort(right[wrong], kind="stable")][:number]
    return [
        Mistake(int(i), int(targets[i]), int(logits[i].argmax()), probabilities[i]) for i in order
    ]


def answers(network: Network, image: Array) -> Iterator[tuple[str, str, Array]]:
    """For each layer its name, the shape of its answer to `image` `(C, H, W)`, and a picture of it.

    Channels of images side by side, up to MAX_CHANNELS; a vector as one line of squares. Black is
    the least number of the layer, white the largest.
    """
    x = network.as_input(image[None])
    for name, layer in network.body.named_layers():
        x = layer.forward(x)
        answer = np.array(x[0])
        shape = " x ".join(map(str, answer.shape))
        if answer.ndim == 3:
            yield name, shape, montage(stretched(answer[:MAX_CHANNELS]))
        else:
            line = stretched(answer.reshape(1, -1))
            yield name, shape, montage(line[0, :MAX_NUMBERS, None, None], gap=0)


def filters(network: Network) -> tuple[str, Array] | None:
    """The name and a picture of the weights of the first convolution, None if there is none."""
    for name, weight in network.parameters.named().items():
        if weight.ndim == 4:
            some = weight[:MAX_FILTERS]
            tiles = [stretched(each) for each in some]
            if weight.shape[1] == 3:
                return name, montage(np.stack([tile.transpose(1, 2, 0) for tile in tiles]))
            return name, montage(np.stack([tile[0] for tile in tiles]))
    return None


def as_pixels(image: Array) -> Array:
    """`(C, H, W)` as a picture: three channels are colours, of others it is the first."""
    if image.dtype != np.uint8:
        image = stretched(image)
    return image.transpose(1, 2, 0) if len(image) == 3 else image[0]


def stretched(values: Array) -> Array:
    """The numbers as bytes: 0 for the least, 255 for the largest."""
    low, high = float(values.min()), float(values.max())
    return np.round((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)


def montage(tiles: Sequence[Array] | Array, gap: int = 1) -> Array:
    """Pictures `(N, H, W)` or `(N, H, W, 3)` side by side, twice as wide as high, about.

    With one channel more, 0 where there is nothing and the page shows through, else 255.
    """
    tiles = np.asarray(tiles)
    number, height, width = tiles.shape[:3]
    across = min(number, max(1, int(np.ceil(np.sqrt(2 * number * height / width)))))
    rows = -(-number // across)
    whole = (rows * (height + gap) - gap, across * (width + gap) - gap, *tiles.shape[3:])
    canvas = np.zeros(whole, np.uint8)
    alpha = np.zeros(whole[:2], np.uint8)
    for at, tile in enumerate(tiles):
        y, x = divmod(at, across)
        top, left = y * (height + gap), x * (width + gap)
        place = np.s_[top : top + height, left : left + width]
        canvas[place], alpha[place] = tile, 255
    return np.dstack([canvas, alpha])


def scale(pixels: Array, dots: int) -> int:
    """How many dots of a page a pixel takes for the longer side to have about `dots`."""
    return max(1, dots // max(pixels.shape[:2]))


def scale_of_answer(pixels: Array) -> int:
    """How many dots of a page a pixel takes in a picture of `answers`."""
    return min(scale(pixels, ANSWER_DOTS), LARGEST_SQUARE)
