"""One job alone writes to a directory, and a job that is gone keeps nobody out."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

import launching
import pytest

from distnet.parallel import SerialCommunicator
from distnet.parallel.communicator import Process
from distnet.training.files import directory_lock
from distnet.training.files.directory_lock import DirectoryInUseError, DirectoryLock

(ME,) = SerialCommunicator().processes
ELSEWHERE = {"host": "elsewhere", "pid": 7, "beat": 3}


def lock(directory: Path, *others: Process) -> DirectoryLock:
    return DirectoryLock(directory, [ME, *others], ME)


def owner(directory: Path, path: str = ".lock") -> dict[str, object]:
    return json.loads((directory / path).read_text())


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(directory_lock, "BEAT_SECONDS", 0.02)


def test_the_second_is_refused_and_told_who_is_there(tmp_path):
    first = lock(tmp_path / "out")
    first.acquire()
    with pytest.raises(DirectoryInUseError, match=f"in use by process {ME.pid} on {ME.host}; wait"):
        lock(tmp_path / "out").acquire()
    first.release()
    second = lock(tmp_path / "out")
    second.acquire()
    second.release()


def test_nothing_is_left_of_it(tmp_path):
    for content in (False, True):
        held = lock(tmp_path / "out")
        held.acquire()
        if content:
            (tmp_path / "out" / "file").touch()
        held.release()
        held.release()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


def test_a_killed_owner_on_this_host_keeps_nobody_out(tmp_path):
    code = f"""
        import os, signal
        from pathlib import Path
        from distnet.parallel import SerialCommunicator
        from distnet.training.files.directory_lock import DirectoryLock
        (me,) = SerialCommunicator().processes
        DirectoryLock(Path({str(tmp_path)!r}), [me], me).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    launching.run([sys.executable, "-c", textwrap.dedent(code)])
    assert owner(tmp_path)["pid"] != ME.pid
    lock(tmp_path).acquire()
    assert owner(tmp_path)["pid"] == ME.pid


def test_an_owner_on_another_host_is_gone_when_its_heart_is_still(tmp_path, quick):
    (tmp_path / ".lock").write_text(json.dumps(ELSEWHERE))
    lock(tmp_path).acquire()
    assert owner(tmp_path)["host"] == ME.host


def test_an_owner_on_another_host_lives_while_its_heart_beats(tmp_path, monkeypatch):
    def beat(seconds: float) -> None:
        (tmp_path / ".lock").write_text(json.dumps(ELSEWHERE | {"beat": 4}))

    (tmp_path / ".lock").write_text(json.dumps(ELSEWHERE))
    monkeypatch.setattr(directory_lock.time, "sleep", beat)
    with pytest.raises(DirectoryInUseError, match="in use by process 7 on elsewhere"):
        lock(tmp_path).acquire()
    assert owner(tmp_path)["host"] == "elsewhere"


def test_a_lost_rank_of_the_same_job_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text(json.dumps(ELSEWHERE))
    monkeypatch.setattr(directory_lock.time, "sleep", lambda seconds: pytest.fail("waited"))
    lock(tmp_path, Process(0, "elsewhere", 7)).acquire()


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["running", "gone"])
def test_where_the_file_system_has_no_locks_a_running_process_counts(tmp_path, monkeypatch, pid):
    def flock(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(directory_lock.fcntl, "flock", flock)
    (tmp_path / ".lock").write_text(json.dumps({"host": ME.host, "pid": pid, "beat": 0}))
    another = DirectoryLock(tmp_path, [Process(0, ME.host, 1)], Process(0, ME.host, 1))
    if pid == os.getpid():
        with pytest.raises(DirectoryInUseError):
            another.acquire()
    else:
        another.acquire()


def test_the_heart_beats(tmp_path, quick):
    held = lock(tmp_path)
    held.acquire()
    for _ in range(500):
        directory_lock.time.sleep(0.02)
        text = (tmp_path / ".lock").read_text()
        if text and json.loads(text)["beat"] > 2:
            break
    else:
        pytest.fail("no beat in 10 s")
    held.release()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"host": "a"}'])
def test_a_file_that_names_nobody_keeps_nobody_out(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    lock(tmp_path).acquire()
