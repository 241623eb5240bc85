"""Damaged files of every format that distnet reads: `python -m tests.fuzz --count 10000`.

Each of the formats gets that many damaged files. One may be read, if the damage did not matter, or
refused by the one error that its reader documents, in one line. Anything else (a traceback, more
than 1 GiB of memory, a file that takes longer than 2 seconds) is a failure, and the file is kept.
"""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distnet.data import DataError
from distnet.data.formats.idx import format_idx, read_idx
from distnet.data.formats.npy import read_npy
from distnet.data.formats.pickled import read_pickled_arrays
from distnet.nn import Conv2d, Linear, Network, ReLU, Residual
from distnet.training.config import ConfigError, TrainConfig, parse, to_toml
from distnet.training.files import checkpoint
from distnet.training.files.checkpoint import Checkpoint, CheckpointError
from distnet.training.files.metrics import Metrics
from distnet.training.files.model_file import about, network_of
from distnet.training.record import Record

MEMORY_BYTES = 1 << 30  # beyond what the process has when it starts
SLOW_SECONDS = 2.0  # of computing: others may have the processor, too
SEPARATOR = b"\0"
INTERESTING = b"0123456789.-e\"'[]{}=:,\n\\#_\0\xff\x80"


@dataclass(frozen=True)
class Format:
    """A kind of file: a valid one, how it is read, what the reader raises, what comes last.

    finish: makes the file of the damaged `valid` bytes, such as one that is compressed after.
    """

    suffix: str
    valid: bytes
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...]
    finish: Callable[[bytes], bytes] = bytes


@dataclass
class Outcome:
    """How many damaged files were read, how many refused, and the longest that one took."""

    num_read: int = 0
    num_refused: int = 0
    slowest_s: float = 0.0


def formats() -> dict[str, Format]:
    """All formats by name."""
    images = format_idx(np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    arrays = {"W1": np.ones((4, 3), np.float32), "b1": np.ones(3)}
    state = Checkpoint(7, _params(), {"lr": 0.1}, {"numpy": "2"}, model=about(_network()))
    lines = b"".join(b'{"event": "train", "step": %d, "loss": 0.5}\n' % i for i in range(9))
    return {
        "config.toml": Format(
            ".toml",
            to_toml(TrainConfig()).encode(),
            lambda path: parse(["--config", str(path)]),
            (ConfigError,),
        ),
        "checkpoint": Format(".safetensors", _written(state), checkpoint.load, (CheckpointError,)),
        "checkpoint with a right checksum": Format(
            ".safetensors",
            SEPARATOR.join(text.encode() for text in _texts().values()),
            _open,
            (CheckpointError,),
            _with_checksum,
        ),
        "IDX": Format(".idx", images, lambda path: read_idx(path, 3), (DataError,)),
        "IDX in gzip": Format(
            ".gz", gzip.compress(images, mtime=0), lambda path: read_idx(path, 3), (DataError,)
        ),
        "damaged IDX in gzip": Format(
            ".gz", images, lambda path: read_idx(path, 3), (DataError,), gzip.compress
        ),
        "array of NumPy": Format(".npy", _npy(), read_npy, (DataError,)),
        "pickle (protocol 3)": Format(
            ".pkl", pickle.dumps(arrays, 3), read_pickled_arrays, (DataError,)
        ),
        "pickle (protocol 4)": Format(
            ".pkl", pickle.dumps(arrays, 4), read_pickled_arrays, (DataError,)
        ),
        "metrics.jsonl": Format(".jsonl", lines, lambda path: Metrics(path, 5).close(), ()),
    }


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((4, 3), np.float32))
    return file.getvalue()


def _written(state: Checkpoint) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x")
        checkpoint.save(path, state)
        return path.read_bytes()


def _texts() -> dict[str, str]:
    """The metadata of a checkpoint that hold something, as its file has them."""
    return {
        "step": "7",
        "config": '{"lr": 0.1}',
        "fingerprint": '{"a": "b"}',
        "record": checkpoint._json(Record(loss_sum=0.3, num_samples=3).entries()),
        "model": checkpoint._json(about(_network(), ["one", "two", "three", "four"])),
    }


def _network() -> Network:
    return Network([Conv2d(2, 3), ReLU(), Residual([Linear(4)], shortcut=[Linear(4)])], (1, 4, 4))


def _params() -> dict[str, np.ndarray]:
    return {f"params.{name}": array for name, array in _network().parameters.named().items()}


def _open(path: Path) -> None:
    """What resuming and predicting read."""
    found = checkpoint.load(path)
    Record.restored(found.record)
    network_of(found, str(path))


def _with_checksum(damaged: bytes) -> bytes:
    pieces = damaged.split(SEPARATOR)
    texts = [piece.decode(errors="replace") for piece in pieces]
    metadata = {"format": "distnet", "version": "2", **dict(zip(_texts(), texts, strict=False))}
    tensors = _params()
    metadata["sha256"] = checkpoint._digest(tensors, metadata)
    return b"".join(checkpoint._format(tensors, metadata))


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """One to three changes: bits, bytes, pieces lost, doubled, moved or made up, an end lost."""
    data = bytearray(content)
    for _ in range(draw.integers(1, 4)):
        at, other = (int(n) for n in draw.integers(0, len(data) + 1, 2))
        length = int(draw.integers(1, 40))
        match draw.integers(0, 7):
            case 0 if at < len(data):
                data[at] ^= 1 << int(draw.integers(8))
            case 1 if at < len(data):
                data[at] = draw.integers(256)
            case 2 if at < len(data):
                data[at] = draw.choice(list(INTERESTING))
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[other : other + length]
            case 5:
                data[at : at + length] = draw.bytes(length)
            case 6:
                del data[max(at, other) :]
    return bytes(data)


def fuzz(form: Format, count: int, seed: int, directory: Path) -> Outcome:
    """Reads `count` damaged files; raises AssertionError for one that is not handled."""
    draw, outcome = np.random.Generator(np.random.Philox(key=seed)), Outcome()
    for content in _files(form, count, draw):
        path = directory / f"damaged{form.suffix}"
        path.write_bytes(content)
        begin = time.process_time()
        try:
            form.read(path)
            outcome.num_read += 1
        except form.refuses as error:
            outcome.num_refused += 1
            assert str(error).isprintable(), f"{path}: refused in more than one line: {error}"
        except Exception as error:
            path.write_bytes(content)  # a reader may have changed it
            raise AssertionError(f"{path}: found {type(error).__name__}: {error}") from error
        outcome.slowest_s = max(outcome.slowest_s, time.process_time() - begin)
        assert outcome.slowest_s < SLOW_SECONDS, f"{path}: took {outcome.slowest_s:.1f} s"
        path.unlink()  # it may be mapped: the next one must not have its place
    return outcome


def _files(form: Format, count: int, draw: np.random.Generator) -> Iterator[bytes]:
    for _ in range(count):
        yield form.finish(damaged(form.valid, draw))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"{'format':34}{'files':>8}{'read':>8}{'refused':>9}{'slowest':>11}")
    for name, form in formats().items():
        o = fuzz(form, given.count, given.seed, directory)
        counts = f"{given.count:8}{o.num_read:8}{o.num_refused:9}"
        print(f"{name:34}{counts}{o.slowest_s * 1e3:8.1f} ms", flush=True)
    directory.rmdir()


if __name__ == "__main__":
    sys.exit(main())
