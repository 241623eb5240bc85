"""Both detectors in portable arithmetic: one hash, whatever computes, on any number of ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from portable_detectors import DETECTORS, trained

from distnet.benchmarks.portability import settings

HERE = Path(__file__).parent
UNLIKE = ["Prescott kernels", "Haswell kernels", "NumPy without SIMD"]

# SHA-256 of the parameters, on every machine.
KNOWN = {
    "rcnn": "58faac4587aef05521c5a26f346a442101042b5420b425233389be5a8ab78735",
    "faster_rcnn": "cfe9f3ca83792ef84104b7ab496bb247bdedfbff64c18d7e547860db78d928de",
}


@pytest.mark.parametrize(
    "num_ranks", [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 3)]
)
@pytest.mark.parametrize("name", DETECTORS)
def test_the_known_hash_on_any_number_of_ranks(name, comm, num_ranks):
    assert comm.size >= num_ranks
    assert trained(name, comm) == KNOWN[name]


@pytest.mark.parametrize(
    "setting", [each for each in settings(()) if each.name in UNLIKE], ids=lambda each: each.name
)
def test_the_known_hash_whatever_computes(setting):
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    ended = subprocess.run(
        [sys.executable, "-m", "portable_detectors"],
        env={**os.environ, "PYTHONPATH": path, **setting.programs[0].environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout) == KNOWN


def test_in_float32_it_is_another(comm):
    assert trained("rcnn", comm, "float32") != KNOWN["rcnn"]
