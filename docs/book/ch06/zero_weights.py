"""Why weights must not start equal: units that are alike stay alike (book section 6.2.1).

784-50-10 with sigmoids. From zeros the 50 hidden units compute the same thing before, during and
after training, but for rounding: the network learns what one hidden unit can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, draw_losses, main
from distnet.nn import Linear, Network, Sigmoid

if TYPE_CHECKING:
    from distnet.training.fit import History

REQUIRED = [
    # 0 where BLAS rounds all columns of a product alike. OpenBLAS's kernels need not, and the
    # difference of some 1e-7 grows to 0.02.
    Required("6.2.1", "from zeros: how much its hidden units differ", "zero_spread", at_most(0.1)),
    Required("6.2.1", "from Xavier's", "xavier_spread", at_least(0.5)),
    Required("6.2.1", "from zeros: test accuracy", "zero_accuracy", at_most(0.4)),
    Required(
        "6.2.1",
        "from Xavier's (quick: 300 updates)",
        "xavier_accuracy",
        at_least(0.9),
        at_least(0.8),
    ),
]


def run(lab: Lab) -> Numbers:
    networks = {name: two_layers(lab, init) for name, init in (("zero", 0.0), ("xavier", "xavier"))}
    histories = {name: train(lab, network) for name, network in networks.items()}
    losses = {name: history.losses for name, history in histories.items()}
    lab.picture("zero_weights", lambda figure: draw_losses(figure, losses))
    return {
        **{f"{name}_spread": spread(hidden_weights(net)) for name, net in networks.items()},
        **{f"{name}_accuracy": history.accuracy("test")[-1] for name, history in histories.items()},
    }


def two_layers(lab: Lab, init: str | float) -> Network:
    return Network(
        [Linear(50, init=init), Sigmoid(), Linear(10, init=init)], (1, 28, 28), seed=lab.seed
    )


def hidden_weights(network: Network) -> Array:
    """`(784, 50)`, a column for each hidden unit."""
    return network.parameters.named()["linear1.weight"]


def spread(weights: Array) -> float:
    """How far the columns lie from their mean, relative to all: 0 if they are equal."""
    mean = weights.mean(axis=1, keepdims=True, dtype=np.float64)
    return float(np.linalg.norm(weights - mean) / np.linalg.norm(weights))


def train(lab: Lab, network: Network) -> History:
    digits, test = lab.digits
    return lab.fit(
        network,
        *digits,
        steps=300 if lab.quick else 2000,
        lr=0.1,
        micro_batch_size=50,
        evaluate_on={"test": test},
    )


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
