"""A learning rate that falls during training (book section 8.1.2).

SGD with momentum on 3,000 digits, 8 epochs: with the same learning rate throughout, and with a
tenth of it after the fourth and a hundredth after the sixth epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from small_digits import Samples, SmallConvNet, small_digits

from distnet.experiments import COLORS, MARKERS, Lab, Numbers, Required, at_least, main
from distnet.optim.schedules import Schedule, constant, step_decay
from distnet.training.fit import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "decay",
        "learning-rate decay: accuracy beyond that without, mean of 4 seeds (quick: 1 seed)",
        "mean_gain",
        at_least(0.01),
        quick=at_least(0),
    ),
    Required("decay", "the same, every seed", "gains", at_least(0)),
    # Without it untrained networks would do: they gain nothing and lose nothing.
    Required("decay", "test accuracy with it, every seed", "decay", at_least(0.9)),
]
STEPS_PER_EPOCH = 60
SCHEDULES = {
    "constant": constant(0.1),
    "decay": step_decay(0.1, (4 * STEPS_PER_EPOCH, 6 * STEPS_PER_EPOCH), gamma=0.1),
}


def run(lab: Lab) -> Numbers:
    train, test = small_digits(lab, 3_000)
    seeds = [lab.seed + i for i in range(1 if lab.quick else 4)]
    runs = {
        name: [trained(lab, seed, schedule, train, test) for seed in seeds]
        for name, schedule in SCHEDULES.items()
    }
    final = {name: [h.accuracy("test")[-1] for h in runs[name]] for name in SCHEDULES}
    lab.picture("learning_rate_decay", lambda figure: draw_decay(figure, runs))
    gains = np.subtract(final["decay"], final["constant"])
    return {**final, "gains": gains, "mean_gain": gains.mean()}


def trained(lab: Lab, seed: int, schedule: Schedule, train: Samples, test: Samples) -> History:
    return lab.fit(
        SmallConvNet(seed=seed),
        *train,
        epochs=8,
        optimizer="momentum",
        lr=schedule,
        batch_size=50,
        micro_batch_size=25,
        evaluate_on={"test": test},
        seed=seed,
    )


def draw_decay(figure: Figure, runs: dict[str, list[History]]) -> None:
    """Every seed as a thin line, their mean as a thick one."""
    axes = figure.subplots()
    for (name, histories), color, marker in zip(runs.items(), COLORS, MARKERS, strict=False):
        accuracies = np.array([history.accuracy("test")[1:] for history in histories])
        epochs = range(1, accuracies.shape[1] + 1)
        axes.plot(epochs, accuracies.T, color=color, alpha=0.4, linewidth=0.8, linestyle="-")
        mean = accuracies.mean(axis=0)
        axes.plot(epochs, mean, color=color, marker=marker, linestyle="-", label=name)
    axes.set(xlabel="epoch", ylabel="test accuracy (fraction of digits)", xticks=epochs)
    axes.legend(title="learning rate", loc="lower right")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
