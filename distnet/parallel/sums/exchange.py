"""How the sums of the ranks become one total: the ways on which they travel, in any number format.

An `Exchange` combines the vectors `total` of all ranks, bucket by bucket, into one `result`. The
reducer fills `total` and calls, on all ranks alike and for each bucket in the same order:

1. `begin` as soon as the rank's sum of a bucket is final; nothing is added to it any more;
2. `read` of each bucket, when all have begun and the request of this one is finished;
3. `complete`, when all ranks have begun all buckets, which the arrival of the tally tells.

Here is the plain one, `Messages`; ranks of one host use `shared`, those of several `two_level`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.sums.formats import Format
from distnet.parallel.sums.narrow import NarrowSums

# Measured, see docs/scaling.md. On one host sending is computing: few messages. Between hosts they
# shall be small enough that most leave while backward still computes.
BUCKET_BYTES, BUCKET_BYTES_BETWEEN_HOSTS = 1 << 20, 1 << 16


class Exchange(ABC):
    """The way of one rank's sums to the total over the ranks of `comm`.

    total: this rank's sum (size,), in the type of the format.
    result: the total over all ranks (size,), in its type of results, after `complete` is finished.
    bytes_sent: what this rank has handed over to the others since `clear`.
    groups: the communicators that it calls.
    """

    def __init__(self, comm: Communicator, format: Format, total: Array, result: Array) -> None:
        self.comm, self.format, self.total, self.result = comm, format, total, result
        self.groups = [comm]
        self.bytes_sent = 0

    @property
    def num_readers(self) -> int:
        """How many ranks read each element of the total."""
        return self.comm.size

    def clear(self) -> None:
        """Begins a new step; what is still in flight is given up."""
        self.bytes_sent = 0

    @abstractmethod
    def best_bucket_bytes(self) -> int:
        """How large messages should be."""

    @abstractmethod
    def begin(self, bucket: slice) -> Request:
        """Starts to combine a bucket, see above."""

    @abstractmethod
    def read(self, bucket: slice) -> None:
        """Writes the total of a bucket to `result`, see above; it may call the communicator."""

    def complete(self) -> Request:
        """Does what is left to do: a request that is finished when `result` is whole."""
        return Done()


class Messages(Exchange):
    """Every bucket is a message that is combined over all ranks: by MPI, or as `narrow` does it."""

    def __init__(
        self,
        comm: Communicator,
        format: Format,
        total: Array | None = None,
        result: Array | None = None,
        *,
        narrow: bool = False,
    ) -> None:
        total = np.zeros(format.size, format.dtype) if total is None else total
        result = np.zeros(format.size, format.result_dtype) if result is None else result
        super().__init__(comm, format, total, result)
        self._messages: dict[int, Array] = {}  # in flight, by the start of their bucket
        self.num_repeats = 0  # buckets since `clear` whose total did not fit into the message
        self._narrow = NarrowSums(comm, self._count) if narrow else None

    def clear(self) -> None:
        super().clear()
        self._messages.clear()
        self.num_repeats = 0
        if self._narrow is not None:
            self._narrow.clear()

    def best_bucket_bytes(self) -> int:
        return BUCKET_BYTES if self.comm.node.count == 1 else BUCKET_BYTES_BETWEEN_HOSTS

    def begin(self, bucket: slice) -> Request:
        message = self.format.encode(self.total[bucket], bucket.start)
        self._messages[bucket.start] = message
        if self._narrow is not None:
            return self._narrow.begin(message)
        self._count(message.nbytes)
        return self.comm.iallreduce(message, self.format.op)

    def read(self, bucket: slice) -> None:
        message, out = self._messages.pop(bucket.start), self.result[bucket]
        if self.format.holds(message):
            self.format.decode(message, bucket.start, out)
        else:
            self._repeat(bucket, out)

    def _repeat(self, bucket: slice, out: Array) -> None:
        """Combines the sums themselves."""
        total = self.total[bucket]
        self.comm.allreduce(total)
        self._count(total.nbytes)
        self.num_repeats += 1
        self.format.convert(total, bucket.start, out)

    def _count(self, num_bytes: int) -> None:
        self.bytes_sent += num_bytes
