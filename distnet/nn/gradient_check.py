"""Compares the gradients of a layer with central differences (book section 4.3 and 5.7.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.layer import Layer


def numerical_gradient(f: Callable[[], float], x: Array, h: float = 1e-5) -> Array:
    """df/dx by central differences; `f` reads `x`, float64, which is left as it was found."""
    if x.dtype != np.float64:
        raise TypeError(f"numerical gradient: found dtype {x.dtype}, expected float64")
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        value = x[index]
        try:
            x[index] = value + h
            above = f()
            x[index] = value - h
            below = f()
        finally:
            x[index] = value
        gradient[index] = (above - below) / (2 * h)
    return gradient


def relative_error(a: Array, b: Array) -> float:
    """max |a - b| / max(1, |a|, |b|)."""
    scale = np.maximum(1, np.maximum(np.abs(a), np.abs(b)))
    return float(np.max(np.abs(a - b) / scale, initial=0))


def gradient_errors(
    layer: Layer, x: Array, at: MicroBatch | None = None, seed: int = 0
) -> Iterator[tuple[str, float]]:
    """For a built float64 layer, the error of dx and of every parameter's gradient.

    The scalar that is differentiated is the output's inner product with fixed random numbers.
    """
    dy = np.random.default_rng(seed).standard_normal(layer.forward(x, at=at).shape)

    def projection() -> float:
        layer.refresh()
        return float(np.vdot(layer.forward(x, at=at), dy))

    projection()
    dx = layer.backward(dy.copy())
    assert dx is not None
    analytic = {"x": dx.copy()}
    inputs = {"x": x}
    for name, parameter in layer.parameters():
        analytic[name], inputs[name] = parameter.grad.copy(), parameter.value
    for name, array in inputs.items():
        yield name, relative_error(analytic[name], numerical_gradient(projection, array))
