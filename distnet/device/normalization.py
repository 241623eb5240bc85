"""Normalisation: by moments of each micro-batch by itself, by neighbours, by given numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distnet.device.devices import Device
from distnet.device.layer import DeviceLayer, Moments
from distnet.device.mirror import Mirror
from distnet.nn.layers.normalization import BatchNorm, LocalResponseNorm
from distnet.nn.layers.quantized import Scale
from distnet.nn.layers.standardize import Standardize
from distnet.nn.parameters import Parameter


class DeviceBatchNorm(DeviceLayer[BatchNorm]):
    """y = gamma (x - mean) / sqrt(var + eps) + beta for each channel, the last axis.

    What is one number a channel is float64 and `(G, 1, ..., C)`, as sums over the other axes are.
    """

    def __init__(self, layer: BatchNorm, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.statistics: Any = None

    def fetch(self, training: bool) -> None:
        """How evaluation normalises: all by statistics, which the host has.

        And a layer that is frozen, in training too; of others training reads nothing of them.
        """
        layer = self.layer
        if training and not layer.running_mean.is_frozen and self.statistics is not None:
            return
        mean = layer.running_mean.value
        std = np.sqrt(layer.running_var.value + layer.eps)
        rest = (mean.astype(layer.dtype) - mean) / std
        rounded = (each.astype(layer.dtype) for each in (mean, 1 / std))
        found = np.stack([*rounded, rest])  # (3, C), in float64, which holds float32
        if self.statistics is None:
            self.statistics = self.device.to_device(found)
        else:
            self.device.fill(self.statistics, found)

    def load(self) -> None:
        dtype = self.layer.dtype
        gamma, beta = map(self.mirror.of, (self.layer.gamma, self.layer.beta))
        self.gamma, self.beta = gamma.astype(dtype), beta.astype(dtype)
        self.mean, self.running_inverse = (each.astype(dtype) for each in self.statistics[:2])
        self.rest = self.statistics[2]
        self.shifted_beta = (beta + gamma * self.rest).astype(dtype)

    def forward(self, x: Any, training: bool) -> Any:
        layer, xp = self.layer, self.xp
        self.num_values = x[0].size // x.shape[-1]
        self.is_training = training and not layer.running_mean.is_frozen
        if self.is_training:
            mean = self._per_channel(x, np.float64) / self.num_values
            centred = x - mean.astype(layer.dtype)
            squares = xp.square(centred.astype(np.float64))
            var = self._per_channel(squares) / self.num_values
            self.mean_and_var = mean, var
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

    def moments(self) -> Iterator[Moments]:
        if self.is_training:
            yield Moments(self.layer, *self.mean_and_var, self.num_values)

    def _per_channel(self, x: Any, dtype: Any = None) -> Any:
        """The sums over all axes but the first and the last, `(G, 1, ..., C)`."""
        g, *between, c = x.shape
        rows = self.numbers.addends(x, self.num_values).reshape(g, -1, c)
        return self.kernels.sum_rows(rows, dtype).reshape(g, *(1,) * len(between), c)


class DeviceScale(DeviceLayer[Scale]):
    """y = factor x, a factor for each channel, the last axis."""

    def load(self) -> None:
        self.factor = self.mirror.of(self.layer.factor).astype(self.layer.dtype)

    def forward(self, x: Any, training: bool) -> Any:
        self.x = x
        return x * self.factor

    def backward(self, dy: Any, need_dx: bool) -> Any:
        g, c = len(dy), dy.shape[-1]
        terms = self.numbers.addends(dy * self.x, dy[0].size // c)
        self.dfactor = self.kernels.sum_rows(terms.reshape(g, -1, c))
        return dy * self.factor if need_dx else None

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.factor, self.dfactor


class DeviceLocalResponseNorm(DeviceLayer[LocalResponseNorm]):
    """y = x (k + alpha / n * S)^-beta, S over neighbouring channels, the last axis."""

    def forward(self, x: Any, training: bool) -> Any:
        layer, arithmetic = self.layer, self.layer.arithmetic
        self.x = x
        reach = (layer.size // 2, (layer.size - 1) // 2)
        self.base = self._sum_neighbours(x * x, reach) * (layer.alpha / layer.size) + layer.k
        self.factor = arithmetic.exp(arithmetic.log(self.base) * -layer.beta)
        return x * self.factor

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        layer = self.layer
        term = dy * self.x * self.factor / self.base
        dx = self._sum_neighbours(term, ((layer.size - 1) // 2, layer.size // 2)) * self.x
        return dx * (-2 * layer.alpha * layer.beta / layer.size) + dy * self.factor

    def _sum_neighbours(self, terms: Any, reach: tuple[int, int]) -> Any:
        """As the layer's own, in its order."""
        total = terms + 0
        for distance in range(1, min(max(reach) + 1, terms.shape[-1])):
            if distance <= reach[0]:
                total[..., distance:] += terms[..., :-distance]
            if distance <= reach[1]:
                total[..., :-distance] += terms[..., distance:]
        return total


class DeviceStandardize(DeviceLayer[Standardize]):
    """y = (x - mean) / std, a number for each channel."""

    def __init__(self, layer: Standardize, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        shift, scale = layer.shift.reshape(-1), layer.scale.reshape(-1)
        self.shift, self.scale = device.to_device(shift), device.to_device(scale)

    def forward(self, x: Any, training: bool) -> Any:
        return (x - self.shift) * self.scale

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return dy * self.scale if need_dx else None
