"""Sums of several hosts: added up within each host in shared memory, then between the hosts.

What is between hosts is slow, and what all ranks of a host would send is its sum. The plan of a
bucket, whose elements are dealt out to as many ranks of every host as there are *lanes*:

1. A barrier of the host tells that all its ranks have their sums of the bucket ready, in rows of
   memory that all of them see (as in `shared`).
2. The rank of each lane adds its share of the elements over all rows of its host, and combines that
   with the ranks of the same lane on the other hosts, in messages; where hosts are few, of as few
   bits as the numbers need (see `narrow`).
3. It writes the total to the one result of its host; in the end a barrier tells that it is whole.

Within a host that is a reduce-scatter and an allgather; every element crosses between two hosts as
often as if each host were one rank. With one lane, one rank of a host does it all.

Nobody overwrites what another still reads: a lane adds up in its own rank's row, of which only that
rank reads its share; a rank writes its row again in the next step, after this step's last barrier;
and a result is written when all ranks of the host have begun that bucket of the next step, so all
have used the result of this one.

Requests move when they are tested or waited for. The messages of a lane have to be sent in one
order on all hosts, so a bucket is not sent before the one before it, although its barrier may be
over earlier.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.position import Position
from distnet.parallel.sums.exchange import BUCKET_BYTES_BETWEEN_HOSTS, Messages
from distnet.parallel.sums.formats import Format
from distnet.parallel.sums.narrow import can_be_narrow
from distnet.parallel.sums.shared import share_arrays

MOST_BUCKETS = 16  # the last one hides behind nothing: a sixteenth of what is sent


class TwoLevels(Messages):
    """Messages between hosts, of the sums that were made in shared memory within each host.

    everyone: all ranks; node: those of this host; peers: those of the same lane on all hosts.
    rows: the sums of this host's ranks (node.size, size); result: (size,); both shared.
    bytes_sent: what this rank has sent to other hosts.
    """

    def __init__(
        self,
        everyone: Communicator,
        node: Communicator,
        peers: Communicator,
        num_lanes: int,
        format: Format,
        rows: Array,
        result: Array,
    ) -> None:
        narrow = can_be_narrow(peers, format)
        super().__init__(peers, format, rows[node.rank], result, narrow=narrow)
        self.groups = [peers, node]
        self._position, self._node, self._num_lanes = everyone.position, node, num_lanes
        self._num_hosts = everyone.node.count
        self._others = [row for rank, row in enumerate(rows) if rank != node.rank]
        self._not_sent: deque[Bucket] = deque()

    @property
    def num_readers(self) -> int:
        return self._num_hosts

    def clear(self) -> None:
        super().clear()
        self._not_sent.clear()

    def best_bucket_bytes(self) -> int:
        num_bytes = int(self.format.size * self.format.wire_itemsize)
        return bucket_bytes(num_bytes, self._num_lanes)

    def begin(self, bucket: slice) -> Request:
        begun = Bucket(self, self._share(bucket), self._node.ibarrier())
        self._not_sent.append(begun)
        return Counted(begun, self._position)

    def read(self, bucket: slice) -> None:
        share = self._share(bucket)
        if share.start < share.stop:
            super().read(share)

    def complete(self) -> Request:
        return Counted(self._node.ibarrier(), self._position)

    def send_ready(self) -> None:
        """Sends what the ranks of this host have ready, as far as the order allows."""
        while self._not_sent and self._not_sent[0].barrier.test():
            self._send_next()

    def send_all(self) -> None:
        """Waits for the other ranks of this host, which begin their buckets sooner or later.

        Whoever waits for one bucket calls this first, so that all the others are under way.
        """
        while self._not_sent:
            self._send_next()

    def _send_next(self) -> None:
        bucket = self._not_sent.popleft()
        bucket.barrier.wait()
        bucket.message = self._send(bucket.share)

    def _send(self, share: slice) -> Request:
        if share.start == share.stop:
            return Done()
        total = self.total[share]
        for row in self._others:
            np.add(total, row[share], out=total)
        return super().begin(share)

    def _share(self, bucket: slice) -> slice:
        """What of a bucket belongs to this rank's lane: nothing if it has none."""
        lane, size = self._node.rank, bucket.stop - bucket.start
        if lane >= self._num_lanes:
            return slice(bucket.start, bucket.start)
        start, stop = (bucket.start + size * k // self._num_lanes for k in (lane, lane + 1))
        return slice(start, stop)


class Bucket:
    """A request: first the barrier of the host, then the message of this rank's share."""

    def __init__(self, exchange: TwoLevels, share: slice, barrier: Request) -> None:
        self._exchange, self.share, self.barrier = exchange, share, barrier
        self.message: Request | None = None

    def test(self) -> bool:
        self._exchange.send_ready()
        return self.message is not None and self.message.test()

    def wait(self) -> None:
        self._exchange.send_all()
        assert self.message is not None
        self.message.wait()


class Counted:
    """A request that is one collective call of all ranks, see `position`."""

    def __init__(self, request: Request, position: Position) -> None:
        self._request, self._position, self._number = request, position, position.begin()

    def test(self) -> bool:
        return self._request.test()

    def wait(self) -> None:
        with self._position.waiting(self._number):
            self._request.wait()


def bucket_bytes(num_bytes: int, num_lanes: int) -> int:
    """So that the share of a lane is as large as a message should be, and buckets are not many.

    Each costs the ranks of a host a meeting, for which all of them need a core.
    """
    return max(BUCKET_BYTES_BETWEEN_HOSTS * num_lanes, ceil_divide(num_bytes, MOST_BUCKETS))


def two_levels(
    comm: Communicator, format: Format, num_lanes: int | None = None
) -> TwoLevels | None:
    """The exchange of ranks on several hosts; None where each has one, or cannot share memory.

    num_lanes: ranks of a host that send; None for as many as every host has. Where ranks may be
    lost all send messages, as on one host.
    """
    hosts = [process.host for process in comm.processes]
    alone = comm.node.count == 1 or comm.size == comm.node.count
    if alone or comm.survives_losses or format.size == 0:
        return None
    node = comm.split(list(dict.fromkeys(hosts)).index(comm.node.name))
    fewest = min(hosts.count(host) for host in hosts)
    lanes = fewest if num_lanes is None else min(num_lanes, fewest)
    peers = comm.split(min(node.rank, lanes))
    arrays = share_arrays(node, format)
    if not all(comm.allgather(arrays is not None)):
        return None
    assert arrays is not None
    return TwoLevels(comm, node, peers, lanes, format, *arrays)
