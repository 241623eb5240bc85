"""Downloads the files of a named data set, when asked to: whole, verified, and resumed if need be.

Pooch, which the extra `fetch` installs, compares the SHA-256 that is pinned in `source` before a
file gets its name. What a broken connection has left is kept beside it and gone on with by an HTTP
range request. Processes that fetch the same set wait for the first one.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distnet.base.files import write_atomically
from distnet.data.errors import DataError, explained
from distnet.data.source import RemoteFile, Source

Progress = Callable[[str, int, int], None]  # of a file's name, bytes so far, bytes in all or 0
CHUNK_BYTES = 1 << 16  # at most what a broken connection loses
TIMEOUT_S = 30  # without a single byte
UNPACKED = "unpacked.json"  # which archives have been unpacked, with their SHA-256


def fetch(
    source: Source, directory: Path, mirror: str = "", progress: Progress | None = None
) -> list[str]:
    """Puts the files of a data set into `directory`; archives are unpacked there and deleted.

    mirror: the address that the files lie under in place of the publisher's; they have to be the
    same files. Returns the names of those that were downloaded; what is there already is verified
    and left alone. Raises DataError, with the remedy, if a file cannot be had or is another one.
    """
    with _explained_directory(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory):
            unpacked = _read_unpacked(directory)
            wanted = [file for file in source.files if unpacked.get(file.name) != file.sha256]
            return [f.name for f in wanted if _fetched(f, directory, mirror, progress)]


def _fetched(file: RemoteFile, directory: Path, mirror: str, progress: Progress | None) -> bool:
    """Whether the file had to be downloaded; it is there, or what was in it, in any case."""
    url = f"{mirror.rstrip('/') or file.folder}/{file.name}"
    download = _Download(directory / f"{file.name}.part", progress)
    pooch = _imported("pooch")
    pooch.get_logger().setLevel("ERROR")
    try:
        path = pooch.retrieve(
            url, f"sha256:{file.sha256}", file.name, directory, downloader=download
        )
    except _imported("requests").RequestException as error:
        raise _unreachable(url, directory, error) from None
    except ValueError:  # the hash
        raise DataError(
            f"{url}: found a file with another SHA-256, expected {file.sha256}; it was deleted, "
            "try again or give another --mirror"
        ) from None
    if file.name.endswith((".zip", ".tar.gz")):
        _unpack(Path(path), directory)
        _note_unpacked(directory, file)
    return download.has_run


class _Download:
    """Downloads for Pooch, from where an earlier attempt has stopped: `part` is what that left."""

    def __init__(self, part: Path, progress: Progress | None) -> None:
        self.part, self.progress, self.has_run = part, progress, False

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        self.has_run = True
        done = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # the bytes that are counted here
        if done:
            headers["Range"] = f"bytes={done}-"
        get = _imported("requests").get
        with get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if response.status_code != 416 or not done:  # 416: nothing is left to be sent
                response.raise_for_status()
                self._write(response, done if response.status_code == 206 else 0)
        os.replace(self.part, output_file)

    def _write(self, response: Any, done: int) -> None:
        total = done + int(response.headers.get("Content-Length", 0))
        with self.part.open("r+b" if done else "wb") as file:
            file.seek(done)
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                if self.progress:
                    self.progress(self.part.stem, file.tell(), total)
            if file.tell() < total:  # of which urllib3 says nothing before its version 2
                raise _imported("requests").ConnectionError("the connection has broken")


def _unpack(archive: Path, directory: Path) -> None:
    """Moves what is in an archive, whose SHA-256 was verified, into `directory` and deletes it.

    What lies at its top, files or folders, appears whole or not at all.
    """
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(temporary)
        else:
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(temporary)
        for path in sorted(Path(temporary).iterdir()):
            target = directory / path.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
    archive.unlink()


def _read_unpacked(directory: Path) -> dict[str, str]:
    try:
        found = json.loads((directory / UNPACKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note_unpacked(directory: Path, file: RemoteFile) -> None:
    noted = _read_unpacked(directory) | {file.name: file.sha256}
    write_atomically(directory / UNPACKED, json.dumps(noted).encode())


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Waits until no other process fetches into `directory`."""
    with (directory / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained_directory(directory: Path) -> Iterator[None]:
    try:
        with explained(directory):
            yield
    except DataError as error:
        raise DataError(str(error).removesuffix(", fetch the file again")) from None


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(
            "found no pooch, expected it to download files: pip install 'distnet-mpi[fetch]'"
        ) from None


def _unreachable(url: str, directory: Path, error: Exception) -> DataError:
    response = getattr(error, "response", None)
    reason = f"status {response.status_code}" if response is not None else type(error).__name__
    return DataError(
        f"{url}: cannot be downloaded ({reason}); try again to go on where it stopped, give "
        f"another address by --mirror, or put the file into {directory}"
    )
