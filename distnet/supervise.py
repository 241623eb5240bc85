"""`distnet supervise -- COMMAND`: runs a training job until it is finished.

    distnet supervise --max-restarts 3 -- mpirun -n 4 python -m distnet.train --out DIR ...

For failures that ranks cannot survive by themselves: any with MPICH, a lost host, a cut link. The
job has failed if it ends without a new summary.json in DIR, whatever its exit code, or if nothing
in DIR has changed for --silence seconds. What is left of it is then killed before it is started
again, with --resume if there is a checkpoint. An unfinished run is resumed by the first start too.
When hosts come, or come back, the job is asked for a checkpoint and goes on with all of them.

Exit code: that of the last job; 1 if it was 0 but the run is not finished, 2 for wrong usage, 75 if
it was asked to stop between two jobs, or while one was starting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distnet.base.command import one_line
from distnet.base.options import ConfigError, argument, option, parse_options
from distnet.supervision.hosts import Hosts
from distnet.supervision.supervisor import Policy, Supervisor

RESTARTS = "when the job is started again"
HOSTS = "hosts"
SECONDS = {">=": 0, "<=": 1e9}


@dataclass(frozen=True)
class SuperviseOptions:
    """Runs a training job until it is finished: starts it again, with --resume, when it has died or
    fallen silent. In the command, {hosts}, {num_hosts}, {ranks} and {ranks_per_host} stand for the
    hosts that answer, with commas between them, how many there are, and numbers of ranks.
    """

    command: tuple[str, ...] = argument(
        "the job, which has --out DIR in it", "COMMAND", several=True, verbatim=True
    )
    max_restarts: int = option(
        3, "restarts, after which it is given up", group=RESTARTS, metavar="N", limits={">=": 0}
    )
    silence: float = option(
        600.0,
        "a job that has written nothing to DIR for so long has failed",
        group=RESTARTS,
        metavar="SECONDS",
        limits=SECONDS,
    )
    backoff: float = option(
        1.0,
        "pause before the first restart, twice as long before each other one",
        group=RESTARTS,
        metavar="SECONDS",
        limits=SECONDS,
    )
    restart_preempted: bool = option(
        False, "restart a job that has stopped early after a checkpoint (75) too", group=RESTARTS
    )
    requeue: str = option(
        "",
        "run this when the job has stopped early (75), such as 'scontrol requeue 42' (default: "
        "nothing)",
        group=RESTARTS,
        metavar="COMMAND",
    )
    hosts: str = option(
        "", "hosts to use, with commas between them", group=HOSTS, metavar="HOST,..."
    )
    hosts_from: str = option(
        "",
        "a command that prints the hosts to use, one a line as in a hostfile, in place of --hosts",
        group=HOSTS,
        metavar="COMMAND",
    )
    look_every: float = option(
        60.0,
        "look for hosts that have come, or come back; the job stops after a step, and goes on with "
        "all; 0: never",
        group=HOSTS,
        metavar="SECONDS",
        limits=SECONDS,
    )
    ranks_per_host: int = option(
        1, "ranks on each", group=HOSTS, metavar="N", limits={">=": 1, "<=": 1_000_000}
    )
    probe: str = option(
        "ssh -o BatchMode=yes -o ConnectTimeout=5 {host} true",
        "succeeds if {host} can be used",
        group=HOSTS,
        metavar="COMMAND",
    )
    probe_timeout: float = option(
        10.0, "a probe that takes longer has failed", group=HOSTS, metavar="SECONDS", limits=SECONDS
    )


@one_line(ConfigError)
def main(argv: Sequence[str]) -> int:
    """`distnet supervise`; returns the exit code."""
    options = parse_options(SuperviseOptions, argv, "distnet supervise")
    supervisor = Supervisor(
        options.command,
        run_directory(options.command),
        Policy(
            options.max_restarts,
            options.silence,
            options.backoff,
            options.restart_preempted,
            options.requeue,
            options.look_every,
        ),
        os.environ,
        hosts_of(options),
    )
    return supervisor()


def hosts_of(options: SuperviseOptions) -> Hosts | None:
    """The hosts that are named, or are to be asked for, if any; raises ConfigError for both."""
    names = [name.strip() for name in options.hosts.split(",") if name.strip()]
    if names and options.hosts_from:
        raise ConfigError("--hosts-from: found --hosts beside it, expected one of them")
    if not names and not options.hosts_from:
        return None
    return Hosts(
        names, options.hosts_from, options.ranks_per_host, options.probe, options.probe_timeout
    )


def run_directory(command: Sequence[str]) -> Path:
    """The value of the last --out in the command; raises ConfigError if there is none."""
    found = ""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == "--out" and following:
            found = following
        if word.startswith("--out="):
            found = word.removeprefix("--out=")
    if found:
        return Path(found)
    raise ConfigError(
        "found no --out in the command, expected --out DIR: the run directory to be watched"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
