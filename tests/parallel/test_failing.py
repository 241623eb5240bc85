from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from distnet.parallel import (
    AgreedExit,
    DisagreementError,
    RankError,
    agree,
    fail_together,
    together,
)

PROGRAM = str(Path(__file__).with_name("failing_program.py"))


def raises(message, ranks, comm):
    """An action that raises ValueError on some ranks and returns the rank on the others."""

    def action():
        if comm.rank in ranks:
            raise ValueError(message)
        return comm.rank

    return action


def test_together_returns_each_ranks_result(any_comm):
    assert together(any_comm, raises("bad", [], any_comm)) == any_comm.rank


def test_together_keeps_a_message_that_all_share(any_comm):
    with pytest.raises(RankError, match=r"^bad input$"):
        together(any_comm, raises("bad input", range(any_comm.size), any_comm))


@pytest.mark.mpi(min_size=3)
def test_together_names_the_ranks(comm):
    with pytest.raises(RankError, match=rf"^rank 1 of {comm.size}: bad$"):
        together(comm, raises("bad", [1], comm))
    with pytest.raises(RankError, match=rf"^ranks 0, 2 of {comm.size}: bad$"):
        together(comm, raises("bad", [0, 2], comm))
    with pytest.raises(RankError, match=rf"^rank 0 of {comm.size}: bad 0; rank 2 of .: bad 2$"):
        together(comm, raises(f"bad {comm.rank}", [0, 2], comm))


def test_together_turns_a_common_exit_into_an_agreed_one(any_comm):
    with pytest.raises(AgreedExit) as exit_info:
        together(any_comm, lambda: sys.exit(2))
    assert exit_info.value.code == 2


def test_together_lets_bugs_pass(comm):
    with pytest.raises(ZeroDivisionError):
        together(comm, lambda: 1 // 0)


def test_agree_accepts_equal_descriptions(any_comm):
    agree(any_comm, {"seed": 1, "layers": [3, 4]})


@pytest.mark.mpi(min_size=3)
def test_agree_names_key_values_and_ranks(comm):
    description = {"model": "cnn", "seed": 7 if comm.rank == 1 else 5, "lr": comm.rank}
    others = ", ".join(str(r) for r in range(comm.size) if r != 1)
    with pytest.raises(DisagreementError, match=f"in seed: 5 on ranks {others}; 7 on rank 1; "):
        agree(comm, description)
    missing = {} if comm.rank == 0 else {"blas": "haswell"}
    with pytest.raises(DisagreementError, match=r"in blas: \(missing\) on rank 0; .*; pin it"):
        agree(comm, missing, remedy="pin it")


def test_agreed_errors_are_shown_by_rank_0_alone(any_comm, capsys):
    with pytest.raises(AgreedExit) as exit_info, fail_together(any_comm):
        together(any_comm, raises("bad input", range(any_comm.size), any_comm))
    assert exit_info.value.code == 2
    shown = capsys.readouterr().err
    assert shown == ("distnet: error: bad input\n" if any_comm.rank == 0 else "")


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (ZeroDivisionError("no"), 1, "ZeroDivisionError: no\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(3), 3, "left by sys.exit(3) on its own; commands return their exit code\n"),
        (SystemExit(), 1, "left by sys.exit(None) on its own; commands return their exit code\n"),
        (SystemExit("text"), 1, "left by sys.exit('text') on its own; commands return"),
    ],
)
def test_serial_failures_have_an_exit_code_and_a_report(comm, capsys, error, code, shown):
    with pytest.raises(SystemExit) as exit_info, fail_together(comm):
        raise error
    assert exit_info.value.code == code
    assert shown in capsys.readouterr().err


def own_lines(process: subprocess.CompletedProcess[str]) -> list[str]:
    """What the ranks have written to stderr, without the words of mpirun."""
    return [
        line
        for line in process.stderr.splitlines()
        if line.startswith(("[rank ", "distnet:", "Traceback"))
    ]


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ("exception", 1, "[rank 1] ZeroDivisionError: this cannot be computed"),
        ("exit3", 3, "[rank 1] left by sys.exit(3) on its own; commands return their exit code"),
        ("exit0", 1, "[rank 1] left by sys.exit(0) on its own; commands return their exit code"),
        ("interrupt", 130, "[rank 1] interrupted"),
    ],
)
def test_a_lonely_failure_ends_the_job(mpirun, what, code, line):
    begin = time.monotonic()
    process = mpirun(3, PROGRAM, what, "1", timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == code
    lines = own_lines(process)
    assert lines[-1] == line
    assert all(each.startswith("[rank 1] ") for each in lines)
    assert sum("Traceback" in each for each in lines) == (what == "exception")


def test_a_killed_rank_ends_the_job(mpirun):
    assert mpirun(3, PROGRAM, "kill", "1", timeout=30).returncode != 0


@pytest.mark.parametrize(
    ("what", "ranks", "line"),
    [
        ("bad-input", "0 1 2", "found a shoe, expected an image; look again"),
        ("bad-input", "1", "rank 1 of 3: found a shoe, expected an image; look again"),
        ("disagree", "2", "the ranks differ in seed: 0 on ranks 0, 1; 1 on rank 2; start every"),
    ],
)
def test_an_agreed_failure_is_one_line_and_code_2(mpirun, what, ranks, line):
    process = mpirun(3, PROGRAM, what, *ranks.split(), timeout=30)
    assert process.returncode == 2
    (shown,) = own_lines(process)
    assert shown.startswith(f"distnet: error: {line}")


def test_a_returned_code_is_the_jobs(mpirun):
    process = mpirun(3, PROGRAM, "return", timeout=30)
    assert (process.returncode, own_lines(process)) == (75, [])
