#!/usr/bin/env python3
"""Runs a training job until it is finished: restarts it from its newest checkpoint when it dies.

    python launch/supervise.py --max-restarts 3 -- mpirun -n 4 python -m distnet.train --out DIR ...

For failures that ranks cannot survive by themselves: any with MPICH, a lost host, a cut link. The
job has failed if it ends without a new summary.json in DIR, whatever its exit code, or if nothing
in DIR has changed for --silence seconds. What is left of it is then killed before it is started
again, with --resume if there is a checkpoint. An unfinished run is resumed by the first start too.

With --hosts, `{hosts}` and `{ranks}` in the command become those hosts for which the --probe
command succeeds, and --ranks-per-host times their number.

Exit code: that of the last run; 1 if it was 0 but the run is not finished, 2 for wrong usage.
Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

WRONG_USAGE = 2
PREEMPTED = 75
MARK = "DISTNET_SUPERVISED"  # environment variable by which all processes of a job are found
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 3.0  # between asking a process to end and killing it
MAX_BACKOFF_SECONDS = 300.0
PR_SET_PDEATHSIG = 1


class Supervisor:
    """One run directory and the jobs that are started for it, one after the other."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.job: subprocess.Popen[bytes] | None = None
        self.stop_wanted = False

    def __call__(self) -> int:
        """Returns the exit code of the last job."""
        with lock(self.directory) as held:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, self._pass_on)
            for num_restarts in range(self.options.max_restarts + 1):
                if num_restarts:
                    self._back_off(num_restarts)
                    if self.stop_wanted:
                        break
                code, finished = self._run_job(held)
                if finished or self._is_final(code):
                    return code
                say(f"the job ended with exit code {code} and is not finished")
        return code or 1

    def _is_final(self, code: int) -> bool:
        """Whether another start would be of no use, or is not wanted."""
        preempted = code == PREEMPTED and not self.options.restart_preempted
        return code == WRONG_USAGE or preempted or self.stop_wanted

    def _back_off(self, num_restarts: int) -> None:
        seconds = min(self.options.backoff * 2 ** (num_restarts - 1), MAX_BACKOFF_SECONDS)
        say(f"restart {num_restarts} of {self.options.max_restarts} in {seconds:g} s")
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and not self.stop_wanted:
            time.sleep(POLL_SECONDS)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Asks the job for a checkpoint; SIGUSR1 leaves it the time, under any MPI."""
        self.stop_wanted = True
        if self.job is not None:
            self.job.send_signal(signal.SIGUSR1)

    def _run_job(self, held: IO[str]) -> tuple[int, bool]:
        """Runs a job to its end; its exit code, and whether the run is finished."""
        before = version(self.directory / "summary.json")
        mark = uuid.uuid4().hex
        self.job = start(self._command(), mark, held)
        try:
            self._wait()
        finally:
            end(self.job, mark)
        code = self.job.returncode
        after = version(self.directory / "summary.json")
        # What ended by a signal has a negative code in Python, 128 more than it in shells.
        return (code if code >= 0 else 128 - code), after not in (None, before)

    def _command(self) -> list[str]:
        command = list(self.options.command)
        if self.options.hosts:
            hosts = [host for host in self.options.hosts.split(",") if self._answers(host)]
            say(f"{len(hosts)} hosts answer: {', '.join(hosts)}")
            num_ranks = str(self.options.ranks_per_host * len(hosts))
            command = [
                word.replace("{hosts}", ",".join(hosts)).replace("{ranks}", num_ranks)
                for word in command
            ]
        unfinished = not (self.directory / "summary.json").exists()
        has_checkpoint = any((self.directory / "checkpoints").glob("step-*.safetensors"))
        return command + (["--resume"] if unfinished and has_checkpoint else [])

    def _answers(self, host: str) -> bool:
        probe = [word.replace("{host}", host) for word in shlex.split(self.options.probe)]
        try:
            done = subprocess.run(probe, capture_output=True, timeout=self.options.probe_timeout)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def _wait(self) -> None:
        """Returns when the job has ended, or has been silent for too long."""
        assert self.job is not None
        last, since = self._signs_of_life(), time.monotonic()
        while self.job.poll() is None:
            time.sleep(POLL_SECONDS)
            signs = self._signs_of_life()
            if signs != last:
                last, since = signs, time.monotonic()
            if time.monotonic() - since > self.options.silence:
                say(f"nothing has happened in {self.directory} for {self.options.silence:g} s")
                return

    def _signs_of_life(self) -> tuple[object, ...]:
        """What changes as long as training goes on: lines, and the position in each heartbeat."""
        positions = []
        for path in sorted((self.directory / "heartbeats").glob("rank-*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                positions.append(json.loads(path.read_text())["position"])
        return version(self.directory / "metrics.jsonl"), positions


def start(command: list[str], mark: str, held: IO[str]) -> subprocess.Popen[bytes]:
    """The job in the background; ends the program if there is no such command."""
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            pass_fds=[held.fileno()],  # who holds the lock is the job, if it survives this process
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
    except OSError as error:
        fail(f"{command[0]} cannot be started ({error.strerror})")


@contextlib.contextmanager
def lock(directory: Path):  # type: ignore[no-untyped-def]
    """Holds the directory's lock, or ends the program if another one does.

    The lock is the kernel's (flock): it is gone when the last process that has the file open is, so
    the supervisor's crash frees it as soon as its job has ended.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".supervisor.lock").open("a+")
    except OSError as error:
        fail(f"--out: found {directory}, where nothing can be written ({error.strerror})")
    with file:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    fail(f"{directory} is in use by another supervisor or its job; wait, or end it")
                time.sleep(POLL_SECONDS)
        yield file


def die_with_parent() -> None:
    """In the job, before it starts: killed when the supervisor is. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end(job: subprocess.Popen[bytes], mark: str) -> None:
    """Ends all that is left of a job on this host: the launcher politely, the others by force."""
    if job.poll() is None:
        job.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(PATIENCE_SECONDS)
    if job.poll() is None:
        job.kill()
        job.wait()
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (left := marked(mark)) and time.monotonic() < give_up:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def marked(mark: str) -> list[int]:
    """The processes that have this mark in their environment."""
    wanted, pids = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended, or another user's
            if wanted in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids


def version(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is written or replaced; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def parse(argv: list[str]) -> tuple[argparse.Namespace, Path]:
    """The options and the run directory; ends the program if something is wrong with them."""
    parser = Parser(
        prog="supervise.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--max-restarts", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--silence", type=float, default=600, metavar="SECONDS", help="default 600")
    parser.add_argument(
        "--backoff",
        type=float,
        default=1,
        metavar="SECONDS",
        help="pause before the first restart, twice as long before each other one; default 1",
    )
    parser.add_argument(
        "--restart-preempted",
        action="store_true",
        help=f"restart a job that stopped early after a checkpoint ({PREEMPTED}) as well",
    )
    parser.add_argument("--hosts", default="", metavar="H1,H2,...", help="hosts to use")
    parser.add_argument("--ranks-per-host", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--probe",
        default="ssh -o BatchMode=yes -o ConnectTimeout=5 {host} true",
        metavar="COMMAND",
        help="tells whether {host} can be used; default: %(default)s",
    )
    parser.add_argument("--probe-timeout", type=float, default=10, metavar="SECONDS")
    parser.add_argument("command", nargs="+", help="the job, after --, with --out DIR")
    options = parser.parse_args(argv)
    if options.max_restarts < 0:
        fail(f"--max-restarts: found {options.max_restarts}, expected 0 or more")
    return options, run_directory(options.command)


def run_directory(command: list[str]) -> Path:
    """The value of --out in the command."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == "--out" and following:
            return Path(following)
        if word.startswith("--out="):
            return Path(word.removeprefix("--out="))
    fail("found no --out in the command, expected --out DIR: the run directory to be watched")


def say(line: str) -> None:
    print(f"supervise: {line}", file=sys.stderr, flush=True)


def fail(line: str) -> NoReturn:
    say(f"error: {line}")
    raise SystemExit(WRONG_USAGE)


if __name__ == "__main__":
    sys.exit(Supervisor(*parse(sys.argv[1:]))())
