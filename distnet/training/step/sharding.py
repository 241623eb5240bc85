"""The optimizer's vectors shared out: each rank updates its share and keeps only that (ZeRO-1).

Rajbhandari et al. 2020, "ZeRO: memory optimizations toward training trillion parameter models",
section 5.1, arXiv:1910.02054. After the sum every rank has the whole gradient. Each updates its own
share of the parameters, with the moments of that share alone, and all ranks tell each other what
came out. A rule that works on each element alone gives the same bits wherever its vectors are cut;
of rules with norms of whole arrays (LARS, LAMB) shares are cut between arrays only. The norm of the
whole gradient (`clip_norm`) every rank finds for itself.

So a rank holds 1/N of the moments. What a checkpoint has, or a hash, are whole vectors, as of any
run: they are put together for it on the ranks that need them (`complete`), and given up again.

Where ranks may be lost, each rank also updates and keeps the share of the rank before it: a copy
that no message has to bring up to date. Both arrive at the same parameters, or one of them computes
wrongly: that is looked at in every step, and told when replicas are compared (`compare`). Survivors
all stand after the same update, once those that were behind have caught up with the sum that the
others have. Then every share is told by its owner, or else by the owner of the copy, and shares are
cut anew (`rebuild`). Only if both are lost the state is: SharesLost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distnet.base.arithmetic import Arithmetic, portable
from distnet.base.arrays import Array
from distnet.optim.averaging import NUM_UPDATES
from distnet.optim.optimizers import Optimizer, Segment, Vector
from distnet.parallel.communicator import Communicator, Process
from distnet.parallel.errors import AgreedError, RankLost
from distnet.training.step.replicas import ReplicasDiffer

MakeOptimizer = Callable[[slice], Optimizer]


class SharesLost(AgreedError):  # noqa: N818  the condition is the name
    """A share of the optimizer's vectors and its copy were lost together."""


@dataclass(frozen=True)
class Share:
    """A part of the vectors, and what updates it; number: the rank whose share it is."""

    number: int
    part: slice
    optimizer: Optimizer

    @property
    def vectors(self) -> Mapping[str, Array]:
        """The optimizer's vectors, by name, each as long as the part."""
        state = self.optimizer.state.items()
        return {name: array for name, array in state if name != NUM_UPDATES}


@portable
class Sharded(Optimizer):
    """An optimizer of (size,) of which each rank of `comm` has a share.

    make: the optimizer of a part of the vectors. segments: the places of arrays between which
    shares have to be cut; None: anywhere. clip_norm: that of the whole gradient.
    """

    is_whole = False

    def __init__(
        self,
        comm: Communicator,
        size: int,
        make: MakeOptimizer,
        *,
        segments: Sequence[Segment] | None = None,
        clip_norm: float = 0.0,
        arithmetic: Arithmetic,
    ) -> None:
        self._comm, self._make, self._arrays = comm, make, segments
        self._whole: dict[str, Array] | None = None
        self._apart = ""  # whose parameters were not those of the copy, since the last comparison
        self._processes, self.cuts, self.shares = self._dealt(size)
        dtype = self.shares[0].optimizer.dtype
        super().__init__(size, dtype=dtype, clip_norm=clip_norm, arithmetic=arithmetic)

    def _dealt(self, size: int) -> tuple[list[Process], list[int], list[Share]]:
        """The ranks as they are, the cuts, and new shares of this one: its own, and a copy."""
        comm = self._comm
        cuts = cut(size, comm.size, self._arrays)
        numbers = [comm.rank]
        if comm.survives_losses and comm.size > 1:
            numbers.append((comm.rank - 1) % comm.size)
        parts = [slice(*cuts[number : number + 2]) for number in numbers]
        shares = [Share(n, part, self._make(part)) for n, part in zip(numbers, parts, strict=True)]
        return comm.processes, cuts, shares

    @property
    def state(self) -> dict[str, Array]:
        """Whole vectors, by name: valid after `complete` until the next step.

        Before, they are there for what is to be written into them, see `refresh`. Memory that
        nobody writes to takes none.
        """
        if self._whole is None:
            self._whole = {
                name: array if name == NUM_UPDATES else np.zeros(self.size, array.dtype)
                for name, array in self.shares[0].optimizer.state.items()
            }
        return self._whole

    @state.setter
    def state(self, state: dict[str, Array]) -> None:
        """What `Optimizer` begins with: this one has no vectors of its own."""

    def step(
        self, params: Vector, grads: Vector, lr: float, t: int, factor: float | None = None
    ) -> None:
        self.update_shares(params, grads, lr, t, factor)
        self._tell(params)

    def update_shares(
        self, params: Vector, grads: Vector, lr: float, t: int, factor: float | None = None
    ) -> None:
        """The update of what this rank has; nobody is told of it."""
        self._whole = None
        factor = self._factor(grads) if factor is None else factor
        for share in self.shares:
            part = share.part
            share.optimizer.step(params[part], grads[part], lr, t, factor)

    def exchange(self, params: Vector) -> None:
        for share in self.shares:
            share.optimizer.exchange(params[share.part])
        self._tell(params)

    def _tell(self, params: Vector) -> None:
        """Every rank has all of `params` afterwards.

        If a rank is lost meanwhile the update is made nevertheless: the next call of any kind tells
        of the loss, and `rebuild` of what is missing here.
        """
        copies = [(share, params[share.part].copy()) for share in self.shares[1:]]
        with contextlib.suppress(RankLost):
            self._comm.gather_parts(params, self.cuts)
            for share, mine in copies:
                if not np.array_equal(params[share.part].view(np.uint8), mine.view(np.uint8)):
                    self._apart = f"{self._processes[share.number]} and {self._me}"

    @property
    def _me(self) -> Process:
        return self._comm.processes[self._comm.rank]

    def compare(self) -> None:
        """Raises ReplicasDiffer, on all ranks, if a share and its copy have been updated apart."""
        if len(self.shares) == 1:
            return
        told = list(filter(None, self._comm.allgather(self._apart)))
        self._apart = ""
        if told:
            raise ReplicasDiffer(
                f"updates of the same share of the optimizer differ, on {'; '.join(told)}; go on "
                "from the last checkpoint with --resume"
            )

    def complete(self, root: int | None = None) -> None:
        """Puts the whole vectors together, on every rank or on `root`; all ranks call it."""
        own = self.shares[0]
        for name, array in own.vectors.items():
            whole = self.state[name]
            if root in (None, self._comm.rank):
                whole[own.part] = array
                self._comm.gather_parts(whole, self.cuts, root)
            else:  # its own memory stays untouched
                self._comm.gather_parts(array, self.cuts, root)

    def refresh(self) -> None:
        """After `state` was changed in place: takes its own shares, and gives up the rest."""
        whole, self._whole = self._whole, None
        if whole is None:
            return
        for share in self.shares:
            for name, array in share.optimizer.state.items():
                array[...] = whole[name] if name == NUM_UPDATES else whole[name][share.part]

    def rebuild(self, params: Vector) -> None:
        """After a loss, when all ranks have made the same updates: deals all shares out anew.

        Completes `params` as well. All ranks call it. Interrupted by RankLost, it has changed
        nothing, and can be called again by those that are left. Raises SharesLost on all alike.
        """
        sources = self._sources()
        processes, cuts, shares = self._dealt(self.size)
        new_params = np.empty_like(params)
        held = {share.number: share for share in self.shares}
        counts = np.array(self.shares[0].optimizer.state.get(NUM_UPDATES, np.zeros(1, np.int64)))
        for number, root in enumerate(sources):
            part = slice(*self.cuts[number : number + 2])
            told = {"": params[part], **held[number].vectors} if root == self._comm.rank else {}
            for name in ("", *self.shares[0].vectors):
                piece = np.empty(part.stop - part.start, params.dtype)
                if told:
                    piece[...] = told[name]
                self._comm.broadcast(piece, root)
                if not name:
                    new_params[part] = piece
                for share in shares if name else []:
                    _copy_common(share.vectors[name], share.part, piece, part)
        self._comm.confirm()
        for share in shares:
            if NUM_UPDATES in share.optimizer.state:
                share.optimizer.state[NUM_UPDATES][...] = counts
        params[...] = new_params
        self._processes, self.cuts, self.shares, self._whole = processes, cuts, shares, None

    def _sources(self) -> list[int]:
        """For each share as it was, the rank that tells it: its owner, or that of the copy."""
        ranks = {process: rank for rank, process in enumerate(self._comm.processes)}
        sources, lost = [], []
        for number, owner in enumerate(self._processes):
            neighbour = self._processes[(number + 1) % len(self._processes)]
            rank = ranks.get(owner, ranks.get(neighbour))
            if rank is None:
                lost.append(f"{owner} and {neighbour}")
            else:
                sources.append(rank)
        if lost:
            raise SharesLost(
                f"a share of the optimizer and its copy are lost, with {'; '.join(lost)}; go on "
                "from the last checkpoint with --resume"
            )
        return sources


def cut(size: int, count: int, segments: Sequence[Segment] | None = None) -> list[int]:
    """Where `count` shares of (size,) begin, and where the last one ends; as even as can be.

    segments: arrays that stay whole, of which a share may then have none.
    """
    even = [size * number // count for number in range(count + 1)]
    if segments is None:
        return even
    ends = [0, *(stop for _, stop in segments)]
    return [min(ends, key=lambda end: abs(end - wanted)) for wanted in even]


def _copy_common(target: Array, at: slice, source: Array, of: slice) -> None:
    """What two pieces of one vector, at these places, have in common."""
    start, stop = max(at.start, of.start), min(at.stop, of.stop)
    if start < stop:
        target[start - at.start : stop - at.start] = source[start - of.start : stop - of.start]
