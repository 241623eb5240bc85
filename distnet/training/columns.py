"""The table of metrics: what each figure of an epoch is called, and how it is shown to people.

`figures` are what a run tells at the end of an epoch, by the names that metrics.jsonl, summary.json
and this table share. A metric that the table does not know is shown with four decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column on the terminal: its head, its least width, and the text of a value."""

    head: str
    width: int
    text: Callable[[Any], str]


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# In the order of the terminal; None: for programs alone.
COLUMNS: dict[str, Column | None] = {
    "epoch": Column("epoch", 5, lambda x: f"{x:g}" if x == int(x) else f"{x:.2f}"),
    "step": Column("step", 7, str),
    "train_loss": Column("train loss", 10, lambda x: f"{x:.4f}"),
    "train_accuracy": None,
    "valid_loss": Column("valid loss", 10, lambda x: f"{x:.4f}"),
    "valid_accuracy": Column("valid accuracy", 14, lambda x: f"{x:.2%}"),
    "test_loss": Column("test loss", 10, lambda x: f"{x:.4f}"),
    "test_accuracy": Column("test accuracy", 13, lambda x: f"{x:.2%}"),
    "images_per_second": Column("images/s", 8, lambda x: f"{x:.0f}"),
    "wait_share": Column("waiting", 7, lambda x: f"{x:.1%}"),
    "bytes_per_step": Column("MB/step", 7, lambda x: f"{x / 1e6:.{2 if x >= 1e4 else 4}f}"),
    "slowest_rank": Column("slow rank", 9, str),
    "compute_seconds": None,
    "compute_deviation": None,
    "micro_batches": None,
    "elapsed_seconds": Column("elapsed", 8, clock),
}


def shown(figures: Mapping[str, Any]) -> Iterator[tuple[str, Column]]:
    """The names of those figures that have a column, with it, in the order of the table."""
    known = [name for name in COLUMNS if name in figures]
    others = [name for name in figures if name not in COLUMNS]
    place = known.index("images_per_second") if "images_per_second" in known else len(known)
    for name in [*known[:place], *others, *known[place:]]:
        default = Column(name.replace("_", " "), 10, lambda x: f"{x:.4f}")
        column = COLUMNS.get(name, default)
        if column is not None:
            yield name, column


def text(name: str, value: float) -> str:
    """A metric as it is shown, without the name of the set on which it was measured."""
    column = COLUMNS.get(f"test_{name}")
    return column.text(value) if column else f"{value:.4f}"


def header(figures: Mapping[str, Any]) -> str:
    """The heads of the columns of `row`."""
    columns = [column for _, column in shown(figures)]
    return "  ".join(column.head.rjust(max(column.width, len(column.head))) for column in columns)


def row(figures: Mapping[str, Any]) -> str:
    """The figures of an epoch as a line of the table."""
    cells = [
        column.text(figures[name]).rjust(max(column.width, len(column.head)))
        for name, column in shown(figures)
    ]
    return "  ".join(cells)
