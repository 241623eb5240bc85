"""Double DQN: to what values are drawn, the gradient, and the target network."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.data.replay import Moves, Replay
from distnet.nn import BatchNorm, Conv2d, Linear, MicroBatch, Network, ReLU, Tanh
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives.q_learning import DoubleDQN

N, ACTIONS = 6, 3


def transitions(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Observations and what followed, one of them the end of its game."""
    rng = np.random.default_rng(0)
    replay = Replay(N, N, shape, np.float64)
    seen, seen_then = rng.standard_normal((2, N, *shape))
    over = np.arange(N) == 2
    actions, rewards = rng.integers(0, ACTIONS, N), rng.normal(size=N)
    replay.append(Moves(seen, seen_then, actions, rewards, over, over))
    return replay.moves.observations, replay[np.arange(N)]


def objective_of(network: Network) -> tuple[DoubleDQN, np.ndarray]:
    rng = np.random.default_rng(1)
    target = rng.standard_normal(network.parameters.values.size)
    kept = target.copy()
    objective = DoubleDQN(network, target)
    np.testing.assert_array_equal(target, kept)
    return objective, target


def small_network(seed: int = 0) -> Network:
    return Network([Linear(5), Tanh(), Linear(ACTIONS)], (4,), seed=seed, dtype=np.float64)


def test_values_are_drawn_to_what_the_target_says_of_the_action_that_the_network_chooses():
    objective, target = objective_of(small_network())
    other = small_network()
    other.parameters.values[...] = target
    x, targets = transitions((4,))
    chosen = objective.network.predict(targets["following"]).argmax(axis=1)
    worth = other.predict(targets["following"])
    assert np.any(chosen != worth.argmax(axis=1))  # else it would be plain Q-learning
    wanted = targets["returned"] + targets["discount"] * worth[np.arange(N), chosen]
    assert targets["discount"].tolist() == pytest.approx([0.99, 0.99, 0, 0.99, 0.99, 0.99])
    error = objective.network.predict(x)[np.arange(N), targets["action"]] - wanted
    losses = np.where(abs(error) <= 1, error**2 / 2, abs(error) - 0.5)
    assert np.any(abs(error) <= 1)
    assert np.any(abs(error) > 1)
    (loss,) = objective.gradients(x, targets, MicroBatch())
    assert loss == pytest.approx(losses.mean(), rel=1e-12)
    assert objective.measure(x, targets)[0] == pytest.approx(losses.sum(), rel=1e-12)
    assert objective.gradients(x, targets, MicroBatch(), 24)[0] == pytest.approx(losses.sum() / 24)


@pytest.mark.parametrize(
    "network",
    [
        small_network(),
        Network([Conv2d(4, 3, pad=1), ReLU(), Linear(3)], (2, 5, 5), dtype=np.float64),
    ],
    ids=["linear", "conv"],
)
def test_gradient(network):
    """What the values are drawn to counts as a constant: the target network does not move."""
    objective, _ = objective_of(network)
    x, targets = transitions(network.input_shape)
    objective.gradients(x, targets, MicroBatch())
    found, parameters = network.parameters.grads.copy(), network.parameters
    wanted = objective._wanted(targets).copy()
    objective._wanted = lambda targets: wanted

    def loss() -> float:
        parameters.refresh()
        return float(objective.gradients(x, targets, MicroBatch())[0])

    assert relative_error(found, numerical_gradient(loss, parameters.values)) < 1e-7


def test_the_target_network_is_read_as_it_is_now():
    network = Network([Conv2d(16, 3, pad=1), BatchNorm(), Linear(ACTIONS)], (16, 8, 8))
    target = network.parameters.values.copy()
    objective = DoubleDQN(network, target)
    x = np.random.default_rng(0).random((4, 16, 8, 8), np.float32)
    np.testing.assert_array_equal(objective.target(x), network.predict(x))
    target *= 2
    network.parameters.values *= 2
    network.parameters.statistics *= 3  # of the two, one memory
    network.parameters.refresh()
    np.testing.assert_array_equal(objective.target(x), network.predict(x))


def test_outputs_that_are_no_values_of_actions():
    network = Network([Conv2d(3, 3, pad=1)], (1, 4, 4))
    with pytest.raises(ValueError, match=r"found outputs of shape \(3, 4, 4\), expected \(A,\)"):
        DoubleDQN(network, network.parameters.values.copy())
