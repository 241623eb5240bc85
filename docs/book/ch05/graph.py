"""Nodes of computational graphs (chapter 5 and appendix A): what the scripts of this folder share.

A node computes its output from its inputs in `forward` and remembers what `backward` needs: given
the derivative of the graph's result with respect to its output, `backward` returns those with
respect to its inputs. No node knows anything of the graph around it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Value = Any  # a number or an array


class Add:
    """z = x + y: passes the derivative on to both."""

    def forward(self, x: Value, y: Value) -> Value:
        return x + y

    def backward(self, dz: Value) -> tuple[Value, Value]:
        return dz, dz


class Multiply:
    """z = x y, for operands of one shape: each gets the derivative times the other one."""

    def forward(self, x: Value, y: Value) -> Value:
        self.x, self.y = x, y
        return x * y

    def backward(self, dz: Value) -> tuple[Value, Value]:
        return dz * self.y, dz * self.x


class Reciprocal:
    """z = 1 / x, so dz/dx = -z²."""

    def forward(self, x: Value) -> Value:
        self.z = 1 / x
        return self.z

    def backward(self, dz: Value) -> Value:
        return -dz * self.z**2


class Exp:
    """z = exp x, its own derivative."""

    def forward(self, x: Value) -> Value:
        self.z = np.exp(x)
        return self.z

    def backward(self, dz: Value) -> Value:
        return dz * self.z


class Log:
    """z = log x."""

    def forward(self, x: Value) -> Value:
        self.x = x
        return np.log(x)

    def backward(self, dz: Value) -> Value:
        return dz / self.x


class Sum:
    """Adds up the K columns of x `(N, K)` to `(N, 1)`: every one gets the derivative."""

    def forward(self, x: Value) -> Value:
        self.num_columns = x.shape[1]
        return x.sum(axis=1, keepdims=True)

    def backward(self, dz: Value) -> Value:
        return np.repeat(dz, self.num_columns, axis=1)


class Repeat:
    """x `(N, 1)` branches to K columns `(N, K)`: the derivatives of all branches add up."""

    def __init__(self, num_columns: int) -> None:
        self.num_columns = num_columns

    def forward(self, x: Value) -> Value:
        return np.repeat(x, self.num_columns, axis=1)

    def backward(self, dz: Value) -> Value:
        return dz.sum(axis=1, keepdims=True)
