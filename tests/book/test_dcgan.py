"""The experiment of section 8.5.2: the same bits on two ranks, and how drawn digits are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load
from distnet.parallel import SerialCommunicator
from distnet.training.files.model_file import load as load_network

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08" / "dcgan.py"


@pytest.mark.mpi(min_size=2)
def test_both_networks_are_the_same_on_two_ranks(comm, tmp_path):
    script = load(SCRIPT)
    objectives = [script.adversarial(3) for _ in range(2)]
    shared, alone = (
        script.trained(Lab(ranks, tmp_path), objective, 3, 3, [])
        for ranks, objective in zip((comm, SerialCommunicator()), objectives, strict=True)
    )
    assert shared == alone
    assert shared.params_sha256 != script.adversarial(3).parameters.sha256()
    drawn, again = (script.drawn(objective, 1) for objective in objectives)
    np.testing.assert_array_equal(drawn, again)
    assert drawn.shape == (500, 1, 28, 28)
    assert 0 <= drawn.min() < drawn.max() <= 1


@pytest.mark.mpi(min_size=2)
def test_the_judge_sees_the_same_on_two_ranks(comm, tmp_path):
    script = load(SCRIPT)
    judge = load_network(script.JUDGE)
    alone, shared = (
        script.judged(Lab(ranks, tmp_path), judge, script.pixels_at_random, 1000)
        for ranks in (SerialCommunicator(), comm)
    )
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_judge_knows_digits(tmp_path):
    script = load(SCRIPT)
    lab, judge = Lab(SerialCommunicator(), tmp_path), load_network(script.JUDGE)
    images, labels = lab.mnist.test
    seen = script.judged(lab, judge, lambda block: script.as_floats(images, block), 1000)
    logits = judge.predict(images[:1000])
    np.testing.assert_array_equal(seen.probabilities.argmax(axis=1), logits.argmax(axis=1))
    assert np.mean(seen.probabilities.argmax(axis=1) == labels[:1000]) > 0.98
    assert seen.features.shape == (1000, 50)


def test_figures_of_a_generator_that_draws_one_digit_alone():
    script = load(SCRIPT)
    rng = np.random.default_rng(0)
    features = rng.random((100, 5))
    every = script.Judged(features, np.eye(10)[np.arange(100) % 10])
    found = script.figures(every, every)
    assert found == pytest.approx(
        {"distance": 0, "confidence": 1, "entropy": 1, "rarest": 0.1}, abs=1e-6
    )
    one = script.Judged(features + 2, np.eye(10)[np.zeros(100, int)] * 0.5)
    found = script.figures(one, every)
    assert found == pytest.approx(
        {"distance": 20, "confidence": 0.5, "entropy": 0, "rarest": 0}, abs=1e-6
    )
