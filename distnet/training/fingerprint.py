"""The numerics fingerprint: what decides, besides the program, which bits a computation gives.

Two processes with equal fingerprints use the same NumPy and BLAS kernels. Ranks compare theirs at
the start, and a resumed run compares its own with the one in the checkpoint.
"""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from distnet.base.blas import ACCELERATE, blas_of_numpy, built_with_blas

UNKNOWN = "unknown"
REMEDY = (
    "use the same NumPy everywhere and, before Python starts, set OPENBLAS_CORETYPE (such as "
    "Haswell) and NPY_DISABLE_CPU_FEATURES (such as X86_V4) to what all hosts have; or compute in "
    "portable arithmetic (--arithmetic portable), whose bits are the same on all"
)
CODE_REMEDY = "install the same environment on all hosts"


def numerics_fingerprint() -> dict[str, str]:
    """NumPy, its BLAS (library, version, kernel architecture, threads), CPU features and machine.

    Call it inside `one_blas_thread`, where the numbers are computed. What cannot be found out, such
    as the kernels of a BLAS that threadpoolctl does not know, is "unknown".
    """
    blas = blas_of_numpy() or _unseen_blas()
    return {
        "numpy": np.__version__,
        "blas": blas.get("internal_api") or built_with_blas() or UNKNOWN,
        "blas_version": str(blas.get("version") or UNKNOWN),
        "blas_architecture": blas.get("architecture", UNKNOWN),
        "blas_threads": str(blas.get("num_threads", UNKNOWN)),
        "cpu_features": describe_features(_cpu_features()),
        "machine": platform.machine(),
        "byte_order": sys.byteorder,
    }


def difference(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """One line that names every entry that differs and the remedy; empty if none does."""
    names = [n for n in dict.fromkeys([*expected, *found]) if found.get(n) != expected.get(n)]
    if not names:
        return ""
    entries = [
        f"{name}: found {found.get(name, UNKNOWN)}, expected {expected.get(name, UNKNOWN)}"
        for name in names
    ]
    return "; ".join([*entries, REMEDY])


def code_sha256() -> str:
    """A hash of all files of the package that is running here; takes some 10 ms."""
    package = Path(__file__).parents[1]
    sha = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return sha.hexdigest()[:12]


def describe_features(enabled: list[str]) -> str:
    """The last and most special of NumPy's CPU features, their number, and a hash of them all."""
    if not enabled:
        return UNKNOWN
    digest = hashlib.sha256(" ".join(enabled).encode()).hexdigest()[:8]
    return f"{enabled[-1]} ({len(enabled)} features, {digest})"


def _unseen_blas() -> dict[str, str]:
    """Of a BLAS that threadpoolctl does not know: Apple's is part of macOS, made for its chips."""
    if built_with_blas() != ACCELERATE:
        return {}
    return {"version": platform.mac_ver()[0], "architecture": _apple_chip()}


@cache
def _apple_chip() -> str:
    """Such as "Apple M1 Pro"."""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        said = subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:
        return UNKNOWN
    return said.strip() or UNKNOWN


def _cpu_features() -> list[str]:
    """What NumPy found on this CPU and may use; empty if this NumPy does not tell."""
    try:
        features = import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return []
    return [name for name, enabled in features.items() if enabled]
