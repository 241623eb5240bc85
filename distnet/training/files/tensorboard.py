"""metrics.jsonl for TensorBoard (`tensorboard --logdir runs`): a file of events.

An event file is a sequence of records: length (uint64), masked CRC-32C of the length, the record,
masked CRC-32C of the record, all little-endian (tensorflow/core/lib/io/record_writer.h). A record
is an `Event` in the wire format of protocol buffers (tensorflow/core/util/event.proto): wall_time
(field 1, double), step (2, int64), file_version (3, string) in the first record, summary (5), which
has a `Value` (1) for each number: tag (1, string), simple_value (2, float).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from distnet.training.files.metrics import AppendedFile

DIRECTORY = "tensorboard"
SETS = ("train", "valid", "test")
POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), bits reversed; RFC 3720, section 12.1


class TensorBoardFile:
    """The numbers of a run as an event file in DIRECTORY, which is made anew at every start.

    Tags: "loss/train", "loss/test", "lr"; averages over an epoch of training "loss/train_epoch";
    "performance/images_per_second", "performance/compute_seconds/rank_0".
    """

    def __init__(self, run: Path) -> None:
        directory = run / DIRECTORY
        directory.mkdir(parents=True, exist_ok=True)
        earlier = set(event_files(run))
        names = (f"events.out.tfevents.{number:010}.distnet" for number in count())
        path = next(directory / name for name in names if directory / name not in earlier)
        start = record(_double(1, 0.0) + _bytes(3, b"brain.Event:2"))
        self._file = AppendedFile(path, start)  # a new name: TensorBoard may have the others open
        for old in earlier:
            old.unlink(missing_ok=True)

    def add(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl; raises OSError, and tries again later."""
        values = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in scalars(line)
        )
        if values:
            when = datetime.fromisoformat(line["time"]).timestamp() if "time" in line else 0.0
            event = _double(1, when) + _integer(2, line["step"]) + _bytes(5, values)
            self._file.write(record(event))

    def flush(self) -> None:
        """Writes what an earlier call could not; raises OSError."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def event_files(run: Path) -> list[Path]:
    """The event files that this and earlier runs have left there."""
    return list((run / DIRECTORY).glob("events.out.tfevents.*.distnet"))


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics.jsonl by their tags."""
    if line.get("event") not in ("train", "epoch"):
        return
    for key, value in line.items():
        if key in ("event", "step", "time", "seconds", "epoch"):
            continue
        tag = _tag(line["event"], key)
        if isinstance(value, list):
            values = [(f"{tag}/rank_{rank}", each) for rank, each in enumerate(value)]
        else:
            values = [(tag, value)]
        yield from ((tag, float(each)) for tag, each in values if isinstance(each, int | float))


def _tag(event: str, key: str) -> str:
    name, _, metric = key.partition("_")
    if event == "train":
        return key if key == "lr" else f"{key}/train"
    if metric and name in SETS:
        return f"{metric}/{name}{'_epoch' if name == 'train' else ''}"
    return f"performance/{key}"


def record(content: bytes) -> bytes:
    """`content` as a record of an event file."""
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def crc32c(content: bytes) -> int:
    """The cyclic redundancy check of RFC 3720."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_remainder(byte) for byte in range(256)]


# The wire format: a key, which is the number of the field and the kind of what follows, and that.
def _varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
