"""The experiments of chapter 7: requirements in quick mode, and the functions they measure with."""

from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load
from distnet.models import DeepConvNet
from distnet.parallel import SerialCommunicator

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch07"


@pytest.mark.parametrize("name", ["im2col_shapes", "gradients_of_convnet", "first_filters"])
def test_requirements_hold(name, tmp_path):
    script = load(CHAPTER / f"{name}.py")
    lab = Lab(SerialCommunicator(), tmp_path, quick=True)
    numbers = script.run(lab)
    assert [str(v) for v in (lab.judge(r, numbers) for r in script.REQUIRED) if not v.holds] == []


@pytest.mark.mpi(min_size=2)
def test_simple_convnet_is_the_same_on_two_ranks(comm, tmp_path):
    script = load(CHAPTER / "train_simple_convnet.py")
    together = script.run(Lab(comm, tmp_path, quick=True))
    alone = script.run(Lab(SerialCommunicator(), tmp_path, quick=True))
    assert together == alone
    assert together["after_1_epoch"] >= 0.85


def test_correlation_of_smooth_and_of_alternating_filters():
    correlation = load(CHAPTER / "first_filters.py").neighbour_correlation
    rows, columns = np.mgrid[:5, :5]
    assert correlation((rows + columns)[None, None]) == pytest.approx(1)
    assert correlation(((rows + columns) % 2)[None, None]) == pytest.approx(-1, abs=1e-6)


def test_correlation_of_noise_is_small():
    correlation = load(CHAPTER / "first_filters.py").neighbour_correlation
    noise = np.random.default_rng(0).standard_normal((1000, 1, 5, 5))
    assert -0.1 < correlation(noise) < 0.01


def test_filters_are_applied_as_defined():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 1, 5, 5)).astype(np.float32)
    image = rng.standard_normal((1, 1, 12, 9)).astype(np.float32)
    expected = load(CHAPTER / "im2col_shapes.py").convolve(image, weight)[0]
    found = load(CHAPTER / "first_filters.py").apply(weight, image)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_probes_look_at_what_the_network_computes():
    outputs_of_stages = load(CHAPTER / "linear_probes.py").outputs_of_stages
    images = np.random.default_rng(0).integers(0, 256, (201, 1, 28, 28), np.uint8)
    network = DeepConvNet()
    stages = outputs_of_stages(network, images)
    assert [stage.shape for stage in stages] == [(201, k) for k in (784, 3136, 2048, 1024)]
    weight, bias = (network.parameters.named()[f"linear1.{part}"] for part in ("weight", "bias"))
    hidden = np.maximum(stages[-1] @ weight + bias, 0)
    last, end = (network.parameters.named()[f"linear2.{part}"] for part in ("weight", "bias"))
    logits = network.predict(images / np.float32(255))
    np.testing.assert_allclose(hidden @ last + end, logits, rtol=1e-3, atol=1e-4)
