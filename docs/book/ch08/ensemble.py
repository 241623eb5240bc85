"""Five networks that vote are better than the best of them (book section 8.1.2).

They differ by their seed: by how they start and by the order of the digits. The vote is the mean of
their probabilities. Under mpirun every rank trains some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from small_digits import Samples, SmallConvNet, small_digits

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.nn import softmax
from distnet.parallel import SerialCommunicator
from distnet.parallel.dealing import deal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "ens",
        "ensemble of 5: accuracy beyond the best member (quick: after half the epochs)",
        "gain_over_best",
        at_least(0.001),
    ),
]
NUM_MEMBERS = 5


def run(lab: Lab) -> Numbers:
    train, test = small_digits(lab, 3_000)
    mine = {
        m: probabilities(lab, m, train, test[0])
        for m in deal(NUM_MEMBERS, lab.comm.rank, lab.comm.size)
    }
    everyone: dict[int, Array] = {}
    for members in lab.comm.allgather(mine):
        everyone |= members
    votes = [everyone[m] for m in range(NUM_MEMBERS)]
    single = [accuracy(vote, test[1]) for vote in votes]
    growing = [accuracy(np.mean(votes[:n], axis=0), test[1]) for n in range(1, NUM_MEMBERS + 1)]
    lab.picture("ensemble", lambda figure: draw_ensemble(figure, single, growing))
    return {
        "members": single,
        "ensembles": growing,
        "best_member": max(single),
        "ensemble": growing[-1],
        "gain_over_best": growing[-1] - max(single),
    }


def probabilities(lab: Lab, member: int, train: Samples, images: Array) -> Array:
    """What one member, trained on this rank alone, thinks of `images`: (N, 10)."""
    network = SmallConvNet(seed=lab.seed + member)
    lab.fit(
        network,
        *train,
        epochs=4 if lab.quick else 8,
        optimizer="adam",
        lr=0.001,
        batch_size=50,
        seed=lab.seed + member,
        comm=SerialCommunicator(),
    )
    return softmax(network.predict(images.astype(np.float32) / 255).astype(np.float64))


def accuracy(votes: Array, labels: Array) -> float:
    return float(np.mean(votes.argmax(axis=1) == labels))


def draw_ensemble(figure: Figure, single: list[float], growing: list[float]) -> None:
    axes = figure.subplots()
    numbers = range(1, NUM_MEMBERS + 1)
    axes.plot(numbers, single, "s", fillstyle="none", label="member alone")
    axes.plot(numbers, growing, marker="o", label="first members together")
    axes.set(xlabel="member", ylabel="test accuracy (fraction of digits)", xticks=numbers)
    axes.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
