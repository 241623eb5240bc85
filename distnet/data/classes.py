"""Labels of any kind become 0 to K - 1, with a name for each class and a line that says how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distnet.base.arrays import Array
from distnet.base.words import counted, fits_on_a_line
from distnet.data.arrays import label_values
from distnet.data.errors import DataError
from distnet.data.formats.pickled import content_of

MAX_SHOWN = 4  # classes that a note names
MAX_NAMES_BYTES = 16 << 20  # of a file with their names


def mapped_labels(
    parts: Sequence[object],
    names: Sequence[str] | None = None,
    sources: Sequence[str] = ("labels", "labels"),
) -> tuple[list[Array], tuple[str, ...], tuple[str, ...]]:
    """The labels of the parts of a data set as 0 to K - 1, the K classes, and notes for the user.

    Labels may be integers, booleans, text, lists of these, or rows with a single 1 (`arrays`).
    The classes are what occurs in any part, or the columns of such rows, in the order of numbers
    or of the alphabet; `names` are their names in that order. Text and numbers that occur in
    `names`, and integers from 0 to K - 1, keep the place that they have in `names`, which may then
    name classes that do not occur. Mapped labels are of the smallest unsigned type that holds K. A
    note tells of classes that the first part lacks. `sources` names the parts in errors. Raises
    DataError.
    """
    values = [label_values(*part) for part in zip(parts, sources, strict=False)]
    if len({part.dtype.kind == "U" for part in values}) > 1:
        raise DataError(
            f"{sources[1]}: found text and numbers, expected the same as in {sources[0]}"
        )
    occurring = [set(part.tolist()) for part in values]
    columns = [range(_num_columns(part)) for part in parts]
    found = sorted(set[object]().union(*occurring, *columns), key=_place)
    is_mask = not any(columns) and all(np.asarray(part).dtype == np.bool_ for part in parts)
    are_places = is_mask or any(columns)
    order, classes = _classes(found, names, is_mask, are_places, sources[0])
    if odd := [name for name in classes if not fits_on_a_line(name)]:
        raise DataError(
            f"{sources[0]}: found class {odd[0]!a:.60}, expected text on a line, in UTF-8"
        )
    kind = np.min_scalar_type(len(order) - 1)
    mapped = [_mapped(part, order, kind) for part in values]
    is_same = order == list(range(len(order)))
    notes = () if is_same and not is_mask else (_note(order, classes, is_mask),)
    return mapped, classes, notes + unlearned(mapped, classes)


def unlearned(parts: Sequence[Array], classes: Sequence[str]) -> tuple[str, ...]:
    """A note about classes that the first of several parts has no samples of."""
    counts = np.array([np.bincount(part, minlength=len(classes)) for part in parts])
    missing = np.flatnonzero((counts[0] == 0) & counts[1:].any(axis=0))
    if not len(missing):
        return ()
    names = _some([classes[place] for place in missing.tolist()])
    return (f"the training data have no samples of {names}, which the test data have",)


def _num_columns(part: object) -> int:
    """How many classes rows with a single 1 tell apart; 0 for other labels."""
    shape = np.shape(np.asarray(part))
    return shape[1] if len(shape) == 2 and shape[1] > 1 else 0


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names of classes 0, 1, ... in a file of the user's.

    Text with a line for each, or JSON: a list, or an object by number as for ImageNet, whose values
    may be pairs of an identifier and the name. Raises DataError.
    """
    content = content_of(path, MAX_NAMES_BYTES, "names of classes")
    try:
        text = content.decode("utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else text.rstrip().splitlines()
        if isinstance(found, dict):
            found = [found[str(number)] for number in range(len(found))]
        names = tuple(name[-1] if isinstance(name, list) else name for name in found)
    except (ValueError, TypeError, LookupError, RecursionError):
        names = ()
    if not names or not all(_is_name(name) for name in names):
        raise DataError(
            f"{path}: found no names of classes, expected a line for each, or JSON: a list, or an "
            "object with keys 0, 1, ..."
        )
    return tuple(name.strip() for name in names)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isprintable() and bool(name.strip())


def _place(value: object) -> tuple[bool, int, str]:
    """Numbers in their order, also where they are written as text, before other text."""
    is_number = isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
    return not is_number, int(str(value)) if is_number else 0, str(value)


def _classes(
    found: list[object],
    names: Sequence[str] | None,
    is_mask: bool,
    are_places: bool,
    what: str,
) -> tuple[list[object], tuple[str, ...]]:
    """The values that are classes 0, 1, ..., and the names of these."""
    if names is None:
        if is_mask:
            return [0, 1], ("False", "True")
        return found, tuple(map(str, found))
    classes = tuple(map(str, names))
    if len(set(classes)) != len(classes) or not classes:
        raise DataError(f"{what}: found class names {classes!s:.200}, expected different names")
    orders: list[list[object]] = [list(classes), list(range(len(classes)))]
    if not are_places and all(name.isdecimal() for name in classes):
        orders.append([int(name) for name in classes])
    fitting = [order for order in orders if set(found) <= set(order)]
    numberings = [_numbering(order) for order in fitting]
    odd = [value for value in found if len({places[value] for places in numberings}) > 1]
    if odd:
        raise DataError(
            f"{what}: found label {odd[0]!r:.40} and class names {_some(classes)}, where it is "
            "one name and the place of another; expected names that are no such numbers"
        )
    if fitting:
        return fitting[0], classes
    first = found[0]
    if isinstance(first, int) and found == list(range(first, first + len(classes))):
        return found, classes
    known = set(classes) | set(range(len(classes)))
    strangers = [value for value in found if value not in known]
    raise DataError(
        f"{what}: found {counted(len(found), 'class', 'classes')}, such as {strangers[0]!r:.40}, "
        f"expected those of the {counted(len(classes), 'name')} {_some(classes)}"
    )


def _mapped(values: Array, order: list[object], kind: np.dtype[np.generic]) -> Array:
    """The place in `order` of each value, read-only."""
    if order == list(range(len(order))):
        labels = values.astype(kind, copy=False).view()
    else:
        kinds, places = np.unique(values, return_inverse=True)
        place = _numbering(order)
        labels = np.array([place[value] for value in kinds.tolist()], kind)[places]
    labels.flags.writeable = False
    return labels


def _numbering(order: Sequence[object]) -> dict[object, int]:
    return {value: number for number, value in enumerate(order)}


def _note(order: list[object], classes: tuple[str, ...], is_mask: bool) -> str:
    shown = classes if is_mask else tuple(map(str, order))
    return f"labels {_some(shown)} are classes 0 to {len(order) - 1}, in this order"


def _some(names: Sequence[str]) -> str:
    if len(names) <= MAX_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: MAX_SHOWN - 1])} ... {names[-1]}"
