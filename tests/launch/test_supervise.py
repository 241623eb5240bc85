"""The supervisor, with small programs in the place of a training job."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import launching
import pytest

SUPERVISE = [sys.executable, str(launching.ROOT / "launch" / "supervise.py")]
# A job: notes its arguments, then does what the next line of `plan` says.
JOB = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[2])
with (out / "starts").open("a") as file:
    file.write(" ".join(sys.argv[3:]) + "\\n")
number = len((out / "starts").read_text().splitlines())
exec((out / "plan").read_text().splitlines()[number - 1])
"""
FINISH = '(out / "summary.json").write_text("{}")'
CHECKPOINT = '(out / "checkpoints").mkdir(); (out / "checkpoints" / "step-00000001.safetensors")'
CHECKPOINT += ".touch(); sys.exit(9)"


@pytest.fixture
def supervise(tmp_path):
    """`supervise(plan, *options)` runs jobs that act as the lines of `plan` say."""

    def run(plan, *options, wait=True):
        (tmp_path / "plan").write_text("\n".join(plan))
        job = [sys.executable, "-c", JOB, "--out", str(tmp_path)]
        process = subprocess.Popen(
            [*SUPERVISE, "--backoff", "0.01", *options, "--", *job],
            stderr=subprocess.PIPE if wait else subprocess.DEVNULL,
            text=True,
        )
        if not wait:
            return process
        _, errors = process.communicate(timeout=launching.HUNG_SECONDS)
        return process.returncode, errors

    return run


def starts(directory: Path) -> list[str]:
    """The arguments that each job was started with, besides --out."""
    path = directory / "starts"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_start(directory: Path) -> None:
    give_up = time.monotonic() + launching.HUNG_SECONDS
    while not starts(directory):
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_finished_run_is_not_restarted(supervise, tmp_path):
    assert supervise([FINISH])[0] == 0
    assert starts(tmp_path) == [""]


def test_a_job_that_dies_is_resumed_from_its_checkpoint(supervise, tmp_path):
    assert supervise(["sys.exit(3)", CHECKPOINT, FINISH])[0] == 0
    assert starts(tmp_path) == ["", "", "--resume"]


def test_an_unfinished_run_is_resumed_by_the_first_start(supervise, tmp_path):
    supervise([CHECKPOINT], "--max-restarts", "0")
    supervise(["", FINISH])
    assert starts(tmp_path) == ["", "--resume"]


def test_exit_code_0_without_a_summary_is_a_failure(supervise, tmp_path):
    code, errors = supervise(["", "", ""], "--max-restarts", "2")
    assert code == 1
    assert starts(tmp_path) == ["", "", ""]
    assert "restart 2 of 2" in errors


def test_an_old_summary_does_not_count(supervise, tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    assert supervise(["sys.exit(4)"], "--max-restarts", "0")[0] == 4


def test_it_ends_with_the_code_of_the_last_run(supervise):
    assert supervise(["sys.exit(3)", "sys.exit(5)"], "--max-restarts", "1")[0] == 5
    assert (
        supervise(["", "", "import os; os.kill(os.getpid(), 9)"], "--max-restarts", "0")[0] == 137
    )


@pytest.mark.parametrize(("code", "options"), [(2, []), (75, [])])
def test_no_restart_after_wrong_usage_or_preemption(supervise, tmp_path, code, options):
    assert supervise([f"sys.exit({code})", FINISH], *options)[0] == code
    assert len(starts(tmp_path)) == 1


def test_a_preempted_job_is_restarted_if_wanted(supervise, tmp_path):
    assert supervise(["sys.exit(75)", FINISH], "--restart-preempted")[0] == 0
    assert len(starts(tmp_path)) == 2


def test_a_silent_job_is_killed_and_restarted(supervise, tmp_path):
    stubborn = "import signal, subprocess; signal.signal(15, signal.SIG_IGN)"
    stubborn += "; subprocess.Popen(['sleep', '987'], start_new_session=True); time.sleep(3600)"
    code, errors = supervise([stubborn, FINISH], "--silence", "3")
    assert code == 0
    assert "nothing has happened" in errors
    for path in Path("/proc").glob("[0-9]*/cmdline"):  # not even its child in another session
        with contextlib.suppress(OSError):
            assert b"sleep\x00987" not in path.read_bytes()


def test_heartbeats_that_move_are_signs_of_life(supervise, tmp_path):
    beats = "(out / 'heartbeats').mkdir(exist_ok=True); path = out / 'heartbeats' / 'rank-0.json'"
    beats += "; [(time.sleep(0.1), path.write_text('{\"position\": [0, %d, 0]}' % n))"
    beats += " for n in range(60)]; " + FINISH
    assert supervise([beats], "--silence", "5", "--max-restarts", "0")[0] == 0


def test_one_directory_has_one_supervisor(supervise, tmp_path):
    waits = "[time.sleep(0.01) for _ in iter((out / 'go on').exists, True)]"
    first = supervise([f"{waits}; {FINISH}"], wait=False)
    wait_for_start(tmp_path)
    plan = (tmp_path / "plan").read_text()
    code, errors = supervise([plan])
    (tmp_path / "go on").touch()
    assert code == 2
    assert "is in use by another supervisor" in errors
    assert first.wait(launching.HUNG_SECONDS) == 0
    assert starts(tmp_path) == [""]


def test_a_killed_supervisor_takes_its_job_along_and_frees_the_lock(supervise, tmp_path):
    first = supervise(["time.sleep(100)"], wait=False)
    wait_for_start(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert supervise(["", FINISH])[0] == 0
    assert starts(tmp_path) == ["", ""]


def test_a_signal_becomes_a_wish_to_stop(supervise, tmp_path):
    obliging = "import signal; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))"
    process = supervise([f"{obliging}; (out / 'ready').touch(); time.sleep(60)"], wait=False)
    give_up = time.monotonic() + launching.HUNG_SECONDS
    while not (tmp_path / "ready").exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(launching.HUNG_SECONDS) == 75


def test_a_wish_to_stop_during_the_pause_before_a_restart(supervise, tmp_path):
    process = supervise(["sys.exit(9)", FINISH], "--backoff", "60", wait=False)
    wait_for_start(tmp_path)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(launching.HUNG_SECONDS) == 9
    assert len(starts(tmp_path)) == 1


def test_hosts_that_do_not_answer_are_left_out(tmp_path):
    (tmp_path / "plan").write_text(FINISH)
    job = [sys.executable, "-c", JOB, "--out", str(tmp_path), "{hosts}", "{ranks}"]
    probe = [sys.executable, "-c", "import sys; sys.exit('{host}' == 'b')"]
    options = ["--hosts", "a,b,c", "--ranks-per-host", "2"]
    command = [*SUPERVISE, *options, "--probe", f'{probe[0]} -c "{probe[2]}"', "--", *job]
    assert subprocess.run(command, timeout=launching.HUNG_SECONDS).returncode == 0
    assert starts(tmp_path) == ["a,c 4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-- true", "found no --out in the command"),
        ("--max-restarts -1 -- x --out=y", "--max-restarts: found -1, expected 0 or more"),
        ("--max-restarts x -- x --out=y", "argument --max-restarts: invalid int value: 'x'"),
        ("-- /nowhere/at-all --out .", "/nowhere/at-all cannot be started (No such file"),
        ("-- true --out file/x", "--out: found file/x, where nothing can be written (Not a dir"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, arguments, message):
    (tmp_path / "file").touch()
    command = [*SUPERVISE, *arguments.split()]
    done = launching.run(
        command,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"supervise: error: {message}")


def test_metrics_that_grow_are_signs_of_life(supervise):
    grow = "file = (out / 'metrics.jsonl').open('a', buffering=1)"
    grow += "; [(time.sleep(0.1), file.write('{}\\n')) for _ in range(60)]"
    assert supervise([f"{grow}; {FINISH}"], "--silence", "5", "--max-restarts", "0")[0] == 0
