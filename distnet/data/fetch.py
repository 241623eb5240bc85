"""Downloads the files of a named data set, when asked to: whole, verified, and resumed if need be.

Pooch, which the extra `fetch` installs, compares the SHA-256 that is pinned in `source` before a
file gets its name. What a broken connection has left is kept beside it and gone on with by an HTTP
range request. Processes that fetch the same set wait for the first one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distnet.base.files import write_atomically
from distnet.data.errors import DataError, explained
from distnet.data.source import RemoteFile, Source

ARCHIVES = (".zip", ".tar.gz")
Progress = Callable[[str, int, int], None]  # of a file's name, bytes so far, bytes in all or 0
CHUNK_BYTES = 1 << 16  # at most what a broken connection loses
TIMEOUT_S = 30  # without a single byte
# Which archives have been unpacked, with their SHA-256, and the files in them, with their sizes.
UNPACKED = "unpacked.json"


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
            wanted = [file for file in source.files if not _is_unpacked(file, directory, unpacked)]
            return [f.name for f in wanted if _fetched(f, directory, mirror, progress)]


def is_whole(source: Source, directory: Path) -> bool:
    """Whether a data set is in `directory`: as it was fetched, or put there by its user.

    What was unpacked is known by the sizes of its files, other files by their SHA-256; what was not
    fetched is read.
    """
    unpacked = _read_unpacked(directory)
    if all(
        _is_unpacked(file, directory, unpacked) or _is_there(file, directory)
        for file in source.files
    ):
        return True
    if _sizes(unpacked):
        return False
    try:
        source.load(directory, None)
    except DataError:
        return False
    return True


def _is_there(file: RemoteFile, directory: Path) -> bool:
    """Whether a file has been fetched that is no archive."""
    try:
        with explained(directory / file.name), (directory / file.name).open("rb") as found:
            is_it = hashlib.file_digest(found, "sha256").hexdigest() == file.sha256
    except DataError:
        return False
    return is_it and not file.name.endswith(ARCHIVES)


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
    if file.name.endswith(ARCHIVES):
        _note_unpacked(directory, file, _unpack(Path(path), directory))
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


def _unpack(archive: Path, directory: Path) -> dict[str, int]:
    """Moves what is in an archive, whose SHA-256 was verified, into `directory` and deletes it.

    What lies at its top, files or folders, appears whole or not at all. Returns the sizes of files.
    """
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(temporary)
        else:
            with tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(temporary)
        inside = sorted(path for path in Path(temporary).rglob("*") if path.is_file())
        sizes = {str(path.relative_to(temporary)): path.stat().st_size for path in inside}
        for path in sorted(Path(temporary).iterdir()):
            target = directory / path.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
    archive.unlink()
    return sizes


def _is_unpacked(file: RemoteFile, directory: Path, unpacked: Mapping[str, object]) -> bool:
    """Whether all that was in an archive is still there."""
    if unpacked.get(file.name) != file.sha256 or not (sizes := _sizes(unpacked)):
        return False
    try:
        return all((directory / path).stat().st_size == size for path, size in sizes.items())
    except OSError:
        return False


def _sizes(unpacked: Mapping[str, object]) -> dict[str, int]:
    """Of the files that were unpacked; earlier versions have noted none."""
    return {path: size for path, size in unpacked.items() if isinstance(size, int)}


def _read_unpacked(directory: Path) -> dict[str, object]:
    try:
        found = json.loads((directory / UNPACKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note_unpacked(directory: Path, file: RemoteFile, sizes: Mapping[str, int]) -> None:
    noted = _read_unpacked(directory) | {file.name: file.sha256, **sizes}
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
