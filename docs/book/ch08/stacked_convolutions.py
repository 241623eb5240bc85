"""Two 3x3 convolutions see what one of 5x5 sees, with fewer weights (book section 8.1.3).

What an output sees is measured: the gradient of its centre with respect to the input is not zero
exactly where the input has a say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, exactly, main
from distnet.nn import Conv2d, Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required("8.1.3", "side of what 1, 2, 3 convolutions of 3x3 see", "seen", exactly([3, 5, 7])),
    Required("8.1.3", "pixels that they see", "pixels", exactly([9, 25, 49])),
    Required("8.1.3", "their weights, one channel", "weights", exactly([9, 18, 27])),
    Required("8.1.3", "weights of one 3x3, 5x5, 7x7", "single", exactly([9, 25, 49])),
]
SIDE = 11  # pixels of the input
DEPTHS = (1, 2, 3)


def run(lab: Lab) -> Numbers:
    stacks = [stack([3] * depth, lab.seed) for depth in DEPTHS]
    gradients = [input_gradient(network) for network in stacks]
    lab.picture("receptive_fields", lambda figure: draw_gradients(figure, gradients), (8, 2.9))
    return {
        "seen": [side_seen(gradient) for gradient in gradients],
        "pixels": [np.count_nonzero(gradient) for gradient in gradients],
        "weights": [num_weights(network) for network in stacks],
        "single": [num_weights(stack([kernel], lab.seed)) for kernel in (3, 5, 7)],
        "weights_of_64_channels": [
            num_weights(stack(kernels, lab.seed, channels=64)) for kernels in ([3, 3], [5])
        ],
    }


def stack(kernels: list[int], seed: int, channels: int = 1) -> Network:
    """Convolutions one after another that keep the size."""
    layers = [Conv2d(channels, kernel, pad=kernel // 2) for kernel in kernels]
    return Network(layers, (channels, SIDE, SIDE), seed=seed)


def num_weights(network: Network) -> int:
    """Without the biases."""
    return int(network.parameters.decays.sum())


def input_gradient(network: Network) -> Array:
    """The gradient of the centre of the output with respect to the input, (SIDE, SIDE)."""
    y = network.predict(np.zeros((1, 1, SIDE, SIDE), np.float32))
    dy = np.zeros_like(y)
    dy[0, 0, SIDE // 2, SIDE // 2] = 1
    dx = network.body.backward(dy)
    assert dx is not None
    return dx[0, 0].copy()


def side_seen(gradient: Array) -> int:
    """The side of the smallest square about the centre outside which the gradient is zero."""
    rows, columns = np.nonzero(gradient)
    distance = max(np.abs(rows - SIDE // 2).max(), np.abs(columns - SIDE // 2).max())
    return int(2 * distance + 1)


def draw_gradients(figure: Figure, gradients: list[Array]) -> None:
    """White is exactly zero: not seen."""
    ticks = range(0, SIDE, 2)
    grid = figure.subplots(1, len(DEPTHS), sharey=True)
    for axes, gradient, depth in zip(grid, gradients, DEPTHS, strict=True):
        magnitude = np.abs(gradient) / np.abs(gradient).max()
        shown = axes.imshow(np.ma.masked_equal(magnitude, 0), cmap="cividis", vmin=0, vmax=1)
        axes.set(title=f"{depth} × (3 × 3)", xlabel="column (pixels)", xticks=ticks, yticks=ticks)
    grid[0].set_ylabel("row (pixels)")
    figure.colorbar(shown, ax=grid, label="|gradient| / largest", shrink=0.8)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
