"""The learning-rate finder: its curve, its suggestion, what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distnet
from distnet.parallel import SerialCommunicator

SHAPE = (1, 4, 4)


def samples(num: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the row that is bright, but for a tenth, whose labels are wrong."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, num)
    images = rng.integers(0, 80, (num, *SHAPE), np.uint8)
    images[np.arange(num), 0, labels] += 160
    labels[::10] = (labels[::10] + 1) % 3
    return images, labels


def network() -> distnet.Network:
    layers = [distnet.Linear(16), distnet.ReLU(), distnet.Linear(3)]
    return distnet.Network(layers, SHAPE, seed=1)


def found(net: distnet.Network | distnet.Objective, **settings: Any) -> distnet.LearningRates:
    defaults: dict[str, Any] = {"batch_size": 30, "micro_batch_size": 10, "highest": 1e4}
    return distnet.find_lr(net, *samples(), **defaults | settings)


def test_the_learning_rate_grows_by_one_factor_until_the_loss_bursts():
    curve = found(network())
    factors = np.diff(np.log(curve.lrs))
    np.testing.assert_allclose(factors, np.log(1e4 / 1e-6) / 199)
    assert curve.lrs[0] == 1e-6
    assert len(curve.lrs) == len(curve.losses) == len(curve.smoothed) < 200
    assert curve.smoothed[-1] > 4 * min(curve.smoothed) >= curve.smoothed[-2]


def test_smoothed_losses_have_no_bias():
    curve = found(network(), steps=20, highest=1e-5)  # the loss hardly moves
    weights = 0.1 * 0.9 ** np.arange(19, -1, -1.0)
    expected = weights @ np.array(curve.losses) / weights.sum()
    assert curve.smoothed[-1] == pytest.approx(expected)


def test_the_suggestion_trains():
    curve = found(network())
    assert curve.suggestion == curve.lrs[int(np.argmin(curve.smoothed))] / 10
    trained, slow = network(), network()
    history = distnet.fit(trained, *samples(), steps=60, lr=curve.suggestion, batch_size=30)
    slower = distnet.fit(slow, *samples(), steps=60, lr=curve.suggestion / 100, batch_size=30)
    assert np.mean(history.losses[-4:]) < 0.7 * np.mean(slower.losses[-4:])  # an epoch


def test_a_first_batch_that_is_easy_by_chance_is_no_suggestion():
    """Its loss alone was the lowest average of all, and a tenth of the lowest rate suggested."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    inputs = rng.standard_normal((400, 20)) + 0.4 * np.eye(5, 20)[labels]  # hard to tell apart
    net = distnet.Network([distnet.Linear(16), distnet.ReLU(), distnet.Linear(5)], (20,), seed=0)
    settings: dict[str, Any] = {"optimizer": "adam", "batch_size": 20}
    curves = [
        distnet.find_lr(net, inputs, labels, steps=50, seed=seed, **settings) for seed in range(8)
    ]
    assert any(np.argmin(curve.smoothed) < 10 for curve in curves)
    assert min(curve.suggestion for curve in curves) > 1e-3
    few = distnet.find_lr(net, inputs, labels, steps=3, **settings)
    assert few.suggestion == few.lrs[int(np.argmin(few.smoothed))] / 10


def test_the_network_stays_as_it_is():
    net = network()
    before = net.parameters.values.copy()
    found(net)
    found(distnet.Classification(net, label_smoothing=0.1))
    np.testing.assert_array_equal(net.parameters.values, before)


def test_in_portable_arithmetic_too():
    plain, curve = found(network()), found(network().compute_in("portable"))
    np.testing.assert_allclose(curve.lrs[:100], plain.lrs[:100], rtol=1e-12)
    np.testing.assert_allclose(curve.losses[:100], plain.losses[:100], rtol=0.1)
    # The same bits on every machine.
    known = [curve.lrs[100].hex(), curve.smoothed[100].hex(), curve.suggestion.hex()]
    assert known == PORTABLE_CURVE


PORTABLE_CURVE = ["0x1.b1feeffd06a1ap-4", "0x1.879d881d9b2b5p-1", "0x1.36f721fef5b2dp-2"]


@pytest.mark.mpi(min_size=3)
def test_ranks_find_the_same(comm):
    settings: dict[str, Any] = {"optimizer": "adam", "seed": 3}
    assert found(network(), comm=comm, **settings) == found(
        network(), comm=SerialCommunicator(), **settings
    )


@pytest.mark.parametrize(
    "settings", [{"steps": 1}, {"lowest": 0}, {"lowest": 2, "highest": 1}, {"highest": np.inf}]
)
def test_learning_rates_have_to_grow(settings):
    with pytest.raises(ValueError, match="expected at least 2 and 0 < lowest < highest"):
        found(network(), **settings)
