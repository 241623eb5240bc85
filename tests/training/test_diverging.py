"""A run whose numbers are no longer finite ends, and its checkpoints are from before that."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from distnet.base.arrays import bad_array
from distnet.nn import Linear, MicroBatch, Network, ReLU
from distnet.objectives import Classification, Regression
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import NonFiniteGradient, SerialCommunicator
from distnet.train import train
from distnet.training.files.checkpoint_directory import latest
from distnet.training.fit import fit
from distnet.training.step.assembly import make_trainer
from distnet.training.step.diagnosis import describe, first_bad_layer
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import TrainingDiverged


def network() -> Network:
    return Network([Linear(4), ReLU(), Linear(3), ReLU(), Linear(2)], (5,))


@pytest.mark.parametrize("name", ["linear1", "linear2", "linear3"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_the_first_layer_that_computes_a_bad_number_is_named(name, value):
    net, x = network(), np.ones((3, 5), np.float32)
    net.parameters.named()[f"{name}.weight"][...] = value
    net.parameters.named()[f"{name}.bias"][...] = value
    assert first_bad_layer(Classification(network()), x, MicroBatch()) is None
    for each in ("linear1", "linear2"):  # so that nothing stops at a ReLU
        if each != name:
            net.parameters.named()[f"{each}.bias"][...] = 1
    assert first_bad_layer(Classification(net), x, MicroBatch()) == name


def test_the_line_names_layer_gradient_and_place():
    where = {"limit": 2.0, "micro_batch": 4, "rank": 1}
    error = NonFiniteGradient("gradient", 20, float("nan"), **where)
    tail = "is nan in micro-batch 4 on rank 1, expected a finite number of at most 2; lower --lr"
    assert (
        describe(Classification(network()), error, None, None)
        == f"the gradient of linear1.bias {tail}"
    )
    assert describe(Classification(network()), error, "relu2", None) == (
        f"the output of relu2 is not finite, so that the gradient of linear1.bias {tail}"
    )
    loss = NonFiniteGradient("tally", 0, float("nan"), **where)
    assert describe(Classification(network()), loss, None, None) == f"the loss {tail}"
    untrained = describe(Classification(network()), loss, None, np.array([[1, -3e20]]))
    assert untrained.endswith(
        "; no update has been made: scale the inputs, here up to 3e+20, the targets, or what "
        "the network starts with"
    )


def test_the_first_bad_array_is_named():
    good, bad = np.zeros(3), np.array([1, -np.inf])
    assert bad_array({"a": good, "b": good}) is None
    assert bad_array({"a": good, "b": bad, "c": bad}) == "b"


@pytest.mark.parametrize("every", [1, 2])
def test_no_checkpoint_holds_a_bad_number(monkeypatch, tmp_path, every):
    """Weight decay times learning rate is 1000: weights grow a thousandfold each step."""
    argv = "train --model two_layer --steps 40 --optimizer sgd --lr 1000 --weight-decay 1"
    files = f"--out {tmp_path} --checkpoint-every {every}"
    monkeypatch.setattr(sys, "argv", [*argv.split(), *files.split()])
    with pytest.raises(TrainingDiverged, match=r"^step \d+: .*lower --lr$"):
        train(SerialCommunicator())
    newest = latest(tmp_path / "checkpoints").checkpoint
    assert newest is not None
    assert bad_array(newest.state) is None


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("name", ["input", "target"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_number_in_the_data_is_named_as_such(comm, name, value):
    inputs, targets = np.ones((40, 5), np.float32), np.ones((40, 2), np.float32)
    {"input": inputs, "target": targets}[name][17, 1] = value
    objective = Regression(network())
    trainer = make_trainer(
        objective,
        Feed(objective, inputs, targets),
        optimizer=make_optimizer("sgd", objective.parameters.values.size),
        schedule=constant(0.01),
        batch_size=20,
        micro_batch_size=4,
        seed=0,
        comm=comm,
    )
    cause = f"the data hold {value} in the {name} of sample 17, counted from 0"
    expected = pytest.raises(TrainingDiverged, match=rf"^step \d+: {cause}$")
    with np.errstate(all="ignore"), expected:  # as runs do
        for step in range(2):
            trainer.step(step)


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_fit_refuses_a_bad_number_before_the_first_step(name):
    samples = {"inputs": np.ones((40, 5)), "targets": np.ones((40, 2))}
    samples[name][17, 1] = np.nan
    with pytest.raises(ValueError, match=f"{name}: the data hold NaN in image 17"):
        fit(Regression(network()), *samples.values(), epochs=1)


@pytest.mark.mpi(min_size=3)
def test_a_run_that_diverges_says_nothing_else(comm, capsys):
    """Warnings are errors in these tests: none comes before the line."""
    x = np.random.default_rng(1).normal(0, 1e38, (20, 5)).astype(np.float32)
    x[~np.isfinite(x)] = 0
    net, labels = Network([Linear(400), ReLU(), Linear(2)], (5,)), np.arange(20) % 2
    with pytest.raises(TrainingDiverged, match=r"^step 0: .* no update has been made: scale the "):
        fit(net, x, labels, epochs=9, batch_size=10, micro_batch_size=3, lr=1e4, comm=comm)
    assert capsys.readouterr() == ("", "")
