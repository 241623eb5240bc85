"""Generator against discriminator: their gradients, keyed noise, the same bits on ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch
from distnet.nn import BatchNorm, Conv2d, ConvTranspose2d, LeakyReLU, Linear, Network, ReLU, Tanh
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import Adversarial
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.fit import fit
from distnet.training.watching.history import History

RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3, 5)]
SHAPE, N = (1, 8, 8), 6


def generator(dtype: Any = np.float32) -> Network:
    layers = [ConvTranspose2d(6, 4, bias=False), BatchNorm(), ReLU()]
    layers += [ConvTranspose2d(1, 4, stride=2, pad=1), Tanh()]
    return Network(layers, (3, 1, 1), seed=1, dtype=dtype)


def discriminator(dtype: Any = np.float32) -> Network:
    layers = [Conv2d(4, 4, stride=2, pad=1), LeakyReLU(0.2), Conv2d(5, 3, pad=1), BatchNorm()]
    return Network([*layers, LeakyReLU(0.2), Linear(1)], SHAPE, seed=2, dtype=dtype)


def pair(dtype: Any = np.float32) -> Adversarial:
    return Adversarial(generator(dtype), discriminator(dtype))


def images(n: int = N) -> Array:
    return np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (n, *SHAPE), np.uint8)


AT = MicroBatch(seed=4, step=5, number=1)


def losses(objective: Adversarial, x: Array) -> tuple[float, float]:
    """Those of the discriminator and of the generator, as they stand in the paper."""
    objective.parameters.refresh()
    fakes = objective.generator.forward(objective.noise(AT, len(x)), AT).copy()
    p_real, p_fake = (
        1 / (1 + np.exp(-objective.discriminator.forward(images, AT).copy()))
        for images in (x, fakes)
    )
    label = objective.real_label
    real = -(label * np.log(p_real) + (1 - label) * np.log(1 - p_real))
    return float((real - np.log(1 - p_fake)).mean()), float(-np.log(p_fake).mean())


def test_each_network_has_the_gradient_of_its_own_loss():
    objective = pair(np.float64)
    x = objective.as_input(images()).copy()
    assert x.min() == pytest.approx(-1, abs=0.02)
    assert x.max() == pytest.approx(1, abs=0.02)
    loss, told, fakes_told = objective.gradients(x, np.zeros(N), AT)
    found = objective.parameters.grads.copy()
    expected = losses(objective, x)
    assert loss == pytest.approx(sum(expected), rel=1e-12)
    assert 0 <= told <= N
    assert 0 <= fakes_told <= N
    values, start = objective.parameters.values, objective.parameters.starts["discriminator"]
    for part, which in ((slice(start, None), 0), (slice(0, start), 1)):
        numerical = numerical_gradient(lambda w=which: losses(objective, x)[w], values[part])
        assert relative_error(found[part], numerical) < 1e-6


def learned(comm: Communicator) -> History:
    """Batches of 20 in micro-batches of 8, 8 and 4."""
    return fit(
        pair(),
        images(46),
        np.zeros(46),
        steps=5,
        optimizer="adam",
        lr=0.01,
        ema=0.9,
        batch_size=20,
        micro_batch_size=8,
        evaluate_on={"some": (images(10), np.zeros(10))},
        seed=7,
        comm=comm,
    )


@pytest.mark.parametrize("num_ranks", RANKS)
def test_the_same_bits_on_any_number_of_ranks(comm, num_ranks):
    assert comm.size >= num_ranks
    shared, alone = learned(comm), learned(SerialCommunicator())
    assert shared == alone
    assert set(alone.steps[0]) == {"loss", "real", "fake"}
    assert alone.evaluations["some"][0] != alone.evaluations["some"][-1]


def test_noise_is_normal_and_keyed():
    objective = pair()
    noise = objective.noise(AT, 4000)
    assert noise.shape == (4000, 3, 1, 1)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    np.testing.assert_array_equal(noise[:7], objective.noise(AT, 7))
    for other in (MicroBatch(5, 5, 1), MicroBatch(4, 6, 1), MicroBatch(4, 5, 2)):
        assert not np.array_equal(objective.noise(other, 7), noise[:7])


def test_networks_that_do_not_fit_together():
    with pytest.raises(ValueError, match=r"expected one from \(1, 8, 8\) to \(1,\)"):
        Adversarial(generator(), Network([Linear(2)], SHAPE))


def test_images_from_minus_1_to_1_are_refused():
    """They became -3 to 1, while the generator's are from -1 to 1."""
    with pytest.raises(DataError, match=r"found floats from -0.9.* to .*, expected 0 to 1"):
        fit(pair(), images() / np.float32(127.5) - 1, np.zeros(N), steps=1)


@pytest.mark.parametrize("label", [0, 1.5, float("nan")])
def test_a_label_of_real_images_that_no_logit_can_be(label):
    with pytest.raises(
        ValueError, match=r"Adversarial: found real_label .*, expected a number > 0"
    ):
        Adversarial(generator(), discriminator(), real_label=label)
