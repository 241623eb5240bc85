"""Rows of text as lines with columns of even width."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import combining, east_asian_width


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A line for each row; the first `left` columns stand to the left, the others to the right."""
    widths = [max(map(places, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, left)).rstrip() for row in rows]


def places(text: str) -> int:
    """How many columns of a terminal it takes: two for a character like 日, none for an accent."""
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def _padded(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    gaps = [" " * (width - places(cell)) for cell, width in zip(row, widths, strict=True)]
    return [
        cell + gap if number < left else gap + cell
        for number, (cell, gap) in enumerate(zip(row, gaps, strict=True))
    ]
