"""What the ranks of `bench scaling`, `allreduce`, `audit` do: one task, one JSON line of results.

Started by `jobs.run_ranks`. In the tasks, times are medians or means over steps, in seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distnet.benchmarks.jobs import do_task
from distnet.benchmarks.networks import CASES, random_trainer
from distnet.benchmarks.rounds import interleave
from distnet.parallel import (
    EXCHANGES,
    REDUCTIONS,
    Communicator,
    Reducer,
    SerialCommunicator,
    make_reducer,
)
from distnet.parallel.sums.exchange import Exchange
from distnet.parallel.sums.reducer import cut_buckets
from distnet.training.step.trainer import Trainer

Task = dict[str, Any]
Result = dict[str, Any]
NUM_SUMS = 2  # of a tally: the loss and the correct predictions
NUM_REPEATS = 30  # of what takes less than a step


def trainer_of(task: Task, comm: Communicator, reducing: Communicator, audit: int = 0) -> Trainer:
    """A run on random pixels: this rank's share of it, its sums combined over `reducing`."""
    return random_trainer(
        CASES[task["model"]],
        batch_size=task["batch_size"],
        micro_batch_size=task["micro_batch_size"],
        comm=comm,
        reducing=reducing,
        reduction=task["reduction"],
        bucket_bytes=task["bucket_bytes"],
        audit=audit,
    )


class Steps:
    """Takes steps with a trainer, one after another, and knows how long they took.

    Before those that count there is one that does not: it finds the caches full of another's
    arrays, where trainers take turns, and a run is one step after another.
    """

    def __init__(self, trainer: Trainer, num_warmups: int) -> None:
        self.trainer, self._next = trainer, 0
        self.seconds = self.wait_seconds = 0.0
        self.take(num_warmups)
        self.seconds = self.wait_seconds = 0.0

    def take(self, count: int) -> None:
        self.step()
        began = time.perf_counter()
        for _ in range(count):
            self.step()
            self.wait_seconds += self.trainer.reducer.wait_seconds
        self.seconds += time.perf_counter() - began

    def step(self) -> None:
        self.trainer.step(self._next)
        self._next += 1


def ranks(comm: Communicator, task: Task) -> Result:
    """One run on all ranks; between its steps, the same ones without messages.

    The two take turns, so that the cores are equally busy with other things.
    """
    together = Steps(trainer_of(task, comm, comm), task["warmups"])
    task = task | {"bucket_bytes": together.trainer.reducer.bucket_bytes}
    alone = Steps(trainer_of(task, comm, SerialCommunicator()), task["warmups"])
    window = _watch_window(alone.trainer)
    num_turns = max(1, task["steps"] // task["turn"])
    for _ in range(num_turns):
        for steps in (together, alone):
            comm.barrier()
            steps.take(task["turn"])
    num_steps = num_turns * task["turn"]
    compute_seconds = max(comm.allgather(alone.seconds)) / num_steps  # of the slowest, as in a run
    reducer = together.trainer.reducer
    everything, last = _message_seconds(comm, reducer.exchange, reducer.bucket_bytes)
    return {
        "images_per_second": num_steps * task["batch_size"] / together.seconds,
        "step_seconds": together.seconds / num_steps,
        "compute_seconds": compute_seconds,
        "wait_share": together.wait_seconds / together.seconds,
        "bytes_per_step": reducer.bytes_sent,
        "messages_seconds": everything,
        "last_message_seconds": last,
        "window_seconds": median(window),
        "allreduce_seconds": _allreduce_seconds(comm, reducer.bytes_sent),
    }


def copies(comm: Communicator, task: Task) -> Result:
    """As many independent runs as ranks, at the same time; they share the machine alone."""
    steps = Steps(trainer_of(task, SerialCommunicator(), SerialCommunicator()), task["warmups"])
    comm.barrier()
    steps.take(task["steps"])
    rates = comm.allgather(task["steps"] * task["batch_size"] / steps.seconds)
    return {"images_per_second": sum(rates)}


def formats(comm: Communicator, task: Task) -> Result:
    """Each wire format, and each way in which exact sums can travel between these ranks.

    Of each: a whole reduction, its share of Python, MPI alone with the same bytes.
    """
    exact = REDUCTIONS["exact"](task["size"], comm.size)
    ways = {kind: (kind, "auto") for kind in REDUCTIONS}
    for exchange, make in EXCHANGES.items():
        if make(comm, exact) is not None:
            ways[f"exact, {exchange}"] = "exact", exchange
    return {name: _format(comm, *way, task) for name, way in ways.items()}


def steps_of_formats(comm: Communicator, task: Task) -> Result:
    """Whole training steps in each wire format, in turn: the seconds of every one that counts."""
    runs = {
        kind: Steps(trainer_of(task | {"reduction": kind}, comm, comm), task["warmups"]).step
        for kind in REDUCTIONS
    }
    num_turns = max(1, task["steps"] // task["turn"])
    return interleave(runs, num_turns, num_warmups=0, turn=task["turn"] + 1)


def audits(comm: Communicator, task: Task) -> Result:
    """Steps that audit so many micro-batches, in turn: of each turn the seconds of a step.

    work: of all ranks together, without waiting; step: of rank 0.
    """
    trainers = {
        k: trainer_of(task | {"reduction": "exact"}, comm, comm, audit=k) for k in task["audits"]
    }
    num_turns, next_step = max(1, task["steps"] // task["turn"]), 0
    result: dict[int, dict[str, list[float]]] = {k: {"work": [], "step": []} for k in trainers}
    for number in range(num_turns + 1):
        num_steps = task["turn"] + 1  # the first finds the caches full of another's arrays
        for k, trainer in trainers.items():
            own = [trainer.step(next_step + i).own for i in range(num_steps)][1:]
            work = sum(comm.allgather(sum(each.compute_seconds for each in own)))
            if number:
                result[k]["work"].append(work / len(own))
                result[k]["step"].append(sum(each.seconds for each in own) / len(own))
        next_step += num_steps
    return {str(k): seconds for k, seconds in result.items()}


def _format(comm: Communicator, kind: str, exchange: str, task: Task) -> Result:
    size = task["size"]
    generator = np.random.default_rng(comm.rank)
    gradients = np.empty(size, np.float32)
    gradients[:] = 1e-3 * generator.standard_normal(size)
    settings = {"num_contributions": comm.size, "bucket_bytes": task["bucket_bytes"]}
    reducer = make_reducer(kind, comm, gradients, NUM_SUMS, exchange=exchange, **settings)
    alone = make_reducer(kind, SerialCommunicator(), gradients, NUM_SUMS, **settings)
    reduce_once(reducer)
    bare = np.zeros(max(1, int(size * REDUCTIONS[kind].wire_itemsize) // 4), np.float32)
    times = interleave(
        {
            "reduction": _in_step(comm, lambda: reduce_once(reducer)),
            "without_mpi": _in_step(comm, lambda: reduce_once(alone)),
            "allreduce": _in_step(comm, lambda: comm.allreduce(bare)),
            "barrier": comm.barrier,
        },
        task["repeats"],
    )
    # Ranks leave a barrier one after another; what that takes is part of the other three.
    result = {name: median(seconds) for name, seconds in times.items()}
    result["link_bytes"] = _link_bytes(comm, lambda: reduce_once(reducer), task["repeats"])
    return {"bytes": reducer.bytes_sent, "exact": reducer.exact, **result}


def _link_bytes(comm: Communicator, run: Callable[[], object], repeats: int) -> float:
    """What leaves the host that sends most, on all its links to others, in one `run`."""
    comm.barrier()
    before = _bytes_on_links()
    for _ in range(repeats):
        run()
    comm.barrier()
    return max(comm.allgather(_bytes_on_links() - before)) / repeats


def _bytes_on_links() -> int:
    """Sent by this host since it was started, as Linux counts them; 0 elsewhere."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    except OSError:
        return 0
    links = (line.split(":") for line in lines)
    return sum(int(counts.split()[8]) for name, counts in links if name.strip() != "lo")


def reduce_once(reducer: Reducer) -> None:
    """A step of a rank with one micro-batch, all of it ready at once."""
    reducer.start([0])
    reducer.ready(0)
    reducer.add(0, np.zeros(NUM_SUMS))
    reducer.finish()


def _in_step(comm: Communicator, run: Callable[[], object]) -> Callable[[], None]:
    """`run` on all ranks at once."""

    def all_at_once() -> None:
        comm.barrier()
        run()

    return all_at_once


def _watch_window(trainer: Trainer) -> list[float]:
    """Seconds, of each step, from the first bucket that could leave to the end of backward."""
    seconds: list[float] = []
    left: list[float] = []
    ended: list[float] = [0.0]
    reducer = trainer.reducer
    begin, add, finish = reducer.exchange.begin, reducer.add, reducer.finish

    def watched_begin(*args: Any) -> Any:
        left.append(time.perf_counter())
        return begin(*args)

    def watched_add(*args: Any) -> Any:
        ended[0] = time.perf_counter()
        return add(*args)

    def watched_finish(*args: Any) -> Any:
        seconds.append(ended[0] - left[0] if left else 0.0)
        result = finish(*args)
        left.clear()
        return result

    setattr(reducer.exchange, "begin", watched_begin)  # noqa: B010
    setattr(reducer, "add", watched_add)  # noqa: B010
    setattr(reducer, "finish", watched_finish)  # noqa: B010
    return seconds


def _message_seconds(
    comm: Communicator, exchange: Exchange, bucket_bytes: int
) -> tuple[float, float]:
    """All buckets of a step and the tally with nothing beside them; the last one and it alone."""
    buckets = cut_buckets(exchange.total.size, bucket_bytes, exchange.format.wire_itemsize)
    tally = np.zeros(2 * NUM_SUMS + 3, np.int64)
    exchange.total.fill(0)  # however often they are added up

    def combine(some: Sequence[slice]) -> None:
        exchange.clear()
        for request in [*map(exchange.begin, some), comm.iallreduce(tally)]:
            request.wait()
        exchange.complete().wait()

    times = interleave(
        {
            "all": _in_step(comm, lambda: combine(buckets)),
            "last": _in_step(comm, lambda: combine(buckets[-1:])),
            "barrier": comm.barrier,
        },
        NUM_REPEATS,
    )
    barrier = median(times["barrier"])
    return median(times["all"]) - barrier, median(times["last"]) - barrier


def _allreduce_seconds(comm: Communicator, num_bytes: int) -> float:
    """One blocking MPI_Allreduce of float32 numbers."""
    bare = np.zeros(max(1, num_bytes // 4), np.float32)
    times = interleave(
        {"allreduce": _in_step(comm, lambda: comm.allreduce(bare)), "barrier": comm.barrier},
        NUM_REPEATS,
    )
    return median(times["allreduce"]) - median(times["barrier"])


TASKS = {
    "ranks": ranks,
    "copies": copies,
    "audits": audits,
    "formats": formats,
    "steps_of_formats": steps_of_formats,
}


if __name__ == "__main__":
    sys.exit(do_task(TASKS))
