"""Exercise 5: micro-batches dealt by speed. On ranks this file is the program that tries it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import distnet
from distnet.base.output import write_now
from distnet.exercises.finding import Finding, NotYet, note, right, until_not_yet, whether
from distnet.exercises.jobs import last_words, run
from distnet.exercises.students_file import StudentsFile
from distnet.parallel import Communicator, run_command
from distnet.training.run import Run

# Micro-batches, and how many of them each rank computes in the same time.
CASES: list[tuple[int, list[int]]] = [
    (8, [1, 1]),
    (8, [3, 1]),
    (4, [100, 1]),
    (7, [1, 1, 1]),
    (16, [10, 3, 5]),
    (1, [2, 3]),
    (0, [1, 2]),
    (40, [7, 7, 2, 11]),
]
SPEEDS = [3, 1]  # of the ranks that train
SECONDS = 0.006  # that a micro-batch takes the faster one, at least
MICRO_BATCHES, SIZE, STEPS = 8, 5, 10


def check(file: Path) -> Iterator[Finding]:
    """Shares in all cases, then a training run with them."""
    yield from until_not_yet(_findings(file))


def _findings(file: Path) -> Iterator[Finding]:
    shares = StudentsFile(file).function("shares")
    for num, speeds in CASES:
        _judge(num, speeds, shares(num, list(speeds)))
    yield right(f"shares: in all {len(CASES)} cases the last rank is ready as early as can be")
    done = run(len(SPEEDS), __name__, file.resolve(), cwd=file.resolve().parent)
    if done.returncode:
        raise NotYet(f"the training run with your shares ends with: {last_words(done)}")
    yield from _told(json.loads(done.stdout.splitlines()[-1]))


def _judge(num: int, speeds: Sequence[int], found: Any) -> None:
    """Raises NotYet unless the shares are possible, and none are better."""
    case = f"shares({num}, {list(speeds)})"
    try:
        shares = [int(share) for share in found]
        whole = all(share == given for share, given in zip(shares, found, strict=True))
    except (TypeError, ValueError):
        whole = False
    if not whole or len(shares) != len(speeds) or min(shares) < 0:
        expected = f"{len(speeds)} whole numbers from 0"
        raise NotYet(f"{case} is {found!r:.80}, expected a list of {expected}")
    if sum(shares) != num:
        raise NotYet(f"{case} is {shares}, {sum(shares)} micro-batches in all, expected {num}")
    last, best = _ready(shares, speeds), _earliest(num, speeds)
    if last > best:
        raise NotYet(
            f"{case} is {shares}: the last rank is ready after {float(last):.3g}, and "
            f"{float(best):.3g} is possible"
        )


def _ready(shares: Sequence[int], speeds: Sequence[int]) -> Fraction:
    """When the last rank is."""
    return max(Fraction(share, speed) for share, speed in zip(shares, speeds, strict=True))


def _earliest(num: int, speeds: Sequence[int]) -> Fraction:
    """The first time by which all ranks together can have computed `num`."""
    times = sorted({Fraction(k, speed) for speed in speeds for k in range(num + 1)})
    return next(t for t in times if sum(int(t * speed) for speed in speeds) >= num)


def _told(found: dict[str, Any]) -> Iterator[Finding]:
    yield whether(
        len(set(found["hashes"])) == 1,
        f"dealt out evenly or by you, the network has the same bits: {found['hashes'][0][:16]}...",
        f"the network has other bits with your shares: {found['hashes']}",
    )
    even, own = found["seconds"]
    yield note(
        f"with a rank of a third of the speed a step took {even * 1e3:.0f} ms dealt out evenly, "
        f"{own * 1e3:.0f} ms by your shares {found['shares']}"
    )


def main(argv: Sequence[str]) -> int:
    """On the ranks of mpirun: trains with even shares and with those of the file."""
    shares = StudentsFile(Path(argv[0])).function("shares")
    return run_command(lambda comm: _try(comm, shares), os.environ)


def _try(comm: Communicator, shares: Callable[..., Any]) -> None:
    own = [int(share) for share in shares(MICRO_BATCHES, list(SPEEDS))]
    even = [MICRO_BATCHES // len(SPEEDS)] * len(SPEEDS)
    trained = [_trained(comm, each) for each in (even, own)]
    hashes, seconds = zip(*trained, strict=True)
    if comm.rank == 0:
        told = {"hashes": hashes, "seconds": seconds, "shares": own}
        write_now(sys.stdout, json.dumps(told) + "\n")


def _trained(comm: Communicator, shares: Sequence[int]) -> tuple[str, float]:
    """The hash, and the seconds of a step in the middle."""
    digits = distnet.load_dataset("mnist")
    samples = [array[: MICRO_BATCHES * SIZE * STEPS] for array in digits.train]
    network = distnet.Network([distnet.Linear(10)], input_shape=(1, 28, 28))
    straggler = Straggler(shares)
    history = distnet.fit(
        network,
        *samples,
        steps=STEPS,
        batch_size=MICRO_BATCHES * SIZE,
        micro_batch_size=SIZE,
        callbacks=[straggler],
        comm=comm,
    )
    return history.params_sha256, sorted(straggler.seconds)[STEPS // 2]


class Straggler(distnet.Callback):
    """Ranks of different speeds, made by waiting, and micro-batches dealt out as `shares` say."""

    def __init__(self, shares: Sequence[int]) -> None:
        self.shares = shares
        self.seconds: list[float] = []

    def begin(self, run: Run) -> None:
        me, trainer = run.comm.rank, run.trainer
        self.me = me
        gather = trainer.feed.training
        self._began = time.perf_counter()
        trainer.compute_apart()

        def slowly(*args: Any) -> Any:
            time.sleep(SECONDS * max(SPEEDS) / SPEEDS[me])
            return gather(*args)

        setattr(trainer.feed, "training", slowly)  # noqa: B010  a type checker would object
        setattr(trainer, "deal", self.deal)  # noqa: B010

    def deal(self, num_micro_batches: int, rank: int | None = None) -> range:
        """As `Trainer.deal`: those that a rank computes."""
        rank = self.me if rank is None else rank
        start = sum(self.shares[:rank])
        return range(start, start + self.shares[rank])

    def stepped(self, run: Run, result: object) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        self._began = now


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
