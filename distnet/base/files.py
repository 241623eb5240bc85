"""Files that appear complete or not at all, whenever the writer is killed."""

import contextlib
import fcntl
import os
import secrets
import sys
from pathlib import Path

PARTIAL = ".partial"


def write_atomically(path: Path, *pieces: bytes | memoryview) -> None:
    """Writes `pieces` in a row under a temporary name beside `path`, to disk, and renames it.

    After it returns, the file survives a power failure as well. Raises OSError; the old file, if
    there was one, is then still there, and nothing else is left behind.
    """
    _expect_no_device(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # what the caller knows
            del error.filename2  # None would be told as well, as "-> None"
        raise
    _sync_directory(path.parent)


def expect_none(path: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError, one line, for a file that is there and shall not be replaced."""
    _expect_no_device(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: found a file there already; give --overwrite, or another")


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether it is there and neither file nor directory: to open a pipe could wait for ever."""
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def expanded(path: Path | str) -> Path:
    """With the directory for `~`; `~nobody` stays as it is, where `Path.expanduser` raises."""
    return Path(os.path.expanduser(path))


def real(path: Path | str) -> Path:
    """Without links, as far as they lead; of a circle, `Path.resolve` raises before 3.13."""
    return Path(os.path.realpath(path))


def remove_partial_files(directory: Path) -> None:
    """Deletes what killed writers left in `directory`; for its only writer, between two writes."""
    for leftover in directory.glob(f".*{PARTIAL}"):
        leftover.unlink(missing_ok=True)


def _expect_no_device(path: Path) -> None:
    """Raises FileExistsError for /dev/null or a pipe: the rename would put a file in its place."""
    if is_device(path):
        raise FileExistsError(f"{path}: found a device or a pipe, expected a file or none")


def _sync_directory(directory: Path) -> None:
    """Puts a rename on disk, where the file system can do that."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """`fsync`; on macOS, where that ends in the memory of the disk itself, what goes further."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):  # not all file systems have it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)
