"""Where the time goes: each layer's part of the work and of the seconds (book section 8.3.1).

AlexNet's way forward, which is what the book's figure shows, and a whole step of the deep network
of section 8.1.1. Multiplications are counted, seconds are measured on this machine, so they are
others in every run; each is the least of several rounds, as something else may run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from distnet.base.keys import MicroBatch
from distnet.experiments import Lab, Numbers, Required, at_least, exactly, main
from distnet.models import MODELS, DeepConvNet
from distnet.nn import Conv2d, Network
from distnet.objectives import Classification
from distnet.training.watching.profile import LayerTime, watch_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOOK = {"gpu": 0.95, "cpu": 0.89}  # of AlexNet's way forward, in convolutions
REQUIRED = [
    Required("8.3.1", "AlexNet: multiplications of a picture", "products", exactly(714_188_480)),
    Required("8.3.1", "AlexNet: part of them in convolutions", "products_conv", at_least(0.91)),
    Required(
        "8.3.1",
        "AlexNet: part of the time forward in convolutions",
        "alexnet_conv",
        at_least(0.4),
    ),
    Required(
        "8.3.1",
        "the deep network: part of a step in convolutions",
        "deep_conv",
        at_least(0.7),
        at_least(0.5),
    ),
]


def run(lab: Lab) -> Numbers:
    rounds = 4 if lab.quick else 10
    alexnet = MODELS["alexnet"]((3, 224, 224), 1000, seed=lab.seed)
    products, in_convolutions = multiplications(alexnet)
    forward = times_forward(alexnet, 4 if lab.quick else 16, rounds)
    step = times_of_a_step(lab, DeepConvNet(seed=lab.seed), rounds)
    lab.picture("where_time_goes", lambda figure: draw(figure, forward, step), (9, 4.6))
    return {
        "products": products,
        "products_conv": in_convolutions / products,
        "parameters_conv": in_convolutions_of(alexnet) / alexnet.parameters.size,
        "alexnet_conv": share(forward),
        "deep_conv": share(step),
        "alexnet_ms": [each.seconds * 1e3 for each in forward],
        "deep_ms": [each.seconds * 1e3 for each in step],
    }


def multiplications(network: Network) -> tuple[int, int]:
    """Of one image forward: in all layers, and in convolutions."""
    convolutions = (leaf for leaf in network.body.leaves() if isinstance(leaf, Conv2d))
    return network.multiply_adds, sum(leaf.multiply_adds for leaf in convolutions)


def in_convolutions_of(network: Network) -> int:
    """How many parameters."""
    slots = [slot for slot in network.parameters.slots if slot.name.startswith("conv")]
    return sum(slot.stop - slot.start for slot in slots)


def times_forward(network: Network, n: int, rounds: int) -> list[LayerTime]:
    """The fewest seconds of each layer for n random images, forward."""
    watched = list(watch_layers(network.parameters))
    x = network.as_input(np.random.default_rng(0).random((n, *network.input_shape), np.float32))
    return fewest(watched, rounds, lambda: network.forward(x, MicroBatch()))


def times_of_a_step(lab: Lab, network: Network, rounds: int) -> list[LayerTime]:
    """The fewest seconds of each layer for a micro-batch of 100 digits, there and back."""
    objective = Classification(network)
    watched = list(watch_layers(network.parameters))
    images, labels = (each[:100] for each in lab.digits[0])

    def step() -> None:
        objective.gradients(objective.as_input(images), labels, MicroBatch())

    return fewest(watched, rounds, step)


def fewest(
    watched: Sequence[LayerTime], rounds: int, work: Callable[[], object]
) -> list[LayerTime]:
    """What each layer took at least, either way, in `rounds`; one that does not count goes before.

    Each for itself: a round in which nothing else runs on the machine may not come.
    """
    found = []
    for _ in range(rounds + 1):
        for each in watched:
            each.forward = each.backward = 0.0
        work()
        found.append([(each.forward, each.backward) for each in watched])
    least = np.min(found[1:], axis=0)  # (layers, 2)
    return [
        LayerTime(each.name, each.layer, float(forward), float(backward))
        for each, (forward, backward) in zip(watched, least, strict=True)
    ]


def total(times: Sequence[LayerTime]) -> float:
    return sum(each.seconds for each in times)


def share(times: Sequence[LayerTime]) -> float:
    """The part of the layers' seconds that convolutions take, with the pooling behind them."""
    return total([each for each in times if isinstance(each.layer, Conv2d)]) / total(times)


def draw(figure: Figure, forward: Sequence[LayerTime], step: Sequence[LayerTime]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    bars(left, forward, f"AlexNet forward: {share(forward):.0%} in convolutions")
    bars(right, step, f"a step of the deep network: {share(step):.0%}")
    right.legend(handles=right.containers[:2], labels=["forward", "backward"], loc="lower right")


def bars(axes: Axes, times: Sequence[LayerTime], title: str) -> None:
    """One bar for each layer, the first on top; convolutions in blue, backward paler."""
    names, whole = [each.name for each in times], total(times)
    colours = ["tab:blue" if isinstance(each.layer, Conv2d) else "tab:gray" for each in times]
    ahead = [100 * each.forward / whole for each in times]
    back = [100 * each.backward / whole for each in times]
    axes.barh(names, ahead, color=colours)
    if any(back):
        axes.barh(names, back, left=ahead, color=colours, alpha=0.45)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="% of the layers' time")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
