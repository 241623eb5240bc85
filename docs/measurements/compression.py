"""Compressed gradients with error feedback beside rare synchronisation: accuracy by bytes a step.

    python docs/measurements/compression.py --model simple_convnet --epochs 1 --seeds 0 1 2

In one process, with four logical workers, the micro-batches of a step: what one sends depends on
its gradients and on what it has kept, never on ranks. Each worker adds to its gradient what it has
not sent before, sends something short, and keeps the rest (error feedback: Karimireddy et al. 2019,
arXiv:1901.09847). What is sent is summed exactly, as gradients are.

- top-k: the largest elements, each with its place (Lin et al. 2018, arXiv:1712.01887);
- PowerSGD: of each matrix M the product of two thin ones, P (Pt M), where P spans the sum of all
  workers' M Q, and Q is Mt P of the step before (Vogels et al. 2019, arXiv:1905.13727). Both
  factors are linear in M, so they can be summed on the way; vectors travel whole.

Bytes are those that one worker hands over in a step, 4 for a number and for a place, on average.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import numpy as np

from distnet.base.arrays import Array
from distnet.base.blas import one_blas_thread
from distnet.building.parts import dataset_of, num_steps, objective_of, parts_of, trainer_of
from distnet.nn.parameters import Slot
from distnet.parallel import SerialCommunicator
from distnet.parallel.sums.reducer import Reducer
from distnet.training.config import TrainConfig
from distnet.training.evaluation import evaluate
from distnet.training.step.feed import Feed

WORKERS, WORD = 4, 4
ISLANDS = {"sync": "local", "islands": WORKERS}
Compress = Callable[[Sequence[Array]], tuple[list[Array], int]]


def top_k(share: float) -> Compress:
    """Of each vector (n,) the `share` of its elements that are largest, zero elsewhere."""

    def compress(vectors: Sequence[Array]) -> tuple[list[Array], int]:
        count = max(1, round(share * vectors[0].size))
        sent = [np.zeros_like(vector) for vector in vectors]
        for vector, own in zip(vectors, sent, strict=True):
            places = np.argpartition(np.abs(vector), -count)[-count:]
            own[places] = vector[places]
        return sent, 2 * WORD * count

    return compress


class PowerSGD:
    """Of each matrix among the `slots` its part in the span of `rank` columns; vectors whole."""

    def __init__(self, slots: Sequence[Slot], rank: int) -> None:
        self._slots, self._rank = slots, rank
        generator = np.random.default_rng(0)
        self._q = [generator.standard_normal((self._columns(slot), rank)) for slot in slots]

    def __call__(self, vectors: Sequence[Array]) -> tuple[list[Array], int]:
        sent, num_bytes = [vector.copy() for vector in vectors], 0
        for number, slot in enumerate(self._slots):
            matrices = [slot.of(v).reshape(-1, self._columns(slot)) for v in vectors]
            rows, columns = matrices[0].shape
            if self._rank * (rows + columns) >= rows * columns:
                num_bytes += WORD * rows * columns
                continue
            p, _ = np.linalg.qr(sum(matrices) @ self._q[number])  # (rows, rank)
            factors = [p.T @ matrix for matrix in matrices]  # (rank, columns)
            for own, factor in zip(sent, factors, strict=True):
                slot.of(own)[...] = (p @ factor).reshape(slot.shape)
            self._q[number] = sum(factors).T
            num_bytes += WORD * self._rank * (rows + columns)
        return sent, num_bytes

    @staticmethod
    def _columns(slot: Slot) -> int:
        """A filter, or what leads to one output, is a row; a vector is a row as well."""
        return slot.shape[-1] if len(slot.shape) <= 2 else int(np.prod(slot.shape[1:]))


class Compressed:
    """Stands where a trainer has its reducer: sums what workers send, and keeps the rest."""

    def __init__(self, reducer: Reducer, gradients: Array, compress: Compress) -> None:
        self._reducer, self._gradients, self._compress = reducer, gradients, compress
        self._kept = [np.zeros_like(gradients) for _ in range(WORKERS)]
        self._tallies: list[tuple[int, Array]] = []
        self.bytes_of_steps: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._reducer, name)

    def ready(self, offset: int) -> None:
        """Nothing leaves before the whole gradient is known."""

    def add(self, micro_batch: int, tally: Array) -> None:
        self._kept[micro_batch] += self._gradients
        self._tallies.append((micro_batch, tally.copy()))

    def finish(self, flag: bool = False) -> tuple[Array, Array]:
        sent, num_bytes = self._compress(self._kept)
        self.bytes_of_steps.append(num_bytes)
        for number, tally in self._tallies:
            self._kept[number] -= sent[number]
            np.copyto(self._gradients, sent[number])
            self._reducer.add(number, tally)
        self._tallies.clear()
        return self._reducer.finish(flag)


def ways() -> Iterator[tuple[str, dict[str, object], Callable[[Sequence[Slot]], Compress] | None]]:
    """Name, configuration, and the compression of gradients, if any."""
    yield "every step, `exact32`", {"reduction": "exact32"}, None
    for rank in (4, 2, 1):
        yield f"PowerSGD, rank {rank}", {}, lambda slots, rank=rank: PowerSGD(slots, rank)
    for share in (0.01, 0.0025, 0.001):
        yield f"top-k, {100 * share:g} %", {}, lambda slots, share=share: top_k(share)
    for every, kinds in {
        10: ("exact32", "exact8"),
        50: ("exact32", "exact8"),
        200: ("exact8",),
    }.items():
        for kind in kinds:
            settings = ISLANDS | {"sync_every": every, "sync_reduction": kind}
            yield f"islands, every {every} steps, `{kind}`", settings, None


def train(
    options: argparse.Namespace,
    seed: int,
    settings: dict[str, object],
    compression: Callable[[Sequence[Slot]], Compress] | None,
) -> tuple[float, float]:
    """Test accuracy, and bytes a step."""
    base = {"model": options.model, "epochs": options.epochs, "seed": seed}
    base |= {"optimizer": options.optimizer} | ({"lr": options.lr} if options.lr else {})
    config = TrainConfig(**base, **settings)
    dataset, comm = dataset_of(config, os.environ), SerialCommunicator()
    training, evaluated = parts_of(config, dataset)
    objective = objective_of(config, dataset, training)
    trainer = trainer_of(config, objective, training, comm)
    parameters = objective.parameters
    compressed = None
    if compression is not None:
        compress = compression(parameters.slots)
        compressed = Compressed(trainer.reducer, parameters.grads, compress)
        trainer.reducer = compressed
        trainer.compute_apart()  # stacks would be added up without it
    step, total = 0, num_steps(config, trainer.sampler.steps_per_epoch)
    total = min(total, options.steps or total)
    while step < total:
        step += trainer.advance(step, total).num_steps
    metrics = evaluate(Feed(objective, *evaluated["test"]), comm, config.micro_batch_size)
    size = parameters.values.size
    if compressed is not None:
        return metrics["accuracy"], fmean(compressed.bytes_of_steps)
    if config.sync == "step":
        return metrics["accuracy"], WORD * size
    itemsize = {"exact32": WORD, "exact8": 1}[str(settings["sync_reduction"])]
    return metrics["accuracy"], itemsize * size / int(str(settings["sync_every"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="simple_convnet")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="end after so many, to try it out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--lr", type=float, default=0.0, help="0: that of the training command")
    parser.add_argument("--json", help="a line of every run is added to this file")
    parser.add_argument("--only", nargs="+", default=[""], help="ways whose names have these words")
    options = parser.parse_args()
    print("| way | bytes a step | test accuracy: mean | of each seed |\n|---|---|---|---|")
    for name, settings, compression in ways():
        if not any(words in name for words in options.only):
            continue
        results = []
        for seed in options.seeds:
            with one_blas_thread():
                results.append(train(options, seed, settings, compression))
            if options.json:
                line = {**vars(options), "way": name, "seed": seed, "result": results[-1]}
                with open(options.json, "a") as file:
                    file.write(json.dumps(line) + "\n")
        accuracies, num_bytes = zip(*results, strict=True)
        each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
        print(f"| {name} | {fmean(num_bytes):,.0f} | {100 * fmean(accuracies):.2f} % | {each} |")


if __name__ == "__main__":
    main()
