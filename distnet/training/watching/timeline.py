"""A trace of every rank's steps for Perfetto (ui.perfetto.dev) or chrome://tracing: `--timeline`.

`Timeline.watch` replaces methods of a trainer's parts by ones that note when they begin and end.
What is not watched does not know that it could be: without the option nothing is replaced. The
format is that of Chrome's trace events: one process for each rank, nested spans in its thread,
messages between ranks beside it (from their start until this rank notices that they have arrived).

Only what happens inside steps is noted; between them a trace has gaps (evaluation, checkpoints).

Clock: `time.perf_counter_ns`, which all processes of a host share. Where there are several hosts,
the offset of each rank from rank 0 is estimated at the start, as the median difference of the
clocks after 21 barriers: about as precise as a barrier is sharp, some network latencies.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.files import expect_none, write_atomically
from distnet.parallel.agreement import together
from distnet.parallel.communicator import Communicator, Exchanged, Request
from distnet.parallel.sums.own import Judged
from distnet.training.run import Callback, Run
from distnet.training.step.trainer import Trainer

MAX_SPANS = 200_000  # of a rank: about 20 MB of trace
NUM_PINGS = 21
BEGINNING = b'{"traceEvents": [\n'

Span = tuple[str, int, int]  # name, begin and end in nanoseconds


class Timeline:
    """Notes what this rank does; `save`, on all ranks, writes the file.

    Only the first MAX_SPANS are kept: `is_full` says whether that was not enough.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm, self._clock = comm, time.perf_counter_ns
        self._spans: list[Span] = []
        self._messages: list[Span] = []
        self._num_messages = 0  # of the step at hand
        self._in_step = False
        self._origin = _origin(comm, self._clock)

    @property
    def is_full(self) -> bool:
        return len(self._spans) >= MAX_SPANS

    def watch(self, trainer: Trainer) -> None:
        """From now on, notes the phases of its steps."""
        objective, exchange = trainer.objective, trainer.reducer.exchange
        numbers = "fixed point" if trainer.reducer.exact else "sum"
        for prefix, body in objective.parameters.parts.items():
            for stage in getattr(body, "stages", ()):
                name, layer = stage.name, stage.run
                self._replace(layer, "forward", f"forward {prefix} {name}".replace("  ", " "))
                self._replace(layer, "backward", f"backward {prefix} {name}".replace("  ", " "))
        self._replace(trainer.sampler, "part", "sampler")
        self._replace(trainer.feed, "training", "feed")
        if hasattr(objective, "loss"):
            self._replace(objective.loss, "forward", "loss")
        self._replace(exchange.format, "add", f"to {numbers}")
        self._replace(exchange, "read", f"from {numbers}")
        self._replace(exchange, "complete", f"from {numbers}")
        if isinstance(exchange, Judged):
            self._replace(exchange, "call", exchange.own.name)
        self._replace(trainer.optimizer, "step", "optimizer")
        if hasattr(trainer.synchronization, "synchronize"):
            self._replace(trainer.synchronization, "synchronize", "synchronize islands")
        self._replace(objective.parameters, "refresh", "refresh")
        self._watch_steps(trainer)
        for comm in dict.fromkeys([trainer.comm, *exchange.groups]):
            self._watch_messages(comm)

    def open(self, path: Path) -> None:
        """Rank 0 writes an empty trace; raises OSError there if it cannot be written."""
        if self._comm.rank == 0:
            _write(path)

    def save(self, path: Path) -> None:
        """Rank 0 writes the trace of all ranks; raises OSError there."""
        own = ",\n".join(self._events()).encode()
        traces = list(_one_after_another(self._comm, own))
        if self._comm.rank == 0:
            _write(path, *traces)

    def begin_message(self, name: str) -> Callable[[], None]:
        """A message leaves; what is returned is to be called when it has arrived."""
        began = self._clock()

        def arrive() -> None:
            if len(self._messages) < MAX_SPANS:
                self._messages.append((name, began, self._clock()))

        return arrive

    def _replace(self, owner: object, method: str, name: str) -> None:
        setattr(owner, method, self.timed(getattr(owner, method), name))

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`function`, each call of which becomes a span."""
        clock, spans = self._clock, self._spans

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            result = function(*args, **kwargs)
            if self._in_step and len(spans) < MAX_SPANS:
                spans.append((name, began, clock()))
            return result

        return timed

    def _watch_steps(self, trainer: Trainer) -> None:
        take_step, go_on = trainer.step, trainer.advance

        def step(number: int, *args: Any, **kwargs: Any) -> Any:
            self._num_messages = 0
            with self._noting():
                return self.timed(take_step, f"step {number}")(number, *args, **kwargs)

        def advance(*args: Any) -> Any:
            with self._noting():
                return go_on(*args)

        setattr(trainer, "step", step)  # noqa: B010  a type checker would object to the assignment
        setattr(trainer, "advance", advance)  # noqa: B010

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Within it, what is watched becomes a span when it ends."""
        before, self._in_step = self._in_step, True
        try:
            yield
        finally:
            self._in_step = before

    def _watch_messages(self, comm: Communicator) -> None:
        allreduce, alltoall, barrier = comm.iallreduce, comm.ialltoall, comm.ibarrier

        def named(num_bytes: int) -> str:
            self._num_messages += 1
            return f"reduction {self._num_messages - 1} ({num_bytes} bytes)"

        def iallreduce(array: Any, *args: Any) -> Request:
            return _WatchedRequest(self, named(array.nbytes), allreduce(array, *args))

        def ialltoall(parts: Any, *args: Any) -> Exchanged:
            sent = sum(part.nbytes for rank, part in enumerate(parts) if rank != comm.rank)
            return _WatchedExchange(self, named(sent), alltoall(parts, *args))

        setattr(comm, "iallreduce", iallreduce)  # noqa: B010
        setattr(comm, "ialltoall", ialltoall)  # noqa: B010
        setattr(comm, "ibarrier", lambda: _WatchedRequest(self, "barrier", barrier()))  # noqa: B010

    def _events(self) -> Iterator[str]:
        """Trace events as JSON; times in microseconds since rank 0 began."""
        rank, host = self._comm.rank, self._comm.node.name
        about = {"name": f"rank {rank} ({host})"}
        yield _event(name="process_name", ph="M", pid=rank, tid=0, args=about)
        for name, began, ended in self._spans:
            duration = (ended - began) / 1000
            yield _event(name=name, ph="X", pid=rank, tid=0, ts=self._since(began), dur=duration)
        for number, (name, began, ended) in enumerate(self._messages):
            common = {"name": name, "cat": "reduction", "id": f"{rank}.{number}", "pid": rank}
            yield _event(**common, ph="b", tid=0, ts=self._since(began))
            yield _event(**common, ph="e", tid=0, ts=self._since(ended))

    def _since(self, nanoseconds: int) -> float:
        return (nanoseconds - self._origin) / 1000


class _WatchedRequest:
    """A request of which the timeline notes when it arrives and how long this rank waits for it."""

    def __init__(self, timeline: Timeline, name: str, request: Request) -> None:
        self._request = request
        self._wait = timeline.timed(request.wait, "wait")
        self._arrive: Callable[[], None] | None = timeline.begin_message(name)

    def test(self) -> bool:
        has_arrived = self._request.test()
        if has_arrived:
            self._note()
        return has_arrived

    def wait(self) -> None:
        self._wait()
        self._note()

    def _note(self) -> None:
        if self._arrive is not None:
            self._arrive()
            self._arrive = None


class _WatchedExchange(_WatchedRequest):
    """An exchange that is asked in the end how much has come."""

    def __init__(self, timeline: Timeline, name: str, request: Exchanged) -> None:
        super().__init__(timeline, name, request)
        self._exchanged = request

    @property
    def received(self) -> list[int]:
        return self._exchanged.received


def _event(**values: object) -> str:
    return json.dumps(values)


def _write(path: Path, *traces: bytes) -> None:
    write_atomically(path, BEGINNING, b",\n".join(traces), b"\n]}\n")


def _origin(comm: Communicator, clock: Callable[[], int]) -> int:
    """What this rank's clock shows when that of rank 0 is at the trace's zero."""
    readings = []
    for _ in range(NUM_PINGS):
        comm.barrier()
        readings.append(clock())
    of_zero = comm.allgather(readings)[0]
    if comm.node.count == 1:
        return of_zero[0]
    offsets = [a - b for a, b in zip(readings, of_zero, strict=True)]
    return of_zero[0] + sorted(offsets)[len(offsets) // 2]


def _one_after_another(comm: Communicator, own: bytes) -> Iterator[bytes]:
    """What every rank has, in the order of ranks; kept by rank 0 alone."""
    lengths = comm.allgather(len(own))
    for rank, length in enumerate(lengths):
        piece = np.empty(length, np.uint8)
        if rank == comm.rank:
            piece[:] = np.frombuffer(own, np.uint8)
        comm.broadcast(piece, rank)
        if comm.rank == 0:
            yield piece.tobytes()


def check_file(path: Path, out: str, *, overwrite: bool) -> None:
    """Raises OSError, one line, if `path` cannot be written, before anything of a run is replaced.

    A trace may be, as that of a run that is resumed; another file only with `overwrite`. out: the
    directory of the run, if it is known, which may be made later.
    """
    if path.is_dir():
        raise IsADirectoryError(f"--timeline: found the directory {path}, expected a file to write")
    parent = path.parent
    is_to_come = not parent.exists() and Path(out or "runs") in (parent, *parent.parents)
    if not (is_to_come or os.access(parent, os.W_OK)):
        raise PermissionError(
            f"--timeline: found {path}, whose directory is not there or cannot be written, "
            "expected a file to write"
        )
    if not _is_trace(path):
        expect_none(path, overwrite=overwrite)


def _is_trace(path: Path) -> bool:
    """Whether there is one that `_write` has written."""
    if path.is_file():  # asked first: to open a pipe could wait for ever
        with suppress(OSError), path.open("rb") as file:
            return file.read(len(BEGINNING)) == BEGINNING
    return False


class TimelineFile(Callback):
    """Writes the trace of a run to `path`, when it ends; `warn` shows a line to the user."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path, self._warn = path, warn
        self._timeline: Timeline | None = None

    def begin(self, run: Run) -> None:
        if self._timeline is None:
            timeline = self._timeline = Timeline(run.comm)
            together(run.comm, lambda: timeline.open(self.path))
            timeline.watch(run.trainer)

    def end(self, run: Run) -> None:
        assert self._timeline is not None
        if self._timeline.is_full:
            self._warn(
                f"--timeline: {self.path} holds the first steps only, later ones are left out"
            )
        try:
            self._timeline.save(self.path)
        except OSError as error:
            self._warn(f"--timeline: {self.path} could not be written ({error.strerror})")
            run.unwritten = True
