"""The gradient of x0² + x1², and following it downhill (book section 4.4).

Gradient descent is the optimizer SGD on a vector of two parameters, with gradients by central
differences as in the book.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import COLORS, Lab, Numbers, Required, main, near
from distnet.nn.gradient_check import numerical_gradient
from distnet.optim import SGD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "A3",
        "gradients at (3, 4), (0, 2), (3, 0)",
        "gradients",
        near([[6, 8], [0, 4], [6, 0]], 1e-7),
    ),
    Required(
        "A3",
        "100 steps of lr 0.1 from (-3, 4)",
        "lr_0.1",
        near([-6.11110793e-10, 8.14814391e-10], 1e-12),
    ),
    Required("A3", "of lr 1e-10: hardly moved", "lr_1e-10", near([-2.99999994, 3.99999992], 1e-8)),
    Required("A3", "of lr 10: far away", "lr_10", near([-2.58983747e13, -1.29524862e12], 1e5)),
]


def f(x: Array) -> float:
    return float(x[0] ** 2 + x[1] ** 2)


def gradient(x: Array) -> Array:
    return numerical_gradient(lambda: f(x), x, h=1e-4)


def descend(lr: float, num_steps: int) -> Array:
    """The path `(num_steps + 1, 2)` from (-3, 4)."""
    x = np.array([-3.0, 4.0])
    optimizer = SGD(x.size, dtype=x.dtype)
    path = [x.copy()]
    for t in range(1, num_steps + 1):
        optimizer.step(x, gradient(x), lr, t)
        path.append(x.copy())
    return np.array(path)


def run(lab: Lab) -> Numbers:
    lab.picture("gradient_field", draw_field, size=(5, 4.4))
    lab.picture("descent", draw_descent, size=(8, 4.4))
    points = [(3.0, 4.0), (0.0, 2.0), (3.0, 0.0)]
    ends = {f"lr_{lr:g}": descend(lr, 100)[-1] for lr in (0.1, 10, 1e-10)}
    return {"gradients": [gradient(np.array(point)) for point in points], **ends}


def draw_field(figure: Figure) -> None:
    """Arrows against the gradient: where it goes down, and how steeply."""
    x, y = np.meshgrid(np.arange(-2, 2.1, 0.25), np.arange(-2, 2.1, 0.25))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    u, v = -np.array([gradient(point) for point in points]).T
    axes = figure.subplots()
    axes.quiver(x, y, u, v, color=COLORS[0], angles="xy")
    axes.set(xlabel="$x_0$", ylabel="$x_1$", aspect="equal")


def draw_descent(figure: Figure) -> None:
    """20 steps downhill for two learning rates, over lines of equal height."""
    grid = np.linspace(-4.5, 4.5, 91)
    heights = grid[:, None] ** 2 + grid**2
    for axes, lr in zip(figure.subplots(1, 2), (0.1, 0.9), strict=True):
        lines = axes.contour(grid, grid, heights, levels=[1, 4, 9, 16, 25], colors="0.7")
        axes.clabel(lines, fmt="%g")
        axes.plot(*descend(lr, 20).T, "o-", markersize=4, linewidth=1)
        axes.set(title=f"learning rate {lr:g}", xlabel="$x_0$", ylabel="$x_1$", aspect="equal")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
