"""A whole pass of several micro-batches on a device: forward, loss, backward, and their exact sum.

Where the loss is computed there as well (`device_loss`), only the sum of the gradients of a group
comes back, in the whole numbers that exact sums are made of (`parallel.sums.fixed_point`). So the
host sends inputs, targets and parameters, and fetches one vector: all between is one recording.

In portable arithmetic a group has the bits of its micro-batches one by one. In float32 a product
of more rows may round otherwise, so there a group is one micro-batch: else the bits would depend on
how many a rank has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.device.body import OnDevice, contribute
from distnet.device.layer import Moments
from distnet.device.recording import Recorded
from distnet.nn import Network
from distnet.objectives import Objective
from distnet.parallel.sums.fixed_point import FixedPoint
from distnet.parallel.sums.reducer import Reducer
from distnet.training.step.device_images import DeviceImages
from distnet.training.step.device_loss import DeviceLoss, body_of, device_loss
from distnet.training.step.feed import Feed
from distnet.training.step.group_pass import GroupPass, GroupResult

# Of a pass: numbers in its inputs, which bounds its memory, and micro-batches.
MOST_NUMBERS, MOST_MICRO_BATCHES = 1 << 20, 1024


@dataclass(frozen=True)
class DeviceResult(GroupResult):
    """units: the sum of the gradients `(P,)`, int64 in fixed point."""

    units: Any

    def add_to(self, reducer: Reducer, micro_batches: Sequence[int]) -> None:
        reducer.add_units(micro_batches, self.units, self.sums)


class DevicePass(GroupPass):
    """The passes of a network on a device, see above."""

    def __init__(
        self,
        network: Network,
        loss: DeviceLoss[Any],
        feed: Feed,
        numbers: FixedPoint,
        keeps: bool,
        images: DeviceImages | None,
    ) -> None:
        assert isinstance(network.body, OnDevice)
        self.network, self.body, self.loss, self.device = network, network.body, loss, loss.device
        self.feed, self.numbers, self.keeps, self.images = feed, numbers, keeps, images
        self._recorded = Recorded(self.device, self._run)
        self._drawn: tuple[Any, Any] = None, None  # for which micro-batches: inputs and targets
        num_numbers = int(np.prod(network.input_shape))
        self._most_samples = max(1, MOST_NUMBERS // num_numbers)

    def largest_group(self, num_samples: int) -> int:
        if not self.network.arithmetic.rounds:
            return 1
        return min(MOST_MICRO_BATCHES, max(1, self._most_samples // max(1, num_samples)))

    def __call__(
        self,
        samples: Sequence[Array],
        at: Sequence[MicroBatch],
        divisor: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> DeviceResult | None:
        """None if a gradient cannot be summed: micro-batch by micro-batch it is found which."""
        body, (g, n) = self.body, (len(samples), len(samples[0]))
        self._draw(samples, at)
        _, (inputs, targets) = self._drawn
        targets = self.loss.targets(targets, g, n)
        body.bring(n, at)
        divided, manner = np.array([divisor], np.float64), body.chain.manner()
        units, packed, moments = self._recorded(inputs, divided, *targets, manner=manner)
        meanwhile()
        packed = self.device.to_host(packed)
        num_sums = 1 + len(self.loss.objective.counts)
        largest, sums, of_moments = np.split(packed, [g, g + g * num_sums])
        if not np.all(largest <= self.numbers.limit):
            return None
        sums = sums.reshape(g, num_sums)
        sums[:, 0] /= divisor
        statistics = self._statistics(moments, of_moments, at)
        units = units if self.keeps else self.device.to_host(units)
        return DeviceResult(np.hstack([sums, statistics]), units)

    def draw(self, samples: Sequence[Array], at: Sequence[MicroBatch]) -> None:
        """If something is wrong with it, the pass that needs it will say so."""
        with suppress(ValueError, OSError):
            self._draw(samples, at)

    def _draw(self, samples: Sequence[Array], at: Sequence[MicroBatch]) -> None:
        if self._drawn[0] == tuple(at):
            return
        self._drawn = None, None
        drawn = self._inputs_and_targets(samples, at)
        self.body.chain.draw(at, len(samples[0]))
        self._drawn = tuple(at), drawn

    def _inputs_and_targets(
        self, samples: Sequence[Array], at: Sequence[MicroBatch]
    ) -> tuple[Array, Array]:
        """What goes over, `(G, N, ...)`, or where that is there; and the targets `(G N, ...)`."""
        if self.images is not None:
            self.images.bring()
            return self.images.places(samples, at), self.feed.targets[np.concatenate(samples)]
        inputs, targets = self.feed.group(samples, at)
        inputs = inputs.reshape(len(samples), len(samples[0]), *inputs.shape[1:])
        self.body.chain.check(inputs)
        return inputs, targets

    def _run(self, inputs: Any, divisor: Any, *targets: Any) -> tuple[Any, Any, list[Moments]]:
        """Units; in one vector the largest, losses and counts, moments; whose these are."""
        chain, kernels = self.body.chain, self.device.kernels
        chain.load()
        outputs = chain.forward(self._as_input(inputs), training=True)
        doutputs, sums = self.loss.gradient(outputs, divisor, *targets)
        chain.backward(doutputs, need_dx=False)
        trained = (each for p, each in chain.gradients() if not p.is_frozen)
        rows = [each.reshape(len(inputs), -1) for each in trained]
        units, largest = kernels.sum_of_units(kernels.concatenate(rows, 1), self.numbers.scale)
        moments = list(chain.moments())
        of_layers = [array.reshape(-1) for each in moments for array in (each.mean, each.var)]
        packed = kernels.concatenate([largest, sums.reshape(-1), *of_layers], 0)
        return units, packed, moments

    def _as_input(self, inputs: Any) -> Any:
        """As `Network.as_input`: bytes 0 to 255 mean 0 to 1. Channels come last."""
        xp, dtype = self.device.xp, self.network.dtype
        if self.images is not None:
            inputs = self.images.gathered(inputs)
        elif inputs.ndim == 5:
            inputs = xp.ascontiguousarray(self.body.as_images(inputs))
        if inputs.dtype == np.uint8:
            return inputs.astype(dtype) * dtype.type(1 / 255)
        return inputs.astype(dtype)

    def _statistics(self, moments: list[Moments], values: Array, at: Sequence[MicroBatch]) -> Array:
        """`(G, B)`: what each micro-batch adds to running statistics; values: of all moments."""
        batch = self.network.parameters.batch_statistics
        rows = np.empty((len(at), batch.size))
        stops = np.cumsum([2 * each.mean.size for each in moments])
        of_layers = [each.reshape(2, len(at), -1) for each in np.split(values, stops)[:-1]]
        for g, micro_batch in enumerate(at):
            for each, (mean, var) in zip(moments, of_layers, strict=True):
                contribute(each, mean[g], var[g], micro_batch)
            rows[g] = batch
        return rows


def device_pass(
    objective: Objective, feed: Feed, numbers: FixedPoint | None, *, keeps: bool, changes: bool
) -> DevicePass | None:
    """The passes of an objective's network on its device, or None where there are none.

    numbers: in which sums may be made beforehand; None: they may not. keeps: whether the sums stay
    on the device, until the next pass. changes: whether the samples change from step to step.
    """
    body = body_of(objective)
    if body is None or numbers is None or not objective.parameters.place.size:
        return None  # of what is frozen altogether there are no gradients
    network, loss = cast("Any", objective).network, device_loss(objective, body.device)
    images = None if changes else DeviceImages.of(feed, body.device)
    return DevicePass(network, loss, feed, numbers, keeps, images)
