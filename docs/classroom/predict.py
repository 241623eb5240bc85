"""Exercise 6: the time of a step, before it is measured. The page is 6-predict.md."""

# A message of n bytes takes latency + n / rate seconds.
# ranks: p; num_bytes: of the whole vector; latency: in seconds; rate: in bytes per second.


def star_seconds(ranks, num_bytes, latency, rate):
    """Each rank sends its vector to rank 0, one after another, and gets the sum back alike."""
    raise NotImplementedError


def ring_seconds(ranks, num_bytes, latency, rate):
    """2 (p - 1) rounds, in each of which every rank sends and receives a piece at once."""
    raise NotImplementedError


def break_even(compute_seconds, ranks, num_bytes, latency):
    """The rate at which the ring takes as long as a step computes."""
    raise NotImplementedError
