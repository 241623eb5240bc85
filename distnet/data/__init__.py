"""Data sets, the order in which they are visited, and augmentation; nothing here sees a network."""

from distnet.data.augment import (
    augmentation,
    composed,
    random_affine,
    random_brightness,
    random_cutout,
    random_flip,
    random_shift,
)
from distnet.data.cache import default_cache_dir
from distnet.data.dataset import Dataset, Samples
from distnet.data.errors import DataError
from distnet.data.own import dataset_from_arrays
from distnet.data.registry import DATASETS, load_dataset
from distnet.data.sampler import Sampler
from distnet.data.splits import split, with_all_as_test, with_test

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Sampler",
    "Samples",
    "augmentation",
    "composed",
    "dataset_from_arrays",
    "default_cache_dir",
    "load_dataset",
    "random_affine",
    "random_brightness",
    "random_cutout",
    "random_flip",
    "random_shift",
    "split",
    "with_all_as_test",
    "with_test",
]
