"""Starts a job again, from its newest checkpoint, until its run is finished."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from distnet.base.output import write_now
from distnet.base.words import counted
from distnet.supervision.hosts import Hosts, Lookout
from distnet.supervision.lock import locked
from distnet.supervision.processes import Launcher, end, start

FAILED, WRONG_USAGE, STOPPED_EARLY = 1, 2, 75  # exit codes of training
# Those of an mpirun whose ranks have died of the wish to stop, as they do while they start.
UNHEARD = (signal.SIGUSR1, 128 + signal.SIGUSR1)
POLL_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 300.0


@dataclass(frozen=True)
class Policy:
    """When a job is started again.

    silence: seconds without a sign of life after which it has failed; backoff: seconds before the
    first restart, twice as long before each other one; requeue: a command that is run when the job
    has stopped early; look_every: seconds between two looks for hosts that the job does not have,
    0 for never.
    """

    max_restarts: int
    silence: float
    backoff: float
    restart_preempted: bool
    requeue: str
    look_every: float = 0.0


class Supervisor:
    """One run directory and the jobs that are started for it, one after the other."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        policy: Policy,
        environ: Mapping[str, str],
        hosts: Hosts | None = None,
    ) -> None:
        self.command, self.directory, self.policy = command, directory, policy
        self.environ, self.hosts = environ, hosts
        self.launcher: Launcher | None = None
        self.stop_wanted = False
        self.grows = False  # whether the job was asked to stop for hosts that have come
        self.fell_silent = False  # whether it was ended for that

    def __call__(self) -> int:
        """Returns the exit code of the last job; raises ConfigError for what cannot be started."""
        with locked(self.directory) as held:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, self._pass_on)
            code = self._run_jobs(held)
        if code == STOPPED_EARLY and self.policy.requeue:
            self._requeue()
        return code

    def _run_jobs(self, held: IO[str]) -> int:
        num_restarts = 0
        while not self.stop_wanted:
            code, finished = self._run_job(held)
            if self.stop_wanted and code in UNHEARD and not finished:
                break
            # One that is ended for its silence may stop as politely.
            stopped_early = code == STOPPED_EARLY and not self.fell_silent
            if self.grows and stopped_early and not self.stop_wanted:
                continue
            if finished or self._is_final(code, stopped_early):
                return code
            say(f"the job ended with exit code {code} and is not finished")
            if num_restarts == self.policy.max_restarts:
                return FAILED if self.fell_silent else code or FAILED
            num_restarts += 1
            self._back_off(num_restarts)
        return STOPPED_EARLY  # asked to stop while no job was under way

    def _is_final(self, code: int, stopped_early: bool) -> bool:
        """Whether another start would be of no use, or is not wanted."""
        preempted = stopped_early and not self.policy.restart_preempted
        return code == WRONG_USAGE or preempted or self.stop_wanted

    def _back_off(self, num_restarts: int) -> None:
        seconds = min(self.policy.backoff * 2 ** (num_restarts - 1), MAX_BACKOFF_SECONDS)
        say(f"restart {num_restarts} of {self.policy.max_restarts} in {seconds:g} s")
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and not self.stop_wanted:
            time.sleep(POLL_SECONDS)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Asks the job for a checkpoint; SIGUSR1 leaves it the time, under any MPI."""
        self.stop_wanted = True
        if self.launcher is not None:
            self.launcher.send_signal(signal.SIGUSR1)

    def _requeue(self) -> None:
        try:
            subprocess.run(shlex.split(self.policy.requeue), check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"warning: --requeue: {error}; run it again by hand")

    def _run_job(self, held: IO[str]) -> tuple[int, bool]:
        """Runs a job to its end; its exit code, and whether the run is finished."""
        self.grows = self.fell_silent = False
        hosts = self._hosts_that_answer()
        if self.hosts and not hosts:
            return FAILED, False
        before = version(self.directory / "summary.json")
        mark = uuid.uuid4().hex
        self.launcher = start(self._next_command(hosts), self.environ, mark, held)
        try:
            if self.stop_wanted:  # since before there was a job to be told
                self.launcher.send_signal(signal.SIGUSR1)
            with self._lookout(hosts) as lookout:
                self._wait(self.launcher, lookout)
        finally:
            end(self.launcher, mark)
        code = self.launcher.returncode
        after = version(self.directory / "summary.json")
        # What ended by a signal has a negative code in Python, 128 more than it in shells.
        return (code if code >= 0 else 128 - code), after not in (None, before)

    def _hosts_that_answer(self) -> list[str]:
        if not self.hosts:
            return []
        named = self.hosts.named()
        found = self.hosts.that_answer(named)
        say(f"{len(found)} of {counted(len(named), 'host')} answer: {', '.join(found)}")
        return found

    @contextlib.contextmanager
    def _lookout(self, in_use: Sequence[str]) -> Iterator[Lookout | None]:
        """What looks for other hosts as long as a job runs."""
        if not self.hosts or not self.policy.look_every:
            yield None
            return
        lookout = Lookout(self.hosts, in_use, self.policy.look_every)
        try:
            yield lookout
        finally:
            lookout.close()

    def _next_command(self, hosts: Sequence[str]) -> list[str]:
        command = list(self.command)
        if self.hosts:
            command = self.hosts.filled_in(command, hosts)
        unfinished = not (self.directory / "summary.json").exists()
        has_checkpoint = any((self.directory / "checkpoints").glob("step-*.safetensors"))
        if not (unfinished and has_checkpoint):
            return command
        if "--overwrite" in command:
            if self.launcher is None:  # what is there is an earlier run's
                return command
            command.remove("--overwrite")
        return [*command, "--resume"]

    def _wait(self, launcher: Launcher, lookout: Lookout | None = None) -> None:
        """Returns when the job has ended, or has been silent for too long.

        Asks it for a checkpoint, to end after a step, when hosts have come that it does not have:
        not before its first sign of life, as the signal would be its death while it starts.
        """
        last, since, hears = self._signs_of_life(), time.monotonic(), False
        while launcher.poll() is None:
            time.sleep(POLL_SECONDS)
            signs = self._signs_of_life()
            if signs != last:
                last, since, hears = signs, time.monotonic(), True
            if hears and lookout and lookout.found and not self.grows:
                self.grows = True
                come = ", ".join(lookout.found)
                say(f"{come} can be used now; the job stops after a step, and goes on with all")
                launcher.send_signal(signal.SIGUSR1)
            if time.monotonic() - since > self.policy.silence:
                say(f"nothing has happened in {self.directory} for {self.policy.silence:g} s")
                self.fell_silent = True
                return

    def _signs_of_life(self) -> tuple[object, ...]:
        """What changes as long as training goes on: lines, and the position in each heartbeat."""
        positions = []
        for path in sorted((self.directory / "heartbeats").glob("rank-*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                positions.append(json.loads(path.read_text())["position"])
        return version(self.directory / "metrics.jsonl"), positions


def version(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is written or replaced; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def say(line: str) -> None:
    """A line on standard error, whose loss costs nothing else."""
    write_now(sys.stderr, f"distnet supervise: {line}\n")
