"""BatchNorm: moments of each micro-batch by itself, as on the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distnet.base.keys import MicroBatch
from distnet.device.layer import DeviceLayer
from distnet.nn.layers.normalization import BatchNorm
from distnet.nn.parameters import Parameter


class DeviceBatchNorm(DeviceLayer[BatchNorm]):
    """y = gamma (x - mean) / sqrt(var + eps) + beta for each channel, the last axis.

    What is one number a channel is float64 and `(G, 1, ..., C)`, as sums over the other axes are.
    """

    def refresh(self) -> None:
        self._is_loaded = False

    def _load(self) -> None:
        """gamma and beta; and how evaluation normalises: all by statistics, which the host has."""
        if self._is_loaded:
            return
        layer = self.layer
        mean = layer.running_mean.value
        std = np.sqrt(layer.running_var.value + layer.eps)
        rest = (mean.astype(layer.dtype) - mean) / std
        gamma, beta = layer.gamma.value, layer.beta.value
        of_statistics = mean, 1 / std, beta + gamma * rest
        self.gamma, self.beta, self.mean, self.running_inverse, self.shifted_beta = (
            self.device.to_device(array.astype(layer.dtype))
            for array in (gamma, beta, *of_statistics)
        )
        self.rest = self.device.to_device(rest)
        self._is_loaded = True

    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        self._load()
        layer, xp = self.layer, self.xp
        self.axes = tuple(range(1, x.ndim - 1))
        self.num_values = x[0].size // x.shape[-1]
        self.is_training = at is not None and not layer.running_mean.is_frozen
        if self.is_training:
            mean = self._per_channel(x, np.float64) / self.num_values
            centred = x - mean.astype(layer.dtype)
            squares = xp.square(centred.astype(np.float64))
            var = self._per_channel(squares) / self.num_values
            self.moments = mean, var
            inverse_std = (1 / xp.sqrt(var + layer.eps)).astype(layer.dtype)
            beta = self.beta
        else:
            centred, inverse_std, beta = x - self.mean, self.running_inverse, self.shifted_beta
        self.inverse_std = inverse_std
        self.normalized = centred * inverse_std
        return self.normalized * self.gamma + beta

    def backward(self, dy: Any, need_dx: bool) -> Any:
        dtype = self.layer.dtype
        dbeta = self._per_channel(dy)
        dgamma = self._per_channel(dy * self.normalized)
        if not self.is_training:
            dgamma = dgamma + (self.rest * dbeta).astype(dtype)
        self.dgamma, self.dbeta = (each.reshape(len(dy), -1) for each in (dgamma, dbeta))
        if not need_dx:
            return None
        gain = self.gamma * self.inverse_std
        if not self.is_training:
            return dy * gain
        product = self.normalized * (dgamma / self.num_values).astype(dtype)
        dx = dy - (dbeta / self.num_values).astype(dtype)
        return (dx - product) * gain

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.gamma, self.dgamma
        yield self.layer.beta, self.dbeta

    def hand_over(self, g: int, at: MicroBatch) -> None:
        if self.is_training:
            mean, var = (self.device.to_host(each[g]).reshape(-1) for each in self.moments)
            self.layer.contribute(mean, var, at.share, self.num_values)

    def _per_channel(self, x: Any, dtype: Any = None) -> Any:
        """The sums over all axes but the first and the last, `(G, 1, ..., C)`."""
        total = self.numbers.sum(x, self.axes, dtype)
        return total.reshape(len(x), *(1,) * len(self.axes), -1)
