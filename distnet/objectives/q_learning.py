"""What a move is worth: Double Q-learning with a network (DQN, book section 8.5.4)."""

from __future__ import annotations

import copy

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.losses import smooth_l1
from distnet.nn.network import Network
from distnet.objectives.objective import Objective, Ready


@portable
class DoubleDQN(Objective):
    """Trains outputs `(N, A)` to be what each of A actions will earn: the sum of later rewards.

    x: observations; targets: a structured array with the fields `action`, `returned`, `discount`
    and `following`, as `data.replay.Replay` has them. The value of the action is drawn to

        returned + discount Q_target(following)[argmax Q(following)]

    by Huber's loss (Mnih et al. 2015, "Human-level control through deep reinforcement learning",
    Nature 518; van Hasselt, Guez and Silver 2016, arXiv:1509.06461, equation 4: the network chooses
    the action, the target network says what it is worth, so that its luck is not counted as merit).

    target: the parameters of the target network, a flat vector that follows those of `network`,
    such as the average of an `optim.Averaged`: the soft updates of Lillicrap et al. 2015,
    arXiv:1509.02971, section 3. They are read, and never written.
    """

    def __init__(self, network: Network, target: Array) -> None:
        if len(network.output_shape) != 1:
            raise ValueError(
                f"DoubleDQN: found outputs of shape {network.output_shape}, expected (A,), one "
                "value for each action; end the network with Linear(A)"
            )
        self.network, self.parameters = network, network.parameters
        self.target_network = copy.deepcopy(network)
        own, kept = self.target_network.parameters, target.copy()
        own.move_to(
            values=target,
            grads=own.grads,
            constants=own.constants,
            statistics=self.parameters.statistics,
            batch_statistics=own.batch_statistics,
        )
        target[...] = kept

    def as_input(self, inputs: Array) -> Array:
        """In an array of their own: the network's is needed first, for what follows them."""
        return self.network.as_input(inputs)

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        divisor = self.divisor(targets) if divisor is None else divisor
        wanted = self._wanted(targets)
        values = self.network.forward(x, at, copy=False)  # (N, A)
        loss, gradient = self._compared(values, targets, wanted)
        dy = np.zeros_like(values)
        dy[np.arange(len(dy)), targets["action"]] = gradient * values.dtype.type(1 / divisor)
        self.network.backward(dy, ready=ready)
        return self.sums(loss / divisor)

    def measure(self, x: Array, targets: Array) -> Array:
        wanted = self._wanted(targets)
        values = self.network.forward(x, copy=False)
        return self.sums(self._compared(values, targets, wanted)[0])

    def target(self, observations: Array) -> Array:
        """The outputs of the target network as it is now, `(N, A)`, until the next call."""
        self.target_network.parameters.refresh()
        return _values(self.target_network, observations)

    def _wanted(self, targets: Array) -> Array:
        """To what the values of the actions are drawn, `(N,)`."""
        following = targets["following"]
        chosen = _values(self.network, following).argmax(axis=1)
        worth = self.target(following)[np.arange(len(chosen)), chosen]
        return targets["returned"] + targets["discount"] * worth

    def _compared(self, values: Array, targets: Array, wanted: Array) -> tuple[float, Array]:
        """The loss, summed, and its gradient by the values of the actions taken, `(N,)`."""
        errors = values[np.arange(len(values)), targets["action"]] - wanted
        losses, gradient = smooth_l1(errors)  # with beta = 1 that is Huber's
        loss = self.network.arithmetic.sum(losses, dtype=np.float64)
        return float(loss), gradient


def _values(network: Network, observations: Array) -> Array:
    """The outputs of a network in evaluation mode, `(N, A)`, until its next call."""
    return network.forward(network.as_input(observations, copy=False), copy=False)
