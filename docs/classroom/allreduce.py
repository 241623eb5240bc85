"""Exercise 1: an all-reduce of your own. The page is 1-allreduce.md."""


def allreduce(send, receive, comm):
    """Writes the sum of `send` over all ranks to `receive`, on every rank.

    send, receive: arrays of whole numbers, (n,), int64; receive starts as zeros.
    comm: a communicator of mpi4py. Use Send, Recv, Isend, Irecv, Sendrecv; no Allreduce.
    """
    receive[:] = send  # right for one rank
