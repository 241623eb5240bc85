"""Training on numbers of 16 bits: what is rounded, what is not; nothing depends on the ranks."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import ALONE, SIZES, read_summary, succeed, train, write_digits

import distnet
from distnet import Conv2d, Linear, MaxPool2d, Network, ReLU
from distnet.base.halves import HALVES
from distnet.base.keys import MicroBatch
from distnet.objectives import Classification
from distnet.training.config import ConfigError, TrainConfig
from distnet.training.files.checkpoint import load
from distnet.training.step.updates import optimizer_for

FLAGS = ["--model", "simple_convnet", "--steps", "6", "--log-every", "1", "--checkpoint-every", "3"]


def network(arithmetic: str = "float32") -> Network:
    layers = [Conv2d(4, 3, pad=1), ReLU(), MaxPool2d(2), Linear(20), ReLU(), Linear(3)]
    return Network(layers, (1, 8, 8), arithmetic=arithmetic)


def are_halves(values: np.ndarray, name: str) -> bool:
    rounded = values.copy()
    HALVES[name](rounded)
    return bool((rounded == values).all())


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    shapes = rng.integers(0, 256, (3, 1, 8, 8))
    images = (shapes[labels] + rng.integers(0, 256, (200, 1, 8, 8))) // 2
    return images.astype(np.uint8), labels


@pytest.mark.parametrize("name", HALVES)
def test_everything_but_the_master_weights_has_16_bits(name):
    mixed = network(name)
    optimizer = optimizer_for(mixed.parameters, "adam")
    start = optimizer.state["master"].copy()
    np.testing.assert_array_equal(start, network().parameters.values)
    assert are_halves(mixed.parameters.values, name) and not are_halves(start, name)
    x = np.random.default_rng(1).random((5, 1, 8, 8), np.float32)
    y = mixed.forward(x, MicroBatch())
    assert are_halves(y, name)
    np.testing.assert_allclose(y, network().forward(x), rtol=0, atol=0.02)
    mixed.backward(np.full_like(y, 1e-3))
    optimizer.step(mixed.parameters.values, mixed.parameters.grads, 0.01, 1)
    assert are_halves(mixed.parameters.values, name)
    assert (optimizer.state["master"] != start).any()


@pytest.mark.parametrize("name", HALVES)
def test_what_is_written_into_the_parameters_counts(name):
    """The next update brought back what the master weights were."""
    mixed = network(name)
    optimizer = optimizer_for(mixed.parameters, "sgd")
    values, grads = mixed.parameters.values, np.zeros_like(mixed.parameters.values)
    master = optimizer.state["master"].copy()
    values[3:5] = 0.25
    optimizer.step(values, grads, 0.01, 1)
    master[3:5] = 0.25
    np.testing.assert_array_equal(optimizer.state["master"], master)
    np.testing.assert_array_equal(values[3:5], 0.25)


def test_updates_too_small_for_16_bits_add_up():
    """The next number below 0.5 is 0.5 - 2^-12 = 0.49976; an update is a twenty-fifth of that."""
    mixed = network("float16")
    values = mixed.parameters.values
    values[...] = 0.5
    optimizer = optimizer_for(mixed.parameters, "sgd")
    gradient = np.ones_like(values)
    for t in range(1, 13):
        optimizer.step(values, gradient, 1e-5, t)
        assert (values == 0.5).all()
    optimizer.step(values, gradient, 1e-5, 13)
    assert (values == 0.5 - 2**-12).all()


@pytest.mark.parametrize("factor", [1.0, 2.0**-30])
def test_gradients_that_float16_cannot_hold_are_not_lost(factor):
    """They are scaled on their way: those of a smaller loss are smaller, bit for bit."""
    x = np.random.default_rng(1).random((5, 1, 8, 8), np.float32)
    gradients = []
    for scale in (1.0, factor):
        mixed, ready = network("float16"), []
        optimizer_for(mixed.parameters, "sgd")
        dy = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32) * np.float32(scale)
        mixed.forward(x, MicroBatch())
        kept = dy.copy()

        def final(start, mixed=mixed, ready=ready):
            ready.append(mixed.parameters.grads[start:].copy())

        dx = mixed.backward(dy, need_dx=True, ready=final)
        np.testing.assert_array_equal(dy, kept)
        grads = mixed.parameters.grads
        assert all((part == grads[grads.size - part.size :]).all() for part in ready)
        gradients.append((grads / np.float32(scale), dx / np.float32(scale)))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one).max() > 0


def test_it_learns_as_well(digits):
    found = {}
    for name in ("float32", *HALVES):
        net = network(name)
        distnet.fit(net, *digits, steps=60, batch_size=40, optimizer="adam")
        found[name] = float((net.predict(digits[0]).argmax(axis=1) == digits[1]).mean())
    assert found["float32"] > 0.9, found
    assert all(abs(value - found["float32"]) <= 0.03 for value in found.values()), found


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    return [*FLAGS, *SIZES, "--data-dir", str(write_digits(tmp_path_factory.mktemp("digits")))]


@pytest.mark.mpi_launch
@pytest.mark.parametrize("name", HALVES)
def test_the_same_bits_on_ranks_and_resumed(flags, tmp_path, name):
    arithmetic = ["--arithmetic", name, "--ema", "0.9"]
    for ranks in (ALONE, 3):
        succeed(ranks, *flags, *arithmetic, "--out", tmp_path / f"on{ranks}")
    out = tmp_path / "resumed"
    succeed(3, *flags, *arithmetic, "--stop-at", "3", "--out", out, code=75)
    succeed(2, *flags, *arithmetic, "--resume", "--out", out)
    hashes = {read_summary(path)["params_sha256"] for path in tmp_path.iterdir()}
    assert len(hashes) == 1
    succeed(ALONE, *flags, "--out", tmp_path / "float32")
    assert read_summary(tmp_path / "float32")["params_sha256"] not in hashes


def test_files_say_it(flags, tmp_path):
    succeed(ALONE, *flags, "--arithmetic", "bfloat16", "--out", tmp_path / "run")
    network = distnet.load(tmp_path / "run")
    assert network.arithmetic.name == "bfloat16"
    assert are_halves(network.parameters.values, "bfloat16")
    (newest,) = (tmp_path / "run" / "checkpoints").glob("step-00000006*")
    master = load(newest).part("optimizer.master")
    assert not are_halves(np.concatenate([each.ravel() for each in master.values()]), "bfloat16")
    assert read_summary(tmp_path / "run")["arithmetic"] == "bfloat16"
    process = train(ALONE, *flags, "--arithmetic", "float16", "--resume", "--out", tmp_path / "run")
    assert process.returncode == 2
    assert "arithmetic: found 'bfloat16', expected 'float16'" in process.stderr


def test_islands_have_no_master_weights():
    with pytest.raises(ConfigError, match="--arithmetic: found float16 beside --sync local"):
        TrainConfig(sync="local", arithmetic="float16")


def test_frozen_weights_have_16_bits_too():
    mixed = network("float16")
    mixed.freeze("conv1")
    optimizer_for(mixed.parameters, "adam")
    assert mixed.parameters.constants.size and are_halves(mixed.parameters.constants, "float16")


def test_a_classifier_of_a_rounded_loss():
    """The objective's loss and counts are those of the logits that it gets."""
    mixed = network("float16")
    objective = Classification(mixed)
    x = objective.as_input(np.zeros((2, 1, 8, 8), np.uint8))
    sums = objective.gradients(x, np.array([0, 1]), MicroBatch())
    assert sums[0] == pytest.approx(np.log(3), rel=1e-3)
