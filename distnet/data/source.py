"""Where a named data set comes from: what `registry` lists, loads and can fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distnet.data.dataset import Dataset
from distnet.data.errors import DataError

Loader = Callable[[Path | None, Path | None], Dataset]  # of data_dir and cache_dir


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be fetched: its name, the page that it lies under and its SHA-256."""

    name: str
    folder: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A data set with a name.

    load: reads it from its own files in `data_dir`, or from where `fetch` puts them in `cache_dir`.
    contents: samples, size and classes, in a few words. licence: its terms, as published. page:
    where to read about it. place: where the data are, if no files have to be fetched. download: the
    size of what has to be, and files: what that is. directory: where these lie in the cache, if
    that is not called like the data set. shares: whether it is decompressed into a file in
    `cache_dir` that processes share, see `cache`.
    """

    load: Loader
    contents: str
    licence: str
    page: str
    place: str = ""
    download: str = ""
    files: tuple[RemoteFile, ...] = ()
    directory: str = ""
    shares: bool = False
    is_in: Callable[[Path], bool] = lambda directory: False


def directory_of(
    name: str, data_dir: Path | None, cache_dir: Path | None, directory: str = ""
) -> Path:
    """Where the files of data set `name` are; raises DataError, with the remedy, if nowhere.

    directory: its name in the cache, if that is not the name of the data set.
    """
    if data_dir is not None:
        path, remedy = data_dir, ""
    elif cache_dir is not None:
        path, remedy = cache_dir / (directory or name), f"`distnet datasets fetch {name}` or "
    else:
        raise DataError(f"{name}: found no data_dir, expected the directory with its files")
    if not path.is_dir():
        raise DataError(
            f"{path}: found no such directory, expected the files of {name}; {remedy}give "
            "--data-dir"
        )
    return path
