"""What is raised for data that cannot be used, and how a file that cannot be read becomes that."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from distnet.base.errors import DataError, InputChangedError

__all__ = ["DataError", "FileChangedError", "explained"]


class FileChangedError(DataError, InputChangedError):
    """A file of data that was written anew while it was in use."""


# What another copy of the file would not mend.
NOT_THE_FILES_FAULT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


@contextmanager
def explained(path: object) -> Iterator[None]:
    """Turns every way in which reading a file can fail into a `DataError` that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        advice = "" if isinstance(error, NOT_THE_FILES_FAULT) else ", fetch the file again"
        raise DataError(f"{path}: cannot be read ({reason}){advice}") from error
