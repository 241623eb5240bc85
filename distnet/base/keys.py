"""Random bits as a pure function of what they are for.

Counter-based streams (Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11)
are keyed by (seed, purpose) and start at (step, micro-batch, layer), so any rank can draw the bits
of any micro-batch, in any order, and nothing has to be saved in a checkpoint.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from distnet.base.arrays import Array


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes never overlap."""

    INIT = 1
    DROPOUT = 2
    AUGMENT = 3
    ORDER = 4
    SPLIT = 5
    SCENES = 6
    REGIONS = 7
    DRAW = 10
    START = 11
    EXPLORE = 12
    PLAY = 13
    NOISE = 14
    TILES = 15
    SWEEP = 16
    MIRRORS = 17
    AUDIT = 20
    CHECK = 21


def stream(
    seed: int, purpose: Purpose, step: int = 0, micro_batch: int = 0, layer: int = 0
) -> np.random.Philox:
    """The stream for one use; the first counter word is left to the stream's own count."""
    key = np.array([seed, purpose], np.uint64)  # a list would turn large seeds into float64
    return np.random.Philox(key=key, counter=[0, layer, micro_batch, step])


class MicroBatch(NamedTuple):
    """Which micro-batch a forward pass in training mode works on: the key of every random stream.

    seed: of the run. step: from 0. number: of the micro-batch in the step, from 0. share: the
    micro-batch's part of the global batch, n / B. In evaluation mode there is no `MicroBatch`.
    """

    seed: int = 0
    step: int = 0
    number: int = 0
    share: float = 1.0


class Words:
    """Raw 64-bit words for one purpose and one layer, a pure function of the micro-batch.

    The words of `stream`, from a generator that is set back instead of made anew: in the middle of
    a training step that takes a twentieth of the time.
    """

    def __init__(self, purpose: Purpose) -> None:
        self._purpose = int(purpose)
        self._generator = np.random.Philox(key=[0, 0], counter=[0, 0, 0, 0])
        self._state = self._generator.state
        self._key = self._state["state"]["key"]
        self._counter = self._state["state"]["counter"]

    def draw(self, at: MicroBatch, count: int, layer: int = 0) -> Array:
        """`count` words for a micro-batch."""
        self._key[:] = at.seed, self._purpose
        self._counter[:] = 0, layer, at.number, at.step
        self._generator.state = self._state
        return self._generator.random_raw(count)


def uniform(words: Array) -> Array:
    """Random words as float64 numbers from 0 to below 1, in multiples of 2^-53."""
    return (words >> np.uint64(11)) * 2.0**-53


def integers(words: Array, low: int, high: int) -> Array:
    """Random words as int64 numbers from `low` to below `high`.

    The upper half of a word times their number, of which again the upper half (Lemire 2019,
    arXiv:1805.10941, without the rejection): no number is likelier than another by 2^-32 of them.
    """
    half = np.uint64(32)
    return low + (((words >> half) * np.uint64(high - low)) >> half).astype(np.int64)
