"""Training from weights of std 0.01, Xavier's and He's (book section 6.2.4).

784-100-100-100-100-10 with ReLU, SGD of learning rate 0.01, batch 128. From 0.01 the network learns
nothing: its gradients are too small.
"""

from __future__ import annotations

import numpy as np
from multi_layer_net import multi_layer_net

from distnet.experiments import Lab, Numbers, Required, at_least, at_most, draw_losses, main

INITS: dict[str, str | float] = {"std_0.01": 0.01, "xavier": "xavier", "he": "he"}

REQUIRED = [
    Required("A12", "loss of the last 100 updates from std 0.01", "std_0.01", at_least(2.2)),
    Required("A12", "from Xavier's (quick: of 500)", "xavier", at_most(0.6), at_most(1.5)),
    Required("A12", "from He's (quick: of 500)", "he", at_most(0.45), at_most(0.6)),
]


def run(lab: Lab) -> Numbers:
    losses = {name: train(lab, init) for name, init in INITS.items()}
    lab.picture("compare_initializations", lambda figure: draw_losses(figure, losses))
    return {
        **{name: np.mean(values[-100:]) for name, values in losses.items()},
        **{f"{name}_401_to_500": np.mean(values[400:500]) for name, values in losses.items()},
    }


def train(lab: Lab, init: str | float) -> list[float]:
    """The loss of each update."""
    digits, _ = lab.digits
    history = lab.fit(
        multi_layer_net(4, init=init, seed=lab.seed),
        *digits,
        steps=500 if lab.quick else 2000,
        lr=0.01,
        batch_size=128,
        micro_batch_size=64,
    )
    return history.losses


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
