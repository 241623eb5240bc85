"""What a rank holds, and how long its steps take, with and without `--shard-optimizer`.

    mpirun -n 4 python docs/measurements/shard_optimizer.py --model resnet50 --size 32
    mpirun -n 4 python docs/measurements/shard_optimizer.py --model resnet50 --size 32 --shard
    mpirun -n 2 python docs/measurements/shard_optimizer.py --model deep_convnet --size 28 --both

Random images, Adam. Prints the vectors of rank 0 in MB beside what `distnet plan` predicts, and the
peak resident size of the largest rank over what it was before; with --both no sizes, but the steps
of both kinds, in turn on the same ranks.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from statistics import median

import numpy as np

from distnet.base.blas import one_blas_thread
from distnet.building.parts import optimizer_of
from distnet.models import MODELS
from distnet.objectives import Classification
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, run_command
from distnet.planning.memory import bytes_of_rank
from distnet.planning.model import Way
from distnet.training.config import TrainConfig
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.sharding import Sharded
from distnet.training.step.trainer import Trainer

CLASSES = 10


def trainer_of(options: argparse.Namespace, shards: bool, comm: Communicator) -> Trainer:
    channels = 1 if options.size == 28 else 3
    network = MODELS[options.model]((channels, options.size, options.size), CLASSES)
    objective = Classification(network)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.batch, *network.input_shape), np.uint8)
    config = TrainConfig(shard_optimizer=shards)
    return make_trainer(
        objective,
        Feed(objective, images, rng.integers(0, CLASSES, options.batch).astype(np.uint8)),
        optimizer=optimizer_of(config, objective.parameters, comm),
        schedule=constant(1e-4),
        batch_size=options.batch,
        micro_batch_size=options.batch // comm.size,
        seed=0,
        comm=comm,
    )


def held(trainer: Trainer) -> dict[str, int]:
    """Bytes of this rank's vectors, by their purpose."""
    optimizer = trainer.optimizer
    if isinstance(optimizer, Sharded):
        vectors = [a for share in optimizer.shares for a in share.vectors.values()]
    else:
        vectors = list(optimizer.state.values())
    parameters, exchange = trainer.parameters, trainer.reducer.exchange
    return {
        "parameters": parameters.values.nbytes,
        "gradients": parameters.grads.nbytes,
        "optimizer": sum(array.nbytes for array in vectors),
        "sums": exchange.total.nbytes + exchange.result.nbytes,
    }


def peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sizes(options: argparse.Namespace, comm: Communicator) -> list[str]:
    before = peak()
    trainer = trainer_of(options, options.shard, comm)
    seconds = [_timed(trainer, step) for step in range(options.steps)]
    size, way = trainer.parameters.values.size, Way(shards=options.shard)
    predicted = bytes_of_rank(size, 2, way, comm.size)
    grown = max(comm.allgather(peak() - before))
    lines = [
        f"{name:<12}{found / 1e6:>10.1f} MB, predicted {predicted[name] / 1e6:>8.1f}"
        for name, found in held(trainer).items()
    ]
    total = f"peak resident size grew by {grown:.0f} MB, a step took {median(seconds):.2f} s"
    return [f"{options.model}, {size:,} parameters, {comm.size} ranks", *lines, total]


def both(options: argparse.Namespace, comm: Communicator) -> list[str]:
    trainers = [trainer_of(options, shards, comm) for shards in (False, True)]
    times: list[list[float]] = [[], []]
    for step in range(options.steps):
        for trainer, taken in zip(trainers, times, strict=True):
            comm.barrier()
            _timed(trainer, 2 * step)  # the first of two finds the caches full of the other's
            comm.barrier()
            taken.append(_timed(trainer, 2 * step + 1))
    pairs = [shared / whole for whole, shared in zip(*times, strict=True)]
    same = trainers[0].parameters.sha256() == trainers[1].parameters.sha256()
    return [
        f"{options.model}, {comm.size} ranks: {median(times[0]) * 1e3:.2f} ms whole, "
        f"{median(times[1]) * 1e3:.2f} ms sharded, median ratio {median(pairs):.3f}; the same "
        f"bits: {same}"
    ]


def _timed(trainer: Trainer, step: int) -> float:
    began = time.perf_counter()
    trainer.step(step)
    return time.perf_counter() - began


def main(comm: Communicator) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="deep_convnet", choices=MODELS)
    parser.add_argument("--size", type=int, default=28, help="of images, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--both", action="store_true")
    options = parser.parse_args()
    with one_blas_thread():
        lines = (both if options.both else sizes)(options, comm)
    if comm.rank == 0:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, os.environ))
