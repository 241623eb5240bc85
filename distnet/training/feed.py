"""From the indices of a micro-batch to the array that the network reads.

Pixels go straight into the first layer's inbox: gathered as uint8, shifted, and scaled to [0, 1] on
the way into float32, one copy each. The random bits are keyed by (seed, step, micro-batch), so the
pixels do not depend on the rank.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch, Purpose, Words
from distnet.data.augment import random_shift
from distnet.nn.memory import Memory
from distnet.nn.network import Network


class Feed:
    """Micro-batches of images `(N, C, H, W)` uint8 and labels `(N,)`, ready for one network."""

    def __init__(self, network: Network, images: Array, labels: Array, max_shift: int = 0) -> None:
        self.network, self.images, self.labels = network, images, labels
        self.max_shift = max_shift
        self._words = Words(Purpose.AUGMENT)
        self._memory = Memory()
        self._scale = np.array(1 / 255, network.dtype)

    def training(self, samples: Array, train: MicroBatch) -> tuple[Array, Array]:
        """The samples with those indices, augmented: pixels float32 (N, C, H, W), labels (N,)."""
        images = self.images[samples]
        if self.max_shift:
            bits = self._words.draw(train, len(samples))
            images = random_shift(images, bits, self.max_shift)
        return self._pixels(images), self.labels[samples]

    def evaluation(self, samples: slice) -> tuple[Array, Array]:
        """The samples as they are."""
        return self._pixels(self.images[samples]), self.labels[samples]

    def _pixels(self, images: Array) -> Array:
        x = self._inbox(images.shape)
        return np.multiply(images, self._scale, out=x)

    def _inbox(self, shape: tuple[int, ...]) -> Array:
        inbox = self.network.inbox(shape[0])
        if inbox is None:
            return self._memory.array("pixels", shape, self.network.dtype)
        return inbox
