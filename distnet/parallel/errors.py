"""What can go wrong between ranks, named by what the caller may do next.

    Exception
    ├── LaunchError              there is no communicator; the message says how to start the program
    ├── RankLost                 a rank is gone: call `Communicator.repair` and go on without it
    └── AgreedError              raised on every rank alike: all leave together, with `exit_code`
        ├── RankError            some ranks could not do their part of a common task
        ├── DisagreementError    the ranks were started with different inputs
        ├── PlacementError       the ranks do not run on the hosts that were expected
        ├── RankAtFault          a rank computes something else than the others
        └── NonFiniteGradient    a gradient that cannot be summed

An `ExchangeError` is a ValueError: of all ranks of a group, of which there may be others.
Every other exception concerns one rank alone; `failure.fail_together` ends the job for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence


class LaunchError(RuntimeError):
    """The program cannot join the MPI job it was started in.

    `speaks` is true in exactly one of the processes that find this out, so that one line is shown.
    """

    def __init__(self, message: str, speaks: bool = True) -> None:
        super().__init__(message)
        self.speaks = speaks


class RankLost(Exception):  # noqa: N818  the condition is the name
    """Another rank is gone; raised on some ranks earlier than on others, see `recovery`."""


class ExchangeError(ValueError):
    """The ranks of a group cannot have the way for their sums that was asked for."""


class AgreedError(Exception):
    """Raised on every rank with the same message, at the same point of the program."""

    exit_code = 1


class RankError(AgreedError):
    """A task that every rank runs raised an expected error on some ranks, or on all."""

    exit_code = 2


class DisagreementError(AgreedError):
    """The ranks do not have the same configuration, files or numerics."""

    exit_code = 2


class PlacementError(AgreedError):
    """The ranks do not run on the hosts that were expected."""

    exit_code = 2


class RankAtFault(AgreedError):  # noqa: N818  the condition is the name
    """Something was computed or added up with two results, which one processor cannot have.

    ranks: those that are to blame, by their numbers in the group; none if it cannot be told.
    has_spread: whether what they computed before may be part of the others' state.
    """

    exit_code = 77

    def __init__(self, message: str, ranks: Sequence[int] = (), has_spread: bool = False) -> None:
        super().__init__(message)
        self.ranks, self.has_spread = list(ranks), has_spread


class NonFiniteGradient(AgreedError):  # noqa: N818  the condition is the name
    """A micro-batch contributed a value that is NaN, infinite or too large to be summed.

    part: "gradient" or "tally"; index: place of the value in that vector; micro_batch, rank: where
    it came up. Of several, the lowest micro-batch's last value: backward fills the vector from its
    end, so that is the first one to have been computed.
    """

    def __init__(
        self, part: str, index: int, value: float, *, limit: float, micro_batch: int, rank: int
    ) -> None:
        super().__init__(
            f"element {index} of the {part} of micro-batch {micro_batch} is {value:g} on rank "
            f"{rank}, expected a finite number of at most {limit:g}; lower the learning rate"
        )
        self.part, self.index, self.value, self.limit = part, index, value, limit
        self.micro_batch, self.rank = micro_batch, rank


def name_ranks(ranks: Sequence[int], shown: int = 8) -> str:
    """In words: "rank 3", "ranks 0, 1, 5" or, of many, the first few and how many more."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    more = f" and {len(ranks) - shown} more" if len(ranks) > shown else ""
    return "ranks " + ", ".join(map(str, ranks[:shown])) + more
