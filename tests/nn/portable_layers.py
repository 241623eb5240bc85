"""What each layer of the table computes in portable arithmetic; run, it writes a hash of each."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from layer_table import CASES, MODES, TRAIN, Case, build, images

from distnet.base.arithmetic import BITS, Portable


def portable_results(case: Case, at=TRAIN, bits: int = BITS) -> dict[str, np.ndarray]:
    """Output, input gradient, gradients of the parameters and sums of statistics, by name."""
    layer = build(case.make(), case.shape, np.float32, arithmetic=Portable(bits))
    y = layer.forward(images((3, *case.shape)), at=at).copy()
    dx = layer.backward(images(y.shape, seed=1)).copy()
    return {"y": y, "dx": dx} | {name: p.grad for name, p in layer.parameters()}


def digest(case: Case) -> str:
    """SHA-256 of all that, in training and in evaluation."""
    sha = hashlib.sha256()
    for at in MODES:
        for array in portable_results(case, at).values():
            sha.update((array + 0.0).astype("<f8").tobytes())  # there may be -0 before rounding
    return sha.hexdigest()


if __name__ == "__main__":
    print(json.dumps({str(case): digest(case) for case in CASES}))
