"""The hosts that a job may use: which of them answer, and how they stand in its command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

MAX_PROBES = 32  # at a time


@dataclass(frozen=True)
class Hosts:
    """Hosts by name, of which a job gets those that answer.

    probe: the command that succeeds within `patience` seconds if `{host}` can be used.
    """

    names: Sequence[str]
    ranks_per_host: int
    probe: str
    patience: float

    def that_answer(self) -> list[str]:
        """Those for which the probe succeeds, in their order."""
        with ThreadPoolExecutor(MAX_PROBES) as pool:
            answers = pool.map(self._answers, self.names)
        return [name for name, answer in zip(self.names, answers, strict=True) if answer]

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

    def _answers(self, name: str) -> bool:
        probe = [word.replace("{host}", name) for word in shlex.split(self.probe)]
        try:
            done = subprocess.run(
                probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.patience
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0
