"""Independent tasks, each computed by the rank that is free first: `map` for all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from distnet.parallel.communicator import Communicator

Item = TypeVar("Item")
Result = TypeVar("Result")


def shared_map(
    comm: Communicator, function: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """`[function(item) for item in items]` on every rank, each item computed by one of them.

    Ranks take the items in order, a rank that finishes early takes the next. Results are pickled.
    All ranks call it with equal `items`; the result is the same on any number of them if that of
    `function` depends on the item alone, so it must not call `comm`.
    """
    done = {index: function(items[index]) for index in comm.turns(len(items))}
    results = {index: result for each in comm.allgather(done) for index, result in each.items()}
    return [results[index] for index in range(len(items))]
