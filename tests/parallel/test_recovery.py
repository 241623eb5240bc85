"""Going on without failed ranks where the MPI library can, and ending the job where it cannot."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest

PROGRAM = str(Path(__file__).with_name("surviving_program.py"))
ULFM = ("--with-ft", "ulfm")


@pytest.mark.parametrize("ranks", [(1,), (0,), (0, 2), (0, 1, 3)], ids=str)
@pytest.mark.parametrize("what", ["exception", "exit", "kill", "segfault", "mistake"])
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
    if what == "mistake":  # not taken for a loss
        assert "invalid root" in process.stderr.lower()


@pytest.mark.parametrize("rank", range(3))
def test_a_loss_that_is_told_in_other_words(mpirun, rank):
    """Open MPI 5.0.11 says MPI_ERR_OTHER to the root of some broadcasts to three ranks."""
    elastic = chaos.is_elastic()
    process = mpirun(3, PROGRAM, "broadcast", str(rank), options=ULFM if elastic else ())
    lines = [line for line in process.stdout.splitlines() if line.endswith(f"lost [{rank}]")]
    assert (process.returncode == 0, len(lines)) == ((True, 2) if elastic else (False, 0))
