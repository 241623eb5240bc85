"""Two networks in one vector, an objective of one's own, on ranks: the bits of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.nn import BatchNorm, Conv2d, Linear, MicroBatch, Network, ReLU, joined
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import Objective
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.fit import fit
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed

RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3)]
SHAPE, NUM_SAMPLES = (1, 6, 6), 23


class Pair(Objective):
    """An encoder and a decoder, whose output is to be the input; counts pixels that are right."""

    counts = ("close",)

    def __init__(self, dtype: Any = np.float32) -> None:
        layers = [Conv2d(3, 3, pad=1), BatchNorm(), ReLU(), Linear(5)]
        self.encoder = Network(layers, SHAPE, seed=1, dtype=dtype)
        self.decoder = Network([Linear(8), ReLU(), Linear(36)], (5,), seed=2, dtype=dtype)
        self.parameters = joined(encoder=self.encoder, decoder=self.decoder)

    def as_input(self, inputs: Array) -> Array:
        return self.encoder.as_input(inputs)

    def gradients(self, x, targets, at, divisor=None, ready=None) -> Array:
        y = self.decoder.forward(self.encoder.forward(x, at), at)
        difference = y - targets.reshape(y.shape) * y.dtype.type(1 / 255)
        divisor = len(targets) if divisor is None else divisor
        start = self.parameters.starts["decoder"]
        told = None if ready is None else lambda offset: ready(start + offset)
        dy = difference * difference.dtype.type(1 / divisor)
        dh = self.decoder.backward(dy, need_dx=True, ready=told)
        self.encoder.backward(dh, ready=ready)
        return self._sums(difference, divisor)

    def measure(self, x, targets) -> Array:
        y = self.decoder.forward(self.encoder.forward(x))
        return self._sums(y - targets.reshape(y.shape) * y.dtype.type(1 / 255), 1)

    def _sums(self, difference: Array, divisor: float) -> Array:
        loss = 0.5 * float(np.square(difference, dtype=np.float64).sum()) / divisor
        return self.sums(loss, np.count_nonzero(np.abs(difference) < 0.1))


def images() -> Array:
    rng = np.random.Generator(np.random.Philox(key=3))
    return rng.integers(0, 256, (NUM_SAMPLES, *SHAPE), np.uint8)


def trained(comm: Communicator) -> tuple[bytes, list[dict[str, float]]]:
    """State and metrics after a few steps, with micro-batches of 4 of a batch of 10."""
    objective, pixels = Pair(), images()
    trainer = make_trainer(
        objective,
        Feed(objective, pixels, pixels),
        optimizer=make_optimizer("adam", objective.parameters.values.size),
        schedule=constant(0.01),
        batch_size=10,
        micro_batch_size=4,
        seed=5,
        comm=comm,
        bucket_bytes=400,
    )
    metrics = [trainer.step(step).metrics for step in range(6)]
    return b"".join(array.tobytes() for array in trainer.state().values()), metrics


@pytest.mark.parametrize("num_ranks", RANKS)
def test_the_same_bits_on_any_number_of_ranks(comm, num_ranks):
    assert comm.size >= num_ranks
    assert trained(comm) == trained(SerialCommunicator())


def test_the_gradient_of_both_networks():
    pair, pixels = Pair(np.float64), images()[:4]
    x = pair.as_input(pixels).copy()
    pair.gradients(x, pixels, MicroBatch())
    found = pair.parameters.grads.copy()

    def loss() -> float:
        pair.parameters.refresh()
        return float(pair.gradients(x, pixels, MicroBatch())[0])

    assert relative_error(found, numerical_gradient(loss, pair.parameters.values)) < 1e-7


def test_each_network_still_sees_its_own_part():
    pair = Pair()
    whole, start = pair.parameters.values, pair.parameters.starts["decoder"]
    own = pair.encoder.parameters.values, pair.decoder.parameters.values
    assert all(np.shares_memory(whole, part) for part in own)
    np.testing.assert_array_equal(whole, np.concatenate(own))
    assert start == own[0].size
    names = list(pair.parameters.named())
    assert names[0] == "encoder.conv1.weight"
    assert names[-1] == "decoder.linear2.bias"
    assert "encoder.batchnorm1.running_mean" in pair.parameters.named_statistics()


def test_joined_networks_have_one_dtype():
    one, other = Network([Linear(2)], (3,)), Network([Linear(2)], (3,), dtype=np.float64)
    with pytest.raises(ValueError, match="found float32, float64, expected networks of one dtype"):
        joined(one=one, other=other)


def test_networks_that_were_joined_anew_are_not_trained_where_they_were():
    """The second objective had their arrays, and the first trained what was left of it."""
    first = Pair()
    second = Pair()
    second.parameters = joined(encoder=first.encoder, decoder=second.decoder)
    with pytest.raises(ValueError, match=r"step: .* make an objective of several networks anew"):
        fit(first, images(), images(), steps=1)
    second.encoder = first.encoder
    fit(second, images(), images(), steps=1)
