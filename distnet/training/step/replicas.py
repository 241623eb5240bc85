"""Replicas that have come apart are found, named and, where possible, repaired.

All ranks hold the same state. Memory errors, or a bug, can change it on one of them, and from then
on that rank spoils the gradients of all. So they compare a hash of it now and then: SHA-256, as
four int64 words of which every rank must have the maximum and the minimum, in one allreduce.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import AgreedError, name_ranks

Arrays = Mapping[str, Array]
Digests = tuple[tuple[str, bytes], ...]  # of every array, by name


class ReplicasDiffer(AgreedError):  # noqa: N818  the condition is the name
    """The ranks do not have the same state, and there is no majority to take it from."""


def verify(comm: Communicator, arrays: Arrays) -> str:
    """Compares `arrays` (by name, contiguous, the same names in the same order) over all ranks.

    Returns "" if they are equal. Otherwise, if more than half of the ranks agree, the others get
    their arrays, and one line is returned that names what was different where. Without a majority
    ReplicasDiffer is raised. All ranks do the same.
    """
    digests = _digests(arrays)
    if same_everywhere(comm, hashlib.sha256(b"".join(digests.values())).digest()):
        return ""
    everywhere, common, count = _gather(comm, digests)
    found = _differences(everywhere, common)
    root = everywhere.index(common)
    if 2 * count <= comm.size:
        raise ReplicasDiffer(
            f"the state of the ranks differs, compared with rank {root}: {found}; no majority of "
            f"the {comm.size} ranks agrees; go on from the last checkpoint with --resume"
        )
    for array in arrays.values():
        comm.broadcast(array, root)
    return f"the state of a minority of the ranks differed: {found}; taken from rank {root} again"


def what_differs(comm: Communicator, arrays: Arrays) -> str:
    """What of `arrays` is not the same on all ranks, in words, and on which; "" if all is."""
    everywhere, common, _ = _gather(comm, _digests(arrays))
    return _differences(everywhere, common)


def _digests(arrays: Arrays) -> dict[str, bytes]:
    return {name: hashlib.sha256(array.data).digest() for name, array in arrays.items()}


def _gather(comm: Communicator, digests: dict[str, bytes]) -> tuple[list[Digests], Digests, int]:
    """The hashes of all ranks, the ones that most ranks have, and how many have them."""
    everywhere = [tuple(each.items()) for each in comm.allgather(digests)]
    return everywhere, *Counter(everywhere).most_common(1)[0]


def same_everywhere(comm: Communicator, digest: bytes) -> bool:
    """Whether `digest` (a multiple of 8 bytes) is the same on all ranks; one allreduce."""
    words = np.frombuffer(digest, np.int64)
    highest = np.concatenate([words, ~words])  # ~w is -w - 1: its maximum is the minimum of w
    comm.allreduce(highest, "max")
    return np.array_equal(highest, np.concatenate([words, ~words]))


def _differences(everywhere: Sequence[Digests], common: Digests) -> str:
    """Each rank that does not have the `common` digests, with the first array that differs."""
    ranks: dict[str, list[int]] = {}
    for rank, own in enumerate(everywhere):
        names = [
            name for (name, digest), (_, usual) in zip(own, common, strict=True) if digest != usual
        ]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            ranks.setdefault(names[0] + more, []).append(rank)
    return ", ".join(f"{what} on {name_ranks(who)}" for what, who in ranks.items())
