"""Losses on a device: what a pass computes there of an objective, behind its network.

Objectives that have one, `DEVICE_LOSSES`, are trained in passes of many micro-batches that are
recorded, see `device_pass`; with any other the host asks for each micro-batch by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import numpy as np

from distnet.base.arithmetic import DIGITS, bit_length
from distnet.base.arrays import Array
from distnet.device import Device
from distnet.device.body import OnDevice
from distnet.device.images import channels_last
from distnet.device.kernels import Sums
from distnet.device.numbers import Numbers
from distnet.nn.losses import check_labels
from distnet.objectives import Classification, Objective, Regression, Segmentation

Of = TypeVar("Of", bound=Objective)


class DeviceLoss(ABC, Generic[Of]):
    """The loss of an objective with one network, for G micro-batches of N samples at a time."""

    def __init__(self, objective: Of, device: Device) -> None:
        self.objective, self.device, self.xp = objective, device, device.xp
        self.numbers = Numbers(device, objective.parameters.arithmetic)

    @abstractmethod
    def targets(self, targets: Array, g: int, n: int) -> list[Array]:
        """What goes there of the targets `(G N, ...)`; ValueError for what the objective refuses.

        Images have their channels last, as the outputs of a network have there.
        """

    @abstractmethod
    def gradient(self, outputs: Any, divisor: Any, *targets: Any) -> tuple[Any, Any]:
        """The gradient of the outputs `(G, N, ...)`, for the loss divided by `divisor` `(1,)`.

        And what `Objective.gradients` returns, `(G, S)` float64, with the loss not divided.
        """


class DeviceCrossEntropy(DeviceLoss[Classification]):
    """Softmax cross-entropy of logits `(G, N, K)`."""

    def __init__(self, objective: Classification, device: Device) -> None:
        super().__init__(objective, device)
        weights = objective.loss.weights
        self._weights = None if weights is None else device.to_device(weights)

    def targets(self, targets: Array, g: int, n: int) -> list[Array]:
        check_labels(targets, g * n, *self.objective.network.output_shape)
        return [targets.reshape(g, n).astype(np.int32)]

    def gradient(self, outputs: Any, divisor: Any, *targets: Any) -> tuple[Any, Any]:
        (labels,), loss = targets, self.objective.loss
        return self.device.kernels.cross_entropy(outputs, labels, self._weights, divisor, loss)


class DeviceSquares(DeviceLoss[Regression]):
    """Half the squares of the differences."""

    def targets(self, targets: Array, g: int, n: int) -> list[Array]:
        shaped = self.objective.shaped(targets, g * n)
        shaped = shaped.reshape(g, n, *shaped.shape[1:])
        return [channels_last(shaped) if shaped.ndim == 5 else shaped]

    def gradient(self, outputs: Any, divisor: Any, *targets: Any) -> tuple[Any, Any]:
        (expected,), dtype = targets, outputs.dtype
        if expected.dtype == np.uint8:
            expected = expected.astype(dtype) * dtype.type(1 / 255)
        difference = (outputs - expected).astype(dtype)
        squares = self.xp.square(difference.astype(np.float64)).reshape(len(outputs), -1, 1)
        squares = self.numbers.addends(squares, squares.shape[1])
        total = self.device.kernels.sum_rows(squares)
        return difference * (1 / divisor).astype(dtype), 0.5 * total


class DevicePixelCrossEntropy(DeviceLoss[Segmentation]):
    """Softmax cross-entropy of logits `(G, N, H, W, K)`, and the confusion matrix of pixels."""

    def __init__(self, objective: Segmentation, device: Device) -> None:
        super().__init__(objective, device)
        self._sums = Sums(device.kernels, objective.loss.arithmetic)

    def targets(self, targets: Array, g: int, n: int) -> list[Array]:
        """Labels `(G, N H W)`, -1 where they are ignored; and of each micro-batch the power of two
        by which a sum over its known pixels may be longer than one of them.
        """
        objective = self.objective
        known = objective.loss.known_of(targets, (g * n, *objective.network.output_shape))
        labels = np.where(known, targets.astype(np.int32), np.int32(-1)).reshape(g, -1)
        lengths = [bit_length(int(np.count_nonzero(each))) for each in known.reshape(g, -1)]
        return [labels, np.ldexp(1.0, lengths).reshape(g, 1, 1)]

    def gradient(self, outputs: Any, divisor: Any, *targets: Any) -> tuple[Any, Any]:
        (labels, longer), xp, kernels = targets, self.xp, self.device.kernels
        (g, *_, k), dtype, arithmetic = outputs.shape, outputs.dtype, self._sums.arithmetic
        # Sums and maxima over an axis in the middle, (G, K, P pixels).
        logits = xp.ascontiguousarray(outputs.reshape(g, -1, k).transpose(0, 2, 1))
        classes, known = xp.arange(k)[:, None], (labels >= 0)[:, None]
        is_label = xp.equal(labels[:, None], classes)
        is_predicted = xp.equal(xp.argmax(logits, axis=1)[:, None], classes)
        logits = logits - xp.max(logits, axis=1, keepdims=True)
        of_labels = xp.sum(xp.where(is_label, logits, 0), axis=1, keepdims=True)
        p = arithmetic.exp(logits)
        sums = self._sums.over(p, 1)
        losses = xp.where(known, arithmetic.log(sums) - of_labels, 0)
        losses = losses.astype(np.float64).reshape(g, -1, 1)
        if arithmetic.rounds:
            losses = kernels.to_grid(losses, kernels.unit(losses, DIGITS) * longer)
        found = is_predicted.astype(np.float64).transpose(0, 2, 1)
        matrix = kernels.matmul(is_label.astype(np.float64), found).reshape(g, k * k)
        p = p / sums
        dx = xp.where(is_label, p - 1, p) * (known * (1 / divisor).astype(dtype))
        dx = dx.transpose(0, 2, 1).reshape(outputs.shape)
        return dx, kernels.concatenate([kernels.sum_rows(losses), matrix], 1)


DEVICE_LOSSES: dict[type[Objective], Callable[[Any, Device], DeviceLoss[Any]]] = {
    Classification: DeviceCrossEntropy,
    Regression: DeviceSquares,
    Segmentation: DevicePixelCrossEntropy,
}


def body_of(objective: Objective) -> OnDevice | None:
    """The layers of an objective whose loss can be theirs: where there are none, it is the host's.

    A class that is derived from one that has a loss may do something else.
    """
    if type(objective) not in DEVICE_LOSSES:
        return None
    body = cast("Any", objective).network.body
    return body if isinstance(body, OnDevice) else None


def device_of(objective: Objective) -> Device | None:
    """Where they are."""
    body = body_of(objective)
    return None if body is None else body.device


def device_loss(objective: Objective, device: Device) -> DeviceLoss[Any]:
    """The loss of an objective that has one on a device."""
    return DEVICE_LOSSES[type(objective)](objective, device)
