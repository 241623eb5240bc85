"""The hosts that a job may use: which there are, which answer, which have come since it began."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass

MAX_PROBES = 32  # at a time


@dataclass(frozen=True)
class Hosts:
    """Hosts by name, of which a job gets those that answer.

    names: theirs; discovery: in their place a command that prints them, one a line, each time that
    it is asked. probe: the command that succeeds within `patience` seconds if `{host}` can be used.
    """

    names: Sequence[str]
    discovery: str
    ranks_per_host: int
    probe: str
    patience: float

    def named(self) -> list[str]:
        """All that there are; none if the command fails, or takes longer than its patience.

        What follows a name on its line is left out, as in hostfiles: slots, comments.
        """
        if not self.discovery:
            return list(self.names)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            printed = subprocess.check_output(
                shlex.split(self.discovery),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self.patience,
                text=True,
            )
            return names_in(printed)
        return []

    def that_answer(self, names: Sequence[str]) -> list[str]:
        """The hosts for which the probe succeeds, in their order."""
        batches = (names[at : at + MAX_PROBES] for at in range(0, len(names), MAX_PROBES))
        return [name for batch in batches for name in self._answering(batch)]

    def _answering(self, names: Sequence[str]) -> list[str]:
        give_up = time.monotonic() + self.patience
        probes = [self._ask(name) for name in names]
        return [
            name
            for name, probe in zip(names, probes, strict=True)
            if probe is not None and _succeeds(probe, give_up - time.monotonic())
        ]

    def _ask(self, name: str) -> subprocess.Popen[bytes] | None:
        """The probe of a host, begun; None if there is no such command."""
        command = [word.replace("{host}", name) for word in shlex.split(self.probe)]
        nowhere = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        return None

    def filled_in(self, command: Sequence[str], hosts: Sequence[str]) -> list[str]:
        """The command with `{hosts}`, `{num_hosts}`, `{ranks}`, `{ranks_per_host}` replaced."""
        values = {
            "{hosts}": ",".join(hosts),
            "{num_hosts}": str(len(hosts)),
            "{ranks}": str(self.ranks_per_host * len(hosts)),
            "{ranks_per_host}": str(self.ranks_per_host),
        }
        words = list(command)
        for name, value in values.items():
            words = [word.replace(name, value) for word in words]
        return words


class Lookout:
    """Looks every so many seconds, in the background, for hosts that a job does not have.

    found: those that answer, when some have come; then it looks no more.
    """

    def __init__(self, hosts: Hosts, in_use: Container[str], every: float) -> None:
        self.found: list[str] = []
        self._hosts, self._in_use, self._every = hosts, in_use, every
        self._over = threading.Event()
        threading.Thread(target=self._look, name="lookout", daemon=True).start()

    def close(self) -> None:
        """Ends it; a look that has begun goes on to its end."""
        self._over.set()

    def _look(self) -> None:
        while not self.found and not self._over.wait(self._every):
            new = [name for name in self._hosts.named() if name not in self._in_use]
            self.found = self._hosts.that_answer(new)


def names_in(text: str) -> list[str]:
    """The hosts in the lines of a hostfile, each once: `name`, `name:2`, `name slots=2  # ours`."""
    words = (line.partition("#")[0].split() for line in text.splitlines())
    return list(dict.fromkeys(first[0].partition(":")[0] for first in words if first))


def _succeeds(probe: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits for a probe; one that takes longer is killed."""
    try:
        return probe.wait(max(seconds, 0)) == 0
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.wait()
        return False
