"""The state before the first step is one that any later state could be.

Who saves and restores it, loses a rank or evaluates, then or between later steps, changes no bit of
it: layers that keep their parameters within bounds do so from the beginning, and optimizers that
keep parameters of their own keep them within these bounds, too.
"""

from __future__ import annotations

import numpy as np
import pytest
from layer_table import CASES
from test_elastic import LosingCommunicator

from distnet.games import CartPole
from distnet.nn import (
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Linear,
    Network,
    ReLU,
    Sign,
    initializers,
)
from distnet.objectives import Classification, Regression
from distnet.optim import OPTIMIZERS, make_schedule
from distnet.parallel import RankLost, SerialCommunicator
from distnet.training.playing import learn_to_play
from distnet.training.run import Run
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.islands import LocalSteps
from distnet.training.step.updates import optimizer_for

STEPS = 3
ARITHMETICS = ["float32", "bfloat16", "portable"]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Initial weights are ten times as large as usual: further out than any bounds."""
    normal = initializers._normal
    monkeypatch.setattr(initializers, "_normal", lambda std, *args: normal(10 * std, *args))


def binary_network(arithmetic="float32"):
    layers = [BinaryConv2d(4, 3), BatchNorm(), Sign(), BinaryLinear(7), ReLU(), Linear(3)]
    return Network(layers, (1, 6, 6), arithmetic=arithmetic)


def trainer_of(network, comm=None, optimizer="momentum", local=None, **settings):
    """Batches of 20 samples, of 46."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((46, *network.input_shape)).astype(np.float32)
    comm = comm or SerialCommunicator()
    if len(network.output_shape) == 1 and network.output_shape[0] > 1:
        objective, targets = Classification(network), np.arange(46) % network.output_shape[0]
    else:
        targets = rng.standard_normal((46, *network.output_shape)).astype(np.float32)
        objective = Regression(network)
    return make_trainer(
        objective,
        Feed(objective, x, targets),
        optimizer=optimizer_for(objective.parameters, optimizer, **settings),
        schedule=make_schedule("constant", 0.05, STEPS, arithmetic=network.arithmetic),
        batch_size=20,
        micro_batch_size=6,
        seed=0,
        comm=comm,
        local=local,
    )


def copied(trainer):
    trainer.complete()
    return {name: array.copy() for name, array in trainer.state().items()}


def trained(trainer, before=lambda trainer: None):
    """The whole state after some steps, `before` each of which something is done."""
    for step in range(STEPS):
        before(trainer)
        trainer.advance(step, STEPS)
    return copied(trainer)


def expect_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def restore(trainer):
    trainer.restore(copied(trainer))


def evaluate(trainer):
    with trainer.evaluating():
        pass


DISTURBANCES = [restore, evaluate]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_begin_with_values_that_they_keep(case, arithmetic):
    network = Network([case.make()], case.shape, arithmetic=arithmetic)
    before = network.parameters.values.copy()
    network.parameters.refresh()
    np.testing.assert_array_equal(network.parameters.values, before)
    again = Network([case.make()], case.shape, seed=None)
    again.compute_in(arithmetic, seed=0)
    np.testing.assert_array_equal(again.parameters.values, before)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_any_layer_does_not_show_what_was_done_before_a_step(case):
    def made():
        return trainer_of(Network([case.make()], case.shape), ema=0.5)

    def disturb(trainer):
        for each in DISTURBANCES:
            each(trainer)

    expect_same(trained(made(), disturb), trained(made()))


@pytest.mark.parametrize("disturb", DISTURBANCES)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("ema", [0, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_by_any_rule_does_not_either(optimizer, ema, arithmetic, disturb):
    def made():
        return trainer_of(binary_network(arithmetic), optimizer=optimizer, ema=ema)

    expect_same(trained(made(), disturb), trained(made()))


LOCAL = LocalSteps(islands=3, sync_every=2)


@pytest.mark.parametrize("local", [None, LOCAL], ids=["step", "local"])
def test_a_loss_in_any_call_does_not_either(local):
    def state(comm):
        run = Run(trainer_of(binary_network(), comm, local=local), {}, total_steps=STEPS)
        while True:
            try:
                if comm.num_calls > 0:
                    comm.repair()
                    run.go_on_from(0, [])
                run.train()
                return copied(run.trainer)
            except RankLost:
                pass

    whole = LosingCommunicator()
    expected = state(whole)
    assert whole.num_calls > STEPS
    for call in range(whole.num_calls):
        comm = LosingCommunicator([call])
        expect_same(state(comm), expected)
        assert comm.num_repairs == 1


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("ema", [0, 0.5])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_nor_does_it_where_ranks_share_the_optimizer(comm, arithmetic, ema):
    """Shares are dealt out anew, as after a loss, or taken over from another rank."""

    def rebuild(trainer):
        trainer.rebuild()

    def adopt(trainer):
        trainer.adopt(0, 0, is_behind=False)

    expected = trained(trainer_of(binary_network(arithmetic), ema=ema))
    for sharing in (comm, None):
        for disturb in (restore, evaluate, rebuild, adopt):
            made = trainer_of(binary_network(arithmetic), comm, ema=ema, sharing=sharing)
            expect_same(trained(made, disturb), expected)


@pytest.mark.mpi(min_size=2)
def test_who_plays_has_a_target_network_within_bounds(comm):
    """Which the rank that has a micro-batch cuts, in each step, and no other."""

    def sha256(ranks):
        network = Network([BinaryLinear(8), BatchNorm(), Sign(), BinaryLinear(2)], (4,))
        settings = {"steps": 6, "lr": 0.5, "num_steps": 2, "moves_before": 20, "num_games": 3}
        settings |= {"target_decay": 0.5, "evaluate_every": 6, "batch_size": 8}
        history = learn_to_play(CartPole(), network, **settings, comm=ranks)
        return history.params_sha256, history.losses

    assert sha256(comm) == sha256(SerialCommunicator())
