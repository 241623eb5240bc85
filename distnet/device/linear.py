"""The fully connected layer: one product for all micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distnet.base.keys import MicroBatch
from distnet.device.elementwise import like_input, vectors_of
from distnet.device.layer import DeviceLayer
from distnet.nn.layers.linear import Linear
from distnet.nn.parameters import Parameter


class DeviceLinear(DeviceLayer[Linear]):
    """y = x W + b, images as vectors in (C, H, W) order."""

    def refresh(self) -> None:
        self._is_loaded = False

    def _load(self) -> None:
        if self._is_loaded:
            return
        weight = self.device.to_device(self.layer.weight.value)
        self.weight = self.numbers.operand(weight[None])[0]  # (K, out)
        if self.layer.has_bias:
            self.bias = self.device.to_device(self.layer.bias.value)
        self._is_loaded = True

    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        self._load()
        k, out = self.layer.weight.shape
        self.layer.arithmetic.check_terms("Linear", max(x.shape[1], k, out))
        self.shape = x.shape
        self.x = self.numbers.operand(vectors_of(x))
        y = self.xp.matmul(self.x, self.weight)
        return y + self.bias if self.layer.has_bias else y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        dy = self.numbers.operand(dy)
        self.dweight = self.xp.matmul(self.x.transpose(0, 2, 1), dy)
        self.dbias = self.xp.sum(dy, axis=1)  # of rounded numbers: exact
        return like_input(self.xp.matmul(dy, self.weight.T), self.shape) if need_dx else None

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight
        if self.layer.has_bias:
            yield self.layer.bias, self.dbias
