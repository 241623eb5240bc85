"""The Fréchet distance against closed forms and another way to compute it."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.experiments import frechet_distance


def features(n: int, k: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, k)) @ rng.standard_normal((k, k)) + rng.standard_normal(k)


def test_against_the_eigenvalues_of_the_product():
    """tr (C_a C_b)^1/2 is the sum of the roots of the eigenvalues of C_a C_b."""
    a, b = features(300, 7, 0), features(200, 7, 1)
    product = np.cov(a.T) @ np.cov(b.T)
    common = np.sqrt(np.linalg.eigvals(product)).real.sum()
    shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    expected = shift + np.cov(a.T).trace() + np.cov(b.T).trace() - 2 * common
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_shifts_and_scales():
    a = features(500, 4, 2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + [3, 0, 4, 0]) == pytest.approx(25, rel=1e-9)
    centred = a - a.mean(axis=0)
    variance = np.cov(a.T).trace()  # of 3 a it is 9 times that: (3 - 1)² of it is between them
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance, rel=1e-9)


def test_features_that_are_always_zero():
    a, b = features(300, 5, 0), features(200, 5, 1)
    expected = frechet_distance(a, b)
    a, b = (np.concatenate([each, np.zeros((len(each), 2))], axis=1) for each in (a, b))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a[:, 5:], b[:, 5:]) == 0
