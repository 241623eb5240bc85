"""Bounds of parameters, where more is kept of an update than what layers see."""

import numpy as np

from distnet.nn import BinaryLinear, Linear, Network
from distnet.optim import SGD, Averaged, Bounded
from distnet.training.step.updates import optimizer_for

BOUNDS = np.array([1, 1, np.inf, np.inf], np.float32)


def test_only_what_has_bounds_is_cut():
    start = np.array([0.75, -0.75, 0.75, -0.75], np.float32)
    params, gradient = start.copy(), np.array([-1, 1, -1, 1], np.float32)
    averaged = Averaged(Bounded(SGD(4), BOUNDS), 0.5, start)
    averaged.step(params, gradient, 0.5, 1)
    assert params.tolist() == [1, -1, 1.25, -1.25]
    assert averaged.average.values.tolist() == [0.875, -0.875, 1, -1]


def test_what_is_not_a_number_stays_so():
    params = np.full(4, np.nan, np.float32)
    Bounded(SGD(4), BOUNDS).step(params, np.ones(4, np.float32), 0.5, 1)
    assert np.isnan(params).all()


def test_layers_say_their_bounds():
    network = Network([BinaryLinear(2), Linear(3)], (4,), seed=1)
    expected = np.full(network.parameters.values.size, np.inf, np.float32)
    expected[:8] = 1  # the weight, and not the bias
    np.testing.assert_array_equal(network.parameters.bounds(), expected)
    network.freeze("linear1")
    assert network.parameters.bounds() is None
    assert Network([Linear(3)], (4,)).parameters.bounds() is None


def test_master_weights_of_signs_stay_within_bounds():
    network = Network([BinaryLinear(2), Linear(3)], (4,), arithmetic="bfloat16")
    parameters = network.parameters
    optimizer = optimizer_for(parameters, "sgd")
    optimizer.step(parameters.values, np.full_like(parameters.values, 5), 1.0, 1)
    weight, *others = parameters.named_in(optimizer.state["master"], "").values()
    assert (weight == -1).all() and all((other < -1).all() for other in others)
