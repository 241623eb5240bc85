"""Which of several arrays with names are the images and the labels of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from distnet.base.arrays import Array
from distnet.data.arrays import label_values
from distnet.data.dataset import Dataset
from distnet.data.errors import DataError
from distnet.data.own import assembled

KINDS = {
    **dict.fromkeys(("images", "image", "imgs", "x", "data", "inputs"), "images"),
    **dict.fromkeys(("labels", "label", "y", "target", "targets"), "labels"),
}
PARTS = {**dict.fromkeys(("train", "training"), "train"), **dict.fromkeys(("test", "t10k"), "test")}
CLASSES = ("class_names", "classes")


def from_named_arrays(name: str, arrays: Mapping[str, Array], source: str) -> Dataset:
    """The data set of arrays called `train_images`, `y_test` or so, from `source`.

    A name is a part (train, test) and a kind (images, x, ..., labels, y, ...) in any order; without
    a part it is for training. `class_names` are the names of the classes. A note says what is not
    read. Raises DataError, which lists what was found.
    """
    found: dict[tuple[str, str], str] = {}
    for key in arrays:
        role = _role(key)
        if role and found.setdefault(role, key) != key:
            raise DataError(f"{source}: found {found[role]} and {key}, expected one of them")
    train, test = (
        [found.get((part, kind)) for kind in ("images", "labels")] for part in ("train", "test")
    )
    keys = [key for key in train + test if key]
    if None in train or len(keys) == 3:
        raise DataError(
            f"{source}: found {', '.join(arrays)!s:.200}, expected train_images and train_labels, "
            "and for the test test_images and test_labels"
        )
    names = next((key for key in CLASSES if key in arrays), None)
    classes = None if names is None else label_values(arrays[names], f"{source} ({names})")
    data = assembled(
        name,
        [arrays[key] for key in keys],
        [f"{source} ({key})" for key in keys],
        classes=None if classes is None else [str(each) for each in classes],
    )
    unread = [key for key in arrays if key not in (*keys, names)]
    notes = (f"not read: {', '.join(unread)}",) if unread else ()
    return replace(data, notes=data.notes + notes)


def images_of(arrays: Mapping[str, Array], source: str) -> Array:
    """The one array there is, or the one that is called as images are; raises DataError."""
    named = [key for key in arrays if (_role(key) or ("", ""))[1] == "images"]
    found = named if len(arrays) > 1 else list(arrays)
    if len(found) != 1:
        raise DataError(
            f"{source}: found {', '.join(arrays)!s:.200}, expected one array, or one called images "
            "or x"
        )
    return arrays[found[0]]


def _role(key: str) -> tuple[str, str] | None:
    """The part and the kind that a name says, or None if it says something else."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower().replace("-", "_").split("_")
    kinds = [KINDS[word] for word in words if word in KINDS]
    parts = [PARTS[word] for word in words if word in PARTS]
    if len(kinds) != 1 or len(parts) > 1 or len(words) != len(kinds) + len(parts):
        return None
    return (*parts, "train")[0], kinds[0]
