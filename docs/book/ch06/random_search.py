"""Random search for the learning rate and the weight decay (book section 6.5).

500 digits are shuffled, 100 kept back for validation. 100 trials train 784-(100 x 6)-10 on the
others for 50 epochs, from the same weights; only the two hyperparameters differ, both drawn evenly
on a logarithmic scale. Each trial is a task for a single rank, and a rank that has finished takes
the next one: on any number of ranks the trials and their results are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from multi_layer_net import first_digits, multi_layer_net

from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.parallel import SerialCommunicator, shared_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distnet.training.fit import History

# log10 of the bounds between which they are drawn.
LR_RANGE, WEIGHT_DECAY_RANGE = (-6, -2), (-8, -4)
NUM_DIGITS, NUM_VALIDATION = 500, 100
NUM_SHOWN = 20

REQUIRED = [
    Required(
        "A16",
        "best validation accuracy of 100 trials (quick: of 8)",
        "best_accuracy",
        at_least(0.7),
        quick=at_least(0.5),
    ),
    Required(
        "A16",
        "smallest learning rate of the 5 best",
        "smallest_lr_of_best_5",
        at_least(0.003),
        quick=at_least(1e-5),
    ),
]


@dataclass(frozen=True)
class Trial:
    lr: float
    weight_decay: float


def run(lab: Lab) -> Numbers:
    trials = draw_trials(8 if lab.quick else 100, lab.seed)
    histories = shared_map(lab.comm, partial(train, lab), trials)
    accuracies = [history.accuracy("validation")[-1] for history in histories]
    order = np.argsort(-np.array(accuracies), kind="stable")
    best = [(trials[i], histories[i]) for i in order]
    lab.picture("search_curves", lambda figure: draw_curves(figure, best[:NUM_SHOWN]), size=(9, 7))
    lab.picture("search_trials", lambda figure: draw_accuracies(figure, trials, accuracies))
    return {
        "best_accuracy": accuracies[order[0]],
        "smallest_lr_of_best_5": min(trial.lr for trial, _ in best[:5]),
        "best": [[accuracies[i], trials[i].lr, trials[i].weight_decay] for i in order[:NUM_SHOWN]],
        "trials": [[trial.lr, trial.weight_decay] for trial in trials],
        "validation_accuracies": accuracies,
        "params_sha256": [history.params_sha256 for history in histories],
    }


def draw_trials(count: int, seed: int) -> list[Trial]:
    rng = np.random.default_rng(seed)
    low, high = zip(LR_RANGE, WEIGHT_DECAY_RANGE, strict=True)
    return [Trial(*pair) for pair in (10 ** rng.uniform(low, high, (count, 2))).tolist()]


def train(lab: Lab, trial: Trial) -> History:
    images, labels = first_digits(lab, NUM_DIGITS)
    order = np.random.default_rng(lab.seed).permutation(NUM_DIGITS)
    kept_back, others = order[:NUM_VALIDATION], order[NUM_VALIDATION:]
    train = images[others], labels[others]
    return lab.fit(
        multi_layer_net(6, seed=lab.seed),
        *train,
        epochs=50,
        lr=trial.lr,
        weight_decay=trial.weight_decay,
        evaluate_on={"train": train, "validation": (images[kept_back], labels[kept_back])},
        comm=SerialCommunicator(),
    )


def draw_curves(figure: Figure, best: list[tuple[Trial, History]]) -> None:
    """The accuracies of the best trials over epochs, as in the book."""
    panels = figure.subplots(4, 5, sharex=True, sharey=True)
    for axes, (trial, history) in zip(panels.flat, best, strict=False):
        for name in ("validation", "train"):
            axes.plot(history.accuracy(name), label=name)
        axes.set(ylim=(0, 1.02))
        title = f"lr {trial.lr:.2g}, decay {trial.weight_decay:.1g}"
        axes.set_title(title, fontsize="small")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.supxlabel("epoch")
    figure.supylabel("accuracy (fraction of digits)")


def draw_accuracies(figure: Figure, trials: list[Trial], accuracies: list[float]) -> None:
    """Every trial in the plane that was searched."""
    axes = figure.subplots()
    lr, weight_decay = zip(*((trial.lr, trial.weight_decay) for trial in trials), strict=True)
    points = axes.scatter(lr, weight_decay, c=accuracies, cmap="cividis", edgecolors="0.4")
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="weight decay")
    figure.colorbar(points, label="validation accuracy after 50 epochs")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
