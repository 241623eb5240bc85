"""Plain data: numbers, text, None, and lists of these.

Files can hold it, and ranks can compare it: unlike a function, it is all that can be known of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def is_plain(value: object) -> bool:
    """Whether a value is plain data."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def plain_items(named: Mapping[str, object]) -> dict[str, object]:
    """The values that are plain data, by name."""
    return {name: value for name, value in named.items() if is_plain(value)}
