"""Exercise 4: a rank is killed, and the run goes on. On ranks this file is the run that is killed.

That run stops moving after a certain step and waits for its end, so that no race decides whether it
comes before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import distnet
from distnet.base.blas import one_blas_thread
from distnet.benchmarks.jobs import find_mpirun
from distnet.building.job import job_of
from distnet.exercises.finding import Finding, NotYet, right, until_not_yet, whether
from distnet.exercises.jobs import (
    ALONE,
    LIMIT_SECONDS,
    SMALL,
    Finished,
    end,
    environment,
    last_words,
    start,
    train,
)
from distnet.exercises.students_file import StudentsFile
from distnet.parallel import Communicator, run_command, together
from distnet.training.config import parse
from distnet.training.job import STOPPED_EARLY, Job
from distnet.training.run import Run
from distnet.training.signals import StopSignals

STEPS, EVERY, WAITS_AT, RANKS = 60, 20, 50, 3
KEPT = WAITS_AT - WAITS_AT % EVERY  # the step of the last checkpoint before the end
FLAGS = (*SMALL, "--steps", STEPS, "--checkpoint-every", EVERY)
CASES = [(50, 20), (40, 20), (7, 100), (999, 10)]


def check(file: Path) -> Iterator[Finding]:
    """How much is lost; a run that is killed by the student's function, and goes on."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from until_not_yet(_findings(file, Path(scratch)))


def _findings(file: Path, scratch: Path) -> Iterator[Finding]:
    student = StudentsFile(file)
    lost = student.function("steps_lost")
    for step, every in CASES:
        found, expected = lost(step, every), step % every
        if found != expected:
            raise NotYet(f"steps_lost({step}, {every}) is {found!r:.60}, expected {expected}")
    yield right(f"steps_lost: right in {len(CASES)} cases")
    out = scratch / "killed"
    yield from _kill(student.function("kill"), out)
    yield from _go_on(student.function("go_on"), out)


def _kill(kill: Callable[..., Any], out: Path) -> Iterator[Finding]:
    """The student's function ends a rank of a run, which has to end the job, and nothing else."""
    with waiting_run(out) as (process, ids):
        kill(ids[1])
        try:
            said, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotYet(f"kill({ids[1]}) has left the rank alive: the run still waits") from None
    if process.returncode == STOPPED_EARLY:
        raise NotYet(
            "kill has asked the run to stop: it has saved its state, and ended with exit code 75. "
            "A power failure does not ask; which signal cannot be caught?"
        )
    if process.returncode == 0:
        raise NotYet(f"the run ended well, although a rank was to be killed: {said:.200}")
    yield right(
        f"kill: one of {RANKS} ranks was killed after step {WAITS_AT}; the others did not wait "
        "for it, the whole job ended"
    )


@contextmanager
def waiting_run(out: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run that waits after its step WAITS_AT, and the process ids of its ranks, in order."""
    process = start(RANKS, __name__, *FLAGS, "--out", out, cwd=out.parent)
    try:
        ids = _until_it_waits(process, out)
        yield process, ids
    finally:
        if process.poll() is None:
            end(process)


def _until_it_waits(process: subprocess.Popen[str], out: Path) -> list[int]:
    """When its last checkpoint is on disk."""
    deadline = time.monotonic() + LIMIT_SECONDS
    told = [out / f"rank-{rank}" for rank in range(RANKS)]
    while time.monotonic() < deadline and process.poll() is None:
        checkpoints = (out / "checkpoints").glob(f"*{KEPT}.safetensors")
        if all(path.exists() for path in told) and any(checkpoints):
            return [int(path.read_text()) for path in told]
        time.sleep(0.05)
    raise NotYet(f"the run that is to be killed has not come to step {WAITS_AT}")


def _go_on(go_on: Callable[..., Any], out: Path) -> Iterator[Finding]:
    """The student's command goes on from the checkpoint, to the bits of a run without accidents."""
    command = go_on(str(out))
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise NotYet(
            f"go_on gives {command!r:.80}, expected the words of a command, a list of texts"
        )
    done = _run(command, out.parent)
    if done.returncode or not (out / "summary.json").exists():
        raise NotYet(f"{' '.join(command)} ends with: {last_words(done)}")
    yield whether(
        f"resumed at step {KEPT}" in done.stdout,
        f"go_on: the run went on from step {KEPT}, so {WAITS_AT - KEPT} steps were computed again",
        f"the run did not go on from step {KEPT}, where its last checkpoint is",
    )
    yield whether(
        f"ranks {RANKS} on" not in done.stdout,
        "go_on: on another number of ranks than before",
        f"go_on starts {RANKS} ranks again; with one host broken there are fewer: take 2",
    )
    told = [line for line in (out / "summary.json").read_text().splitlines() if "params_" in line]
    found = told[0].split('"')[3]
    expected = train(ALONE, out.parent / "undisturbed", *FLAGS[len(SMALL) :])["params_sha256"]
    yield whether(
        found == expected,
        f"the network has the bits of a run to which nothing happened: {found[:16]}...",
        f"the network is not that of a run to which nothing happened: {found[:16]}..., expected "
        f"{expected[:16]}...; which options has your command changed?",
    )


def _run(command: list[str], cwd: Path) -> Finished:
    """As in the student's shell, with the programs of this environment first."""
    programs = [Path(sys.executable).parent, Path(find_mpirun()).parent, os.environ["PATH"]]
    path = {"PATH": os.pathsep.join(map(str, programs))}
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment() | path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
    except OSError as error:
        raise NotYet(f"{command} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as late:
        raise NotYet(f"{' '.join(command)} has not ended within {LIMIT_SECONDS:.0f} s") from late


class Waits(distnet.Callback):
    """After a step the run goes no further until it is asked to stop, or killed."""

    def __init__(self, step: int, wants_stop: Callable[[], bool]) -> None:
        self.step, self.wants_stop = step, wants_stop

    def stepped(self, run: Run, result: object) -> None:
        asked = np.zeros(1, np.int64)
        while run.num_done == self.step and not asked[0]:
            time.sleep(0.02)
            asked[0] = self.wants_stop()
            run.comm.allreduce(asked)


def main(argv: Sequence[str]) -> int:
    """On the ranks of mpirun: `distnet train`, which waits, and tells its process ids in files."""
    return run_command(lambda comm: _train(comm, argv), os.environ)


def _train(comm: Communicator, argv: Sequence[str]) -> int:
    with StopSignals() as signals, one_blas_thread():
        config = together(comm, lambda: parse(argv, "distnet train"))
        job: Job = job_of(config, comm, os.environ, lambda: signals.wanted)
        job.run.callbacks = [*job.run.callbacks, Waits(WAITS_AT, lambda: signals.wanted)]
        Path(config.out, f"rank-{comm.rank}").write_text(str(os.getpid()))
        try:
            return job()
        finally:
            job.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
