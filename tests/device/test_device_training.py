"""Trainings whose layers compute on a device: the golden hashes, on ranks alike and unlike."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from strict import FUNCTIONS, UFUNCS, Strict

from distnet.base.arithmetic import FLOAT, Portable
from distnet.base.keys import MicroBatch
from distnet.benchmarks.golden import CASES, GOLDEN, train
from distnet.device import Device, DeviceError, compute_on
from distnet.device.body import OnDevice
from distnet.models import MODELS
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    joined,
)
from distnet.objectives import Classification
from distnet.parallel import AgreedError, SerialCommunicator
from distnet.training.known_answer import ForeignArithmeticError, check_device, expect_same_bits

ALONE = SerialCommunicator()


@pytest.mark.parametrize(
    "name", ["deep_convnet", "autoencoder", "segmenter", "islands", "captions", "painting", "signs"]
)
def test_golden_hashes(name):
    assert train(CASES[name], ALONE, device=Strict()) == GOLDEN[name]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["residual", "captions", "segmenter", "mlp_adam"])
def test_ranks_with_a_device_and_without_have_the_same_bits(comm, name):
    device = Strict() if comm.rank == 0 else None
    assert train(CASES[name], comm, device=device) == GOLDEN[name]


@pytest.mark.mpi(min_size=2)
def test_in_float32_unlike_ranks_are_refused(comm):
    device = Strict() if comm.rank == 0 else None
    with pytest.raises(AgreedError, match=r"differ in device: .*--arithmetic portable"):
        expect_same_bits(comm, FLOAT, device)
    expect_same_bits(comm, Portable(), device)


def test_the_known_answer_decides():
    check_device(Strict())

    class InFloat32(Device):
        """A device whose products are those of another number format."""

        class xp:  # noqa: N801  in the place of a module
            def __getattr__(self, name):
                return getattr(np, name)

            def matmul(self, a, b):
                return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)

        xp = xp()

    with pytest.raises(ForeignArithmeticError, match=r"on numpy: found .* expected .*--device cpu"):
        check_device(InFloat32())


def small(arithmetic="portable"):
    """With a layer of each kind that has something of its own on a device."""
    layers = [Conv2d(4, 3, pad=1), ReLU(), MaxPool2d(2), BatchNorm(), Dropout(0.3)]
    return Network([*layers, Linear(5), ReLU(), Linear(3)], (1, 6, 6), arithmetic=arithmetic)


X = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6), np.uint8)
LABELS = np.arange(8) % 3


def state_after_a_step(network):
    """Gradients, sums of statistics, and predictions before that."""
    predicted = network.predict(X)
    objective = Classification(network)
    sums = objective.gradients(objective.as_input(X), LABELS, MicroBatch(step=1, share=0.5))
    p = network.parameters
    return [predicted, sums, p.grads.copy(), p.batch_statistics.copy()]


def expect_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_keeps_its_values_and_names():
    network = small()
    before = {name: array.copy() for name, array in network.parameters.all_named().items()}
    assert compute_on(network, Strict()) is network
    after = network.parameters.all_named()
    assert list(after) == list(before)
    expect_equal(after.values(), before.values())
    assert str(network) == str(small())


@pytest.mark.parametrize("frozen", ["conv1", "batchnorm1", "linear1", "conv1 batchnorm1 linear1"])
def test_what_is_frozen_is_so_on_a_device(frozen):
    networks = [small(), compute_on(small(), Strict())]
    for network in networks:
        network.freeze(*frozen.split())
    expect_equal(*map(state_after_a_step, networks))


def test_copies_and_pickles_compute_there_too():
    network = compute_on(small(), Device())
    for made in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert isinstance(made.body, OnDevice)
        expect_equal(state_after_a_step(made), state_after_a_step(small()))


def test_parameters_that_change_are_fetched_anew():
    network, other = compute_on(small(), Strict()), small()
    network.predict(X)
    for each in (network, other):
        each.parameters.values *= 1.5
        each.parameters.statistics += 0.25
        each.parameters.refresh()
    expect_equal([network.predict(X)], [other.predict(X)])


def test_sums_of_statistics_do_not_wait_for_a_backward_pass():
    networks = [small(), compute_on(small(), Strict())]
    for network in networks:
        network.forward(network.as_input(X), MicroBatch(share=0.5))
    expect_equal(*([network.parameters.batch_statistics] for network in networks))
    assert networks[0].parameters.batch_statistics.any()


def test_a_group_of_micro_batches_is_each_of_them():
    body, ats = compute_on(small(), Strict()).body, [MicroBatch(number=n) for n in range(3)]
    x = np.random.default_rng(1).uniform(size=(3, 4, 1, 6, 6)) * [
        [[[[1]]]],
        [[[[8]]]],
        [[[[1e-3]]]],
    ]
    dy = np.random.default_rng(2).uniform(-1, 1, (3, 4, 3))
    y, dx = body.forward_group(x, ats), body.backward_group(dy, need_dx=True)
    grads = []
    for g in range(3):
        body.take_gradients(g)
        grads.append([p.grad.copy() for _, p in body.parameters()])
    for g, at in enumerate(ats):
        alone = small().body
        expect_equal([alone.forward(x[g], at=at)], [y[g]])
        expect_equal([alone.backward(dy[g])], [dx[g]])
        expect_equal([p.grad for _, p in alone.parameters()], grads[g])
        expect_equal([p.grad for _, p in alone.parameters()], grads[g])


class OwnReLU(ReLU):
    """Somebody's, of which nothing is known."""


def test_what_nobody_has_written_is_refused_by_name():
    layers = [Linear(4), Residual([ReLU(), OwnReLU()]), Linear(3)]
    network = Network(layers, (5,))
    with pytest.raises(DeviceError, match=r"residual1\.path1\.relu2: found OwnReLU.*cpu"):
        compute_on(network, Strict())
    assert network.predict(np.ones((2, 5))).shape == (2, 3)  # as before
    with pytest.raises(DeviceError, match="arithmetic bfloat16: nobody has written"):
        compute_on(small("bfloat16"), Strict())
    one = small()
    joined(one=one, other=small())
    with pytest.raises(ValueError, match="run_by: found a network that was joined"):
        compute_on(one, Strict())


@pytest.mark.parametrize("name", ["two_layer", "simple_convnet", "lenet5", "resnet20"])
def test_networks_of_the_book_compute_there(name):
    network = compute_on(MODELS[name]((1, 28, 28), 10, seed=None), Strict())
    assert isinstance(network.body, OnDevice)


def test_cupy_has_what_the_stand_in_has():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: see the extra `cuda`")
    assert not [name for name in UFUNCS | FUNCTIONS if not hasattr(cupy, name)]
    assert cupy.lib.stride_tricks.as_strided
