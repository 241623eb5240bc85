"""How many bytes a rank holds for each parameter, by what they are for."""

from __future__ import annotations

import numpy as np

from distnet.parallel import CHANGES, REDUCTIONS
from distnet.parallel.sums.exact8 import Exact8
from distnet.planning.model import Way

VALUE = 4  # bytes of a float32


def bytes_of_rank(parameters: int, num_vectors: int, way: Way, num_ranks: int) -> dict[str, int]:
    """What a rank holds, in bytes, by its purpose; not the process itself, nor activations.

    num_vectors: those of the optimizer, each as long as the parameters. Of islands all ranks hold
    the memory of all, once a checkpoint was written.
    """
    vector = VALUE * parameters
    sharers = num_ranks if way.shards and not way.islands else 1
    held = {
        "parameters": vector,
        "gradients": vector,
        "optimizer": vector * num_vectors // sharers,
        "sums": int(_sum_bytes(way.reduction) * parameters) + vector,
    }
    if way.islands:
        residual = 1 if issubclass(CHANGES[way.sync_reduction], Exact8) else 0
        held["islands"] = vector * (3 + way.islands * (num_vectors + residual))
    return held


def _sum_bytes(reduction: str) -> float:
    """Bytes for each parameter: of a rank's sum, and of a message that is not the sum itself."""
    format = REDUCTIONS[reduction]
    own, sent = np.dtype(format.dtype).itemsize, format.wire_itemsize
    return own if sent == own else own + sent
