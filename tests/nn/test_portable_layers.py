"""Every layer in portable arithmetic: near float64, the same bits on other kernels, or refused."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layer_table import CASES, MODE_NAMES, MODES, TRAIN, all_layers, build, built, images
from portable_layers import digest, portable_results

import distnet
from distnet.base.arithmetic import FLOAT, Portable, is_portable, portable
from distnet.benchmarks.portability import settings
from distnet.nn import BatchNorm, Layer, Linear, Network, ReLU, Residual, Sequential, joined
from distnet.nn.branches import _Paths
from distnet.nn.description import describe, rebuild
from distnet.nn.folding import fold_batchnorm

HERE = Path(__file__).parent
# The benchmark tries all kernels; these differ most.
UNLIKE = ["2 BLAS threads", "Prescott kernels", "Haswell kernels", "NumPy without SIMD"]


def test_all_layers_take_part():
    """Take one out, with the reason, where it cannot."""
    assert {layer.__name__ for layer in all_layers() if not is_portable(layer)} == set()


@pytest.mark.parametrize("at", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_nearly_as_in_float64(case, at):
    """Off by what operands of 14 bits are off by."""
    layer, x = built(case), images((3, *case.shape))
    y = layer.forward(x, at=at).copy()
    dy = images(y.shape, seed=1)
    dx = layer.backward(dy).copy()
    expected = {"y": y, "dx": dx} | {name: p.grad for name, p in layer.parameters()}
    found = portable_results(case, at, bits=14)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = np.abs(found[name] - value).max() / max(1, np.abs(value).max())
        assert error < 1e-3, name


@pytest.mark.parametrize(
    "setting", [each for each in settings(()) if each.name in UNLIKE], ids=lambda each: each.name
)
def test_the_same_bits_whatever_computes(setting):
    """Each layer's output and gradients, in a process of its own with other kernels."""
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    ended = subprocess.run(
        [sys.executable, "-m", "portable_layers"],
        env={**os.environ, "PYTHONPATH": path, **setting.programs[0].environ},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout)
    assert found == {str(case): digest(case) for case in CASES}


class Squared(distnet.Layer):
    """A layer of a user's own."""

    kind = "squared"

    def forward(self, x, out=None, at=None):
        return np.square(x, out=self.output(x.shape, out))


class Hidden(Linear):
    """One that inherits from a layer that takes part."""


@pytest.mark.parametrize(
    ("layers", "where"),
    [
        ([Squared()], "squared1: Squared"),
        ([ReLU(), Hidden(3)], "linear1: Hidden"),
        ([Residual([ReLU(), Squared()])], "residual1: squared1: Squared"),
    ],
)
def test_a_layer_that_does_not_say_so_is_refused(layers, where):
    with pytest.raises(ValueError, match=f"^{where}: not declared portable, so its bits may"):
        Network(layers, (4,), arithmetic="portable")
    Network(copy.deepcopy(layers), (4,))  # and only there


@portable
class Alone(_Paths):
    """A container that forgets to hand the arithmetic on."""

    kind = "alone"

    def __init__(self, layers):
        super().__init__([layers])

    def compute_in(self, arithmetic):
        self.arithmetic = arithmetic

    def build(self, shape, dtype=np.float32):
        return self._build_paths(shape, dtype)[0]


@portable
class Holds(Layer):
    """A layer that computes by another, and does not tell that of the arithmetic."""

    kind = "holds"

    def __init__(self):
        super().__init__()
        self.inner = Linear(3)

    def build(self, shape, dtype=np.float32):
        super().build(shape, dtype)
        return self.inner.build(shape, dtype)

    def parameters(self):
        return self.inner.parameters()


@pytest.mark.parametrize("own", [lambda: Alone([Linear(3)]), Holds])
def test_so_is_a_container_that_keeps_it_to_itself(own):
    with pytest.raises(ValueError, match="found a container that does not hand `compute_in` on"):
        Network([own()], (4,), arithmetic="portable")
    Network([own()], (4,))


def test_parameters_are_float32_and_all_else_is_float64():
    network = Network([Linear(5), BatchNorm()], (4,), arithmetic=Portable(10))
    assert network.parameters.values.dtype == np.float32
    assert network.parameters.grads.dtype == network.forward(np.ones((2, 4))).dtype == np.float64
    assert network.predict(np.ones((2, 4), np.float32)).dtype == np.float64
    with pytest.raises(ValueError, match="found parameters of float64, expected float32"):
        Network([Linear(5)], (4,), dtype=np.float64, arithmetic="portable")


def test_a_network_changes_its_arithmetic_and_back():
    def make(**settings):
        return Network([Linear(5), Residual([Linear(5), BatchNorm()])], (4,), **settings)

    network, x = make(), images((3, 4), np.float32)
    y = network.forward(x).copy()
    assert network.compute_in("portable") is network
    np.testing.assert_allclose(network.forward(x), y, rtol=0.01, atol=0.01)
    network.compute_in(Portable(9), seed=3)
    direct = make(arithmetic=Portable(9), seed=3)
    assert network.parameters.sha256() == direct.parameters.sha256()
    assert (network.forward(x) == direct.forward(x)).all()
    network.compute_in(FLOAT, seed=0)
    assert (network.forward(x) == y).all()


def test_copies_and_descriptions_have_the_arithmetic():
    network = Network([Linear(5), BatchNorm(), ReLU()], (4,), arithmetic=Portable(9))
    x = images((3, 4), np.float32)
    rebuilt = rebuild(describe(network))
    rebuilt.parameters.load(network.parameters.named() | network.parameters.named_statistics())
    for other in (copy.deepcopy(network), rebuilt):
        assert repr(other.arithmetic) == "Portable(bits=9)"
        assert (other.forward(x) == network.forward(x)).all()
    assert fold_batchnorm(network).arithmetic.bits == 9
    assert "portable_bits" not in describe(Network([ReLU()], (4,)))
    with pytest.raises(ValueError, match="bits 40"):
        rebuild(describe(network) | {"portable_bits": 40})


def test_what_is_frozen_stays_as_it_is():
    network = Network([Linear(5), BatchNorm(), Linear(2)], (4,), arithmetic="portable")
    network.freeze("linear1", "batchnorm1")
    before = network.parameters.constants.copy()
    network.forward(images((6, 4), np.float32), TRAIN)
    network.backward(images((6, 2), seed=1))
    assert network.parameters.grads.size == network.parameters.grads.any() * 12
    assert (network.parameters.constants == before).all()
    assert network.compute_in("float32").frozen == ("linear1", "batchnorm1")


def test_joined_networks_have_one_arithmetic():
    one, other = (
        Network([Sequential([Linear(3)])], (4,), arithmetic=Portable(bits)) for bits in (9, 10)
    )
    with pytest.raises(ValueError, match=r"found Portable\(bits=9\) and Portable\(bits=10\)"):
        joined(one=one, other=other)
    assert joined(one=one, other=copy.deepcopy(one)).grads.dtype == np.float64
    with pytest.raises(ValueError, match="compute_in: found a network that was joined with others"):
        one.compute_in("float32")


def test_a_micro_batch_that_is_too_large_for_exact_sums_is_refused():
    network = Network([Linear(2)], (1,), arithmetic=Portable(16))
    with pytest.raises(ValueError, match="use smaller micro-batches or fewer bits"):
        network.forward(np.zeros((2**21 + 1, 1)))


def test_a_large_bias_is_not_lost_beside_a_small_input():
    layer = build(distnet.Conv2d(2, 3), (1, 3, 3), np.float32, arithmetic=Portable())
    layer.bias.value[...] = 1.5, -2.5
    layer.refresh()
    for scale in (0, 1e-30, 1e-6, 1e-3):
        x = np.full((1, 1, 3, 3), scale)
        expected = layer.weight.value.sum(axis=(1, 2, 3), dtype=np.float64) * scale + [1.5, -2.5]
        np.testing.assert_allclose(layer.forward(x).ravel(), expected, rtol=1e-5)
