"""Exact sums on one host, without messages: ranks read each other's sums in shared memory.

Every rank adds up in a row of memory that all of them see. When all rows are final, which the
arrival of the tally tells, each rank adds its share of the elements over all rows and writes them
to one result for all; when all shares are there, which a barrier tells, every rank has the whole
result. That is a reduce-scatter and an allgather in which nothing is copied: a message passes
through shared memory as well, but is written and read once more on either side.

Nobody overwrites what another still reads: a rank changes its row in the next step, after this
step's barrier, when all have read it; and its share of the result after the next step's tally,
which does not arrive before all have used the result of this step.

MPI orders the memory accesses on either side of its calls.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.segments import share
from distnet.parallel.sums.exchange import Exchange
from distnet.parallel.sums.fixed_point import BLOCK, blocks_from_end
from distnet.parallel.sums.formats import Format


class SharedMemory(Exchange):
    """rows: the sums of all ranks (ranks, size); result: (size,); both shared."""

    def __init__(self, comm: Communicator, format: Format, rows: Array, result: Array) -> None:
        super().__init__(comm, format, rows[comm.rank], result)
        self._rows = rows
        start, stop = (result.size * r // len(rows) for r in (comm.rank, comm.rank + 1))
        self._share = slice(start, stop)
        self._units = np.empty(BLOCK, format.dtype)

    @property
    def num_readers(self) -> int:
        return 1

    def best_bucket_bytes(self) -> int:
        """All in one: a bucket is no message that could be under way during backward."""
        return self.total.nbytes

    def begin(self, bucket: slice) -> Request:
        self.bytes_sent += self.total[bucket].nbytes
        return Done()

    def read(self, bucket: slice) -> None:
        return None

    def complete(self) -> Request:
        rows, result = self._rows[:, self._share], self.result[self._share]
        for block in blocks_from_end(result.size):
            units = self._units[: block.stop - block.start]
            np.add.reduce(rows[:, block], axis=0, out=units)
            self.format.convert(units, self._share.start + block.start, result[block])
        return self.comm.ibarrier()


def share_memory(comm: Communicator, format: Format) -> SharedMemory | None:
    """The exchange of several ranks on one host; None where they are not, or cannot share memory.

    Where ranks may be lost they send messages: what a lost one has left in memory is nobody's.
    """
    if comm.size == 1 or comm.node.count > 1 or comm.survives_losses or format.size == 0:
        return None
    arrays = share_arrays(comm, format)
    return None if arrays is None else SharedMemory(comm, format, *arrays)


def share_arrays(comm: Communicator, format: Format) -> tuple[Array, Array] | None:
    """Memory of the ranks of one host: a row for the sum of each, and the result (size,).

    None, on all of them, if they cannot share it.
    """
    size, result_dtype = format.size, format.result_dtype
    words = ceil_divide(comm.size * size * np.dtype(format.dtype).itemsize, 8)
    bytes_of_rows = 8 * words
    memory = share(comm, bytes_of_rows + size * result_dtype.itemsize)
    if memory is None:
        return None
    rows = np.frombuffer(memory, format.dtype, comm.size * size).reshape(comm.size, size)
    return rows, np.frombuffer(memory, result_dtype, size, offset=bytes_of_rows)
