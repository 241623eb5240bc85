"""The decompressed content of a packaged gzip file, once per node.

The first process decompresses it into a cache file, written under a temporary name and renamed, and
all map that file read-only, so the pages are shared. There are no locks: processes that start
together all write, the last rename wins, and each one holds a complete file. A cache file is used
only if its length and CRC-32 are those in the last 8 bytes of the gzip file (RFC 1952, section
2.3.1); otherwise it is written anew. Called by `dataset`.

To read all of it takes most of the time of loading. So where one process of a host has done that,
others may be told which files they can `trust`.
"""

from __future__ import annotations

import gzip
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from distnet.base.files import write_atomically

FileId = tuple[int, int, int, int]  # device, number, bytes, nanoseconds of the last change
_checked: list[FileId] = []  # what this process has held against the stamp
_trusted: set[FileId] = set()


@dataclass(frozen=True)
class Stamp:
    """What a gzip file says about its decompressed content."""

    crc32: int
    num_bytes: int


def default_cache_dir(environ: Mapping[str, str]) -> Path | None:
    """`$XDG_CACHE_HOME/distnet` or `~/.cache/distnet`; None where the environment names no home.

    A relative path is ignored, as the XDG base directory specification demands.
    """
    if os.path.isabs(base := environ.get("XDG_CACHE_HOME", "")):
        return Path(base, "distnet")
    if os.path.isabs(home := environ.get("HOME", "")):
        return Path(home, ".cache", "distnet")
    return None


def decompressed(source: Traversable, cache_dir: Path | None) -> memoryview:
    """The content of the gzip file `source` (one member), read-only.

    In private memory if `cache_dir` is None or cannot be written. Raises OSError, EOFError or
    zlib.error if `source` is damaged.
    """
    if cache_dir is None:
        return _gunzip(source)
    stamp = read_stamp(source)
    name = source.name.removesuffix(".gz")
    path = cache_dir / f"{name}-{stamp.crc32:08x}-{stamp.num_bytes}"
    return _map(path, stamp) or _write_and_map(path, stamp, _gunzip(source))


def checked_files() -> list[FileId]:
    """The cache files that this process has read and found to be right."""
    return list(_checked)


def trust(files: Iterable[FileId]) -> None:
    """Takes the word of another process of this host for cache files, unless they change."""
    _trusted.update(files)


def _gunzip(source: Traversable) -> memoryview:
    return memoryview(gzip.decompress(source.read_bytes()))


def read_stamp(source: Traversable) -> Stamp:
    """What a gzip file of one member ends with."""
    with source.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        return Stamp(*struct.unpack("<II", file.read(8)))


def _map(path: Path, stamp: Stamp) -> memoryview | None:
    """The cache file, or None if it is missing, unreadable, damaged or not what `stamp` says."""
    try:
        if path.stat().st_size != stamp.num_bytes:
            return None
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), stamp.num_bytes, access=mmap.ACCESS_READ)
            status = os.fstat(file.fileno())
    except (OSError, ValueError):  # ValueError: it shrank in the meantime
        return None
    this = status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
    if this not in _trusted:
        if zlib.crc32(mapped) != stamp.crc32:
            return None
        _checked.append(this)
    return memoryview(mapped)


def _write_and_map(path: Path, stamp: Stamp, content: memoryview) -> memoryview:
    """`content` as a mapped cache file, or as it is where no such file can be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError:
        return content
    return _map(path, stamp) or content
