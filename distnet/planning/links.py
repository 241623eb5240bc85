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


@dataclass(frozen=True)
class Link:
    """Between two hosts.

    sizes, seconds: what an exchange of so many bytes takes in all, measured, by increasing size.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, latency_seconds: float, bytes_per_second: float) -> Link:
        """One whose delay is the same for every size."""
        sizes = (0, 1 << 20)
        return cls(sizes, tuple(latency_seconds + size / bytes_per_second for size in sizes))

    @property
    def bytes_per_second(self) -> float:
        """beta: between the two largest sizes, where delays do not matter."""
        taken = self.seconds[-1] - self.seconds[-2]
        return (self.sizes[-1] - self.sizes[-2]) / max(taken, 1e-12)

    def transfer(self, num_bytes: float) -> float:
        """m / beta."""
        return num_bytes / self.bytes_per_second

    def delay(self, num_bytes: float) -> float:
        """alpha(m), between the measured ones; less than 0 where a link lets short bursts pass."""
        delays = [s - self.transfer(m) for m, s in zip(self.sizes, self.seconds, strict=True)]
        at = bisect_left(self.sizes, num_bytes)
        if at == 0 or at == len(self.sizes):
            return delays[min(at, len(delays) - 1)]
        low, high = self.sizes[at - 1], self.sizes[at]
        share = math.log2(max(num_bytes, 1) / max(low, 1)) / math.log2(high / max(low, 1))
        return delays[at - 1] + share * (delays[at] - delays[at - 1])


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


def as_mpich(num_hosts: int, num_bytes: float) -> Rounds:
    """What MPICH takes: of two hosts one exchange, of more by size."""
    short = num_bytes <= SHORT_BYTES or num_hosts == 2
    return (doubling if short else halving)(num_hosts, num_bytes)


ALGORITHMS: dict[str, Callable[[int, float], Rounds]] = {
    "mpich": as_mpich,
    "doubling": doubling,
    "halving": halving,
    "ring": ring,
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
    return algorithm != "ring" and num_hosts & (num_hosts - 1) != 0
