"""Where a rank is in its program: which collective calls it has begun, in which it waits.

All ranks make the same calls in the same order, so two ranks can be compared by counting: of those
that stand at the same step, the ones that have begun fewer calls keep the others waiting. The
communicator counts, the trainer says when a step begins, who calls may say what for, and `watch`
reads it from another thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Place:
    """A rank's position: repairs of the group behind it, its step, collective calls begun in it.

    waits_for, since: the number of the call in which it waits, 0 if in none, and the time
    (`time.monotonic`) when it began to. purpose: what that is for, in words, "" if not said.
    """

    def __init__(self) -> None:
        self.num_repairs = self.step = self.num_calls = self.waits_for = 0
        self.since = 0.0
        self.purpose = ""

    @property
    def position(self) -> tuple[int, int, int]:
        """Comparable: of two ranks, the one with the lower position keeps the other waiting."""
        return self.num_repairs, self.step, self.num_calls

    def begin_step(self, step: int) -> None:
        """The calls that follow belong to `step`."""
        self.step, self.num_calls = step, 0

    def begin_repaired(self) -> None:
        """The group was repaired: ranks that stood at different calls count anew together."""
        self.num_repairs, self.num_calls = self.num_repairs + 1, 0

    def begin(self) -> int:
        """A collective call begins; returns its number in the step, counted from 1."""
        self.num_calls += 1
        return self.num_calls

    @contextmanager
    def waiting(self, number: int) -> Iterator[None]:
        """The rank waits for the others in call `number`."""
        self.waits_for, self.since = number, time.monotonic()
        try:
            yield
        finally:
            self.waits_for = 0

    @contextmanager
    def during(self, purpose: str) -> Iterator[None]:
        """What the rank waits for within it has this `purpose`."""
        self.purpose, before = purpose, self.purpose
        try:
            yield
        finally:
            self.purpose = before
