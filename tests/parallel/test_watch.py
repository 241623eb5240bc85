from __future__ import annotations

from pathlib import Path

from launching import codes_of_abort

from distnet.parallel.watch import BEAT_SECONDS, HANG_BEATS, STALLED, Pulse

PROGRAM = str(Path(__file__).with_name("stalling_program.py"))


def test_waiting_ranks_name_the_missing_one_and_show_their_stacks(mpirun, tmp_path):
    process = mpirun(3, PROGRAM, str(tmp_path), "once-seen", "report")
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stderr.splitlines() if "has waited" in line]
    assert len(lines) == 2  # one line of each waiting rank, though it goes on waiting
    for line, rank in zip(sorted(lines), (0, 2), strict=True):
        assert line.startswith(f"distnet: warning: rank {rank} (process ")
        place = "in call 1 (gradient bucket 1 of 2) of step 57"
        assert f"{place}, which rank 1 has yet to begin; stacks of rank" in line
    assert process.stderr.count("in finish") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_stall_can_end_the_job(mpirun, tmp_path):
    process = mpirun(3, PROGRAM, str(tmp_path), "never", "end")
    assert process.returncode in codes_of_abort(STALLED)
    assert "which rank 1 has yet to begin" in process.stderr


def test_a_rank_without_heartbeat_is_named(mpirun, tmp_path):
    process = mpirun(3, PROGRAM, str(tmp_path), "stops", "end")
    assert process.returncode in codes_of_abort(STALLED)
    assert "no heartbeat from rank 1; stacks of rank" in process.stderr


def test_nothing_is_said_of_a_short_wait(mpirun, tmp_path):
    process = mpirun(3, PROGRAM, str(tmp_path), "soon", "end")
    assert (process.returncode, process.stderr) == (0, "")


def test_age_is_counted_in_own_beats():
    pulse = Pulse()
    for beat in (5, 5, 5):
        pulse.see(beat)
    assert pulse.age == 2
    pulse.see(6)
    assert pulse.age == 0
    assert HANG_BEATS * BEAT_SECONDS >= 2  # what a page of swap or a long garbage collection takes
