"""Packs the four IDX files of a data set into the one file that ships with the package.

    python -m distnet.data.pack IDX_DIR distnet/data/mnist.idx.gz

The result is a gzip file of the four IDX files one after the other, in the order of
`idx_set.IDX_FILES`; it holds no time and no file name, so the same zlib writes the same bytes.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distnet.base.options import argument, parse_options
from distnet.data.dataset import Dataset
from distnet.data.formats.idx import format_idx
from distnet.data.registry import load_dataset


def pack(dataset: Dataset, path: Path) -> None:
    """Writes `dataset`, of one channel, to `path`."""
    arrays = (
        dataset.train.inputs[:, 0],
        dataset.train.targets,
        dataset.test.inputs[:, 0],
        dataset.test.targets,
    )
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed,
    ):
        for array in arrays:
            packed.write(format_idx(array))


@dataclass(frozen=True)
class PackOptions:
    """Packs the four IDX files of a data set into the one file that ships with the package."""

    idx_dir: str = argument("directory with the four IDX files", "IDX_DIR", path=True)
    out: str = argument("the file to write", "OUT", path=True)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    try:
        options = parse_options(PackOptions, argv, "python -m distnet.data.pack")
        pack(load_dataset(data_dir=Path(options.idx_dir)), Path(options.out))
    except (ValueError, OSError) as error:
        print(f"distnet: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
