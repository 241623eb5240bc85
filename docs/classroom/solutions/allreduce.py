"""Exercise 1, solved: a ring."""

from itertools import pairwise

import numpy as np


def allreduce(send, receive, comm):
    """Every rank passes pieces to its right neighbour: p - 1 times to add, p - 1 times to copy."""
    p, rank = comm.size, comm.rank
    right, left = (rank + 1) % p, (rank - 1) % p
    receive[:] = send
    cuts = [len(send) * k // p for k in range(p + 1)]
    pieces = [receive[start:stop] for start, stop in pairwise(cuts)]  # views

    # Reduce-scatter: what arrives is a sum over one more rank each time. In the end this rank has
    # the whole sum of piece rank + 1.
    for step in range(p - 1):
        leaving, coming = pieces[(rank - step) % p], pieces[(rank - step - 1) % p]
        arrived = np.empty_like(coming)
        comm.Sendrecv(leaving, right, recvbuf=arrived, source=left)
        coming += arrived

    # Allgather: whole sums go round.
    for step in range(p - 1):
        leaving, coming = pieces[(rank - step + 1) % p], pieces[(rank - step) % p]
        comm.Sendrecv(leaving, right, recvbuf=coming, source=left)
