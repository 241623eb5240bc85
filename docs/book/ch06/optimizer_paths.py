"""The paths of six optimizers down x² / 20 + y² (book sections 6.1.3 to 6.1.7).

A valley twenty times as steep across as along: what tells optimizers apart. Deterministic, in
float64. The book draws four of the paths, here with the same points, and has code for all six.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import COLORS, MARKERS, Lab, Numbers, Required, main, near
from distnet.optim import make_optimizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

START = (-7.0, 2.0)
NUM_STEPS = 30

# The book's learning rates, and its form of Adam, with a constant added to sqrt(v).
SETTINGS = {
    "sgd": {"lr": 0.95},
    "momentum": {"lr": 0.1},
    "nesterov": {"lr": 0.1},
    "adagrad": {"lr": 1.5},
    "rmsprop": {"lr": 0.1},
    "adam": {"lr": 0.3, "eps_hat": 1e-7},
}

# Ends: the book's rules written out in plain Python.
REQUIRED = [
    Required("A9", "SGD after 30 steps", "sgd", near([-0.350392995752, 0.0847823165504], 1e-9)),
    Required("A9", "Momentum", "momentum", near([0.896413858494, 0.0880856017151], 1e-9)),
    Required("6.1", "Nesterov", "nesterov", near([0.689614901697, -0.000679905836117], 1e-9)),
    Required("A9", "AdaGrad", "adagrad", near([-0.120162322314, 0], 1e-9)),
    Required("6.1", "RMSprop", "rmsprop", near([-0.697420309681, 0.0000000148346], 1e-9)),
    Required("A9", "Adam", "adam", near([0.136006852395, 0.318245375537], 1e-9)),
]


def height(x: Array, y: Array) -> Array:
    return x**2 / 20 + y**2


def gradient(point: Array) -> Array:
    x, y = point
    return np.array([x / 10, 2 * y])


def descend(name: str, lr: float, **hyper: Any) -> Array:
    """The path `(NUM_STEPS + 1, 2)` of optimizer `name`."""
    point = np.array(START)
    optimizer = make_optimizer(name, point.size, dtype=point.dtype, **hyper)
    path = [point.copy()]
    for t in range(1, NUM_STEPS + 1):
        optimizer.step(point, gradient(point), lr, t)
        path.append(point.copy())
    return np.array(path)


def run(lab: Lab) -> Numbers:
    paths = {name: descend(name, **settings) for name, settings in SETTINGS.items()}
    lab.picture("optimizer_paths", lambda figure: draw_paths(figure, paths), size=(8, 6.5))
    return {name: path[-1] for name, path in paths.items()}


def draw_paths(figure: Figure, paths: dict[str, Array]) -> None:
    x, y = np.meshgrid(np.linspace(-9, 9, 181), np.linspace(-4, 4, 161))
    panels = figure.subplots(3, 2, sharex=True, sharey=True)
    for axes, (name, path), color, marker in zip(
        panels.flat, paths.items(), COLORS, MARKERS, strict=False
    ):
        axes.contour(x, y, height(x, y), levels=[0.25, 1, 2, 4, 8], colors="0.75", linewidths=1)
        axes.plot(*path.T, color=color, marker=marker, markersize=4, linewidth=1)
        axes.plot(0, 0, "k+")
        axes.set(title=f"{name}, lr {SETTINGS[name]['lr']:g}", xlim=(-9, 9), ylim=(-4, 4))
    figure.supxlabel("x")
    figure.supylabel("y")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
