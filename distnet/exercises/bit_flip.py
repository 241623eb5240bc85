"""Exercise 7: a bit of one weight has flipped in one of two runs; which one, and when?

On three ranks this file is a run in which one of them computes wrongly, and an audit says which.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

import distnet
from distnet.base.blas import one_blas_thread
from distnet.building.job import job_of
from distnet.exercises.finding import Finding, NotYet, note, right, until_not_yet, whether
from distnet.exercises.students_file import StudentsFile
from distnet.objectives import Classification
from distnet.parallel import Communicator, SerialCommunicator, run_command, together
from distnet.training.config import TrainConfig, parse
from distnet.training.run import Run

STEPS = 12
NAMES = "healthy", "flipped"
FLAGS = (
    *("--model", "two_layer", "--hidden-size", "10", "--steps", str(STEPS), "--log-every", "0"),
    *("--checkpoint-every", "1", "--keep", "0", "--hash-every", "1", "--quiet"),
)
PURPOSE = 0xB17F11B  # of these random numbers
RANKS, BIT = 3, 15  # of the run that is audited, and of every gradient of one of its ranks
COMMAND = f"mpirun -n {RANKS} python -m distnet.exercises.bit_flip"
AUDITED = (
    *("--model", "two_layer", "--hidden-size", "10", "--steps", "100", "--audit", "2"),
    *("--out", "runs/audited", "--overwrite"),
)


@dataclass(frozen=True)
class Flip:
    """After `step` updates bit `bit` (0 to 31) of `array[index]` is another."""

    step: int
    array: str
    index: tuple[int, ...]
    bit: int

    @classmethod
    def of(cls, number: int, shapes: dict[str, tuple[int, ...]]) -> Flip:
        """One for each number; of a weight's bits one that keeps it finite."""
        rng = np.random.default_rng([PURPOSE, number])
        array = sorted(shapes)[rng.integers(len(shapes))]
        index = tuple(int(rng.integers(length)) for length in shapes[array])
        return cls(int(rng.integers(3, STEPS - 1)), array, index, int(rng.integers(12, 25)))


class Flips(distnet.Callback):
    """Memory that fails."""

    def __init__(self, flip: Flip) -> None:
        self.flip = flip

    def stepped(self, run: Run, result: object) -> None:
        if run.num_done == self.flip.step:
            array = run.trainer.state()[self.flip.array]
            bits = array.view(np.uint32)
            bits[self.flip.index] ^= np.uint32(1 << self.flip.bit)
            run.trainer.parameters.refresh()


def faulty_rank(number: int) -> int:
    """The one that computes wrongly in the audited run of that number."""
    return int(np.random.default_rng([PURPOSE, number, RANKS]).integers(RANKS))


class ComputesWrongly(distnet.Callback):
    """From a step on, a bit of the last gradient of every micro-batch of this rank is wrong."""

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, run: Run) -> None:
        layer = cast(Classification, run.trainer.objective).network.body.layers[-1]
        backward, last = layer.backward, run.trainer.parameters.grads[-1:].view(np.uint32)

        def wrong(*args: Any, **kwargs: Any) -> Any:
            dx = backward(*args, **kwargs)
            if run.num_done >= self.step:
                last[0] ^= np.uint32(1 << BIT)
            return dx

        setattr(layer, "backward", wrong)  # noqa: B010  a type checker would object


def check(file: Path) -> Iterator[Finding]:
    """Makes the two runs of the student's number, if they are not there, and judges the answers."""
    yield from until_not_yet(_findings(file))


def _findings(file: Path) -> Iterator[Finding]:
    student = StudentsFile(file)
    number = student.value("NUMBER", int, "a whole number of your own, such as your birthday")
    if number < 0:
        raise NotYet(f"NUMBER is {number}, but has to be 0 or more")
    runs = [Path(f"runs/flip-{number}") / name for name in NAMES]
    flip = _flip_of(number, runs)
    if flip is None:
        flip = _prepare(number, runs)
        yield note(f"two runs are ready: distnet compare {runs[0]} {runs[1]}")
    yield from _bit(student.function("flipped_bit"))
    yield from _place(student, flip, runs)
    command = f"{COMMAND} {number}"
    rank = student.value("RANK", int, f"the rank that computes wrongly in `{command}`")
    yield whether(
        rank == faulty_rank(number),
        f"RANK: {rank}",
        f"RANK is not {rank}; what does the last line of `{command}` say?",
    )


def _flip_of(number: int, runs: Sequence[Path]) -> Flip | None:
    """What was done to the runs; None if they are not both there."""
    if not all((run / "summary.json").is_file() for run in runs):
        return None
    return Flip.of(number, _shapes(runs[0]))


def _shapes(run: Path) -> dict[str, tuple[int, ...]]:
    parameters = distnet.load(run).parameters.named()
    shapes = {f"params.{name}": array.shape for name, array in parameters.items()}
    return {name: shape for name, shape in shapes.items() if len(shape) > 1}


def _prepare(number: int, runs: Sequence[Path]) -> Flip:
    _train(runs[0], None)
    flip = Flip.of(number, _shapes(runs[0]))
    _train(runs[1], flip)
    return flip


def _train(out: Path, flip: Flip | None) -> None:
    config = parse([*FLAGS, "--out", str(out), "--overwrite"], "distnet classroom check 7")
    with one_blas_thread():
        job = job_of(config, SerialCommunicator(), os.environ, lambda: False)
        if flip is not None:  # before what is told and hashed of the step
            job.run.callbacks = [Flips(flip), *job.run.callbacks]
        job()
        job.close()


def _bit(flipped_bit: Any) -> Iterator[Finding]:
    """Findings about pairs of numbers that differ in one bit."""
    rng = np.random.default_rng(0)
    for bit in (0, 3, 22, 23, 31, *rng.integers(0, 30, 5)):
        one = np.float32(rng.normal())
        other = (one.view(np.uint32) ^ np.uint32(1 << int(bit))).view(np.float32)
        found = flipped_bit(float(one), float(other))
        if found != bit:
            raise NotYet(
                f"flipped_bit({one!r}, {other!r}) is {found!r:.60}, expected {bit}: see both as "
                "float32 as unsigned integers, and compare these bit by bit"
            )
    yield right("flipped_bit: right for numbers of which one bit differs")


def _place(student: StudentsFile, flip: Flip, runs: Sequence[Path]) -> Iterator[Finding]:
    """Each answer beside what was done."""
    told = f"distnet compare {runs[0]} {runs[1]}"
    step = student.value("STEP", int, "the first step after which the two runs differ")
    array = student.value("ARRAY", str, "the name of the array that differs then, params.…")
    index = student.value("INDEX", tuple, "the place of the number in that array, such as (3, 1)")
    bit = student.value("BIT", int, "0 for the last bit of the mantissa, up to 31 for the sign")
    hint = f"look again at what `{told}` says"
    yield whether(step == flip.step, f"STEP: {step}", f"STEP is not {step}; {hint}")
    yield whether(array == flip.array, f"ARRAY: {array}", f"ARRAY is not {array}; {hint}")
    yield whether(index == flip.index, f"INDEX: {index}", f"INDEX is not {index}; {hint}")
    yield whether(
        bit == flip.bit, f"BIT: {bit}", f"BIT is not {bit}; call flipped_bit with both numbers"
    )


def main(argv: Sequence[str]) -> int:
    """On three ranks of mpirun: the audited run of a student's NUMBER."""
    return run_command(lambda comm: _audited(comm, argv), os.environ)


def _audited(comm: Communicator, argv: Sequence[str]) -> int:
    def begin() -> tuple[int, TrainConfig]:
        number = int(argv[0]) if len(argv) == 1 and argv[0].isdecimal() else None
        if number is None or comm.size != RANKS:
            found = f"{comm.size} ranks, {' '.join(argv) or 'nothing'}"
            raise ValueError(f"found {found}, expected {COMMAND} NUMBER")
        return number, parse(AUDITED, "distnet train")

    number, config = together(comm, begin)
    with one_blas_thread():
        job = job_of(config, comm, os.environ, lambda: False)
        if comm.rank == faulty_rank(number):
            job.run.callbacks = [*job.run.callbacks, ComputesWrongly(step=number % 20)]
        try:
            return job()
        finally:
            job.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
