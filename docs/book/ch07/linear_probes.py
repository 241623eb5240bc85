"""What each layer knows: a linear classifier on its output (book section 7.6.2).

The book tells it of AlexNet: edges, then textures, then parts, then classes. Here the network is
DeepConvNet on digits, and the measure that of Alain and Bengio (2016, arXiv:1610.01644): how well
one linear layer classifies the output of a layer whose parameters are fixed. As a control, the same
for the network before training.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.models import DeepConvNet
from distnet.nn import Linear, MaxPool2d, Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "7.6.2",
        "probe accuracy rises with depth: the smallest rise from one stage to the next "
        "(quick: the network saw 20,000 digits)",
        "smallest_rise",
        at_least(0.002),
    ),
    Required("7.6.2", "probes: last stage minus pixels", "whole_rise", at_least(0.05)),
]
STAGES = ("pixels", "stage 1", "stage 2", "stage 3")
NUM_PROBED = 5_000  # digits that a probe learns from
CHUNK = 200  # digits of a forward pass


def run(lab: Lab) -> Numbers:
    (images, labels), _ = lab.digits
    size = 20_000 if lab.quick else 60_000
    network = DeepConvNet(seed=lab.seed)
    fresh = probe_stages(lab, network)
    lab.fit(
        network,
        images[:size],
        labels[:size],
        epochs=1,
        optimizer="adam",
        lr=0.001,
        micro_batch_size=50,
    )
    trained = probe_stages(lab, network)
    rises = np.diff(trained)
    lab.picture("linear_probes", lambda figure: draw_probes(figure, fresh, trained))
    return {
        "fresh": fresh,
        "trained": trained,
        "smallest_rise": rises.min(),
        "whole_rise": rises.sum(),
    }


def probe_stages(lab: Lab, network: Network) -> list[float]:
    """The test accuracy of a linear classifier on the pixels and on each stage's output."""
    (images, labels), (test_images, test_labels) = lab.digits
    num_test = 2_000 if lab.quick else 10_000
    inputs = outputs_of_stages(network, images[:NUM_PROBED])
    tests = outputs_of_stages(network, test_images[:num_test])
    return [
        probe(lab, (x, labels[:NUM_PROBED]), (test, test_labels[:num_test]))
        for x, test in zip(inputs, tests, strict=True)
    ]


def outputs_of_stages(network: Network, images: Array) -> list[Array]:
    """The pixels and the output of every stage (convolution, convolution, pooling, ReLU).

    images: uint8 (N, 1, 28, 28). Each is flattened to (N, K): 784, 3136, 2048 and 1024 numbers.
    """
    parts = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    return [
        np.concatenate(stage) for stage in zip(*map(partial(stages, network), parts), strict=True)
    ]


def stages(network: Network, images: Array) -> list[Array]:
    x = images.astype(network.dtype) / 255
    found = [x.reshape(len(x), -1)]
    previous = None
    for layer in network.body.layers:
        x = layer.forward(x)
        if isinstance(previous, MaxPool2d):  # then `layer` is the ReLU that ends the stage
            found.append(x.reshape(len(x), -1).copy())
        previous = layer
    return found


def probe(lab: Lab, train: tuple[Array, Array], test: tuple[Array, Array]) -> float:
    """The test accuracy of softmax regression on features (N, K), scaled to mean square 1."""
    scale = np.sqrt(np.mean(np.square(train[0])))
    classifier = Network([Linear(10)], train[0].shape[1:], seed=lab.seed)
    history = lab.fit(
        classifier,
        train[0] / scale,
        train[1],
        epochs=3 if lab.quick else 10,
        optimizer="adam",
        lr=0.001,
        micro_batch_size=50,
        evaluate_on={"test": (test[0] / scale, test[1])},
        evaluate_every=10_000,
    )
    return history.accuracy("test")[-1]


def draw_probes(figure: Figure, fresh: list[float], trained: list[float]) -> None:
    axes = figure.subplots()
    for values, label, marker in ((trained, "trained", "o"), (fresh, "before training", "s")):
        axes.plot(STAGES, values, marker=marker, label=label)
    axes.set(xlabel="classified from the output of", ylabel="test accuracy of a linear classifier")
    axes.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
