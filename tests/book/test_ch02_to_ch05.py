"""What lives with chapters 2 to 5: gates, the adder, graph nodes; and their quick experiments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.parallel import SerialCommunicator

BOOK = Path(__file__).resolve().parents[2] / "docs" / "book"
graph = load(BOOK / "ch05" / "graph.py")
adder = load(BOOK / "ch02" / "nand_adder.py")

# All but the trainings of MNIST, which `docs/book/check.py --quick` runs as well.
EXPERIMENTS = [
    "ch02/gates.py",
    "ch02/learn_xor.py",
    "ch02/nand_adder.py",
    "ch03/activations.py",
    "ch03/three_layer_network.py",
    "ch04/losses.py",
    "ch04/numerical_differentiation.py",
    "ch04/descend.py",
    "ch04/simple_net.py",
    "ch04/learn_by_differences.py",
    "ch05/apples_and_oranges.py",
    "ch05/check_gradients.py",
    "ch05/softmax_with_loss.py",
]


@pytest.mark.parametrize("script", EXPERIMENTS)
def test_the_requirements_hold(script, tmp_path):
    module = load(BOOK / script)
    lab = Lab(SerialCommunicator(), tmp_path, quick=True)
    numbers = module.run(lab)
    assert [str(v) for v in (lab.judge(r, numbers) for r in module.REQUIRED) if not v.holds] == []


@pytest.mark.parametrize("num_bits", [1, 3])
def test_the_adder_adds_numbers_of_any_width(num_bits):
    a, b = np.divmod(np.arange(1 << 2 * num_bits), 1 << num_bits)
    sums = adder.add(adder.to_bits(a, num_bits), adder.to_bits(b, num_bits))
    np.testing.assert_array_equal(sums @ (1 << np.arange(num_bits + 1)), a + b)


@pytest.mark.parametrize("lost", ["half_adder", "full_adder"])
def test_a_broken_adder_is_noticed(lost, monkeypatch, tmp_path):
    broken = getattr(adder, lost)
    monkeypatch.setattr(adder, lost, lambda *bits: (broken(*bits)[0], bits[0]))
    assert adder.run(Lab(SerialCommunicator(), tmp_path))["num_wrong"] > 0


NODES = {
    "add": (graph.Add(), [(3, 4), (3, 4)]),
    "multiply": (graph.Multiply(), [(3, 4), (3, 4)]),
    "reciprocal": (graph.Reciprocal(), [(3, 4)]),
    "exp": (graph.Exp(), [(3, 4)]),
    "log": (graph.Log(), [(3, 4)]),
    "sum": (graph.Sum(), [(3, 4)]),
    "repeat": (graph.Repeat(4), [(3, 1)]),
}


def test_every_node_is_in_the_table():
    classes = {c for c in vars(graph).values() if getattr(c, "__module__", "") == graph.__name__}
    assert classes == {type(node) for node, _ in NODES.values()}


@pytest.mark.parametrize("name", NODES)
def test_nodes_have_the_gradients_of_central_differences(name):
    node, shapes = NODES[name]
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(0.5, 2, shape) for shape in shapes]
    dz = rng.standard_normal(node.forward(*inputs).shape)
    gradients = node.backward(dz)
    for x, dx in zip(inputs, gradients if len(shapes) > 1 else [gradients], strict=True):
        numerical = numerical_gradient(lambda: float(np.vdot(node.forward(*inputs), dz)), x)
        assert relative_error(dx, numerical) < 1e-8
