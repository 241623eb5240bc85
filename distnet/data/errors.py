"""What is raised for data that cannot be used, and how a file that cannot be read becomes that."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from distnet.base.errors import DataError, InputChangedError
from distnet.base.files import is_device

__all__ = ["DataError", "FileChangedError", "explained"]


class FileChangedError(DataError, InputChangedError):
    """A file of data that was written anew while it was in use."""


# What another copy of the file would not mend.
NOT_THE_FILES_FAULT = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    MemoryError,
)


@contextmanager
def explained(path: object) -> Iterator[None]:
    """Turns every way in which reading a file can fail into a `DataError` that names the file."""
    if isinstance(path, str | os.PathLike) and is_device(path):
        raise DataError(f"{path}: found a device or a pipe, expected a file")
    try:
        yield
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "too large for the memory"
        advice = "" if isinstance(error, NOT_THE_FILES_FAULT) else ", fetch the file again"
        raise DataError(f"{path}: cannot be read ({reason}){advice}") from error
