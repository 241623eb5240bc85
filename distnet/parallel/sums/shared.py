"""The exact sum on one host, without messages: ranks read each other's sums in shared memory.

Every rank adds up in a row of memory that all of them see. When all rows are final, which the
arrival of the tally tells, each rank adds its share of the elements over all rows and writes them
to one result for all; when all shares are there, which a barrier tells, every rank has the whole
result. That is a reduce-scatter and an allgather in which nothing is copied: a message passes
through shared memory as well, but is written and read once more on either side.

Nobody overwrites what another still reads: a rank changes its row in the next step, after this
step's barrier, when all have read it; and its share of the result after the next step's tally,
which does not arrive before all have used the result of this step.

Integers are added, so the bits are those of `ExactSum`. MPI orders the memory accesses on either
side of its calls.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.segments import share
from distnet.parallel.sums.fixed_point import BLOCK, blocks_from_end
from distnet.parallel.sums.formats import ExactSum


class SharedExactSum(ExactSum):
    """rows: the sums of all ranks, int64 (ranks, size); result: float32 (size,); both shared."""

    sends = False

    def __init__(self, rank: int, num_contributions: int, rows: Array, result: Array) -> None:
        super().__init__(result.size, num_contributions)
        self._rows, self.result = rows, result
        self._total = rows[rank]
        start, stop = (result.size * r // len(rows) for r in (rank, rank + 1))
        self._share = slice(start, stop)
        self._units = np.empty(BLOCK, np.int64)

    def best_bucket_bytes(self, comm: Communicator) -> int:
        """All in one: a bucket is no message that could be under way during backward."""
        return self._total.nbytes

    def exchange(self, comm: Communicator, bucket: slice) -> Request:
        self.bytes_sent += self._own(bucket).nbytes
        return Done()

    def read(self, bucket: slice) -> None:
        return None

    def complete(self, comm: Communicator) -> Request:
        rows, result = self._rows[:, self._share], self.result[self._share]
        for block in blocks_from_end(result.size):
            units = self._units[: block.stop - block.start]
            np.add.reduce(rows[:, block], axis=0, out=units)
            self._fixed_point.to_float(units, result[block])
        return comm.ibarrier()


def share_exact_sum(comm: Communicator, size: int, num_contributions: int) -> SharedExactSum | None:
    """The sum of several ranks on one host; None where they are not, or cannot share memory.

    Where ranks may be lost they send messages: what a lost one has left in memory is nobody's.
    """
    if comm.size == 1 or comm.node.count > 1 or comm.survives_losses or size == 0:
        return None
    bytes_of_rows = comm.size * size * np.dtype(np.int64).itemsize
    memory = share(comm, bytes_of_rows + size * np.dtype(np.float32).itemsize)
    if memory is None:
        return None
    rows = np.frombuffer(memory, np.int64, comm.size * size).reshape(comm.size, size)
    result = np.frombuffer(memory, np.float32, size, offset=bytes_of_rows)
    return SharedExactSum(comm.rank, num_contributions, rows, result)
