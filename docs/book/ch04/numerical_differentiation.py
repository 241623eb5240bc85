"""Derivatives by central differences, and how exact they can be (book section 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.experiments import Lab, Numbers, Required, at_most, main, near
from distnet.nn.gradient_check import numerical_gradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Function = Callable[[float], float]

H = 1e-4  # the book's

REQUIRED = [
    Required(
        "A3", "derivative of 0.01 x² + 0.1 x at 5 and 10", "derivatives", near([0.2, 0.3], 1e-7)
    ),
    Required("A3", "partial derivatives of x0² + x1² at (3, 4)", "partials", near([6, 8], 1e-7)),
    Required(
        "4.3.1", "least error for sin at 1, forward difference", "forward_error", at_most(1e-7)
    ),
    Required(
        "4.3.1", "least error for sin at 1, central difference", "central_error", at_most(1e-10)
    ),
]


def derivative(f: Function, x: float, h: float = H) -> float:
    """(f(x + h) - f(x - h)) / 2h."""
    at = np.array([x], np.float64)
    return float(numerical_gradient(lambda: f(at[0]), at, h)[0])


def parabola(x: Any) -> Any:
    return 0.01 * x**2 + 0.1 * x


def run(lab: Lab) -> Numbers:
    point = np.array([3.0, 4.0])
    steps = 10.0 ** np.arange(-15, 0, 0.25)
    forward = np.array([abs((np.sin(1 + h) - np.sin(1)) / h - np.cos(1)) for h in steps])
    central = np.array([abs(derivative(np.sin, 1, h) - np.cos(1)) for h in steps])
    lab.picture("tangent", draw_tangent)
    lab.picture("step_size", lambda figure: draw_errors(figure, steps, forward, central))
    return {
        "derivatives": [derivative(parabola, x) for x in (5, 10)],
        "partials": numerical_gradient(lambda: float(np.sum(point**2)), point, H),
        "forward_error": forward.min(),
        "central_error": central.min(),
    }


def draw_tangent(figure: Figure) -> None:
    axes = figure.subplots()
    x = np.linspace(0, 20, 201)
    axes.plot(x, parabola(x), label="f(x) = 0.01 x² + 0.1 x")
    axes.plot(x, parabola(5) + derivative(parabola, 5) * (x - 5), label="tangent at x = 5")
    axes.plot(5, parabola(5), "ko")
    axes.set(xlabel="x", ylabel="f(x)")
    axes.legend()


def draw_errors(
    figure: Figure, steps: np.ndarray, forward: np.ndarray, central: np.ndarray
) -> None:
    """Too large a step cuts off the curve, too small a one leaves nothing but rounding errors."""
    axes = figure.subplots()
    axes.loglog(steps, forward, label="(f(x + h) − f(x)) / h")
    axes.loglog(steps, central, label="(f(x + h) − f(x − h)) / 2h")
    axes.axvline(H, color="0.6", linestyle=":", label="the book's h")
    axes.set(xlabel="h", ylabel="error of the derivative of sin at 1", ylim=(1e-13, 10))
    axes.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
