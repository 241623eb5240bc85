from __future__ import annotations

import numpy as np
import pytest

from distnet.parallel.communicator import Node
from distnet.parallel.mpi_communicator import MPICommunicator

DTYPES = [np.int64, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_allreduce_combines_in_place(any_comm, dtype):
    rank, size = any_comm.rank, any_comm.size
    for op, expected in [("sum", size * (size + 1) // 2), ("min", 1), ("max", size)]:
        array = (rank + 1) * np.arange(1, 6, dtype=dtype)
        any_comm.allreduce(array, op)
        np.testing.assert_array_equal(array, expected * np.arange(1, 6, dtype=dtype))


def test_requests_in_flight_finish_in_any_order(any_comm):
    rank, size = any_comm.rank, any_comm.size
    arrays = [np.full(3000, rank + k, np.int64) for k in range(5)]
    requests = [any_comm.iallreduce(array) for array in arrays]
    while not requests[2].test():
        pass
    for request in reversed(requests):
        request.wait()
        assert request.test()
    for k, array in enumerate(arrays):
        np.testing.assert_array_equal(array, size * (size - 1) // 2 + k * size)


def test_broadcast_from_every_root(any_comm):
    for root in range(any_comm.size):
        array = np.full(7, any_comm.rank, np.float32)
        any_comm.broadcast(array, root)
        np.testing.assert_array_equal(array, root)


def test_allgather_in_order_of_ranks(any_comm):
    values = any_comm.allgather({"rank": any_comm.rank})
    assert values == [{"rank": r} for r in range(any_comm.size)]


def test_barrier_returns(any_comm):
    any_comm.barrier()


def test_all_ranks_of_a_test_share_this_host(any_comm):
    node = any_comm.node
    assert (node.rank, node.size, node.count) == (any_comm.rank, any_comm.size, 1)


def test_node_counts_ranks_per_host():
    hosts = ["a", "b", "a", "b", "b"]
    nodes = [Node.of(rank, hosts) for rank in range(5)]
    assert [n.name for n in nodes] == hosts
    assert [n.rank for n in nodes] == [0, 0, 1, 1, 2]
    assert [n.size for n in nodes] == [2, 3, 2, 3, 3]
    assert {n.count for n in nodes} == {2}


def test_serial_abort_ends_the_process(comm):
    with pytest.raises(SystemExit) as exit_info:
        comm.abort(7)
    assert exit_info.value.code == 7


@pytest.mark.mpi(min_size=2)
def test_communicators_do_not_hear_each_other(comm):
    other = MPICommunicator()
    ours, theirs = np.ones(1, np.int64), np.full(1, 10, np.int64)
    # In opposite orders on even and odd ranks: on one communicator these would be mixed up.
    calls = [lambda: comm.iallreduce(ours), lambda: other.iallreduce(theirs)]
    requests = [call() for call in (calls if comm.rank % 2 else calls[::-1])]
    for request in requests:
        request.wait()
    other.close()
    assert (ours[0], theirs[0]) == (comm.size, 10 * comm.size)
