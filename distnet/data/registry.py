"""All data sets by name: a new one is its file and one line here."""

from __future__ import annotations

from pathlib import Path

from distnet.base.arrays import Shape
from distnet.data.dataset import Dataset
from distnet.data.errors import DataError
from distnet.data.sets.cifar import CIFAR10, CIFAR100
from distnet.data.sets.digits8x8 import DIGITS8X8
from distnet.data.sets.directory import read_path
from distnet.data.sets.like_mnist import EMNIST, FASHION_MNIST, KMNIST, QMNIST
from distnet.data.sets.mnist import MNIST
from distnet.data.sets.mnist import load as load_mnist
from distnet.data.sets.shapes import SHAPES
from distnet.data.source import Source

DATASETS: dict[str, Source] = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "kmnist": KMNIST,
    "qmnist": QMNIST,
    **{f"emnist_{split}": source for split, source in EMNIST.items()},
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "digits8x8": DIGITS8X8,
    "shapes": SHAPES,
}


def load_dataset(
    name: str = "mnist",
    data_dir: Path | str | None = None,
    cache_dir: Path | None = None,
    input_shape: Shape = (),
    *,
    prepare: str = "plain",
) -> Dataset:
    """The data set called `name`, or what lies in the file or directory `data_dir`.

    With a name of `DATASETS` the files are its published ones, in `data_dir` or where `distnet
    datasets fetch` put them in `cache_dir`; "mnist", the default, is inside the package, and with
    a `data_dir` whatever is found there (`sets.directory.read_path`), under its own name. Any other
    name is a path, or what the data in `data_dir` are to be called.

    `cache_dir` is also where processes share what is decompressed once; without it that stays in
    private memory. `input_shape`, `prepare`: of pictures by class, see `read_picture_set`; they
    concern no other data. Raises `DataError`, one line, for everything that is missing, damaged or
    inconsistent.
    """
    data_dir = Path(data_dir) if data_dir is not None else None
    if name == "mnist":
        return load_mnist(data_dir, cache_dir, input_shape, prepare=prepare)
    if name in DATASETS:
        return DATASETS[name].load(data_dir, cache_dir)
    if data_dir is not None:
        return read_path(data_dir, name, input_shape, prepare=prepare)
    if Path(name).exists():
        return read_path(Path(name), "", input_shape, prepare=prepare)
    import difflib  # for the unlucky alone

    near = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DataError(
        f"found data set '{name}', expected a path or one of {', '.join(DATASETS)}{hint}"
    )
