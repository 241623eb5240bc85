"""The images of a data set on a device: they go there once, and a step sends their numbers.

So the host gathers no pixels, and moves none. Of augmentations a device has the one that is on by
default, shifts; with another one pixels come from the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.data.augment import Shift, drawn_shifts
from distnet.device import Device
from distnet.training.step.feed import Feed

MOST_BYTES = 1 << 30  # of a data set: a small part of the memory of any GPU that trains
DTYPES = (np.uint8, np.float32, np.float64)


class DeviceImages:
    """The images of `feed` on a device, copied when they are first asked for."""

    def __init__(self, feed: Feed, device: Device) -> None:
        self._feed, self._device = feed, device
        self._images: Any = None

    @classmethod
    def of(cls, feed: Feed, device: Device) -> DeviceImages | None:
        """None where a device cannot have them: no images, too many, not in memory, or augmented
        in a way of which it knows nothing.
        """
        inputs, augment = feed.inputs, feed.augment
        if type(inputs) is not np.ndarray or inputs.ndim != 4 or inputs.nbytes > MOST_BYTES:
            return None
        if inputs.dtype not in DTYPES or not (augment is None or type(augment) is Shift):
            return None
        if augment is not None and augment.pixels > max(inputs.shape[2:]):
            return None  # the host says what is wrong
        return cls(feed, device)

    def places(self, samples: Sequence[Array], at: Sequence[MicroBatch]) -> Array:
        """What `gathered` takes: int32 `(G, N, 3)`, of each image its number, and how far it is
        moved, down and to the right.
        """
        found = np.zeros((len(samples), len(samples[0]), 3), np.int32)
        for row, numbers, micro_batch in zip(found, samples, at, strict=True):
            row[:, 0] = numbers
            if isinstance(self._feed.augment, Shift):
                words = self._feed.words(numbers, micro_batch)
                row[:, 1:] = np.transpose(drawn_shifts(words, self._feed.augment.pixels))
        return found

    def bring(self) -> None:
        """Copies the images over, unless they are there."""
        if self._images is None:
            self._images = self._device.to_device(self._feed.inputs)

    def gathered(self, places: Any) -> Any:
        """The images at some places, `(G, N, H, W, C)`, as the data set has them."""
        return self._device.kernels.gather(self._images, places)
