from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from launching import codes_of_abort

from distnet.base.errors import DataError, InputChangedError
from distnet.parallel import AgreedExit, RankError, fail_together

PROGRAM = str(Path(__file__).with_name("failing_program.py"))


def test_agreed_errors_are_shown_by_rank_0_alone(any_comm, capsys):
    with pytest.raises(AgreedExit) as exit_info, fail_together(any_comm):
        raise RankError("bad input")
    assert exit_info.value.code == 2
    shown = capsys.readouterr().err
    assert shown == ("distnet: error: bad input\n" if any_comm.rank == 0 else "")


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (ZeroDivisionError("no"), 1, "ZeroDivisionError: no\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (InputChangedError("x: found another file"), 2, "distnet: error: x: found another file\n"),
        (DataError("labels: found 11"), 2, "distnet: error: labels: found 11\n"),
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
        ("changed", 2, "[rank 1] distnet: error: x: found another file"),
        ("data", 2, "[rank 1] distnet: error: labels: found 11"),
        ("exception", 1, "[rank 1] ZeroDivisionError: this cannot be computed"),
        ("exit3", 3, "[rank 1] left by sys.exit(3) on its own; commands return their exit code"),
        ("exit0", 1, "[rank 1] left by sys.exit(0) on its own; commands return their exit code"),
        ("interrupt", 130, "[rank 1] interrupted"),
    ],
)
def test_a_lonely_failure_ends_the_job(mpirun, what, code, line):
    process = mpirun(3, PROGRAM, what, "1")
    assert process.returncode in codes_of_abort(code)
    lines = own_lines(process)
    assert lines[-1] == line
    assert all(each.startswith("[rank 1] ") for each in lines)
    assert sum("Traceback" in each for each in lines) == (what == "exception")


def test_a_killed_rank_ends_the_job(mpirun):
    assert mpirun(3, PROGRAM, "kill", "1").returncode != 0


@pytest.mark.parametrize(
    ("what", "ranks", "line"),
    [
        ("bad-input", "0 1 2", "found a shoe, expected an image; look again"),
        ("bad-input", "1", "rank 1 of 3: found a shoe, expected an image; look again"),
        ("disagree", "2", "the ranks differ in seed: 0 on ranks 0, 1; 1 on rank 2; start every"),
    ],
)
def test_an_agreed_failure_is_one_line_and_code_2(mpirun, what, ranks, line):
    process = mpirun(3, PROGRAM, what, *ranks.split())
    assert process.returncode == 2
    (shown,) = own_lines(process)
    assert shown.startswith(f"distnet: error: {line}")


def test_a_returned_code_is_the_jobs(mpirun):
    process = mpirun(3, PROGRAM, "return")
    assert (process.returncode, own_lines(process)) == (75, [])
