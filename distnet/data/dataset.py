"""Labelled images in memory: the MNIST that ships with the package, or IDX files in a directory.

Images are uint8 `(N, C, H, W)`, labels uint8 `(N,)`, both read-only and where possible shared by
all processes of a node (`cache`, `idx`). MNIST is the data set of the book's section 3.6.1;
Fashion-MNIST and others in the same four files work the same way. Called by the commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from distnet.data.cache import decompressed
from distnet.data.formats.idx import Bytes, DataError, explained, read_idx, take_idx

# The published names and their numbers of dimensions, in the order in which `pack` joins them.
IDX_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
MAX_CLASSES = 256  # labels are bytes


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set of the same image size `(C, H, W)`; labels are < `num_classes`."""

    name: str
    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    num_classes: int


def load_dataset(
    name: str = "mnist",
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    num_classes: int | None = None,
) -> Dataset:
    """The packaged MNIST, or the four IDX files in `data_dir`, then called `name`.

    `cache_dir` is where processes share the decompressed MNIST; None keeps it in private memory.
    `num_classes` defaults to the largest label + 1. Raises `DataError`, one line, for
    everything that is missing, damaged or inconsistent.
    """
    if num_classes is not None and not 1 <= num_classes <= MAX_CLASSES:
        raise DataError(f"found {num_classes} classes, expected 1 to {MAX_CLASSES}")
    if data_dir is not None:
        return _load_directory(name, Path(data_dir), num_classes)
    if name != "mnist":
        raise DataError(f"found data set '{name}', expected 'mnist' or a directory of IDX files")
    return _load_packaged(name, cache_dir, num_classes)


def _load_packaged(name: str, cache_dir: Path | None, num_classes: int | None) -> Dataset:
    source = resources.files("distnet.data") / f"{name}.idx.gz"
    with explained(source):
        rest = decompressed(source, cache_dir)
    arrays = []
    for num_dims in IDX_FILES.values():
        array, rest = take_idx(rest, num_dims, str(source))
        arrays.append(array)
    return _assemble(name, arrays, [f"{source} ({file})" for file in IDX_FILES], num_classes)


def _load_directory(name: str, data_dir: Path, num_classes: int | None) -> Dataset:
    paths = [_find(data_dir, file) for file in IDX_FILES]
    arrays = [read_idx(path, d) for path, d in zip(paths, IDX_FILES.values(), strict=True)]
    return _assemble(name, arrays, [str(path) for path in paths], num_classes)


def _find(data_dir: Path, file: str) -> Path:
    """Raw before gzipped; `train-images.idx3-ubyte` is what some archives unpack to."""
    with explained(data_dir):
        if not data_dir.is_dir():
            raise DataError(f"{data_dir}: found no such directory, expected one with IDX files")
        for variant in (file, file.replace("-idx", ".idx")):
            for path in (data_dir / variant, data_dir / f"{variant}.gz"):
                if path.is_file():
                    return path
    raise DataError(f"{data_dir}: found no file {file}, expected it there, raw or as {file}.gz")


def _assemble(
    name: str, arrays: list[Bytes], sources: list[str], num_classes: int | None
) -> Dataset:
    """Checks that the four arrays belong together."""
    train_images, train_labels, test_images, test_labels = arrays
    _check_counts(arrays[:2], sources[:2])
    _check_counts(arrays[2:], sources[2:])
    _check_image_size(train_images, test_images, sources[2])
    if num_classes is None:
        num_classes = 1 + int(max(train_labels.max(), test_labels.max()))
    _check_labels(train_labels, num_classes, sources[1])
    _check_labels(test_labels, num_classes, sources[3])
    return Dataset(
        name, train_images[:, None], train_labels, test_images[:, None], test_labels, num_classes
    )


def _check_counts(pair: list[Bytes], sources: list[str]) -> None:
    images, labels = pair
    if len(images) != len(labels):
        raise DataError(
            f"{sources[1]}: found {len(labels)} labels, expected {len(images)}, "
            f"one for each image in {sources[0]}"
        )


def _check_image_size(train_images: Bytes, test_images: Bytes, source: str) -> None:
    (_, h, w), (_, test_h, test_w) = train_images.shape, test_images.shape
    if (test_h, test_w) != (h, w):
        raise DataError(
            f"{source}: found images of {test_h} × {test_w}, expected {h} × {w} as for training"
        )


def _check_labels(labels: Bytes, num_classes: int, source: str) -> None:
    if labels.max() >= num_classes:
        raise DataError(
            f"{source}: found label {labels.max()}, expected 0 to {num_classes - 1} "
            f"for {num_classes} classes"
        )
