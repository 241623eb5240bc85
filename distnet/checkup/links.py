"""How fast the ranks add up, all together and in pairs: a slow link is found and named."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from distnet.checkup.finding import Finding, ok, warning
from distnet.parallel import Communicator

SIZES = {"8 bytes": 8, "1 MB": 1_000_000}
PAIR_BYTES = 1_000_000
MAX_ALL_PAIRS = 8  # ranks; of more, only neighbours are paired
MIN_ROUNDS, MAX_ROUNDS = 3, 2000
TIMES_SLOWER = 4.0  # than the median link of its kind
# Within a host the ranks that share a core wait for each other: no link is called slow for less.
LEAST_SECONDS = 0.02
SLOW_NETWORK = 15e6  # bytes a second between hosts: 100 Mbit/s, and some


@dataclass(frozen=True)
class Link:
    """Two ranks, whether they are on one host, and the seconds in which they add up 1 MB."""

    one: int
    other: int
    within_host: bool
    seconds: float


def links(comm: Communicator, seconds: float) -> list[Finding]:
    """Times sums for about so many seconds, half of it all together; the same on all ranks."""
    if comm.size == 1:
        return []
    share = seconds / 2 / len(SIZES)
    times = {name: time_of_sum(comm, size, share) for name, size in SIZES.items()}
    told = ", ".join(f"{name} in {_shown(taken)}" for name, taken in times.items())
    found = [ok("all-reduce", f"of {comm.size} ranks: {told}")]
    return found + list(judged(pairs(comm, seconds / 2), [p.host for p in comm.processes]))


def time_of_sum(comm: Communicator, num_bytes: int, seconds: float) -> float:
    """The median time of an all-reduce, on the rank where it is longest."""
    array = np.zeros(num_bytes // 8, np.int64)
    taken = [_timed(comm, array) for _ in range(MIN_ROUNDS)]
    for _ in range(num_rounds(comm, min(taken[1:]), seconds)):
        taken.append(_timed(comm, array))
    return _largest(comm, median(taken[1:]))


def num_rounds(comm: Communicator, taken: float, seconds: float) -> int:
    """How often something that takes so long fits into `seconds`; the same on all ranks."""
    slowest = _largest(comm, taken)
    return min(max(int(seconds / max(slowest, 1e-7)) - MIN_ROUNDS, 0), MAX_ROUNDS)


def pairs(comm: Communicator, seconds: float) -> list[Link]:
    """Every two ranks add up by themselves, several pairs at a time; of many ranks, neighbours."""
    rounds = list(pairings(comm.size))
    found: list[Link] = []
    for pairing in rounds:
        partner = pairing.get(comm.rank, comm.rank)
        group = comm.split(min(comm.rank, partner))
        array = np.zeros(PAIR_BYTES // 8, np.int64)
        taken = [_timed(group, array) for _ in range(MIN_ROUNDS)]
        for _ in range(num_rounds(comm, min(taken), seconds / len(rounds))):
            taken.append(_timed(group, array))
        everywhere = comm.allgather(min(taken))
        hosts = [process.host for process in comm.processes]
        found += [
            Link(one, other, hosts[one] == hosts[other], everywhere[one])
            for one, other in sorted(pairing.items())
            if one < other
        ]
    return found


def pairings(size: int) -> Iterator[Mapping[int, int]]:
    """Rounds in which each rank has one partner at most: all pairs, or of many ranks neighbours.

    By the circle method of tournaments: rank 0 stays, the others move on by one place.
    """
    if size > MAX_ALL_PAIRS:
        for first in (0, 1):
            yield _both_ways((rank, rank + 1) for rank in range(first, size - 1, 2))
        return
    places = [*range(size), *([None] if size % 2 else [])]
    for _ in range(len(places) - 1):
        half = len(places) // 2
        facing = zip(places[:half], reversed(places[half:]), strict=True)
        yield _both_ways((a, b) for a, b in facing if a is not None and b is not None)
        places = [places[0], places[-1], *places[1:-1]]


def judged(found: Sequence[Link], hosts: Sequence[str]) -> Iterator[Finding]:
    """What there is to say of the links, by kind: within hosts and between them."""
    for within, name in ((True, "within a host"), (False, "between hosts")):
        kind = [link for link in found if link.within_host == within]
        if not kind:
            continue
        usual = median(link.seconds for link in kind)
        slow = [
            link
            for link in kind
            if link.seconds > max(TIMES_SLOWER * usual, LEAST_SECONDS * within)
            or (not within and PAIR_BYTES / link.seconds < SLOW_NETWORK)
        ]
        text = f"{len(kind)} {name}, 1 MB in {_shown(usual)} (median)"
        yield ok("links", text)
        for link in sorted(slow, key=lambda link: -link.seconds)[:4]:
            yield warning(
                "links",
                f"rank {link.one} ({hosts[link.one]}) and rank {link.other} ({hosts[link.other]}): "
                f"1 MB in {_shown(link.seconds)}, {PAIR_BYTES / link.seconds / 1e6:.3g} MB/s",
                "see which interface the launcher takes: mpirun -iface NAME (MPICH), "
                "OMPI_MCA_btl_tcp_if_include=NAME (Open MPI); see the cable and the switch"
                if not within
                else "see what else runs on that host",
            )


def _timed(comm: Communicator, array: np.ndarray) -> float:
    comm.barrier()
    began = time.perf_counter()
    comm.allreduce(array)
    return time.perf_counter() - began


def _largest(comm: Communicator, value: float) -> float:
    array = np.array([value])
    comm.allreduce(array, "max")
    return float(array[0])


def _both_ways(couples: Iterator[tuple[int, int]]) -> dict[int, int]:
    return {a: b for one, other in couples for a, b in ((one, other), (other, one))}


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
