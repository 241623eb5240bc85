"""The BLAS that multiplies NumPy's matrices: which it is, and how many threads it has."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

# Kernels of OpenBLAS for AVX-512 multiply small matrices of float32 where they lie; large ones it
# copies to where its loops want them, for so many terms of their sums at a time.
_SMALL_KERNELS = {"SkylakeX": 448, "Cooperlake": 320, "SapphireRapids": 320}
ACCELERATE = "accelerate"  # Apple's BLAS, a part of macOS
_UNROLLED = 16  # rows of their loops, of which a run is a multiple

_lock = threading.Lock()
_num_limits = 0  # how many `one_blas_thread` last just now, in all threads of Python
_limit: Any = None  # of the first of them, which knows how many threads BLAS had


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it BLAS computes on one thread: sums have one order, and ranks do not share cores.

    It does so for the whole process, until the last one of several is left.
    """
    global _num_limits, _limit
    limit = threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    with _lock:
        _num_limits += 1
        if _num_limits == 1:
            _limit = limit
    try:
        yield
    finally:
        with _lock:
            _num_limits -= 1
            if not _num_limits:
                _limit.restore_original_limits()


def blas_of_numpy() -> dict[str, str]:
    """The BLAS in NumPy's own wheel, otherwise the first one in the process; empty if none.

    Empty for Apple's too, which threadpoolctl cannot see: the first one would be SciPy's.
    `internal_api`, `version`, `architecture` (of its kernels) and so on, see threadpoolctl.
    """
    if built_with_blas() == ACCELERATE:
        return {}
    libraries = [x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
    libraries.sort(key=lambda library: "numpy" not in library["filepath"])
    return libraries[0] if libraries else {}


def built_with_blas() -> str:
    """What NumPy calls the BLAS that it was built with; "" if it does not tell."""
    build = np.show_config(mode="dicts")["Build Dependencies"]
    return str(build.get("blas", {}).get("name", ""))


def terms_of_small_products() -> int:
    """The terms up to which sums are faster in many small products of float32, with the same bits.

    Than in one large product of the same matrices, on one thread: several share a large one. 0 if
    small ones are not faster. Longer sums BLAS adds up in several runs, see `runs`.
    """
    return _terms_of_small_kernels() if _num_limits else 0


def runs(num_terms: int, longest: int) -> Iterator[slice]:
    """The runs in which OpenBLAS adds up a long sum: whole ones, and of what is left two halves."""
    start = 0
    while left := num_terms - start:
        length = longest if left >= 2 * longest else left
        if longest < length:
            length = -(-(left // 2) // _UNROLLED) * _UNROLLED
        yield slice(start, start + length)
        start += length


@functools.cache
def _terms_of_small_kernels() -> int:
    blas = blas_of_numpy()
    is_openblas = blas.get("internal_api") == "openblas"
    terms = _SMALL_KERNELS.get(blas.get("architecture", ""), 0) if is_openblas else 0
    # Another version may have other loops: then products stay as they are.
    return terms if terms and all(_are_alike(k, terms) for k in (terms, terms + 64)) else 0


def _are_alike(num_terms: int, longest: int) -> bool:
    """Whether a small product, in runs, has the bits of a large one that it is half of."""
    rng = np.random.default_rng(0)
    left = rng.standard_normal((64, num_terms), np.float32)
    right = rng.standard_normal((num_terms, 64), np.float32)
    parts = [left[:32, run] @ right[run] for run in runs(num_terms, longest)]
    return functools.reduce(np.add, parts).tobytes() == (left @ right)[:32].tobytes()
