"""Exact sums that are checked on their way, by numbers that add up as the sums do.

The *check* of a vector of integers v is sum(w[i] * v[i]) modulo 2^64, with odd weights w that are
random but the same on all ranks. It is linear, and exact sums are sums of integers: so the check of
the total has to be the sum of the checks of all contributions, whatever adds them up, ranks, shared
memory or MPI, and in whichever order. (Floating-point sums obey no such law.) In a step, with the
numbers of `CheckedReducer`:

1. each contribution is checked when it has become integers, before it is added to anything;
2. a rank's own sum, when it is complete, has to have the check of its contributions;
3. what is read as the total has to have that of all contributions, on every rank that reads it.

A change of one element is found whichever bit it is, since w is odd; changes of several, the lowest
of them in bit b, are missed with a probability of 2^(b - 64).

The same number tells whether two ranks have computed the same gradient of a micro-batch: each of
them gives its *answer*, the check of the gradient and the tally.

Algorithm-based fault tolerance: Huang & Abraham 1984, doi:10.1109/TC.1984.1676475, where checks of
floating-point products hold up to rounding; here they hold exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.base.keys import Purpose, stream
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import AgreedError, RankAtFault
from distnet.parallel.sums.exact32 import Exact32
from distnet.parallel.sums.exchange import Exchange
from distnet.parallel.sums.fixed_point import BLOCK, FixedPoint, blocks_from_end
from distnet.parallel.sums.formats import Exact
from distnet.parallel.sums.own import OwnAllreduce
from distnet.parallel.sums.reducer import Reducer, make_exchange

LENGTH = 16384  # weights: they stay near the core; a factor for each piece of so many elements
MODULUS = 1 << 64


class AnswersDiffer(AgreedError):  # noqa: N818  the condition is the name
    """Two ranks have computed different gradients of the same micro-batch.

    slots: which of those that were computed twice, with the `answers` of the first and the second.
    """

    def __init__(self, answers: dict[int, tuple[int, int]]) -> None:
        super().__init__(f"{len(answers)} micro-batches were computed with different results")
        self.answers = answers


class Weights:
    """The weights of checks: w[i] is `factor` of the piece that i lies in times `weight` in it."""

    def __init__(self, size: int) -> None:
        num_pieces = size // LENGTH + 1
        words = stream(0, Purpose.CHECK).random_raw(LENGTH + num_pieces) | np.uint64(1)
        self._weights = words[:LENGTH].view(np.int64)
        self._factors = [int(word) for word in words[LENGTH:]]

    def check(self, values: Array, start: int = 0) -> int:
        """The check sum of integers (n,), the elements from `start` on of a vector."""
        total, at = 0, 0
        while at < values.size:
            piece, offset = divmod(start + at, LENGTH)
            stop = min(values.size, at + LENGTH - offset)
            product = np.dot(self._weights[offset : offset + stop - at], values[at:stop])  # wraps
            total += self._factors[piece] * int(product)
            at = stop
        return total % MODULUS


class Checked(Exact):
    """What a format does, with the checks of what passes through it; see above.

    weights: of the vector's elements and, behind them, those of the tally.
    contributed, summed, read: the checks of this step's contributions, own sum, and total as far as
    this rank has read it.
    """

    weights: Weights

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._contribution = np.empty(BLOCK, np.int64)
        self.contributed = self.summed = self.read = 0

    @property
    def units(self) -> FixedPoint | None:
        """None: what is added up beforehand nobody has checked."""
        return None

    def clear(self) -> None:
        """Begins a new step."""
        self.contributed = self.summed = self.read = 0

    def answer(self, values: Array) -> int | None:
        """The check of `values` (size,) as a contribution; None if they cannot be summed."""
        check = 0
        for block in blocks_from_end(values.size):
            units = self._contribution[: block.stop - block.start]
            if super().add(units, values[block], block.start, True) is not None:
                return None
            check += self.weights.check(units, block.start)
        return check

    def add(self, total: Array, values: Array, start: int, first: bool) -> int | None:
        offender = None
        for block in blocks_from_end(values.size):
            units = self._contribution[: block.stop - block.start]
            index = super().add(units, values[block], start + block.start, True)
            if index is not None:
                offender = block.start + index if offender is None else offender
                continue
            self.contributed += self.weights.check(units, start + block.start)
            if first:
                np.copyto(total[block], units)
            else:
                np.add(total[block], units, out=total[block])
        return offender

    def complete(self, total: Array, start: int) -> None:
        self.summed += self.weights.check(total, start)

    def convert(self, total: Array, start: int, out: Array) -> None:
        self.read += self.weights.check(total, start)
        super().convert(total, start, out)


class CheckedExact(Checked, Exact):
    """`Exact` with checks."""


class CheckedExact32(Checked, Exact32):
    """`Exact32` with checks."""


CHECKED: dict[str, type[Checked]] = {"exact": CheckedExact, "exact32": CheckedExact32}


class CheckedReducer(Reducer):
    """A reducer whose sums are checked, and which compares the answers of two ranks.

    num_slots: how many micro-batches of a step can be computed twice.
    answers: of the micro-batches that this rank has added in this step, by their number.
    """

    def __init__(
        self,
        comm: Communicator,
        exchange: Exchange,
        format: Checked,
        gradients: Array,
        tally_size: int,
        *,
        bucket_bytes: int = 0,
        num_slots: int = 0,
    ) -> None:
        self.checked = format
        format.weights = Weights(gradients.size + 2 * tally_size)
        self.answers: dict[int, int] = {}
        self.num_words = 4 * num_slots + 2
        super().__init__(comm, exchange, gradients, tally_size, bucket_bytes=bucket_bytes)
        # Two words for each number: halves, whose sums over ranks have room.
        self._slots = self.words[:-2].reshape(num_slots, 2, 2)

    def start(self, mine: Sequence[int]) -> None:
        super().start(mine)
        self.checked.clear()
        self.answers, self._answered = {}, 0

    def add(self, micro_batch: int, tally: Array) -> None:
        super().add(micro_batch, tally)
        check = self.checked.contributed - self._answered
        self.answers[micro_batch] = (check + (self._check_of(tally) or 0)) % MODULUS
        self._answered = self.checked.contributed

    def answer(self, tally: Array) -> int | None:
        """Of the micro-batch whose gradient is there and is not to be added; None if it cannot."""
        gradient, rest = self.checked.answer(self._gradients), self._check_of(tally)
        return None if gradient is None or rest is None else (gradient + rest) % MODULUS

    def tell(self, slot: int, turn: int, answer: int | None) -> None:
        """This rank's answer on the micro-batch that is computed twice; `turn`: 0 or 1."""
        self._slots[slot, turn] = _halves(0 if answer is None else answer)

    def finish(self, flag: bool = False) -> tuple[Array, Array]:
        """As without checks; raises RankAtFault and AnswersDiffer as well, on all ranks alike."""
        self.words[-2:] = _halves(self.checked.contributed)
        return super().finish(flag)

    def _check(self) -> None:
        super()._check()
        self._check_sum()
        answers = [(_whole(first), _whole(second)) for first, second in self._slots]
        if any(first != second for first, second in answers):
            raise AnswersDiffer({k: a for k, a in enumerate(answers) if a[0] != a[1]})

    def _check_sum(self) -> None:
        """Whether the total is the sum of all contributions, as far as any rank has read it."""
        checked, expected = self.checked, _whole(self.words[-2:])
        is_own_right = (checked.contributed - checked.summed) % MODULUS == 0
        told = np.array([*_halves(checked.read), not is_own_right], np.int64)
        with self._comm.position.during("check of the sum"):
            self._comm.allreduce(told)
            if told[2] == 0 and _whole(told[:2]) == self.exchange.num_readers * expected % MODULUS:
                return
            wrong = self._comm.allgather((not is_own_right, (checked.read - expected) % MODULUS))
        raise RankAtFault(*self._verdict(wrong))

    def _verdict(self, wrong: Sequence[tuple[bool, int]]) -> tuple[str, list[int]]:
        """What is wrong with the sum, and which ranks are to blame, none if it cannot be told.

        wrong: of each rank, whether its own sum is, and how far what it has read is off.
        """
        ranks = [rank for rank, (own, _) in enumerate(wrong) if own]
        if ranks:
            return "what it has added up is not the sum of what it has computed", ranks
        ranks = [rank for rank, (_, off) in enumerate(wrong) if off]
        if self.exchange.num_readers == len(wrong) > len(ranks):  # each has read all of it
            return "what it has received is not the sum of what the ranks have sent", ranks
        return "the total of the gradients is not the sum of what the ranks have sent", []

    def _check_of(self, tally: Array) -> int | None:
        """The check sum of one micro-batch's tally, as integers."""
        units = np.zeros((2, tally.size), np.int64)
        if not self._fixed_point.add(units, tally[None]):
            return None
        return self.checked.weights.check(units.ravel(), self._size)


def make_checked_reducer(
    kind: str,
    comm: Communicator,
    gradients: Array,
    tally_size: int,
    *,
    num_contributions: int,
    num_slots: int,
    bucket_bytes: int = 0,
    exchange: str | OwnAllreduce = "auto",
    result_dtype: DTypeLike | None = None,
) -> CheckedReducer:
    """As `make_reducer`, for the exact REDUCTIONS; num_slots: see `CheckedReducer`."""
    if kind not in CHECKED:
        raise ValueError(f"found reduction {kind!r}, expected one of: {', '.join(CHECKED)}")
    format = CHECKED[kind](gradients.size, num_contributions)
    format.result_dtype = np.dtype(gradients.dtype if result_dtype is None else result_dtype)
    way = make_exchange(exchange, comm, format)
    return CheckedReducer(
        comm, way, format, gradients, tally_size, bucket_bytes=bucket_bytes, num_slots=num_slots
    )


def _halves(number: int) -> tuple[int, int]:
    number %= MODULUS
    return number >> 32, number & 0xFFFFFFFF


def _whole(halves: Array) -> int:
    high, low = map(int, halves)
    return ((high << 32) + low) % MODULUS
