"""The gradient of a loss with respect to weights: the book's simpleNet, 2 x 3 (section 4.4.2).

The book's loss, 0.92806828, has 1e-7 inside the logarithm, see `losses.py`.
"""

from __future__ import annotations

import numpy as np

from distnet.experiments import Lab, Numbers, Required, at_most, main, near
from distnet.nn import Linear, MicroBatch, Network
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import Classification

REQUIRED = [
    Required(
        "A3", "output of simpleNet", "output", near([[1.05414809, 0.63071653, 1.1328074]], 1e-7)
    ),
    Required("A3", "its loss, exact", "loss", near(0.92806854, 1e-7)),
    Required("A3", "its loss as the book has it", "book_loss", near(0.92806828, 1e-7)),
    Required(
        "A3",
        "its gradient by central differences",
        "gradient",
        near([[0.21924757, 0.14356243, -0.36281], [0.32887136, 0.21534364, -0.544215]], 1e-6),
    ),
    Required("4.4.2", "relative error against backpropagation", "error", at_most(1e-8)),
]

WEIGHT = np.array([[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]])
X, LABELS = np.array([[0.6, 0.9]]), np.array([2])


def run(lab: Lab) -> Numbers:
    network = Network([Linear(3, bias=False)], (2,), dtype=np.float64)
    network.parameters.load({"linear1.weight": WEIGHT})
    output = network.predict(X).copy()
    loss = loss_of(network)
    numerical = numerical_gradient(lambda: loss_of(network), network.parameters.values, h=1e-4)
    Classification(network).gradients(X, LABELS, MicroBatch())
    return {
        "output": output,
        "loss": loss,
        "book_loss": -np.log(np.exp(-loss) + 1e-7),
        "gradient": numerical.reshape(WEIGHT.shape),
        "error": relative_error(numerical, network.parameters.grads),
    }


def loss_of(network: Network) -> float:
    """With the weights as they are now."""
    network.parameters.refresh()
    return Classification(network).measure(X, LABELS)[0]


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
