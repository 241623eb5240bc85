"""NIC reads nine digits out, row by row, where nobody tells it where they are (section 8.4.3)."""

from __future__ import annotations

import numpy as np
from captioning import draw_attention, grids, judged, said, trained

from distnet.experiments import DeviceLabOptions, Lab, Numbers, Required, at_least, main

# Quick: of single digits an untrained network has 0.16 right, the quick one 0.89 to 0.98.
REQUIRED = [
    Required(
        "8.4.3",
        "digits of nine that are right (quick: of one)",
        "digits",
        at_least(0.99),
        quick=at_least(0.5),
    ),
    Required("8.4.3", "grids read without a mistake", "exact", at_least(0.95), quick=at_least(0.5)),
]
STEPS, QUICK_STEPS = 8_000, 150


def run(lab: Lab) -> Numbers:
    task = grids(lab, QUICK_STEPS if lab.quick else STEPS)
    network, history = trained(lab, task, lr=0.008, poolings=3, batchnorm=True)
    lab.keep("nic_grid", network)
    words = said(lab, network, task.test.inputs)
    num_digits = task.length - 1
    right = words[:, :num_digits] == task.test.targets[:, :num_digits]
    lab.picture(
        "nic_grid", lambda figure: draw_attention(figure, network, task, [0, 1]), (7.6, 2.2)
    )
    return {
        **judged(words, task.test.targets),
        "digits": float(np.mean(right)),
        "digits_by_place": right.mean(axis=0),
        "params_sha256": history.params_sha256,
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED, options=DeviceLabOptions)
