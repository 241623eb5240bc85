"""Where the ranks of a run are, what they compute on, and whether each of them has work."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from distnet.base.words import counted
from distnet.data.sampler import Sampler
from distnet.device import Device
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.errors import name_ranks


def placement(comm: Communicator, shown: int = 4) -> str:
    """How many hosts, and, of several, how many ranks on each of the first few."""
    hosts = Counter(process.host for process in comm.processes)
    if len(hosts) == 1:
        return "1 host"
    each = ", ".join(f"{name} x {number}" for name, number in islice(hosts.items(), shown))
    return f"{len(hosts)} hosts: {each}{', ...' if len(hosts) > shown else ''}"


def devices(comm: Communicator, own: Device | None) -> str:
    """What the layers of all ranks compute on, such as `NVIDIA H100 x 1, cpu (...) x 2`.

    own: the device of this rank. All ranks call it.
    """
    name = None if own is None else own.describe()["device"]
    names = Counter(comm.allgather(name or "cpu (found no GPU; --device cuda says why)"))
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{name} x {number}" for name, number in names.items())


def idle_ranks(num_ranks: int, sampler: Sampler) -> list[str]:
    """A line if there are more ranks than micro-batches in a step."""
    num_micro_batches = sampler.num_parts * sampler.max_micro_batches
    if num_ranks <= num_micro_batches:
        return []
    idle = [rank for rank in range(num_ranks) if not deal(num_micro_batches, rank, num_ranks)]
    size = min(sampler.batch_size, sampler.num_samples) // num_ranks
    pieces = counted(num_micro_batches, "micro-batch", "micro-batches")
    verb = "leaves" if num_micro_batches == 1 else "leave"
    remedy = f"--micro-batch-size {size} has work for all" if size else "raise --batch-size"
    return [
        f"distnet: {pieces} a step {verb} {name_ranks(idle)} of "
        f"{num_ranks} without work; {remedy} (another run), or start "
        f"{counted(num_micro_batches, 'rank')}"
    ]
