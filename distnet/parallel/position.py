"""Where a rank is in its program: which collective calls it has begun, in which it waits.

All ranks make the same calls in the same order, so two ranks can be compared by counting: of those
that stand at the same step, the ones that have begun fewer calls keep the others waiting.

Each rank keeps a `Position`, in `Communicator.position`. The communicator counts the calls in it.
The trainer tells it when a step begins (`begin_step`). Code that calls the communicator may tell it
in words what its calls are for (`during`), for messages. `watch` reads it from another thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Position:
    """How far one rank has come, and what it waits for.

    num_repairs: how often the group was repaired after a loss; step: of training; num_calls: the
    collective calls begun in that step.
    waits_for: the number of the call in which the rank waits, 0 if in none; since: the time
    (`time.monotonic`) when it began to wait; purpose: what its calls are for, "" if not said.
    """

    def __init__(self) -> None:
        self.num_repairs = self.step = self.num_calls = self.waits_for = 0
        self.since = 0.0
        self.purpose = ""

    @property
    def reached(self) -> tuple[int, int, int]:
        """(repairs, step, calls): of two ranks, the one with less keeps the other waiting."""
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
