"""`distnet doctor`: will training work here, and if not, what helps?

Alone it looks at this machine and lets mpirun start two ranks; under mpirun the ranks look at each
other. Exit codes: 0 training will work, 1 it will not, 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from distnet.base.blas import one_blas_thread
from distnet.base.options import ConfigError, option, parse_options
from distnet.base.output import secure_streams, write_now
from distnet.checkup.finding import Finding, error, lines, merged, ok, will_train
from distnet.checkup.links import links
from distnet.checkup.machine import machine, results
from distnet.checkup.ranks import cores, myself, ranks
from distnet.checkup.starting import starting
from distnet.data import DataError, default_cache_dir, load_dataset
from distnet.models import MODELS
from distnet.parallel import Communicator, SerialCommunicator, connect, run_ranks, together
from distnet.parallel.errors import AgreedError, LaunchError
from distnet.training.fit import fit

STEPS, BATCH, MICRO_BATCH = 3, 100, 25
LIMIT_SECONDS = 120.0  # for one check; none takes a tenth of it
WORKS, WORKS_NOT, BAD_USAGE = 0, 1, 2


@dataclass(frozen=True)
class DoctorOptions:
    """Finds out whether training will work here, alone or on the ranks of mpirun."""

    seconds: float = option(
        2.0,
        "how long sums over the ranks are timed",
        group="checks",
        metavar="SECONDS",
        limits={">": 0, "<=": 600},
    )
    expect_hosts: int = option(
        0,
        "the ranks have to be on so many hosts; 0: as the batch system says, if there is one",
        group="checks",
        metavar="N",
        limits={">=": 0, "<=": 1_000_000},
    )
    json: bool = option(False, "JSON in place of lines", group="output")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    secure_streams()
    try:
        options = parse_options(DoctorOptions, argv, "distnet doctor")
    except ConfigError as wrong:
        print(f"distnet: error: {wrong}", file=sys.stderr)
        return BAD_USAGE
    try:
        comm = connect(os.environ)
    except LaunchError as failure:
        what, _, cure = str(failure).partition("; ")
        if failure.speaks:
            report([error("launcher", what, cure)], options)
        else:
            time.sleep(1)  # launchers end all processes as soon as one has ended with an error
        return WORKS_NOT
    return run_ranks(lambda comm: examine(comm, options), comm)


def examine(comm: Communicator, options: DoctorOptions) -> int:
    """All checks, on every rank; returns the exit code."""
    with limited(comm) as begin:
        begin("looking at this machine")
        found = machines(comm, os.environ)
        found += comm.allgather([results(Path.cwd())] if comm.rank == 0 else [])[0]
        if isinstance(comm, SerialCommunicator):
            if options.expect_hosts > 1:
                found.append(alone(options.expect_hosts))
            found += cores([myself(comm, 0.0)])
            begin("starting two ranks with mpirun")
            found += starting(os.environ)
        else:
            begin("comparing the ranks")
            found += ranks(comm, os.environ, options.expect_hosts)
            begin("timing sums over the ranks")
            found += links(comm, options.seconds)
        begin("training")
        found.append(trains(comm, os.environ))
    if comm.rank == 0:
        report(found, options)
    return WORKS if will_train(found) else WORKS_NOT


def alone(expected: int) -> Finding:
    """Hosts that the ranks are to be on cannot be told of without any."""
    return error(
        "hosts",
        f"one process without a launcher, while --expect-hosts says {expected} hosts",
        "start it as the job will be started: mpirun -n RANKS python -m distnet doctor",
    )


def machines(comm: Communicator, environ: Mapping[str, str]) -> list[Finding]:
    """What one rank of each host finds around itself."""
    is_first = comm.node.rank == 0
    own = list(machine(environ, comm.node.size)) if is_first else None
    everywhere = zip(comm.processes, comm.allgather(own), strict=True)
    return list(merged({process.host: each for process, each in everywhere if each is not None}))


def trains(comm: Communicator, environ: Mapping[str, str]) -> Finding:
    """Trains the default network for a few steps, as `distnet train` does; all ranks call it."""
    try:
        cache = default_cache_dir(environ)
        digits = together(
            comm, lambda: load_dataset("mnist", cache_dir=cache), (DataError, OSError)
        )
        samples = [array[: STEPS * BATCH] for array in digits.train]
        network = MODELS["deep_convnet"](digits.input_shape, digits.num_classes)
        settings = {"steps": STEPS, "batch_size": BATCH, "micro_batch_size": MICRO_BATCH}
        began = time.perf_counter()
        with one_blas_thread():
            history = fit(network, *samples, **settings, optimizer="adam", comm=comm)  # type: ignore[arg-type]
        seconds = time.perf_counter() - began
    except AgreedError as failure:
        return error("training", str(failure), "see above")
    hashes = set(comm.allgather(history.params_sha256))
    if len(hashes) > 1:
        return error(
            "training",
            f"after {STEPS} steps the ranks have {len(hashes)} different networks",
            "memory or a processor of one of them computes wrongly: leave hosts out, one by one",
        )
    rate = STEPS * BATCH / seconds
    return ok(
        "training", f"{STEPS} steps of DeepConvNet, about {rate:.0f} images/s, warm-up included"
    )


def report(found: Sequence[Finding], options: DoctorOptions) -> None:
    """Writes what was found."""
    text = "\n".join(lines(found))
    if options.json:
        findings = [asdict(each) for each in found]
        text = json.dumps({"will_train": will_train(found), "findings": findings}, indent=2)
    write_now(sys.stdout, text + "\n")


@contextmanager
def limited(comm: Communicator) -> Iterator[_Begin]:
    """A check that takes much too long ends the job, with a line that says which one it was."""
    begin = _Begin(comm)
    try:
        yield begin
    finally:
        begin.stop()


class _Begin:
    """Called with the name of the check that begins; each has LIMIT_SECONDS."""

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._timer: threading.Timer | None = None

    def __call__(self, what: str) -> None:
        self.stop()
        if self._comm.size == 1:
            return  # nobody to wait for
        self._timer = threading.Timer(LIMIT_SECONDS, self._end, [what])
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, what: str) -> None:
        host = self._comm.processes[self._comm.rank].host
        write_now(
            sys.stderr,
            f"distnet: error: rank {self._comm.rank} on {host}: {what} has not ended within "
            f"{LIMIT_SECONDS:.0f} s; ranks that cannot reach each other wait for ever: see whether "
            "a firewall is between the hosts, and which interface the launcher takes\n",
        )
        self._comm.abort(WORKS_NOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
