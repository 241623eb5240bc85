"""The BLAS that multiplies NumPy's matrices: which it is, and how many threads it has."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl

# Kernels of OpenBLAS for AVX-512 multiply small matrices of float32 where they lie; for large ones
# it copies both to where its loops want them. And the terms that it then adds up in one run.
_SMALL_KERNELS = {"SkylakeX": 448, "Cooperlake": 320, "SapphireRapids": 320}

_num_limits = 0  # how many `one_blas_thread` last just now


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it BLAS computes on one thread: sums have one order, and ranks do not share cores."""
    global _num_limits
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        _num_limits += 1
        try:
            yield
        finally:
            _num_limits -= 1


def blas_of_numpy() -> dict[str, str]:
    """The BLAS in NumPy's own wheel, otherwise the first one in the process; empty if none.

    `internal_api`, `version`, `architecture` (of its kernels) and so on, see threadpoolctl.
    """
    libraries = [x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
    libraries.sort(key=lambda library: "numpy" not in library["filepath"])
    return libraries[0] if libraries else {}


def terms_of_small_products() -> int:
    """Sums of how many terms are faster, with the same bits, in many small products of float32.

    In place of a large product of the same matrices, on one thread: several share a large one. 0 if
    they never are.
    """
    return _terms_of_small_kernels() if _num_limits else 0


@functools.cache
def _terms_of_small_kernels() -> int:
    blas = blas_of_numpy()
    is_openblas = blas.get("internal_api") == "openblas"
    return _SMALL_KERNELS.get(blas.get("architecture", ""), 0) if is_openblas else 0
