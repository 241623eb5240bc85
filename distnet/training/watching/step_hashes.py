"""A chain of step hashes: what the state was after every so many steps, in metrics.jsonl.

    {"event": "hash", "step": 20, ..., "state": "5f0c...", "chain": "91ab..."}

`state` is the SHA-256 of a list of all arrays of the state, as `sha256sum` writes one: a line
`HASH  NAME` for each array, with two spaces, in the order of the names, where HASH is the SHA-256
of its numbers, little-endian, in C order. `chain` is the SHA-256 of the `chain` of the line before
(nothing for the first one) followed by this `state`, both as text. So one hash stands for all
states up to its own, and no line can be changed, left out or added without those after it; to check
a line takes `printf %s%s CHAIN_BEFORE STATE | sha256sum`. Two runs whose chains end alike were
alike all the way, and of two that part the first line that differs tells where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distnet.base.arrays import Array
from distnet.training.files.checkpoint import little_endian
from distnet.training.files.metrics import read_events
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult

EVENT = "hash"


class StepHashes(Callback):
    """Hashes the state after every `every` steps, on every rank alike; `log` gets the lines.

    log(event, step, state=..., chain=...), such as `RunDirectory.log`. The chain goes on in the
    record, so that it passes through checkpoints and the loss of ranks.
    """

    def __init__(self, every: int, log: Callable[..., None]) -> None:
        self.every, self.log = every, log

    def stepped(self, run: Run, result: StepResult) -> None:
        if run.num_done // self.every == run.previous // self.every:
            return
        run.trainer.complete()
        state = state_sha256(run.trainer.state())
        run.record = run.record.with_chain(chained(run.record.chain, state))
        self.log(EVENT, run.num_done, state=state, chain=run.record.chain)


def state_sha256(state: Mapping[str, Array]) -> str:
    """The hash of all arrays of `Trainer.state`, or of a checkpoint, with their names."""
    lines = (f"{_sha256(little_endian(state[name]).data)}  {name}\n" for name in sorted(state))
    return _sha256("".join(lines).encode())


def chained(before: str, state: str) -> str:
    """The next hash of a chain; `before` is "" for the first one."""
    return _sha256((before + state).encode())


@dataclass(frozen=True)
class Chain:
    """The step hashes of a run: `states`, by step, and the first step whose line does not fit.

    broken: None if every line follows from the one before. The first line may go on from the chain
    of an earlier part of the run, which is elsewhere.
    """

    states: dict[int, str]
    broken: int | None

    @classmethod
    def read(cls, path: Path) -> Chain:
        """Out of a metrics.jsonl; empty if it has none. Raises OSError."""
        states: dict[int, str] = {}
        broken, before = None, None
        for line in read_events(path, EVENT):
            step, state, chain = (line.get(name) for name in ("step", "state", "chain"))
            if not (isinstance(step, int) and isinstance(state, str) and isinstance(chain, str)):
                continue
            if broken is None and before is not None and chain != chained(before, state):
                broken = step
            states[step], before = state, chain
        return cls(states, broken)


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
