"""The 8 × 8 digits of scikit-learn: 1797 of the "optical recognition of handwritten digits".

E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998. A line of the file is 64 grey
values of 0 to 16 and the digit. They are small enough to look at a network number by number.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from distnet.data.dataset import Dataset
from distnet.data.errors import DataError, explained
from distnet.data.own import assembled
from distnet.data.source import Source

FILE = "digits.csv.gz"
NUM_TRAIN = 1437  # four fifths; the rest is by other writers for the most part


def load(data_dir: Path | None = None, cache_dir: Path | None = None) -> Dataset:
    """The digits from `data_dir`, or from the scikit-learn that is installed, which is not run.

    The first 1437 are for training and the last 360 for the test. Raises DataError.
    """
    path = (_in_scikit_learn() if data_dir is None else data_dir) / FILE
    with explained(path), gzip.open(path, "rt", encoding="ascii") as file:
        try:
            rows = np.loadtxt(file, delimiter=",", ndmin=2)
        except ValueError as error:
            raise DataError(f"{path}: found no table of numbers ({error!s:.100})") from None
    if rows.shape != (1797, 65) or rows.min() < 0 or rows.max() > 16:
        raise DataError(
            f"{path}: found {rows.shape[0]} lines of {rows.shape[1]} numbers, the largest "
            f"{rows.max():g}, expected 1797 of 64 grey values up to 16 and a digit"
        )
    grey = np.rint(rows[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    digits = rows[:, 64].astype(np.uint8)
    parts = [grey[:NUM_TRAIN], digits[:NUM_TRAIN], grey[NUM_TRAIN:], digits[NUM_TRAIN:]]
    return assembled("digits8x8", parts, [str(path)] * 4, classes=tuple("0123456789"))


def _in_scikit_learn() -> Path:
    """The directory of scikit-learn's data files."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError(
            f"digits8x8: found no scikit-learn, expected it (pip install scikit-learn), or {FILE} "
            "in --data-dir"
        )
    return Path(spec.origin).parent / "datasets" / "data"


DIGITS8X8 = Source(
    load,
    "1,437 + 360 handwritten digits, 8 × 8 grey, 10 classes",
    "CC BY 4.0",
    "https://archive.ics.uci.edu/dataset/80",
    place="in scikit-learn",
)
