"""Random bits as a pure function of what they are for.

Counter-based streams (Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11)
are keyed by (seed, purpose) and start at (step, micro-batch, layer), so any rank can draw the bits
of any micro-batch, in any order, and nothing has to be saved in a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from distnet.nn.layout import Array


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes never overlap."""

    INIT = 1
    DROPOUT = 2
    AUGMENT = 3


def stream(
    seed: int, purpose: Purpose, step: int = 0, micro_batch: int = 0, layer: int = 0
) -> np.random.Philox:
    """The stream for one use; the first counter word is left to the stream's own count."""
    return np.random.Philox(key=[seed, purpose], counter=[0, layer, micro_batch, step])


@dataclass(frozen=True)
class Training:
    """The micro-batch that a forward pass in training mode works on.

    `share` is the micro-batch's part of the global batch, n / B; `forward` gets no `Training` in
    evaluation mode.
    """

    seed: int = 0
    step: int = 0
    micro_batch: int = 0
    share: float = 1.0

    def words(self, purpose: Purpose, layer: int, count: int) -> Array:
        """`count` raw 64-bit words for one layer."""
        source = stream(self.seed, purpose, self.step, self.micro_batch, layer)
        return source.random_raw(count)
