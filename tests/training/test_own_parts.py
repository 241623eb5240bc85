"""What a user has added to the tables of models, optimizers and schedules, in the command."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import SIZES, write_digits

from distnet.models import MODELS
from distnet.nn import Layer, Linear, Network
from distnet.nn.parameters import Parameter
from distnet.optim import OPTIMIZERS, SCHEDULES, Optimizer
from distnet.parallel import DisagreementError, RankError, SerialCommunicator
from distnet.train import train


class Noise(Layer):
    kind = "noise"

    def forward(self, x, out=None, at=None):
        return x if at is None else x + np.random.default_rng().random(x.shape, np.float32)

    def backward(self, dy, out=None, need_dx=True):
        return dy


class Shift(Layer):
    """Draws its first values by itself."""

    kind = "shift"

    def build(self, shape, dtype=np.float32):
        self.bias = Parameter(shape, lambda rng, size: np.random.default_rng().random(size))
        return super().build(shape, dtype)

    def parameters(self):
        yield "bias", self.bias

    def forward(self, x, out=None, at=None):
        return x + self.bias.value

    def backward(self, dy, out=None, need_dx=True):
        self.bias.grad[...] = dy.sum(axis=0)
        return dy


class Remembers(Optimizer):
    lr = 0.1
    before = 0.0

    def _update(self, p, g, factors, a, state):
        p -= factors[0] * (g + self.before)
        self.before = g.copy()


def with_layer(layer):
    return lambda shape, classes, **settings: Network([Linear(8), layer(), Linear(classes)], shape)


def halving(lr):
    rates = iter(lr * 0.5**n for n in range(100))
    return lambda step: next(rates)


@pytest.mark.parametrize(
    ("table", "name", "own", "message"),
    [
        (MODELS, "two_layer", with_layer(Noise), "noise1: found two answers to the same micro-b"),
        (OPTIMIZERS, "sgd", Remembers, "Remembers: found two updates of the same parameters by"),
        (SCHEDULES, "constant", halving, r"lr: found 0.1 and then 0.025 for step 0, expected on"),
    ],
)
def test_what_draws_or_keeps_something_by_itself_is_refused(
    monkeypatch, tmp_path, table, name, own, message
):
    monkeypatch.setitem(table, name, own)
    with pytest.raises(RankError, match=message):
        trained(SerialCommunicator(), tmp_path)
    assert not (tmp_path / "out").exists()


def trained(comm, tmp_path, *more):
    data, out = comm.allgather((write_digits(tmp_path), tmp_path / "out"))[0]
    flags = ["--model", "two_layer", "--optimizer", "sgd", "--schedule", "constant", "--lr", "0.1"]
    flags += [*SIZES, "--data-dir", str(data), "--out", str(out), "--steps", "2", "--no-progress"]
    train(comm, [*flags, *more])


@pytest.mark.mpi(min_size=2)
def test_ranks_whose_networks_start_from_other_values_are_refused(comm, monkeypatch, tmp_path):
    """This was found at the end of the first epoch, or one of three was brought into line."""
    monkeypatch.setitem(MODELS, "two_layer", with_layer(Shift))
    with pytest.raises(DisagreementError, match="differ in the values that the network starts wi"):
        trained(comm, tmp_path)


class Normalized(Optimizer):
    """Looks at the whole gradient, and does not say so."""

    lr = 0.1

    def _update(self, p, g, factors, a, state):
        p -= factors[0] * g / np.linalg.norm(g)


@pytest.mark.mpi(min_size=2)
def test_an_optimizer_that_looks_at_all_is_not_shared_out(comm, monkeypatch, tmp_path):
    """Its updates were others on another number of ranks."""
    monkeypatch.setitem(OPTIMIZERS, "sgd", Normalized)
    with pytest.raises(RankError, match="Normalized: found an update that depends on the gradient"):
        trained(comm, tmp_path, "--shard-optimizer", "--clip-norm", "0.5")
    trained(comm, tmp_path, "--clip-norm", "0.5")


@pytest.mark.mpi(min_size=2)
def test_an_optimizer_of_which_ranks_have_shares_is_checked_too(comm, monkeypatch, tmp_path):
    monkeypatch.setitem(OPTIMIZERS, "sgd", Remembers)
    with pytest.raises(RankError, match="Remembers: found two updates of the same parameters by"):
        trained(comm, tmp_path, "--shard-optimizer")
