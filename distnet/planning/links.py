"""What it costs hosts to add up numbers: the alpha-beta model, with an alpha for each size.

One exchange of m bytes between two hosts takes alpha(m) + m / beta: a delay and a transfer. alpha
grows with m where MPI asks the receiver before it sends much (*rendezvous*), so it is a table.

An all-reduce of n bytes over p hosts is a sequence of exchanges, by one of the ALGORITHMS. Thakur,
Rabenseifner and Gropp 2005, "Optimization of collective communication operations in MPICH",
section 4.5, has the first two and their costs; Patarasuk and Yuan 2009 the ring.

Buckets that are under way together share the link, so their transfers add up and their delays do
not: many of them take the delays of one and the transfer of all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHORT_BYTES = 2048  # up to here MPICH doubles, and halves and doubles above
LARGE_BYTES = 1 << 18


@dataclass(frozen=True)
class Link:
    """Between two hosts: exchanges, by increasing size, their delays and what all of them share.

    sizes, delays: alpha(m), in seconds. bytes_per_second: beta.
    """

    sizes: tuple[float, ...]
    delays: tuple[float, ...]
    bytes_per_second: float

    @classmethod
    def of(cls, latency_seconds: float, bytes_per_second: float) -> Link:
        """One whose delay is the same for every size."""
        return cls((1,), (latency_seconds,), bytes_per_second)

    @classmethod
    def measured(cls, sizes: Sequence[int], seconds: Sequence[float]) -> Link:
        """From what MPI took to add up arrays of these bytes over two hosts, by increasing size.

        Up to SHORT_BYTES that is one exchange of the array; beyond it is two of its half.
        """
        slope = _slope(sizes, seconds)
        times = list(zip(sizes, seconds, strict=True))
        short = {m: s - m * slope for m, s in times if m <= SHORT_BYTES}
        halves = {m / 2: (s - m * slope) / 2 for m, s in times if m > SHORT_BYTES}
        delays = dict(sorted((halves | short).items()))
        return cls(tuple(delays), tuple(delays.values()), 1 / slope)

    def transfer(self, num_bytes: float) -> float:
        """m / beta."""
        return num_bytes / self.bytes_per_second

    def delay(self, num_bytes: float) -> float:
        """alpha(m), between the measured ones; less than 0 where a link lets short bursts pass."""
        sizes, delays = self.sizes, self.delays
        at = bisect_left(sizes, num_bytes)
        if at == 0 or at == len(sizes):
            return delays[min(at, len(delays) - 1)]
        low, high = sizes[at - 1], sizes[at]
        share = math.log2(num_bytes / low) / math.log2(high / low)
        return delays[at - 1] + share * (delays[at] - delays[at - 1])


def _slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """1 / beta: over sizes that are so large that delays do not matter."""
    first = max(0, min(bisect_left(sizes, LARGE_BYTES), len(sizes) - 2))
    return max((seconds[-1] - seconds[first]) / (sizes[-1] - sizes[first]), 1e-15)


Rounds = Sequence[float]  # of an all-reduce one after another, the bytes that a host sends


def doubling(num_hosts: int, num_bytes: float) -> Rounds:
    """Every host exchanges all with one after another, at distance 1, 2, 4, ..."""
    return _folded(num_hosts, num_bytes, lambda q: [num_bytes] * int(math.log2(q)))


def halving(num_hosts: int, num_bytes: float) -> Rounds:
    """Halves, quarters, ... are exchanged and added, and gathered on the way back."""

    def rounds(q: int) -> list[float]:
        parts = [num_bytes / 2**k for k in range(1, int(math.log2(q)) + 1)]
        return parts + parts[::-1]

    return _folded(num_hosts, num_bytes, rounds)


def ring(num_hosts: int, num_bytes: float) -> Rounds:
    """Each host passes a p-th part on to the next, 2 (p - 1) times."""
    return [num_bytes / num_hosts] * (2 * (num_hosts - 1))


def direct(num_hosts: int, num_bytes: float) -> Rounds:
    """Two hosts swap all at once; of more each is sent one piece by all, and sends its sum to all.

    So `parallel.sums.narrow` does it, whatever MPI's algorithm is.
    """
    if num_hosts == 2:
        return [num_bytes]
    return [num_bytes * (num_hosts - 1) / num_hosts] * 2


def as_mpich(num_hosts: int, num_bytes: float) -> Rounds:
    """What MPICH takes, by size."""
    return (doubling if num_bytes <= SHORT_BYTES else halving)(num_hosts, num_bytes)


ALGORITHMS: dict[str, Callable[[int, float], Rounds]] = {
    "mpich": as_mpich,
    "doubling": doubling,
    "halving": halving,
    "ring": ring,
    "direct": direct,
}


def _folded(num_hosts: int, num_bytes: float, rounds: Callable[[int], list[float]]) -> Rounds:
    """Beyond a power of two, q, hosts hand their numbers to another before, and get all after."""
    if num_hosts == 1:
        return []
    q = 1 << (num_hosts.bit_length() - 1)
    extra = [num_bytes] if q < num_hosts else []
    return [*extra, *rounds(q), *extra]


@dataclass(frozen=True)
class Sum:
    """An all-reduce: its delays, its transfer, and what the busiest host sends."""

    delay_seconds: float
    transfer_seconds: float
    sent_bytes: float

    @property
    def seconds(self) -> float:
        return max(self.delay_seconds + self.transfer_seconds, 0.0)


def reduction(
    link: Link, algorithm: str, num_hosts: int, num_bytes: float, bucket_bytes: float
) -> Sum:
    """A sum of `num_bytes` over hosts, in buckets that are under way together."""
    if num_hosts == 1 or num_bytes == 0:
        return Sum(0.0, 0.0, 0.0)
    rounds_of = ALGORITHMS[algorithm]
    delay = sum(link.delay(m) for m in rounds_of(num_hosts, min(bucket_bytes, num_bytes)))
    rounds = rounds_of(num_hosts, num_bytes)
    if num_bytes > bucket_bytes:  # by the algorithm of a bucket
        rounds = [m * num_bytes / bucket_bytes for m in rounds_of(num_hosts, bucket_bytes)]
    # The first and last exchange with a host beyond the power of two go one way only: the host
    # that takes in sends in the last alone, but receives meanwhile, and others wait for it.
    sent = sum(rounds) - (num_bytes if _is_folded(algorithm, num_hosts) else 0)
    return Sum(delay, link.transfer(sent), sent)


def _is_folded(algorithm: str, num_hosts: int) -> bool:
    return algorithm not in ("ring", "direct") and num_hosts & (num_hosts - 1) != 0
