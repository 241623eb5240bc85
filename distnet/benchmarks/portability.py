"""`python -m distnet.bench portability`: the same training under every setting of this machine.

Each row trains the same steps in portable arithmetic and in float32, with other kernels of the
BLAS, more threads, without some SIMD units, or on ranks. The portable hash has to be the one in
`golden` in every row; that of float32 shows that the settings do make a difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from distnet.base.options import option, parse_options
from distnet.base.tables import aligned
from distnet.benchmarks.golden import CASES, GOLDEN
from distnet.benchmarks.jobs import PERMISSIONS, ROOT, TIMEOUT_SECONDS, JobError, find_mpirun
from distnet.benchmarks.rounds import describe_machine

# The kernels that OpenBLAS can be told to take on x86-64, and what a processor needs to run them.
KERNELS = {
    "Prescott": "SSE3",
    "Nehalem": "SSE42",
    "Sandybridge": "AVX",
    "Haswell": "AVX2",
    "SkylakeX": "AVX512_SKX",
}


@dataclass(frozen=True)
class PortabilityOptions:
    """Trains the same steps under every setting that this machine has, and compares the hashes."""

    cases: tuple[str, ...] = option(
        ("deep_convnet", "residual"), "trainings", group="portability", choices=CASES
    )
    ranks: tuple[int, ...] = option(
        (2, 3), "numbers of ranks", group="portability", metavar="N", limits={">=": 1, "<=": 64}
    )
    control: bool = option(True, "also in float32", group="portability")


@dataclass(frozen=True)
class Setting:
    """What differs from a plain process: variables, for each rank its own, or none at all."""

    name: str
    environ: Mapping[str, str]
    of_ranks: tuple[Mapping[str, str], ...] = ()


def main(argv: list[str]) -> int:
    """The benchmark; exit code 1 if a portable hash is not the known one."""
    options = parse_options(PortabilityOptions, argv, "python -m distnet.bench portability")
    print(describe_machine())
    rows, is_right = [["setting", "case", "portable", "", "float32"]], True
    for setting in settings(options.ranks):
        found = hashes(setting, options.cases)
        control = hashes(setting, options.cases, "--float32") if options.control else {}
        for case in options.cases:
            same = found[case] == GOLDEN[case]
            is_right = is_right and same
            mark = "as known" if same else f"NOT {GOLDEN[case]:.12}"
            name = setting.name if case == options.cases[0] else ""
            rows.append([name, case, f"{found[case]:.12}", mark, f"{control.get(case, '-'):.12}"])
    print("\n".join(aligned(rows)))
    return 0 if is_right else 1


def settings(ranks: tuple[int, ...]) -> Iterator[Setting]:
    """Those that this machine offers, the plain one first."""
    yield Setting("plain", {})
    yield Setting("2 BLAS threads", _threads(2))
    kernels = [name for name, needed in KERNELS.items() if needed in cpu_features()]
    for name in kernels:
        yield Setting(f"{name} kernels", {"OPENBLAS_CORETYPE": name})
    without = " ".join(optional_features())
    if without:
        yield Setting("NumPy without SIMD", {"NPY_DISABLE_CPU_FEATURES": without})
    for number in ranks:
        yield Setting(f"{number} ranks", {}, ({},) * number)
    if len(kernels) > 1:
        unlike = tuple({"OPENBLAS_CORETYPE": name} for name in (kernels[0], kernels[-1]))
        yield Setting(f"ranks of {kernels[0]} and {kernels[-1]}", {}, unlike)


def hashes(setting: Setting, cases: Iterable[str], *more: str) -> dict[str, str]:
    """What the trainings end with, by case; raises JobError."""
    python = [sys.executable, "-m", "distnet.benchmarks.golden", *cases, *more]
    command = python if not setting.of_ranks else [find_mpirun(), *_ranks(setting, python)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    job = subprocess.run(
        command,
        env={**PERMISSIONS, **os.environ, **_threads(1), "PYTHONPATH": path, **setting.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if job.returncode:
        words = (job.stderr.strip() or "no output").splitlines()[-1]
        raise JobError(f"{setting.name}: ended with exit code {job.returncode}: {words}")
    return json.loads(job.stdout.splitlines()[-1])


def _ranks(setting: Setting, python: list[str]) -> Iterator[str]:
    """The arguments of mpirun: one program for each rank, since each has variables of its own."""
    for number, environ in enumerate(setting.of_ranks):
        variables = [f"{name}={value}" for name, value in environ.items()]
        yield from [":"] * bool(number) + ["-n", "1", "env", *variables, *python]


def _threads(number: int) -> dict[str, str]:
    return {"OPENBLAS_NUM_THREADS": str(number), "OMP_NUM_THREADS": str(number)}


def cpu_features() -> list[str]:
    """What NumPy found on this processor."""
    features = import_module("numpy._core._multiarray_umath").__cpu_features__
    return [name for name, enabled in features.items() if enabled]


def optional_features() -> list[str]:
    """Those of them that NumPy can do without."""
    dispatched = import_module("numpy._core._multiarray_umath").__cpu_dispatch__
    return [name for name in dispatched if name in cpu_features()]
