"""Packs the four IDX files of a data set into the one file that ships with the package.

    python -m distnet.data.pack IDX_DIR distnet/data/mnist.idx.gz

The result is a gzip file of the four IDX files one after the other, in the order of
`dataset.IDX_FILES`; it holds no time and no file name, so the same zlib writes the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

from distnet.data.dataset import Dataset, load_dataset
from distnet.data.errors import DataError
from distnet.data.formats.idx import format_idx


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m distnet.data.pack", description=pack.__doc__)
    parser.add_argument("idx_dir", type=Path, help="directory with the four IDX files")
    parser.add_argument("out", type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        pack(load_dataset(data_dir=options.idx_dir), options.out)
    except (DataError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
