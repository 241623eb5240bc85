"""The forward pass of a small network of three layers, and softmax (book sections 3.4 and 3.5).

The book writes the pass out as three matrix products; here it is `Network.predict`, with the book's
weights put in by name.
"""

from __future__ import annotations

import numpy as np

from distnet.experiments import Lab, Numbers, Required, at_most, main, near
from distnet.nn import Linear, Network, Sigmoid, softmax

REQUIRED = [
    Required(
        "A3", "output of the 2-3-2-2 network", "output", near([[0.31682708, 0.69627909]], 1e-7)
    ),
    Required(
        "A3",
        "softmax of 0.3, 2.9, 4",
        "softmax",
        near([0.01821127, 0.24519181, 0.73659691], 1e-7),
    ),
    Required(
        "A3",
        "softmax of 1010, 1000, 990",
        "softmax_large",
        near([9.999546e-01, 4.53978686e-05, 2.06106005e-09], 1e-7),
    ),
    Required("3.5", "how far softmax is from summing to 1", "softmax_sum_error", at_most(1e-15)),
]

WEIGHTS = {
    "linear1.weight": [[0.1, 0.3, 0.5], [0.2, 0.4, 0.6]],
    "linear1.bias": [0.1, 0.2, 0.3],
    "linear2.weight": [[0.1, 0.4], [0.2, 0.5], [0.3, 0.6]],
    "linear2.bias": [0.1, 0.2],
    "linear3.weight": [[0.1, 0.3], [0.2, 0.4]],
    "linear3.bias": [0.1, 0.2],
}


def run(lab: Lab) -> Numbers:
    layers = [Linear(3), Sigmoid(), Linear(2), Sigmoid(), Linear(2)]
    network = Network(layers, (2,), dtype=np.float64)
    network.parameters.load({name: np.array(value) for name, value in WEIGHTS.items()})
    p = softmax(np.array([0.3, 2.9, 4.0]))
    return {
        "output": network.predict(np.array([[1.0, 0.5]])),
        "softmax": p,
        "softmax_large": softmax(np.array([1010.0, 1000.0, 990.0])),
        "softmax_sum_error": abs(p.sum() - 1),
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
