"""What the experiments with overfitting share: 300 digits, learned by heart or not (section 6.4).

784-100-100-100-100-100-100-10, SGD of learning rate 0.01, batches of 100. Each training is a task
for a single rank; three seeds, since one says little about a difference of a few percent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from multi_layer_net import first_digits, multi_layer_net

from distnet.experiments import COLORS, Lab, Numbers
from distnet.nn import Layer
from distnet.parallel import SerialCommunicator, shared_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distnet.training.fit import History

STEPS_PER_EPOCH = 3


@dataclass(frozen=True)
class Remedy:
    """A training against overfitting, or, by default, without anything against it."""

    name: str
    weight_decay: float = 0.0
    dropout: Callable[[], Layer] | None = None


def compare(lab: Lab, remedies: list[Remedy], epochs: int) -> dict[str, list[History]]:
    """The trainings with each remedy, one for each seed."""
    seeds = [lab.seed + i for i in range(1 if lab.quick else 3)]
    cases = [(remedy, seed) for remedy in remedies for seed in seeds]
    histories = iter(shared_map(lab.comm, partial(train, lab, epochs), cases))
    return {remedy.name: [next(histories) for _ in seeds] for remedy in remedies}


def train(lab: Lab, epochs: int, case: tuple[Remedy, int]) -> History:
    """Trains on 300 digits; measures the accuracy on them and on all test digits (quick: 1,000)."""
    remedy, seed = case
    train, (images, labels) = first_digits(lab, 300), lab.digits[1]
    num_test = 1_000 if lab.quick else len(images)
    return lab.fit(
        multi_layer_net(6, dropout=remedy.dropout, seed=seed),
        *train,
        epochs=epochs,
        weight_decay=remedy.weight_decay,
        evaluate_on={"train": train, "test": (images[:num_test], labels[:num_test])},
        evaluate_every=10 * STEPS_PER_EPOCH,
        seed=seed,
        comm=SerialCommunicator(),
    )


def numbers(trainings: dict[str, list[History]]) -> Numbers:
    """For each remedy: accuracies at the end by seed, the gap between their means, the loss."""
    result: Numbers = {}
    for name, histories in trainings.items():
        train, test = ([h.evaluations[kind][-1] for h in histories] for kind in ("train", "test"))
        result[f"{name}_train"] = [end["accuracy"] for end in train]
        result[f"{name}_test"] = [end["accuracy"] for end in test]
        result[f"{name}_gap"] = np.mean(result[f"{name}_train"]) - np.mean(result[f"{name}_test"])
        result[f"{name}_test_loss"] = np.mean([end["loss"] for end in test])
    return result


def draw(figure: Figure, trainings: dict[str, list[History]]) -> None:
    """Accuracy over epochs, a panel for each remedy; thin lines: the other seeds."""
    panels = figure.subplots(1, len(trainings), sharey=True)
    for axes, (name, histories) in zip(panels, trainings.items(), strict=True):
        for kind, color, dash in (("train", COLORS[0], "-"), ("test", COLORS[1], "--")):
            for i, history in enumerate(histories):
                epochs = np.array(history.num_updates) / STEPS_PER_EPOCH
                style = {"linewidth": 0.6} if i else {"label": f"{kind} digits"}
                axes.plot(epochs, history.accuracy(kind), color=color, linestyle=dash, **style)
        axes.set(title=name.replace("_", " "), xlabel="epoch", ylim=(0, 1.02))
    panels[0].set_ylabel("accuracy (fraction of digits)")
    panels[0].legend(loc="lower right")
