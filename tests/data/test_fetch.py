"""Downloads from a server of the test's own: whole, verified, resumed, and one line otherwise."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import launching
import numpy as np
import pytest

from distnet.data import DATASETS, DataError, load_dataset, registry
from distnet.data.fetch import CHUNK_BYTES, fetch, is_whole
from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES
from distnet.data.sets.like_mnist import KMNIST
from distnet.data.source import RemoteFile, Source
from distnet.datasets import main

RNG = np.random.Generator(np.random.Philox(key=12))


class Server:
    """Serves `files` by name, and notes what was asked for; `cut` bytes at most of each answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []  # name and range
        self.cut = 1 << 40
        self.ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/files"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name, wanted = request.path.rpartition("/")[2], request.headers.get("Range", "")
        self.asked.append((name, wanted))
        if name not in self.files:
            request.send_error(404)
            return
        content = self.files[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start : start + self.cut])

    def source(self, *names: str) -> Source:
        return Source(
            load=lambda data_dir, cache_dir: None,
            contents="4 classes",
            licence="",
            page="",
            files=tuple(self.remote(name) for name in names),
        )

    def remote(self, name: str) -> RemoteFile:
        return RemoteFile(name, self.url, hashlib.sha256(self.files[name]).hexdigest())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
    server.thread.join()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_fetched_once(server, tmp_path):
    server.files = {"a.gz": RNG.bytes(1_000_000), "b.gz": b"b"}
    seen = []
    source = server.source("a.gz", "b.gz")
    assert fetch(source, tmp_path / "x", progress=lambda *each: seen.append(each)) == [
        "a.gz",
        "b.gz",
    ]
    for name, content in server.files.items():
        assert (tmp_path / "x" / name).read_bytes() == content
    assert seen[-2:] == [("a.gz", 1_000_000, 1_000_000), ("b.gz", 1, 1)] and len(seen) > 3
    assert [done for name, done, _ in seen if name == "a.gz"] == sorted(d for _, d, _ in seen[:-1])
    assert fetch(source, tmp_path / "x") == [] and len(server.asked) == 2
    assert names(tmp_path / "x") == ["a.gz", "b.gz"]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    server.files = {"a.gz": b"right"}
    (tmp_path / "a.gz").write_bytes(b"wrong")
    assert fetch(server.source("a.gz"), tmp_path) == ["a.gz"]
    assert (tmp_path / "a.gz").read_bytes() == b"right"


def test_goes_on_where_the_connection_broke(server, tmp_path):
    content = RNG.bytes(1_000_000)
    server.files, server.cut = {"a.gz": content}, 400_000
    source = server.source("a.gz")
    for _ in range(2):
        with pytest.raises(DataError, match=r"cannot be downloaded .* try again to go on"):
            fetch(source, tmp_path)
        assert names(tmp_path) == ["a.gz.part"]
    assert fetch(source, tmp_path) == ["a.gz"]
    assert (tmp_path / "a.gz").read_bytes() == content and names(tmp_path) == ["a.gz"]
    starts = [int(wanted[len("bytes=") : -1]) for _, wanted in server.asked[1:]]
    lost = [400_000 - starts[0], 400_000 + starts[0] - starts[1]]  # of each, a piece at most
    assert len(server.asked) == 3 and all(0 <= each < CHUNK_BYTES for each in lost)


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.files, server.ranges = {"a.gz": b"content"}, False
    (tmp_path / "a.gz.part").write_bytes(b"cont and more than that")
    fetch(server.source("a.gz"), tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == b"content"


def test_a_part_that_is_whole_already(server, tmp_path):
    server.files = {"a.gz": b"content"}
    (tmp_path / "a.gz.part").write_bytes(b"content")
    assert fetch(server.source("a.gz"), tmp_path) == ["a.gz"]
    assert (tmp_path / "a.gz").read_bytes() == b"content"


@pytest.mark.parametrize("part", [b"", b"xx"])
def test_another_file_is_deleted(server, tmp_path, part):
    server.files = {"a.gz": b"right"}
    source = server.source("a.gz")
    server.files = {"a.gz": b"other"}
    (tmp_path / "a.gz.part").write_bytes(part)
    with pytest.raises(DataError, match="found a file with another SHA-256, expected"):
        fetch(source, tmp_path)
    assert names(tmp_path) == []


def test_offline_is_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DataError) as caught:
        fetch(KMNIST, tmp_path, mirror=url)
    message = str(caught.value)
    assert message.startswith(f"{url}/train-images-idx3-ubyte.gz: cannot be downloaded (Connection")
    assert message.isprintable() and message.endswith(f"or put the file into {tmp_path}")


def test_a_file_that_is_not_there(server, tmp_path):
    with pytest.raises(DataError, match=r"cannot be downloaded \(status 404\)"):
        fetch(KMNIST, tmp_path, mirror=server.url)


def test_a_server_that_has_nothing_to_send(server, tmp_path):
    server.files = {"a.gz": b""}  # its answer is 416, though nothing is here already
    with pytest.raises(DataError, match=r"cannot be downloaded \(status 416\)"):
        fetch(server.source("a.gz"), tmp_path)


def archive_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "pack"), [("x.zip", archive_zip), ("x.tar.gz", archive_tar)])
def test_archives_are_unpacked_and_deleted(server, tmp_path, name, pack):
    server.files = {name: pack({"folder/a": b"a", "folder/b": b"b", "c": b"c"})}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "half").write_bytes(b"what an interrupted one has left")
    source = server.source(name)
    assert fetch(source, tmp_path) == [name]
    assert names(tmp_path) == ["c", "folder", "unpacked.json"]
    assert names(tmp_path / "folder") == ["a", "b"]
    assert fetch(source, tmp_path) == [] and len(server.asked) == 1
    (tmp_path / "unpacked.json").write_text("{")
    assert fetch(source, tmp_path) == [name]
    (tmp_path / "folder" / "b").write_bytes(b"bb")
    assert not is_whole(source, tmp_path)
    assert fetch(source, tmp_path) == [name] and is_whole(source, tmp_path)
    (tmp_path / "folder" / "a").unlink()
    assert not is_whole(source, tmp_path)
    assert fetch(source, tmp_path) == [name] and is_whole(source, tmp_path)


def test_processes_wait_for_each_other(server, tmp_path):
    server.files = {"a.gz": RNG.bytes(3_000_000)}
    source = server.source("a.gz")
    (file,) = source.files
    program = (
        "import sys; from pathlib import Path; from distnet.data.fetch import fetch\n"
        "from distnet.data.source import RemoteFile, Source\n"
        f"file = RemoteFile({file.name!r}, {file.folder!r}, {file.sha256!r})\n"
        "source = Source(None, '', '', '', files=(file,))\n"
        f"print(len(fetch(source, Path({str(tmp_path)!r}))))"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [
        process.communicate(timeout=launching.HUNG_SECONDS)[0].strip() for process in running
    ]
    assert sorted(answers) == ["0", "0", "0", "1"] and len(server.asked) == 1


def test_a_directory_that_cannot_be_written(server, tmp_path):
    server.files = {"a.gz": b"content"}
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        fetch(server.source("a.gz"), tmp_path / "file" / "x")
    assert str(caught.value).startswith(f"{tmp_path}/file/x: cannot be read (Not a directory)")


class TestCommand:
    @pytest.fixture
    def environ(self, tmp_path) -> dict[str, str]:
        return {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    @pytest.fixture
    def small_kmnist(self, server, monkeypatch) -> None:
        """The real entry, with the digests of small files that the test's server has."""
        images, labels = np.zeros((10, 4, 4), np.uint8), np.arange(10, dtype=np.uint8)
        for name, array in zip(IDX_FILES, (images, labels) * 2, strict=True):
            server.files[f"{name}.gz"] = gzip.compress(format_idx(array))
        files = tuple(server.remote(name) for name in server.files)
        source = Source(KMNIST.load, KMNIST.contents, KMNIST.licence, KMNIST.page, files=files)
        monkeypatch.setitem(registry.DATASETS, "kmnist", source)

    def test_the_list(self, capsys, environ):
        assert main([], environ) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == list(DATASETS)
        assert "in the package" in lines[1] and "fetch fashion_mnist (31 MB)" in lines[2]

    @pytest.mark.usefixtures("small_kmnist")
    def test_what_was_fetched_is_loaded_by_name(self, server, capsys, environ, tmp_path):
        cache_dir = tmp_path / "cache" / "distnet"
        with pytest.raises(DataError, match="`distnet datasets fetch kmnist`"):
            load_dataset("kmnist", cache_dir=cache_dir)
        assert main(["fetch", "kmnist"], environ) == 0
        shown = capsys.readouterr().out
        assert KMNIST.licence in shown and f"they are in {cache_dir}/kmnist" in shown
        assert load_dataset("kmnist", cache_dir=cache_dir).num_classes == 10
        assert main(["fetch", "kmnist"], environ) == 0
        assert "found all files there already" in capsys.readouterr().out
        assert len(server.asked) == 4
        assert main([], environ) == 0
        assert f"{cache_dir}/kmnist" in capsys.readouterr().out

    @pytest.mark.usefixtures("small_kmnist")
    def test_the_list_tells_what_is_whole(self, server, capsys, environ, tmp_path):
        directory = tmp_path / "cache" / "distnet" / "kmnist"
        first = directory / "train-images-idx3-ubyte.gz"

        def listed() -> str:
            assert main([], environ) == 0
            lines = capsys.readouterr().out.splitlines()
            return next(line for line in lines if line.startswith("kmnist "))

        server.cut = 20
        assert main(["fetch", "kmnist"], environ) == 2
        assert listed().endswith(f"; not whole in {directory}") and "fetch kmnist" in listed()
        server.cut = 1 << 40
        assert main(["fetch", "kmnist"], environ) == 0
        assert listed().endswith(f"  {directory}")
        first.write_bytes(gzip.decompress(first.read_bytes()))
        assert "not whole" in listed()
        first.rename(first.with_suffix(""))  # raw is as good
        assert listed().endswith(f"  {directory}")
        first.with_suffix("").write_bytes(b"")
        assert "not whole" in listed()

    @pytest.mark.usefixtures("small_kmnist")
    def test_another_directory_and_a_mirror(self, server, environ, tmp_path):
        arguments = [
            "fetch",
            "kmnist",
            "--to",
            str(tmp_path / "mine"),
            "--mirror",
            f"{server.url}/",
        ]
        assert main(arguments, environ) == 0
        assert load_dataset("kmnist", tmp_path / "mine").num_classes == 10

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["fetch", "mnits"], "unknown data set 'mnits', expected one of mnist, fashion_mnist"),
            (["fetch", "mnist"], "mnist: found nothing to fetch, it is in the package"),
            (["fetch"], "NAME"),
            (["list"], "found 'list', expected fetch NAME, or nothing for the list"),
        ],
    )
    def test_wrong_usage_is_one_line(self, capsys, environ, argv, message):
        assert main(argv, environ) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("distnet: error: ") and shown.count("\n") == 1 and message in shown

    def test_without_a_home(self, capsys):
        assert main(["fetch", "kmnist"], {}) == 2
        assert "expected --to DIR" in capsys.readouterr().err

    def test_without_pooch(self, capsys, environ, monkeypatch):
        monkeypatch.setitem(sys.modules, "pooch", None)
        assert main(["fetch", "kmnist"], environ) == 2
        assert "pip install 'distnet-mpi[fetch]'" in capsys.readouterr().err
