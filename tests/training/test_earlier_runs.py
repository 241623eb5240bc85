"""Where a run may put its results, by what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from distnet.parallel import SerialCommunicator
from distnet.training.files.checkpoint_directory import checkpoint_path
from distnet.training.files.directory_lock import DirectoryInUseError, DirectoryLock
from distnet.training.files.earlier_runs import claim

(ME,) = SerialCommunicator().processes
LINE = '{"event": "train", "step": 1}\n'


def lock(path: Path) -> DirectoryLock:
    return DirectoryLock(path, [ME], ME)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def claimed(out: str = "", resume: str = "", overwrite: bool = False) -> str:
    held = claim(out, "runs/net", resume, overwrite=overwrite, lock=lock)
    held.release()
    return str(held.directory)


def leave_run(path: str) -> Path:
    """What a run leaves: a checkpoint of step 3 and what was told of it; returns the checkpoint."""
    checkpoint = checkpoint_path(Path(path) / "checkpoints", 3)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    for name, text in {"config.toml": "", "metrics.jsonl": LINE, "summary.json": "{}"}.items():
        (Path(path) / name).write_text(text)
    return checkpoint


def test_a_directory_that_is_named():
    assert claimed("a") == "a"
    checkpoint = leave_run("a")
    with pytest.raises(OSError, match="the results of a run, finished, in a; go on"):
        claimed("a")
    Path("a/summary.json").unlink()
    with pytest.raises(OSError, match="the results of a run, not finished, in a; go on"):
        claimed("a")
    assert claimed("a", overwrite=True) == "a"
    assert claimed("a", resume="latest") == "a"
    assert claimed("a", resume=str(checkpoint)) == "a"
    with pytest.raises(OSError, match="found the results of a run"):
        claimed("a", resume="b/checkpoints/step-00000003.safetensors")


def test_without_a_name_the_next_number_is_taken():
    assert claimed() == "runs/net"
    first = leave_run("runs/net")
    assert claimed() == "runs/net-2"
    leave_run("runs/net-2")
    assert claimed() == "runs/net-3"
    assert claimed(resume="latest") == "runs/net-2"
    assert claimed(resume=str(first)) == "runs/net"
    assert claimed(overwrite=True) == "runs/net"


def test_one_in_use_is_passed_over_unless_it_is_named():
    held = lock(Path("runs/net"))
    held.acquire()
    assert claimed() == "runs/net-2"
    with pytest.raises(DirectoryInUseError):
        claimed("runs/net")
    with pytest.raises(DirectoryInUseError):
        claimed(resume="latest")
    held.release()


@pytest.mark.parametrize("name", ["config.toml", "summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_the_users_own_is_never_replaced(name, overwrite):
    Path("mine").mkdir()
    Path("mine", name).write_text("mine = 1\n")
    with pytest.raises(OSError, match=f"found mine/{name}, which no run has left"):
        claimed("mine", overwrite=overwrite)
    assert Path("mine", name).read_text() == "mine = 1\n"


def test_other_files_do_not_matter():
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert claimed("mine") == "mine"
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_what_was_killed_before_its_first_checkpoint_is_no_result():
    Path("a").mkdir()
    Path("a/config.toml").touch()
    Path("a/metrics.jsonl").write_text(LINE)
    assert claimed("a") == "a"
