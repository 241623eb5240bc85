"""Sums the gradients of a step over micro-batches and ranks, while backward still runs.

The plan of a step, the same on every rank, with or without micro-batches of its own:

1. *start*: the rank says which micro-batches it is going to compute, one after another.
2. *ready*: during backward of a micro-batch, finished gradients are a suffix of the flat vector.
   Nothing happens before a rank's last micro-batch. In that one, whenever the suffix holds another
   bucket, or several, these are added and sent. (Not layer by layer: between two layers a call
   finds its code out of the cache, and costs more than it saves.)
3. *add*: after backward, what of the micro-batch is not yet added is added to this rank's sum.
4. *finish*: the buckets that are left are sent, last of all the tally; all arrive and are read.

How numbers are added up (`formats`) and how the sums travel (`exchange`) are two things, which
`make_reducer` puts together. On one host exact sums need no messages, see `shared`: the tally tells
that all ranks have theirs ready, and the total is made in shared memory.

The flat vector is cut into buckets from its end, where backward starts. The cuts depend on sizes
alone and buckets are sent in one order, so all ranks issue the same collectives by construction.

The tally is a small float64 vector (loss, correct predictions, BatchNorm statistics) that is
always summed exactly, and with nearly all its digits: a variance is the difference of two sums. Its
message also counts the contributions and those that cannot be summed: every rank learns alike
whether a value was NaN, infinite or too large, and raises the same error. It counts raised flags
too: what one rank wants (to stop, say) all ranks learn in the same step.

The trainer calls this. Bucketing and overlap: Li et al. 2020, PyTorch Distributed, section 3.2,
arXiv:2006.15704.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.base.words import counted
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.errors import ExchangeError, NonFiniteGradient
from distnet.parallel.sums.exact4 import Exact4
from distnet.parallel.sums.exact8 import Exact8
from distnet.parallel.sums.exact32 import Exact32
from distnet.parallel.sums.exchange import Exchange, Messages
from distnet.parallel.sums.fixed_point import (
    FixedPoint,
    WideFixedPoint,
    blocks_from_end,
    last_beyond,
)
from distnet.parallel.sums.formats import Exact, Float32, Format
from distnet.parallel.sums.half import BFloat16, Float16
from distnet.parallel.sums.own import OwnAllreduce
from distnet.parallel.sums.rank_sum import RankSum
from distnet.parallel.sums.shared import share_memory
from distnet.parallel.sums.two_level import two_levels

REDUCTIONS: dict[str, type[Format]] = {
    "exact": Exact,
    "exact32": Exact32,
    "float32": Float32,
    "float16": Float16,
    "bfloat16": BFloat16,
}
# How sums travel that are made rarely, of numbers whose range is agreed on before.
CHANGES: dict[str, type[Format]] = {
    "exact": Exact,
    "exact32": Exact32,
    "exact8": Exact8,
    "exact4": Exact4,
}
# Each gives None where the ranks cannot have it. "auto" takes the first one that they can have.
EXCHANGES: dict[str, Callable[[Communicator, Format], Exchange | None]] = {
    "shared": share_memory,
    "two-level": two_levels,
    "leaders": partial(two_levels, num_lanes=1),
    "messages": Messages,
}


@dataclass(frozen=True)
class Offender:
    """A value that cannot be summed, see NonFiniteGradient."""

    part: str
    index: int
    value: float
    limit: float
    micro_batch: int
    rank: int

    @property
    def order(self) -> tuple[int, int]:
        return self.micro_batch, self.rank


class Reducer:
    """Sums one flat gradient vector and one tally a step; reused for all steps of a run.

    A step is `start(mine)`; for each of `mine`, in that order, `ready` during backward, any number
    of times, and `add` after it; then `finish`. A rank without micro-batches calls `start(())` and
    `finish`. All results are overwritten by the next step.

    gradients: the flat vector (size,), float32 or float64, that backward fills for one micro-batch
    at a time.
    exchange: how the ranks' sums become one, and in which format.
    bucket_bytes: the largest message; 0 on construction: `Exchange.best_bucket_bytes`.
    overlaps: whether messages can travel while backward runs; if not, `ready` is better left out.
    num_flags: how many ranks raised a flag in the last step.
    words: whole numbers that travel with the tally: a rank's own may be written between `start` and
    `finish`, after which they are the sums over all ranks. (There are none but in derived classes.)
    wait_seconds: how long the last `finish` waited for messages.
    """

    num_words = 0

    def __init__(
        self,
        comm: Communicator,
        exchange: Exchange,
        gradients: Array,
        tally_size: int,
        *,
        bucket_bytes: int = 0,
    ) -> None:
        size, format = exchange.total.size, exchange.format
        if gradients.shape != (size,):
            raise ValueError(f"found gradients of shape {gradients.shape}, expected ({size},)")
        self._comm, self.exchange, self._format = comm, exchange, format
        self._sum = RankSum(format, exchange.total)
        self._gradients, self._size = gradients, size
        self.bucket_bytes = bucket_bytes or exchange.best_bucket_bytes()
        self._buckets = cut_buckets(size, self.bucket_bytes, format.wire_itemsize)
        self._fixed_point = WideFixedPoint(format.num_contributions, tally_size)
        self._message = np.zeros(2 * tally_size + 3 + self.num_words, np.int64)
        # Views of the message: the tally; how many contributions, offending ones and flags; words.
        tally, self._counts, self.words = np.split(self._message, np.cumsum([2 * tally_size, 3]))
        self._tally = tally.reshape(2, -1)
        self._tally_out = np.zeros(tally_size, np.float64)
        self._requests: list[Request] = []
        self.overlaps = comm.size > 1 and len(self._buckets) > 1
        self.exact = format.exact
        self.num_flags = 0
        self.wait_seconds = 0.0
        self.start(())
        self._started = False

    @property
    def state(self) -> dict[str, Array]:
        """What the next sums depend on besides their contributions: part of a run's state."""
        return self._format.state

    @property
    def bytes_sent(self) -> int:
        """What this rank has handed over to the others in the last step."""
        return self.exchange.bytes_sent + self._message.nbytes

    def start(self, mine: Sequence[int]) -> None:
        """Begins a step, whatever became of the one before; `mine`: micro-batches of this rank."""
        self.exchange.clear()
        self._sum.clear()
        self._message.fill(0)
        self._mine, self._num_added = mine, 0
        self._requests.clear()
        self._under_way: list[Request] = []
        self._final_start = self._size  # where the final part of the micro-batch at hand begins
        self._open_stop = self._size  # what of it is not yet added: [0, stop)
        self._beyond: tuple[int, float] | None = None  # index and value in its gradient
        self._offender: Offender | None = None
        self._started = True

    def ready(self, offset: int) -> None:
        """`gradients[offset:]` is final in the micro-batch at hand: sends the buckets in it.

        To be called after every layer, also where the suffix has not grown: MPI moves messages only
        inside its calls.
        """
        self._require_open()
        if self._num_added + 1 < len(self._mine):
            return
        if not 0 <= offset <= self._final_start:
            raise ValueError(f"found offset {offset}, expected 0 to {self._final_start}")
        self._final_start = offset
        stop = next_one = len(self._requests)
        while stop < len(self._buckets) and self._buckets[stop].start >= offset:
            stop += 1
        if full := self._buckets[next_one:stop]:
            self._add_suffix(self._gradients, full[-1].start)
            self._send(full)
        self.progress()

    def progress(self) -> None:
        """Lets MPI move messages; never waits.

        One test for each of those under way: in one call MPI moves a few packets at most.
        """
        self._under_way = [request for request in self._under_way if not request.test()]

    def add(self, micro_batch: int, tally: Array) -> None:
        """Completes a micro-batch, the next of `mine`: all of its `gradients` are final.

        `micro_batch` is its number in the step; `tally` (tally_size,), float64, is copied.
        """
        self._require_next([micro_batch])
        self._add_suffix(self._gradients, 0)
        self._close([micro_batch], tally[None])

    @property
    def units(self) -> FixedPoint | None:
        """The fixed point of what `add_units` takes; None: it takes nothing."""
        return self._format.units

    def add_units(self, micro_batches: Sequence[int], units: Array, tallies: Array) -> None:
        """Completes several micro-batches, the next of `mine`, whose sum is made already.

        units: `(size,)` int64, the sum of their gradients, each of which is within `units.limit`;
        tallies: one for each.
        """
        self._require_next(micro_batches)
        self._sum.add_units(units)
        self._close(micro_batches, tallies)

    def add_stack(self, micro_batches: Sequence[int], gradients: Array, tallies: Array) -> None:
        """Completes several micro-batches, the next of `mine`, as `add` one by one.

        gradients: `(k, size)`, in place of those given on construction; tallies: one for each.
        """
        self._require_next(micro_batches)
        if self._sum.add_stack(gradients):
            self._close(micro_batches, tallies)
            return
        for number, gradient in enumerate(gradients):
            self._add_suffix(gradient, 0)
            self._close(micro_batches[number : number + 1], tallies[number : number + 1])

    def finish(self, flag: bool = False) -> tuple[Array, Array]:
        """Combines the sums of all ranks, when all micro-batches of this one are added.

        `flag` is raised with or without micro-batches; afterwards `num_flags` tells all ranks.

        Returns the sums over all micro-batches of all ranks: gradient (size,), in the type of
        `gradients`, and tally (tally_size,) float64. Raises NonFiniteGradient on all ranks alike.
        """
        self._require_started()
        if self._num_added < len(self._mine):
            raise ValueError(
                f"finish() with {self._num_added} micro-batches added, expected {len(self._mine)}"
            )
        self._send(self._buckets[len(self._requests) :])
        self._counts[2] = flag
        self._started = False
        self._requests.append(self._comm.iallreduce(self._message))
        self._receive()
        self._check()
        self._format.settle(self.exchange.result)
        return self.exchange.result, self._tally_out

    def _require_started(self) -> None:
        if not self._started:
            raise ValueError("a step of the reducer begins with start()")

    def _require_open(self) -> None:
        self._require_started()
        if self._num_added == len(self._mine):
            raise ValueError(f"all {len(self._mine)} micro-batches of this rank are added already")

    def _require_next(self, micro_batches: Sequence[int]) -> None:
        self._require_open()
        start = self._num_added
        expected = list(self._mine[start : start + len(micro_batches)])
        if list(micro_batches) != expected:
            raise ValueError(
                f"found micro-batches {list(micro_batches)}, expected {expected}: "
                "they are added in the order in which start() was told them"
            )

    def _add_suffix(self, gradients: Array, offset: int) -> None:
        """Adds the elements of the micro-batch from `offset` on that are not yet added."""
        index = self._sum.add(gradients[offset : self._open_stop], offset)
        if index is not None and self._beyond is None:
            self._beyond = offset + index, float(gradients[offset + index])
        self._open_stop = offset

    def _close(self, micro_batches: Sequence[int], tallies: Array) -> None:
        """Completes contributions by their tallies, and notes whether all can be summed."""
        self._num_added += len(micro_batches)
        self._counts[0] += len(micro_batches)
        if self._beyond is not None or not self._fixed_point.add(self._tally, tallies):
            for micro_batch, tally in zip(micro_batches, tallies, strict=True):
                self._note_offender(micro_batch, tally)
        self._final_start, self._open_stop, self._beyond = self._size, self._size, None

    def _note_offender(self, micro_batch: int, tally: Array) -> None:
        """Notes what of a micro-batch cannot be summed, if anything."""
        where, offender = (micro_batch, self._comm.rank), None
        if self._beyond is not None:
            offender = Offender("gradient", *self._beyond, self._format.limit, *where)
        elif (index := last_beyond(tally, self._fixed_point.limit)) is not None:
            value, limit = float(tally[index]), self._fixed_point.limit
            offender = Offender("tally", index, value, limit, *where)
        if offender is not None:
            self._counts[1] += 1
            self._offender = min(self._offender or offender, offender, key=lambda o: o.order)

    def _send(self, buckets: Sequence[slice]) -> None:
        """Starts the next buckets, in order."""
        for bucket in buckets:
            self._sum.complete(bucket.start)
            self._format.complete(self.exchange.total[bucket], bucket.start)
            request = self.exchange.begin(bucket)
            self._requests.append(request)
            self._under_way.append(request)

    def _receive(self) -> None:
        """Waits for each message in turn; reads a bucket while the next ones are on their way."""
        self.wait_seconds = 0.0
        position = self._comm.position
        with position.during(""):  # and after it, what was before
            for number, bucket in enumerate(self._buckets, 1):
                position.purpose = f"gradient bucket {number} of {len(self._buckets)}"
                self._wait(self._requests[number - 1])
                self.exchange.read(bucket)
            position.purpose = "tally"
            self._wait(self._requests[-1])
            position.purpose = "others' part of the total"
            self._wait(self.exchange.complete())
        self._fixed_point.to_float(self._tally, self._tally_out)

    def _wait(self, request: Request) -> None:
        if isinstance(request, Done):
            return
        begin = time.perf_counter()
        request.wait()
        self.wait_seconds += time.perf_counter() - begin

    def _check(self) -> None:
        """Decided by reduced numbers alone, so every rank raises, or none."""
        num_contributions, num_offenders, self.num_flags = map(int, self._counts)
        if num_offenders:
            offenders = [each for each in self._comm.allgather(self._offender) if each]
            raise NonFiniteGradient(**asdict(min(offenders, key=lambda o: o.order)))
        if num_contributions > self._format.num_contributions:
            raise ValueError(
                f"found {num_contributions} micro-batches in a step, expected at most "
                f"{self._format.num_contributions}: the sum may have wrapped"
            )


def make_reducer(
    kind: str,
    comm: Communicator,
    gradients: Array,
    tally_size: int,
    *,
    num_contributions: int,
    bucket_bytes: int = 0,
    exchange: str | OwnAllreduce = "auto",
    result_dtype: DTypeLike | None = None,
    formats: Mapping[str, type[Format]] = REDUCTIONS,
) -> Reducer:
    """A reducer of one of the REDUCTIONS, for at most `num_contributions` micro-batches a step.

    formats: others in place of the REDUCTIONS.
    gradients: the flat vector (size,), float32 or float64, that backward fills; the sum has its
    type, or else `result_dtype`, though no format keeps all digits of float64. exchange: one of
    EXCHANGES, or a user's all-reduce.
    All ranks have to call it. Raises ValueError for an unknown kind or exchange and, on all ranks
    alike, ExchangeError for one that these ranks cannot have.
    """
    if kind not in formats:
        raise ValueError(f"found reduction {kind!r}, expected one of: {', '.join(formats)}")
    format = formats[kind](gradients.size, num_contributions)
    format.result_dtype = np.dtype(gradients.dtype if result_dtype is None else result_dtype)
    way = make_exchange(exchange, comm, format)
    return Reducer(comm, way, gradients, tally_size, bucket_bytes=bucket_bytes)


def make_exchange(name: str | OwnAllreduce, comm: Communicator, format: Format) -> Exchange:
    """One of the EXCHANGES by its name, or by "auto" the best that these ranks can have.

    That never changes the bits of an exact format. Sums that are not exact are left to MPI by
    "auto": each exchange would round them in another order.
    """
    if isinstance(name, OwnAllreduce):
        return name(comm, format)
    if name not in ("auto", *EXCHANGES):
        raise ValueError(f"found exchange {name!r}, expected one of: auto, {', '.join(EXCHANGES)}")
    if name == "auto" and not format.exact:
        name = "messages"
    for make in EXCHANGES.values() if name == "auto" else [EXCHANGES[name]]:
        exchange = make(comm, format)
        if exchange is not None:
            return exchange
    ranks, hosts = counted(comm.size, "rank"), counted(comm.node.count, "host")
    raise ExchangeError(
        f"exchange {name}: found {ranks} on {hosts} that cannot use it; take exchange auto"
    )


def cut_buckets(size: int, bucket_bytes: int, itemsize: float) -> list[slice]:
    """[0, size) in slices of at most `bucket_bytes`, in the order of sending: from the end."""
    return list(blocks_from_end(size, max(1, int(bucket_bytes / itemsize))))
