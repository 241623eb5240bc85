"""Signs, and the floats behind them, on a device: they are those of the CPU."""

import numpy as np
import pytest
from strict import Strict
from test_device_pass import expect_same, run, trainer

from distnet.base.arithmetic import Portable
from distnet.device import compute_on
from distnet.nn import BatchNorm, BinaryConv2d, BinaryLinear, MaxPool2d, Network, Sign
from distnet.nn.layer import MicroBatch


def test_the_sign_of_everything():
    x = np.array([[np.nan, -np.inf, -1.5, -1, -1e-300, -0.0, 0.0, 1e-300, 1, 1.5, np.inf]])
    found = []
    for device in (None, Strict()):
        network = Network([Sign()], x.shape[1:], arithmetic=Portable())
        if device is not None:
            compute_on(network, device)
        y = network.forward(x, MicroBatch()).copy()
        found.append([y, network.body.backward(np.full(y.shape, 0.5))])
    np.testing.assert_array_equal(*found)


def binary_layers():
    convolution = [BinaryConv2d(4, 3, pad=1), MaxPool2d(2), BatchNorm(), Sign()]
    return [*convolution, BinaryLinear(8, bias=False), BatchNorm(), Sign(), BinaryLinear(3)]


def binary_weights(made):
    return [made.parameters.named()[name] for name in ("conv1.weight", "linear1.weight")]


@pytest.mark.parametrize("frozen", [(), ("conv1",)])
@pytest.mark.parametrize("settings", [{"optimizer": "momentum"}, {"audit": 1}])
def test_floats_behind_signs_stay_between_minus_one_and_one(settings, frozen):
    """With the optimizer on the device and on the host. The learning rate moves them out."""
    states = []
    for device in (Strict(), None):
        made = trainer(device, make=binary_layers, frozen=frozen, **settings)
        for weight in binary_weights(made):
            weight *= 5
        made.parameters.refresh()
        states.append(run(made))
        assert [abs(weight).max() for weight in binary_weights(made)] == [1, 1]
    expect_same(*states)


def test_they_do_not_come_home_for_that():
    made = trainer(Strict(), make=binary_layers)
    for step in range(3):
        made.advance(step, 3)
        assert made.parameters.are_away


def test_who_restores_or_evaluates_before_a_step_changes_nothing():
    """The first initial weights are beyond the bounds, of a network that moves to a device."""
    states = []
    for device in (Strict(), None):
        for disturbs in (True, False):
            made = trainer(device, make=binary_layers, optimizer="momentum")
            for step in range(3):
                if disturbs:
                    made.restore({name: x.copy() for name, x in made.state().items()})
                    with made.evaluating():
                        pass
                made.advance(step, 3)
            states.append({name: x.copy() for name, x in made.state().items()})
    for state in states[1:]:
        expect_same(state, states[0])
