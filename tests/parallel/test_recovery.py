"""Going on without failed ranks where the MPI library can, and ending the job where it cannot."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest

PROGRAM = str(Path(__file__).with_name("surviving_program.py"))
ULFM = ("--with-ft", "ulfm")


@pytest.mark.parametrize("ranks", [(1,), (0,), (0, 2), (0, 1, 3)], ids=str)
@pytest.mark.parametrize("what", ["exception", "exit", "kill", "segfault"])
def test_the_others_go_on_or_the_job_ends(mpirun, what, ranks):
    elastic = chaos.is_elastic()
    arguments = [what, *map(str, ranks)]
    process = mpirun(4, PROGRAM, *arguments, options=ULFM if elastic else ())
    lines = sorted(line for line in process.stdout.splitlines() if line.startswith("rank "))
    survivors = [rank for rank in range(4) if rank not in ranks]
    size = len(survivors)
    expected = [
        f"rank {rank} is {number} of {size} on {size}, lost {list(ranks)}"
        for number, rank in enumerate(survivors)
    ]
    assert (process.returncode == 0, lines) == (elastic, expected if elastic else [])
    if what == "exception":
        assert "ZeroDivisionError: this cannot be computed" in process.stderr
