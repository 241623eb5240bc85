"""The fingerprint names what decides the bits, and what to do when it differs."""

import os
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl

from distnet.base.blas import one_blas_thread
from distnet.training import fingerprint as module
from distnet.training.fingerprint import (
    REMEDY,
    describe_features,
    difference,
    numerics_fingerprint,
)

KEYS = "numpy blas blas_version blas_architecture blas_threads cpu_features machine byte_order"


def test_it_has_words_for_everything():
    found = numerics_fingerprint()
    assert list(found) == KEYS.split()
    assert all(value and type(value) is str for value in found.values())
    assert found["numpy"] == np.__version__
    assert found["byte_order"] in ("little", "big")
    assert found == numerics_fingerprint()


def test_blas_has_one_thread_inside_and_its_own_number_again_outside():
    before = numerics_fingerprint()["blas_threads"]
    with one_blas_thread():
        assert numerics_fingerprint()["blas_threads"] == "1"
    assert numerics_fingerprint()["blas_threads"] == before


def test_blas_has_one_thread_until_the_last_is_outside():
    """Of two threads of Python, the first to leave was the first to enter."""
    before = numerics_fingerprint()["blas_threads"]
    first, second = one_blas_thread(), one_blas_thread()
    with second:
        first.__enter__()
    assert numerics_fingerprint()["blas_threads"] == "1"
    first.__exit__(None, None, None)
    assert numerics_fingerprint()["blas_threads"] == before


def test_it_sees_the_kernels_that_were_chosen():
    info = threadpoolctl.threadpool_info()
    if not any(library.get("internal_api") == "openblas" for library in info):
        pytest.skip("this NumPy computes with another BLAS than OpenBLAS")
    code = (
        "from distnet.training.fingerprint import numerics_fingerprint as f; "
        "print(f()['blas_architecture'])"
    )
    variable = {"OPENBLAS_CORETYPE": "Nehalem"}  # what every x86-64 CPU of today can run
    ended = subprocess.run(
        [sys.executable, "-c", code], env=variable, capture_output=True, text=True, check=True
    )
    if numerics_fingerprint()["machine"] == "x86_64":
        assert ended.stdout.strip() == "Nehalem"


def test_the_blas_of_numpy_is_chosen_among_several(monkeypatch):
    def library(path: str, version: str) -> dict[str, object]:
        return {"user_api": "blas", "filepath": path, "version": version, "num_threads": 1}

    libraries = [
        {"user_api": "openmp", "filepath": "/x/numpy.libs/libgomp.so"},
        library("/x/scipy.libs/libopenblas.so", "1"),
        library("/x/numpy.libs/libopenblas.so", "2"),
    ]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: libraries)
    assert numerics_fingerprint()["blas_version"] == "2"


def test_an_unknown_blas_is_called_what_numpy_was_built_with(monkeypatch):
    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    found = numerics_fingerprint()
    assert found["blas"] == np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    assert found["blas_architecture"] == found["blas_threads"] == "unknown"


def test_the_blas_of_macos_is_known_by_system_and_chip(monkeypatch, tmp_path):
    """It says nothing itself, and a BLAS that another package brings along is not NumPy's."""
    sysctl = tmp_path / "sysctl"
    sysctl.write_text('#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo Apple M1 Pro\n')
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    build = {"Build Dependencies": {"blas": {"name": "accelerate", "version": "unknown"}}}
    monkeypatch.setattr(np, "show_config", lambda mode: build)
    monkeypatch.setattr(module.platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    module._apple_chip.cache_clear()
    found = numerics_fingerprint()
    module._apple_chip.cache_clear()
    names = ("blas", "blas_version", "blas_architecture", "blas_threads")
    assert [found[name] for name in names] == ["accelerate", "15.5", "Apple M1 Pro", "unknown"]


def test_a_numpy_that_hides_its_cpu_features_is_no_error(monkeypatch):
    def hidden(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", hidden)
    assert numerics_fingerprint()["cpu_features"] == "unknown"


def test_features_differ_if_any_of_them_does():
    assert describe_features(["SSE", "AVX2"]).startswith("AVX2 (2 features, ")
    assert describe_features(["SSE", "AVX2"]) != describe_features(["SSE3", "AVX2"])


def test_a_difference_names_both_sides_and_the_remedy():
    here = {"numpy": "2.0", "blas_architecture": "Haswell"}
    assert difference(here, dict(here)) == ""
    line = difference(here | {"blas_architecture": "SkylakeX"}, here | {"new": "x"})
    assert line == (
        "blas_architecture: found SkylakeX, expected Haswell; new: found unknown, expected x; "
        + REMEDY
    )
    assert "OPENBLAS_CORETYPE" in REMEDY
    assert REMEDY.isprintable()
