"""Exercise 6, solved."""


def star_seconds(ranks, num_bytes, latency, rate):
    """2 (p - 1) messages, each of the whole vector, all through rank 0."""
    return 2 * (ranks - 1) * (latency + num_bytes / rate)


def ring_seconds(ranks, num_bytes, latency, rate):
    """As many rounds, each of a p-th of the vector."""
    return 2 * (ranks - 1) * (latency + num_bytes / ranks / rate)


def break_even(compute_seconds, ranks, num_bytes, latency):
    """ring_seconds solved for the rate."""
    rounds = 2 * (ranks - 1)
    return rounds * num_bytes / ranks / (compute_seconds - rounds * latency)
