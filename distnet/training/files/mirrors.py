"""metrics.jsonl in the formats of other tools, written beside it line by line.

A mirror begins with the lines that are there when a run starts or goes on, so it always says what
metrics.jsonl says, and no more.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from distnet.training.files.metrics import AppendedFile
from distnet.training.files.tensorboard import TensorBoardFile, event_files

CSV = "csv"


class Mirror(Protocol):
    """What gets every line of metrics.jsonl; each call raises OSError if it cannot write."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Another line; what could not be written is kept, and comes before the next one."""

    def flush(self) -> None:
        """Writes what an earlier call could not."""

    def close(self) -> None:
        """No more lines."""


class CsvFiles:
    """A table for each kind of event, `csv/epoch.csv`, `csv/train.csv` and so on, a row a line.

    The columns are the keys of the lines, in their order; a list, such as what each rank has
    computed, is numbers with spaces between them. A key that comes up later is a column more.
    """

    def __init__(self, run: Path) -> None:
        self._directory = run / CSV
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in list(self._directory.glob("*.csv")):
            path.unlink()
        self._files: dict[str, AppendedFile] = {}
        self._columns: dict[str, list[str]] = {}  # of each file
        self._waiting: dict[str, list[dict[str, str]]] = {}  # rows for which no file has columns

    def add(self, line: Mapping[str, Any]) -> None:
        event = str(line["event"])
        row = {key: _cell(value) for key, value in line.items() if key != "event"}
        self._waiting.setdefault(event, []).append(row)
        self._write(event)

    def flush(self) -> None:
        for event in self._waiting:
            self._write(event)
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _write(self, event: str) -> None:
        rows, columns = self._waiting[event], self._columns.get(event, [])
        wanted = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
        if wanted != columns:
            self._begin(event, wanted)
        while rows:
            row = rows.pop(0)  # the file keeps what it cannot write
            self._files[event].write(_csv([row.get(key, "") for key in wanted]))

    def _begin(self, event: str, columns: list[str]) -> None:
        """The file of an event, with the rows that it has had, and these columns."""
        path, rows = self._directory / f"{event}.csv", b""
        earlier = self._files.get(event)
        if earlier is not None:
            earlier.flush()
            with path.open(newline="") as file:
                rows = b"".join(
                    _csv([row.get(key) or "" for key in columns]) for row in csv.DictReader(file)
                )
        self._files[event] = AppendedFile(path, _csv(columns) + rows)
        self._columns[event] = columns
        if earlier is not None:
            earlier.close()


MIRRORS: dict[str, Callable[[Path], Mirror]] = {"csv": CsvFiles, "tensorboard": TensorBoardFile}


def mirrored(run: Path) -> list[Path]:
    """The files that mirrors of an earlier run have left."""
    return [*(run / CSV).glob("*.csv"), *event_files(run)]


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_cell, value))
    return "" if value is None else str(value)


def _csv(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
