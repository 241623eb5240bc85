"""Interleaved timing: contenders take turns, so that a change of the machine hits all alike."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np

from distnet.parallel.patience import num_cores
from distnet.training.fingerprint import numerics_fingerprint

Times = dict[str, list[float]]


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    num_rounds: int,
    num_warmups: int = 3,
    turn: int = 1,
) -> Times:
    """Seconds of every call, by contender: A B C, A B C, ... after `num_warmups` calls of each.

    With a `turn` of n calls, each contender makes n in a row, and the first of them, which finds
    the caches full of another's arrays, is not measured.
    """
    for run in contenders.values():
        for _ in range(num_warmups):
            run()
    times: Times = {name: [] for name in contenders}
    for _ in range(num_rounds):
        for name, run in contenders.items():
            for call in range(turn):
                started = time.perf_counter()
                run()
                if call or turn == 1:
                    times[name].append(time.perf_counter() - started)
    return times


def ratios(times: Times, name: str, rivals: Sequence[str]) -> tuple[float, float]:
    """How many times as fast as the best rival: by medians, by minima."""
    best_median = min(median(times[rival]) for rival in rivals)
    best_minimum = min(min(times[rival]) for rival in rivals)
    return best_median / median(times[name]), best_minimum / min(times[name])


def describe_machine() -> str:
    """One line: processor, cores, NumPy and its BLAS; a second one if the kernels are pinned."""
    print_ = numerics_fingerprint()
    line = (
        f"{platform.machine()}, {num_cores()} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, {print_['blas']} "
        f"{print_['blas_version']} {print_['blas_architecture']}, load {os.getloadavg()[0]:.1f}"
    )
    pinned = os.environ.get("OPENBLAS_CORETYPE")
    if pinned:
        line += (
            f"\nwarning: OPENBLAS_CORETYPE={pinned} pins the BLAS kernels; users' machines do not, "
            "so compare without it (env -u OPENBLAS_CORETYPE)"
        )
    return line
