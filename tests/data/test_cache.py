"""The cache file: shared, atomic, never trusted, never in the way."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import launching
import pytest

from distnet.base import files
from distnet.data import cache, default_cache_dir
from distnet.data.cache import checked_files, decompressed, trust

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small.idx.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "a" / "cache"


def only_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def is_mapped(view: memoryview) -> bool:
    return not isinstance(view.obj, bytes)


def test_default_cache_dir():
    assert default_cache_dir({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/distnet")
    assert default_cache_dir({"HOME": "/h"}) == Path("/h/.cache/distnet")
    assert default_cache_dir({"XDG_CACHE_HOME": "", "HOME": "/h"}) == Path("/h/.cache/distnet")
    assert default_cache_dir({"XDG_CACHE_HOME": "x", "HOME": "/h"}) == Path("/h/.cache/distnet")
    assert default_cache_dir({"HOME": "h"}) is None
    assert default_cache_dir({}) is None


def test_private_without_directory(source):
    view = decompressed(source, None)
    assert bytes(view) == CONTENT and not is_mapped(view) and view.readonly


def test_written_once_then_found(source, cache_dir):
    first = decompressed(source, cache_dir)
    written = only_file(cache_dir).stat()
    source.write_bytes(b"no gzip any more" + source.read_bytes()[-8:])
    second = decompressed(source, cache_dir)
    for view in (first, second):
        assert bytes(view) == CONTENT and is_mapped(view) and view.readonly
    assert only_file(cache_dir).stat().st_ino == written.st_ino


def test_obeys_the_umask(source, cache_dir):
    previous = os.umask(0o027)
    try:
        decompressed(source, cache_dir)
    finally:
        os.umask(previous)
    assert only_file(cache_dir).stat().st_mode & 0o777 == 0o640


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[:-1], lambda c: c + b"\0", flipped, lambda c: bytes(len(c))],
    ids=["empty", "short", "long", "flipped bit", "zeros"],
)
def test_damaged_file_is_rebuilt(source, cache_dir, damage):
    decompressed(source, cache_dir)
    path = only_file(cache_dir)
    path.write_bytes(damage(CONTENT))
    view = decompressed(source, cache_dir)
    assert bytes(view) == only_file(cache_dir).read_bytes() == CONTENT
    assert is_mapped(view)


def test_what_another_process_has_checked_is_not_read_again(source, cache_dir, monkeypatch):
    decompressed(source, cache_dir)
    *_, checked = checked_files()
    status = only_file(cache_dir).stat()
    assert checked[1:3] == (status.st_ino, len(CONTENT))

    reads = []
    crc32 = cache.zlib.crc32
    monkeypatch.setattr(cache.zlib, "crc32", lambda content: reads.append(1) or crc32(content))
    monkeypatch.setattr(cache, "_trusted", set())
    decompressed(source, cache_dir)
    assert len(reads) == 1
    trust([checked])
    assert bytes(decompressed(source, cache_dir)) == CONTENT
    assert len(reads) == 1

    path = only_file(cache_dir)
    path.write_bytes(flipped(CONTENT))
    os.utime(path)  # so that the time of the change differs, however coarse the clock
    while cache_id(path) == checked:
        os.utime(path)
    assert bytes(decompressed(source, cache_dir)) == CONTENT
    assert len(reads) > 1


def cache_id(path: Path) -> cache.FileId:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def test_a_pipe_in_its_place_is_lived_with(source, cache_dir):
    decompressed(source, cache_dir)
    path = only_file(cache_dir)
    path.unlink()
    os.mkfifo(path)
    assert bytes(decompressed(source, cache_dir)) == CONTENT
    assert only_file(cache_dir).is_fifo()


def test_directory_in_its_place_is_lived_with(source, cache_dir):
    decompressed(source, cache_dir)
    path = only_file(cache_dir)
    path.unlink()
    path.mkdir()
    assert bytes(decompressed(source, cache_dir)) == CONTENT
    assert only_file(cache_dir) == path, "no temporary file is left"


def test_another_version_has_another_file(source, cache_dir):
    old = decompressed(source, cache_dir)
    source.write_bytes(gzip.compress(CONTENT[::-1]))
    assert bytes(decompressed(source, cache_dir)) == CONTENT[::-1]
    assert bytes(old) == CONTENT
    assert len(list(cache_dir.iterdir())) == 2


def test_no_directory_can_be_made(source, cache_dir):
    cache_dir.parent.write_bytes(b"a file")
    view = decompressed(source, cache_dir)
    assert bytes(view) == CONTENT and not is_mapped(view)


def test_full_disk(source, cache_dir, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    view = decompressed(source, cache_dir)
    assert bytes(view) == CONTENT and not is_mapped(view)
    assert list(cache_dir.iterdir()) == []


def test_file_is_complete_before_it_has_its_name(source, cache_dir, monkeypatch):
    renamed = []

    def record(temporary: Path, path: Path) -> None:
        assert temporary.parent == path.parent and not path.exists()
        assert temporary.read_bytes() == CONTENT
        renamed.append(path)

    monkeypatch.setattr(os, "replace", record)
    assert bytes(decompressed(source, cache_dir)) == CONTENT
    assert len(renamed) == 1


def test_many_threads_at_once(source, cache_dir):
    with ThreadPoolExecutor(16) as pool:
        views = list(pool.map(lambda _: decompressed(source, cache_dir), range(64)))
    assert all(bytes(view) == CONTENT for view in views)
    assert only_file(cache_dir).read_bytes() == CONTENT


LOAD = """
import sys, zlib
from pathlib import Path
from distnet.data import load_dataset
print("ready", flush=True)
sys.stdin.readline()
data = load_dataset(cache_dir=Path(sys.argv[1]))
print(*(zlib.crc32(a) for a in (*data.train, data.test.inputs)))
"""


def test_many_processes_at_once(cache_dir):
    """On MNIST itself, with a damaged cache file in their way."""
    mnist = run_together(4, cache_dir)
    assert len(set(mnist)) == 1 and len(mnist[0].split()) == 3
    with only_file(cache_dir).open("r+b") as file:
        file.truncate(1000)
    assert run_together(4, cache_dir) == mnist
    only_file(cache_dir)


def run_together(num_processes: int, cache_dir: Path) -> list[str]:
    """What each process that loads MNIST says, all set off at the same moment."""
    command = [sys.executable, "-c", LOAD, str(cache_dir)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(num_processes)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=launching.HUNG_SECONDS)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return answers
