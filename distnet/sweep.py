"""`distnet sweep SPEC.toml`: trains with many options, and says which were the best.

Trials are dealt out to ranks, or to groups of ranks, as these become free. Each is a run with a
directory of its own, so that a sweep which is started again goes on: finished trials are kept,
others go on from their checkpoints. What comes out does not depend on the number of ranks.

Exit codes: 0 done, even if some trials have failed, which are named; 1 if all have; 2 wrong usage
or input; 75 stopped early, run again to go on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distnet.base.blas import one_blas_thread
from distnet.base.files import write_atomically
from distnet.base.options import argument, option, parse_options
from distnet.base.output import write_now
from distnet.base.tables import aligned
from distnet.base.words import counted
from distnet.building.job import job_of
from distnet.parallel import Communicator, agree, run_command, together
from distnet.parallel.errors import AgreedError
from distnet.sweeping.outcomes import (
    FAILED,
    FINISHED,
    UNFINISHED,
    Outcome,
    check_earlier,
    forget_problem,
    note_problem,
    options_of,
    outcome_of,
    ranked,
    to_go_on,
    write_csv,
)
from distnet.sweeping.page import choice, page, tally
from distnet.sweeping.spec import Trial, text_of, trials_of
from distnet.training.config import identity
from distnet.training.files.earlier_runs import as_bad_input
from distnet.training.job import DONE, NOT_WRITTEN, STOPPED_EARLY
from distnet.training.signals import StopSignals

ALL_FAILED = 1
NUM_SHOWN = 10


@dataclass(frozen=True)
class SweepOptions:
    """Trains with many options, and shows which were the best; started again, it goes on."""

    spec: str = argument("the file that says what is tried", "SPEC.toml", path=True)
    out: str = option(
        "",
        "directory for the trials and their results, which all ranks see (default: sweeps/SPEC)",
        group="files",
        metavar="DIR",
        path=True,
    )
    ranks_per_trial: int = option(
        1,
        "ranks that train one trial together",
        group="ranks",
        metavar="N",
        limits={">=": 1, "<=": 1_000_000},
    )
    retry: bool = option(False, "try those again that have failed", group="ranks")


def sweep(comm: Communicator, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command on one of the ranks of `comm`."""
    options = together(comm, lambda: parse_options(SweepOptions, argv, "distnet sweep"))
    agree(comm, asdict(options))
    spec = Path(options.spec)
    out = Path(options.out or f"sweeps/{spec.stem}")
    trials = together(comm, lambda: trials_of(spec, out))
    agree(comm, {f"trial {each.name}": identity(each.config) for each in trials})
    together(comm, lambda: check_out(out, comm))
    todo = comm.allgather(together(comm, lambda: left_to_do(trials, options.retry)))[0]
    say(comm, f"distnet: {counted(len(trials), 'trial')}, {len(todo)} to be trained, all in {out}")
    with StopSignals() as signals, one_blas_thread():
        group = comm.split(comm.rank // options.ranks_per_trial)
        for turn in turns(comm, group, len(todo)):
            if any(group.allgather(signals.wanted)):
                continue
            trial = trials[todo[turn]]
            train(trial, group, environ, lambda: signals.wanted)
            say(group, f"trial {todo[turn] + 1} of {len(trials)}: {line_of(outcome_of(trial))}")
    comm.barrier()
    return comm.allgather(together(comm, lambda: comm.rank or conclude(spec.stem, out, trials)))[0]


def main(argv: Sequence[str]) -> int:
    """`distnet sweep`; returns the exit code."""
    return run_command(lambda comm: sweep(comm, argv, os.environ), os.environ)


def check_out(out: Path, comm: Communicator) -> None:
    """Rank 0 makes the directory; raises OSError, one line, if nothing can be written there."""
    if comm.rank:
        return
    with as_bad_input(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


def left_to_do(trials: Sequence[Trial], retry: bool) -> list[int]:
    """The numbers of the trials to be trained; raises ConfigError for directories of others."""
    for trial in trials:
        check_earlier(trial)
    done = {FINISHED} if retry else {FINISHED, FAILED}
    return [at for at, trial in enumerate(trials) if outcome_of(trial).state not in done]


def turns(comm: Communicator, group: Communicator, num: int) -> Iterator[int]:
    """0 ... num - 1, each on all ranks of the group whose first rank asks first."""
    leaders = comm.split(min(group.rank, 1))
    if group.rank == 0:
        for number in leaders.turns(num):
            yield group.allgather(number)[0]
        group.allgather(None)
    else:
        while (found := group.allgather(None)[0]) is not None:
            yield found


def train(
    trial: Trial, group: Communicator, environ: Mapping[str, str], wants_stop: Callable[[], bool]
) -> None:
    """Trains a trial to its end, or until it fails, which is noted in its directory."""
    config = group.allgather(None if group.rank else to_go_on(trial))[0]
    if group.rank == 0:
        forget_problem(trial)
    try:
        job = job_of(config, group, environ, wants_stop)
        try:
            code = job()
        finally:
            job.close()
        problem = "not all results could be written" if code == NOT_WRITTEN else ""
    except AgreedError as error:
        problem = str(error)
    except Exception as error:
        if group.size > 1:
            raise  # the others of the group may wait for this rank
        problem = f"{type(error).__name__}: {error}"
    if problem and group.rank == 0:
        try:
            note_problem(trial, problem)
        except OSError as error:  # the trial is not finished then, and tried again the next time
            text = f"{trial.name}: {problem}; it could not be noted ({error.strerror})"
            write_now(sys.stderr, f"distnet: warning: {text}\n")


def conclude(title: str, out: Path, trials: Sequence[Trial]) -> int:
    """Writes the table and the page, says which trials were best and which failed; exit code."""
    outcomes = [outcome_of(trial) for trial in trials]
    best = ranked(outcomes)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "trials.csv", outcomes)
    write_atomically(out / "sweep.html", page(title, best).encode())
    states = [each.state for each in outcomes]
    lines = [tally(outcomes), *table_of(best[: states.count(FINISHED)])]
    lines += [f"failed: {line_of(each)}" for each in best if each.state == FAILED]
    lines += [choice(outcomes), f"all trials are in {out / 'trials.csv'} and {out / 'sweep.html'}"]
    write_now(sys.stdout, "\n".join(lines) + "\n")
    if UNFINISHED in states:
        return STOPPED_EARLY
    return DONE if FINISHED in states else ALL_FAILED


def table_of(finished: Sequence[Outcome]) -> list[str]:
    """The best trials as lines."""
    if not finished:
        return []
    options = options_of(finished)
    rows = [["", *options, "accuracy"]]
    for place, each in enumerate(finished[:NUM_SHOWN], 1):
        chosen = [text_of(each.trial.chosen.get(name, "-")) for name in options]
        rows.append([str(place), *chosen, f"{each.accuracy:.2%}"])
    more = len(finished) - NUM_SHOWN
    return aligned(rows) + ([f"and {more} more"] if more > 0 else [])


def line_of(each: Outcome) -> str:
    """What came of a trial, in a line."""
    if each.state == FINISHED:
        return f"{each.trial.name}: {each.measured_by.replace('_', ' ')} {each.accuracy:.2%}"
    return f"{each.trial.name}: {each.problem or each.state}"


def say(comm: Communicator, line: str) -> None:
    """A line, said by the first rank of `comm`."""
    if comm.rank == 0:
        write_now(sys.stdout, f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
