"""Whether a value is one that an option may have, and the one line that says why not."""

import math
import operator
import os
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from distnet.base.options.declaring import Option, details, flag
from distnet.base.words import fits_on_a_line

T = TypeVar("T")

MAX_TEXT_BYTES = 4096  # PATH_MAX on Linux
EXACT = 1 << 53  # whole numbers below it are floats as well
COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


class ConfigError(ValueError):
    """A setting that cannot be used: one line with the setting, what was found and expected."""


def pick(registry: Mapping[str, T], what: str, name: str) -> T:
    """The entry called `name`; raises ConfigError with the names that there are."""
    if name not in registry:
        names = ", ".join(registry) or "none"
        hint = nearest(str(name), registry, "")
        raise ConfigError(f"unknown {what} {shown(name)}, expected one of {names}{hint}")
    return registry[name]


def check(settings: Option, value: object, label: str) -> Any:
    """`value` if the option may have it; raises ConfigError if not.

    An int is welcome as float, a list as tuple.
    """
    if not settings.is_list:
        return _checked(settings, value, label)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(
            f"{label}: found {shown(value)}, expected a list, each {_expected(settings)}"
        )
    return tuple(_checked(settings, each, label) for each in value)


def check_value(item: Field[Any], value: object, label: str) -> Any:
    """`value` if the field may have it, for one entry at least; raises ConfigError if not."""
    failures = []
    for settings in details(item).takers.values() or [details(item)]:
        try:
            return check(settings, value, label)
        except ConfigError as error:
            failures.append(error)
    raise failures[0]


def check_values(cls: type, values: Mapping[str, object], source: str) -> dict[str, Any]:
    """`values` if all of them suit the fields of dataclass `cls`; raises ConfigError if not.

    Dashes in their names are underscores.
    """
    known = {item.name: item for item in fields(cls)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"{source}: unknown key {shown(key)}{nearest(name, known)}")
        if name in checked:
            raise ConfigError(f"{source}: {name}: found it twice, once with a dash; expected one")
        checked[name] = check_value(known[name], value, f"{source}: {key}")
    return checked


def settle(config: Any) -> None:
    """Checks a new instance of a frozen dataclass of options and makes it complete.

    An option of entries that was not given gets the value that the chosen entry says, None if that
    does not take it. Raises ConfigError, also for a value that the chosen entry does not take.
    """
    for item in sorted(fields(config), key=lambda item: details(item).owner != ""):
        value = getattr(config, item.name)
        if details(item).owner:
            value = _value_of_entry(config, item, value)
        else:
            value = check_value(item, value, item.name)
        object.__setattr__(config, item.name, value)


def _value_of_entry(config: Any, item: Field[Any], value: object) -> Any:
    settings = details(item)
    entry = getattr(config, settings.owner)
    if entry in settings.takers:
        taken = settings.takers[entry]
        return taken.default if value is None else check(taken, value, item.name)
    if value is not None:
        *others, last = settings.takers
        takers = f"{', '.join(others)} and {last} do" if others else f"{last} does"
        raise ConfigError(f"{flag(item.name)}: {settings.owner} {entry} does not take it; {takers}")
    return None


def overlaid(cls: type, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `below` and `above`, which wins.

    Who names another entry of a registry than `below` does leaves behind what was said about that,
    and who gives an option what was said of the one in whose place it decides.
    """
    left = {details(item).instead_of for item in fields(cls) if item.name in above}
    left |= {
        item.name
        for item in fields(cls)
        if (owner := details(item).owner) in above
        and below.get(owner, above[owner]) != above[owner]
    }
    return {name: value for name, value in below.items() if name not in left} | dict(above)


def _checked(settings: Option, value: object, label: str) -> Any:
    kind = settings.kind
    if kind is float and type(value) is int and abs(value) < EXACT:
        value = float(value)
    if settings.path and isinstance(value, str):
        value = os.path.expanduser(value)
    if type(value) is not kind or not _allowed(value, settings):
        otherwise = settings.otherwise
        hint = nearest(value, settings.choices, otherwise) if isinstance(value, str) else ""
        raise ConfigError(f"{label}: found {shown(value)}, expected {_expected(settings)}{hint}")
    return value


def _allowed(value: Any, settings: Option) -> bool:
    if settings.verbatim:
        return True
    if isinstance(value, str):
        fits = fits_on_a_line(value) and len(value.encode()) <= MAX_TEXT_BYTES
        return value in settings.choices if settings.choices else fits
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return all(COMPARE[sign](value, bound) for sign, bound in settings.limits.items())


def _expected(settings: Option) -> str:
    if settings.choices:
        return "one of " + ", ".join(settings.choices)
    nouns = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: f"text without control characters, at most {MAX_TEXT_BYTES} bytes",
    }
    limits = " and ".join(f"{sign} {bound}" for sign, bound in settings.limits.items())
    return f"{nouns[settings.kind]} {limits}".rstrip()


def shown(value: object) -> str:
    """`repr` in at most 60 characters: always one line, whatever a user typed."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python refuses to write an integer of 4300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def printable(text: str) -> str:
    """One line, whatever a user typed."""
    return text if text.isprintable() else ascii(text)


def nearest(name: str, known: Iterable[str], otherwise: str = "; --help lists all options") -> str:
    """The hint after an unknown name; leading dashes are no likeness."""
    import difflib  # for the unlucky alone

    spelled = {other.lstrip("-"): other for other in known}
    word = name.lstrip("-").lower()
    likely = difflib.get_close_matches(word, spelled, n=10)
    if not likely:
        return otherwise
    return f"; did you mean {spelled[min(likely, key=lambda other: num_slips(word, other))]}?"


def num_slips(typed: str, meant: str) -> int:
    """How many letters were left out, put in, mistaken or exchanged with the next one.

    Damerau 1964, "A technique for computer detection and correction of spelling errors".
    """
    before, last = [0] * (len(meant) + 1), list(range(len(meant) + 1))
    for i, a in enumerate(typed):
        row = [i + 1]
        for j, b in enumerate(meant):
            row.append(min(row[j] + 1, last[j + 1] + 1, last[j] + (a != b)))
            if i and j and (a, typed[i - 1]) == (meant[j - 1], b):
                row[-1] = min(row[-1], before[j - 1] + 1)
        before, last = last, row
    return last[-1]
