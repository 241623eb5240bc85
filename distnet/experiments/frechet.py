"""How far two sets of features are apart: the Fréchet distance of their normal distributions."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array


def frechet_distance(a: Array, b: Array) -> float:
    """|m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^1/2) of features `(N, K)` and `(M, K)`.

    m are means, C covariances. The distance of normal distributions of these (Dowson and Landau
    1982), 0 if they are one. Heusel et al. 2017, arXiv:1706.08500, section 4 measure generators by
    it, in features of a classifier. It grows where there are few samples: compare only figures of
    equal numbers. The last trace is that of (C_a^1/2 C_b C_a^1/2)^1/2, which is symmetric, so that
    features that are always zero do no harm.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * common
    return max(0.0, float(distance))  # of equal features it is rounded to either side of 0
