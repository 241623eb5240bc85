"""Batch normalisation makes the scale of the initial weights matter less (book section 6.3.2).

The first 1,000 digits, 784-100-100-100-100-100-10, SGD of learning rate 0.01 on batches of 100 for
20 epochs, from weights of 16 scales between 1 and 0.0001, with and without batch normalisation.
Each of the 32 trainings is a task for a single rank.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from multi_layer_net import first_digits, multi_layer_net

from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.parallel import SerialCommunicator, shared_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distnet.training.fit import History

SCALES = np.logspace(0, -4, 16)
EPOCHS = 20

REQUIRED = [
    Required(
        "A13",
        "scales at which batch norm has the higher training accuracy (quick: of 4)",
        "num_better",
        at_least(12),
        quick=at_least(3),
    ),
    Required(
        "A13",
        "scales at which batch norm reaches 0.9 (quick: of 4)",
        "num_at_0.9",
        at_least(5),
        quick=at_least(1),
    ),
]


def run(lab: Lab) -> Numbers:
    scales = SCALES[::4] if lab.quick else SCALES
    cases = [(float(scale), batch_norm) for scale in scales for batch_norm in (False, True)]
    histories = shared_map(lab.comm, partial(train, lab), cases)
    curves = [history.accuracy("train") for history in histories]
    plain, normalized = curves[::2], curves[1::2]
    if not lab.quick:
        lab.picture(
            "batch_norm_scales", lambda figure: draw(figure, plain, normalized), size=(9, 8)
        )
    ends = np.array([[curve[-1] for curve in kind] for kind in (plain, normalized)])
    return {
        "num_better": np.sum(ends[1] > ends[0]),
        "num_at_0.9": np.sum(ends[1] >= 0.9),
        "scales": scales,
        "plain": ends[0],
        "batch_norm": ends[1],
        "plain_diverged": [history.diverged is not None for history in histories[::2]],
        "batch_norm_diverged": [history.diverged is not None for history in histories[1::2]],
    }


def train(lab: Lab, case: tuple[float, bool]) -> History:
    """Trains from weights of one scale; measures the training accuracy after each epoch."""
    scale, batch_norm = case
    digits = first_digits(lab, 1000)
    return lab.fit(
        multi_layer_net(5, init=scale, batch_norm=batch_norm, seed=lab.seed),
        *digits,
        epochs=EPOCHS,
        evaluate_on={"train": digits},
        may_diverge=True,
        comm=SerialCommunicator(),
    )


def draw(figure: Figure, plain: list[list[float]], normalized: list[list[float]]) -> None:
    panels = figure.subplots(4, 4, sharex=True, sharey=True)
    for axes, scale, without, with_norm in zip(panels.flat, SCALES, plain, normalized, strict=True):
        axes.plot(with_norm, label="with batch normalisation")
        axes.plot(without, label="without")
        axes.set(ylim=(0, 1.02), xlim=(0, EPOCHS))
        axes.set_title(f"std {scale:.2g}", fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.supxlabel("epoch")
    figure.supylabel("accuracy on the 1,000 training digits")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
