"""Every layer that there is on devices, with NumPy as the array module: as the layer itself."""

import numpy as np
import pytest
from layer_table import CASES, MODE_NAMES, MODES, TRAIN, all_layers, build, images
from strict import Strict

from distnet.base.arithmetic import FLOAT, Portable
from distnet.device.body import OnDevice, compute_on
from distnet.device.containers import DEVICE_LAYERS
from distnet.models import FCN, SegNet
from distnet.nn import Sequential

# Of a convolution every geometry once: the algorithm is the host's own business.
OF_DEVICES = [
    case
    for case in CASES
    if all(type(leaf) in DEVICE_LAYERS for leaf in build(case.make(), case.shape).leaves())
    and not str(case).startswith(("blocked", "few_channels", "winograd"))
]


def results(layer, case, at, arithmetic):
    """Output, gradients and sums of statistics, by name."""
    build(layer, case.shape, np.float32, arithmetic=arithmetic)
    x = images((3, *case.shape), seed=2).astype(layer.dtype)
    y = layer.forward(x, at=at).copy()
    dx = layer.backward(images(y.shape, seed=1).astype(layer.dtype)).copy()
    sums = {name: s.batch.copy() for name, s in layer.statistics()}
    return {"y": y, "dx": dx} | {name: p.grad for name, p in layer.parameters()} | sums


def both(case, at, arithmetic):
    host = results(Sequential([case.make()]), case, at, arithmetic)
    device = results(OnDevice([case.make()], Strict()), case, at, arithmetic)
    assert host.keys() == device.keys()
    return [(name, host[name], device[name]) for name in host]


def test_there_are_cases_of_every_device_layer():
    leaves = [leaf for case in OF_DEVICES for leaf in build(case.make(), case.shape).leaves()]
    made = {type(case.make()) for case in OF_DEVICES} | set(map(type, leaves))
    assert set(DEVICE_LAYERS) <= made


def test_every_layer_is_on_devices():
    """As docs/device.md says: one that is not, and why, is to be named there and here."""
    assert all_layers() == set(DEVICE_LAYERS)


@pytest.mark.parametrize("at", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("case", OF_DEVICES, ids=str)
def test_the_same_bits_in_portable_arithmetic(case, at):
    for name, expected, found in both(case, at, Portable()):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("case", OF_DEVICES, ids=str)
def test_near_in_float32(case):
    for name, expected, found in both(case, TRAIN, FLOAT):
        assert found.dtype == expected.dtype
        scale = max(1, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=2e-5 * scale, err_msg=name)


@pytest.mark.parametrize("bits", [4, 16])
def test_other_bits(bits):
    case = next(each for each in OF_DEVICES if str(each) == "residual")
    for name, expected, found in both(case, MODES[0], Portable(bits)):
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("make", [FCN, SegNet])
def test_networks_that_segment_have_the_same_bits(make):
    """Unpooling finds the pooling that it undoes, in a list of its own."""

    def step(device):
        network = make((3, 16, 24), 4, seed=1)
        network.compute_in(Portable())
        if device:
            compute_on(network, Strict())
        x = images((2, 3, 16, 24))
        y = network.forward(network.as_input(x), MODES[0]).copy()
        network.backward(images(y.shape, seed=1))
        return y, network.parameters.grads.copy()

    for expected, found in zip(step(False), step(True), strict=True):
        np.testing.assert_array_equal(found, expected)
