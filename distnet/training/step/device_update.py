"""The sum and the update on a device, where one process trains alone: gradients never leave it.

Several ranks sum on their hosts, where MPI is: no device memory is ever handed to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.device import Device
from distnet.device.body import OnDevice
from distnet.nn.parameters import Parameters
from distnet.optim import OPTIMIZERS, Optimizer
from distnet.optim.optimizers import Vector
from distnet.parallel import Communicator, SerialCommunicator
from distnet.parallel.sums.exchange import Messages
from distnet.parallel.sums.formats import Exact


class DeviceExact(Exact):
    """`Exact`, whose sums are arrays on a device; contributions may come from the host, too."""

    def __init__(self, size: int, num_contributions: int, device: Device) -> None:
        super().__init__(size, num_contributions)
        self._device = device

    def add(self, total: Any, values: Array, start: int, first: bool) -> int | None:
        units = np.empty(values.size, np.int64)
        offender = super().add(units, values, start, True)
        there = self._device.to_device(units)
        total[...] = there if first else total + there
        return offender

    def convert(self, total: Any, start: int, out: Any) -> None:
        self._device.kernels.from_units(total, self._fixed_point.scale, out)


def sums_on(device: Device, comm: Communicator, format: DeviceExact) -> Messages:
    """The total of one process alone, on a device."""
    zeros = device.xp.zeros
    total, result = zeros(format.size, np.int64), zeros(format.size, format.result_dtype)
    return Messages(comm, format, total, result)


@portable
class DeviceOptimizer(Optimizer):
    """A rule that looks at each element alone, on a device: gradients are arrays there.

    So are the parameters, those that the layers read. They come back to the host when somebody asks
    for them, see `nn.Parameters`, and the rule's own vectors when somebody asks for `state`.
    """

    def __init__(self, rule: Optimizer, parameters: Parameters, body: OnDevice) -> None:
        device, self._parameters, self._body = body.device, parameters, body
        self._here, self._is_behind = rule.state, False
        self._there = {name: device.to_device(array) for name, array in rule.state.items()}
        self._factors = device.to_device(np.zeros(len(rule.factors(1.0, 1)), rule.dtype))
        self._grads: Any = None
        self._run: Callable[[], None] | None = None
        self._rule, self._device = rule, device
        super().__init__(rule.size, dtype=rule.dtype, arithmetic=rule.arithmetic)
        rule.move(self._there, device.to_device)

    @property
    def state(self) -> dict[str, Array]:
        if self._is_behind:
            for name, array in self._there.items():
                np.copyto(self._here[name], self._device.to_host(array))
            self._is_behind = False
        return self._here

    @state.setter
    def state(self, state: dict[str, Array]) -> None:
        """What `Optimizer` begins with: the vectors are the rule's."""

    def step(
        self, params: Vector, grads: Any, lr: float, t: int, factor: float | None = None
    ) -> None:
        device, mirror = self._device, self._body.mirror
        self._body.bring_parameters()
        device.fill(self._factors, np.array(self._rule.factors(lr, t), self.dtype))
        if grads is not self._grads:  # that is once: they always lie in the same memory
            self._grads, self._run = grads, None
            self._step_whole()
        else:
            self._run = self._run or device.record(self._step_whole, repeatable=False)
            self._run()
        self._is_behind = mirror.is_ahead = True
        self._parameters.leave(mirror.take_home)

    def _step_whole(self) -> None:
        whole, factors = slice(0, self.size), [self._factors[i] for i in range(len(self._factors))]
        self._rule.step_block(whole, self._body.mirror.trained, self._grads, factors)
        self._body.chain.settle()

    def refresh(self) -> None:
        for name, array in self._there.items():
            self._device.fill(array, self._here[name])


def trains_alone(comm: Communicator, optimizer: Optimizer) -> bool:
    """Whether there is one process, and its rule can update on a device.

    That is one of distnet's, which looks at single elements and needs no norm of the gradient.
    """
    is_ours = type(optimizer) in OPTIMIZERS.values()
    can_update_there = is_ours and optimizer.elementwise and not optimizer.clip_norm
    return isinstance(comm, SerialCommunicator) and can_update_there
