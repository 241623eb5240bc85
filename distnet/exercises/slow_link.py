"""All-reduces over a link that is made slow, without root: each message waits before it is sent.

For `--allreduce distnet.exercises.slow_link:ring`, and `:star`. Sleeping takes no processor, so two
ranks on one laptop wait as two hosts with such a link between them would.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from distnet.base.arrays import Array

LATENCY_SECONDS = 0.004
BYTES_PER_SECOND = 10_000_000  # 80 Mbit/s


def seconds_of(num_bytes: int) -> float:
    """What one message takes."""
    return LATENCY_SECONDS + num_bytes / BYTES_PER_SECOND


def ring(send: Array, receive: Array, comm: Any) -> None:
    """2 (p - 1) rounds, in each of which every rank sends a piece to its right neighbour."""
    p, rank = comm.size, comm.rank
    receive[:] = send
    pieces = np.array_split(receive, p)
    for number in range(2 * (p - 1)):
        adds = number < p - 1
        first = rank if adds else rank + 1
        leaving = pieces[(first - number % (p - 1)) % p]
        coming = pieces[(first - number % (p - 1) - 1) % p]
        arrived = np.empty_like(coming)
        time.sleep(seconds_of(leaving.nbytes))
        comm.Sendrecv(leaving, (rank + 1) % p, recvbuf=arrived, source=(rank - 1) % p)
        coming[...] = coming + arrived if adds else arrived


def star(send: Array, receive: Array, comm: Any) -> None:
    """Every rank sends all to rank 0, one after another, which adds, and sends the sum back."""
    receive[:] = send
    if comm.rank:
        comm.Send(send, 0)
        comm.Recv(receive, 0)
        return
    arrived = np.empty_like(send)
    for other in range(1, comm.size):
        time.sleep(seconds_of(send.nbytes))
        comm.Recv(arrived, other)
        receive += arrived
    for other in range(1, comm.size):
        time.sleep(seconds_of(send.nbytes))
        comm.Send(receive, other)
