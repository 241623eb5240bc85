"""NIC reads nine digits out, row by row, where nobody tells it where they are (section 8.4.3)."""

from __future__ import annotations

import numpy as np
from captioning import draw_attention, grids, judged, said, trained

from distnet.experiments import Lab, Numbers, Required, at_least, main

REQUIRED = [
    Required("8.4.3", "digits of nine that are right", "digits", at_least(0.96), quick=at_least(0)),
    Required("8.4.3", "grids read without a mistake", "exact", at_least(0.88), quick=at_least(0)),
]
STEPS = 2_000


def run(lab: Lab) -> Numbers:
    task = grids(lab, STEPS)
    network, history = trained(lab, task, poolings=3)
    lab.keep("nic_grid", network)
    words = said(lab, network, task.test.inputs)
    right = words[:, :9] == task.test.targets[:, :9]
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
    main(__file__, run, REQUIRED)
