"""Gradients that an objective of a user's own has announced: it is held to what it said.

They may be on their way to other ranks already: what is changed afterwards would be lost, and only
where there are others.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.nn.parameters import Parameters
from distnet.objectives.objective import Ready

REMEDY = "hand `ready` to the last backward alone, and change no gradients after it"


class Announced:
    """To be handed to the objective in place of `ready`; `check` comes after its `gradients`."""

    def __init__(self, parameters: Parameters, ready: Ready) -> None:
        self._parameters, self._ready = parameters, ready
        self._start = parameters.grads.size  # of what is announced
        self._parts: list[tuple[int, int, int]] = []  # start, stop and checksum of each

    def __call__(self, start: int) -> None:
        """`grads[start:]` is final; raises ValueError if more than that was so before."""
        if start > self._start:
            raise ValueError(
                f"gradients: found ready({start}) after ready({self._start}), expected offsets "
                f"that do not rise: {REMEDY}; backward comes to joined networks in reverse "
                "order, and adds their `parameters.starts`"
            )
        self._parts.append((start, self._start, self._checksum(start, self._start)))
        self._start = start
        self._ready(start)

    def check(self) -> None:
        """Raises ValueError if anything that was announced is something else now."""
        for start, stop, checksum in self._parts:
            if self._checksum(start, stop) != checksum:
                raise ValueError(
                    f"gradients: found other values in parameters.grads[{start}:{stop}], of "
                    f"{self._parameters.name_at(start)}, than when `ready` was told that they are "
                    f"final, expected the same: {REMEDY}"
                )

    def _checksum(self, start: int, stop: int) -> int:
        """The sum of their bits, as words: faster than a copy, and no memory."""
        words: Array = self._parameters.grads[start:stop].view(np.uint32)
        return int(np.add.reduce(words, dtype=np.uint32))
