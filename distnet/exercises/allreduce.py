"""Exercise 1: an all-reduce of one's own. On ranks this file is the program that tries it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.output import write_now
from distnet.base.words import counted
from distnet.exercises.finding import Finding, NotYet, note, right, until_not_yet, whether
from distnet.exercises.jobs import ALONE, LIMIT_SECONDS, events, last_words, run, train
from distnet.exercises.students_file import StudentsFile
from distnet.parallel import Communicator, MPICommunicator, OwnAllreduce, run_command
from distnet.parallel.sums.own import what_is_wrong

FUNCTION = "allreduce"
GROUPS = (1, 2, 3, 4)  # ranks
LENGTHS = (0, 1, 2, 5, 1200)  # 0 to 2 are fewer than ranks, 5 is no multiple
RANKS_IN_TRAINING = 3
STEPS = 12
COMBINING = "reduce", "gather", "scatter", "cast", "alltoall", "scan"
SENDING = "send", "isend", "ssend", "issend", "bsend", "rsend", "sendrecv"


def check(file: Path) -> Iterator[Finding]:
    """Sums of every length on 1 to 4 ranks, what was sent for them, and a training run."""
    yield from until_not_yet(_findings(file))


def _findings(file: Path) -> Iterator[Finding]:
    StudentsFile(file).function(FUNCTION)
    name = f"{file.stem}:{FUNCTION}"
    yield from _sums(_tried(file, name))
    with tempfile.TemporaryDirectory() as scratch:
        yield from _training(file, name, Path(scratch))


def _tried(file: Path, name: str) -> list[dict[str, Any]]:
    """What ranks have found, case by case."""
    try:
        here = file.resolve().parent
        done = run(max(GROUPS), __name__, name, cwd=here, limit=LIMIT_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise NotYet(_stuck(str(late.output or "").splitlines())) from late
    if done.returncode:
        raise NotYet(f"{FUNCTION} has failed on a rank: {last_words(done)}")
    cases: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return cases


def _stuck(said: Sequence[str]) -> str:
    where = f"{said[-1]}: " if said else ""
    return (
        f"{where}{FUNCTION} has not returned within {LIMIT_SECONDS:.0f} s. Most often two ranks "
        "wait for each other: both in a Recv, or both in a Send that nobody receives. Sendrecv "
        "does both at once"
    )


def _sums(cases: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Whether they are right, and what was sent for the longest vector."""
    for case in cases:
        if case["wrong"]:
            raise NotYet(f"{_where(case)}: the sums are wrong; {case['wrong']}")
    lengths = ", ".join(map(str, LENGTHS))
    yield right(f"on 1 to {max(GROUPS)} ranks vectors of {lengths} numbers are summed as MPI does")
    case = cases[-1]
    ranks, length = case["ranks"], case["length"]
    least, sent = 2 * (ranks - 1) / ranks, case["bytes"] / (8 * length)
    yield whether(
        sent <= 1.01 * least,
        f"{_where(case)}: no rank sends more than {sent:.2f} numbers for each number of the "
        f"vector, and 2 (p - 1) / p = {least:.2f} is the least there is",
        f"{_where(case)}: a rank sends {sent:.2f} numbers for each number of the vector; cut the "
        f"vector into p pieces, and 2 (p - 1) / p = {least:.2f} is enough",
    )


def _where(case: dict[str, Any]) -> str:
    return _named(case["ranks"], case["length"])


def _named(ranks: int, length: int) -> str:
    return f"{counted(ranks, 'rank')}, {counted(length, 'number')}"


def _training(file: Path, name: str, scratch: Path) -> Iterator[Finding]:
    """The hash of a run with the student's sums beside that of one process."""
    steps = "--steps", STEPS
    alone = train(ALONE, scratch / "alone", *steps)
    run_directory = scratch / "ranks"
    flags = (*steps, "--allreduce", name)
    summary = train(RANKS_IN_TRAINING, run_directory, *flags, cwd=file.resolve().parent)
    yield whether(
        summary["params_sha256"] == alone["params_sha256"],
        f"after {STEPS} steps on {RANKS_IN_TRAINING} ranks the network has the hash that one "
        f"process gives: {alone['params_sha256'][:16]}...",
        f"after {STEPS} steps the hash is not that of one process",
    )
    (figures,) = events(run_directory, "allreduce")
    own, mpi = figures["own_seconds"], figures["mpi_seconds"]
    yield note(
        f"a sum took {own * 1e3:.2f} ms in the middle, MPI's own {mpi * 1e3:.2f} ms: "
        f"{own / mpi:.1f} times as long (on a machine that does other things, look again)"
    )


@dataclass
class Lent:
    """mpi4py's communicator for a student: counts the bytes sent, and combines nothing itself."""

    comm: Any
    num_bytes: int = field(default=0)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.comm, name)
        word = name.lower()
        if any(part in word for part in COMBINING):
            raise AttributeError(f"comm.{name} is what the exercise is to do without")
        if word not in SENDING:
            return attribute

        def counting(message: Any, *args: Any, **kwargs: Any) -> Any:
            self.num_bytes += _bytes_of(message, pickled=name == word)
            return attribute(message, *args, **kwargs)

        return counting


def _bytes_of(message: Any, pickled: bool) -> int:
    if pickled:
        return len(pickle.dumps(message))
    while isinstance(message, list | tuple):  # [array, MPI.INT64_T]
        message = message[0]
    return memoryview(message).nbytes


def main(argv: Sequence[str]) -> int:
    """On the ranks of mpirun: tries the function MODULE:FUNCTION, writes what was found."""
    own = OwnAllreduce.named(argv[0])
    return run_command(lambda comm: _try(comm, own), os.environ)


def _try(comm: Communicator, own: OwnAllreduce) -> None:
    found = [case for ranks in GROUPS for case in _in_group(comm, own, ranks)]
    if comm.rank == 0:
        write_now(sys.stdout, json.dumps(found) + "\n")


def _in_group(comm: Communicator, own: OwnAllreduce, ranks: int) -> Iterator[dict[str, Any]]:
    """The cases of the first `ranks` ranks; the others wait."""
    group = comm.split(int(comm.rank < ranks))
    assert isinstance(group, MPICommunicator)
    for length in LENGTHS if comm.rank < ranks else ():
        if comm.rank == 0:
            write_now(sys.stdout, _named(ranks, length) + "\n")
        lent = Lent(group.duplicate())
        send = _numbers(length, comm.rank)
        receive, expected = np.zeros(length, np.int64), send.copy()
        own.function(send.copy(), receive, lent)
        group.allreduce(expected)
        wrong = group.allgather(what_is_wrong(send, receive, expected))
        told = [f"on rank {rank} {text}" for rank, text in enumerate(wrong) if text]
        most = max(group.allgather(lent.num_bytes))
        yield {"ranks": ranks, "length": length, "wrong": "; ".join(told[:1]), "bytes": most}
    comm.barrier()


def _numbers(length: int, rank: int) -> Array:
    """Large ones, of which no two are alike."""
    return np.random.default_rng(rank).integers(-(2**60), 2**60, length)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
