"""Dataclass fields that are command-line flags and TOML keys at once, each with its constraints.

A field is declared once by `option(...)`; flags, `--help`, TOML files and constructor are checked
by the same `check_value`. The flags are argparse's, from the standard library, and not tyro's:
tyro reports a wrong value in a box of many lines, while our commands owe their caller one line.
`training/config.py` declares the options of a training run.
"""

import argparse
import difflib
import json
import math
import operator
import os
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

MAX_FILE_BYTES = 1 << 20
MAX_TEXT_BYTES = 4096  # PATH_MAX on Linux
EXACT = 1 << 53  # whole numbers below it are floats as well
COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


class ConfigError(ValueError):
    """A setting that cannot be used: one line with the setting, what was found and expected."""


@dataclass(frozen=True)
class Option:
    """What the type and default of a field do not say; see `option`."""

    help: str
    group: str
    metavar: str
    choices: tuple[str, ...]
    limits: Mapping[str, float]
    bare: str | None
    decides: bool


def option(
    default: object,
    help: str,
    *,
    group: str,
    metavar: str = "",
    choices: tuple[str, ...] = (),
    limits: Mapping[str, float] | None = None,
    bare: str | None = None,
    decides: bool = True,
) -> Any:
    """A dataclass field whose type (bool, int, float or str) is that of its default.

    choices: the allowed texts; limits: bounds by comparison, such as `{">=": 1}`; bare: the value
    of the flag given without one; decides: whether the option decides the results of a run.
    """
    details = Option(help, group, metavar, choices, limits or {}, bare, decides)
    return field(default=default, metadata={"option": details})


def details(item: Field[Any]) -> Option:
    """What `option` declared for a dataclass field."""
    return item.metadata["option"]


def flag(name: str) -> str:
    """The flag of a field: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def check_value(item: Field[Any], value: object, label: str) -> Any:
    """`value` if the field may have it (an int is welcome as float); raises ConfigError if not."""
    kind = type(item.default)
    if kind is float and type(value) is int and abs(value) < EXACT:
        value = float(value)
    if type(value) is not kind or not _allowed(value, details(item)):
        raise ConfigError(f"{label}: found {_shown(value)}, expected {_expected(item)}")
    return value


def check_values(cls: type, values: Mapping[str, object], source: str) -> dict[str, Any]:
    """`values` if all of them suit the fields of dataclass `cls`; raises ConfigError if not."""
    known = {item.name: item for item in fields(cls)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{source}: unknown key {_shown(name)}{_nearest(name, known)}")
    return {name: check_value(known[name], v, f"{source}: {name}") for name, v in values.items()}


def read_toml(cls: type, path: Path) -> dict[str, Any]:
    """The checked values of a TOML file that holds fields of dataclass `cls`, in any order.

    Raises ConfigError, also for what is no file, is larger than 1 MiB or is not UTF-8.
    """
    source = _printable(str(path))
    content = _read_small_file(path, source)
    try:
        values = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{source}: found byte {error.object[error.start]:#04x} at offset {error.start},"
            " expected UTF-8 text"
        ) from None
    except RecursionError:
        raise ConfigError(f"{source}: found nested values, expected `key = value` lines") from None
    except ValueError as error:
        raise ConfigError(f"{source}: not valid TOML ({_printable(str(error))})") from None
    return check_values(cls, values, source)


def to_toml(config: Any) -> str:
    """All fields of a dataclass instance as TOML text, under a comment for every group."""
    lines: list[str] = []
    for group, items in _groups(type(config)):
        lines += ["", f"# {group}"]
        lines += [f"{item.name} = {_toml_value(getattr(config, item.name))}" for item in items]
    return "\n".join(lines[1:]) + "\n"


def parse_values(cls: type, argv: Sequence[str], prog: str) -> dict[str, Any]:
    """The values that a command line gives to fields of `cls`, by flags and `--config FILE.toml`.

    Flags win over the file; what neither mentions is absent. Dashes and underscores are the same.
    Raises ConfigError; prints the help and raises SystemExit(0) for `--help`.
    """
    parser = _make_parser(cls, prog)
    given, unknown = parser.parse_known_args([_dashed(argument) for argument in argv])
    if unknown:
        raise ConfigError(_unknown_argument(unknown[0], cls))
    texts = vars(given)
    path = texts.pop("config", None)
    values = {} if path is None else read_toml(cls, Path(path))
    for item in fields(cls):
        if item.name in texts:
            values[item.name] = _from_text(item, texts[item.name])
    return values


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(_printable(message.removeprefix("argument ")))


def _make_parser(cls: type, prog: str) -> _Parser:
    parser = _Parser(
        usage=f"{prog} [--config FILE.toml] [options]",
        description=(cls.__doc__ or "").splitlines()[0],
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE.toml", help="read options from a TOML file; flags win over it"
    )
    for group, items in _groups(cls):
        section = parser.add_argument_group(group)
        for item in items:
            _add_flag(section, item)
    return parser


def _add_flag(section: "argparse._ArgumentGroup", item: Field[Any]) -> None:
    settings = details(item)
    default = "" if item.default == "" else f" (default: {str(item.default).lower()})"
    text = (settings.help + default).replace("%", "%%")
    if type(item.default) is bool:
        section.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, help=text)
    else:
        section.add_argument(
            flag(item.name),
            nargs=None if settings.bare is None else "?",
            const=settings.bare,
            metavar=settings.metavar or "{" + ",".join(settings.choices) + "}",
            help=text,
        )


def _from_text(item: Field[Any], text: Any) -> Any:
    """The value of a flag, from its text (True or False for the flags that take none)."""
    kind: Any = type(item.default)
    try:
        value = kind(text)
    except ValueError:
        value = text
    return check_value(item, value, flag(item.name))


def _groups(cls: type) -> Iterator[tuple[str, list[Field[Any]]]]:
    names = dict.fromkeys(details(item).group for item in fields(cls))
    for name in names:
        yield name, [item for item in fields(cls) if details(item).group == name]


def _allowed(value: Any, settings: Option) -> bool:
    if isinstance(value, str):
        return value in settings.choices if settings.choices else _is_plain_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return all(COMPARE[sign](value, bound) for sign, bound in settings.limits.items())


def _is_plain_text(text: str) -> bool:
    """Whether a file name may look like this: no control characters, no broken UTF-8."""
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        return False
    return len(text.encode()) <= MAX_TEXT_BYTES


def _expected(item: Field[Any]) -> str:
    settings = details(item)
    if settings.choices:
        return "one of " + ", ".join(settings.choices)
    nouns = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: f"text without control characters, at most {MAX_TEXT_BYTES} bytes",
    }
    limits = " and ".join(f"{sign} {bound}" for sign, bound in settings.limits.items())
    return f"{nouns[type(item.default)]} {limits}".rstrip()


def _shown(value: object) -> str:
    """`repr` in at most 60 characters: always one line, whatever a user typed."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python refuses to write an integer of 4300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _toml_value(value: bool | int | float | str) -> str:
    # JSON writes these as TOML does: checked text has no character that the two escape unlike.
    return json.dumps(value, ensure_ascii=False)


def _dashed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _unknown_argument(argument: str, cls: type) -> str:
    name = argument.partition("=")[0]
    if not name.startswith("-"):
        return f"found {_shown(argument)}, expected options only (--name value)"
    flags = ["--config", *(flag(item.name) for item in fields(cls))]
    return f"unknown option {_shown(name)}{_nearest(name, flags)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    """The hint after an unknown name; leading dashes are no likeness."""
    spelled = {other.lstrip("-"): other for other in known}
    matches = difflib.get_close_matches(name.lstrip("-"), spelled, n=1)
    return f"; did you mean {spelled[matches[0]]}?" if matches else "; --help lists all options"


def _read_small_file(path: Path, source: str) -> bytes:
    if not os.path.isfile(path):  # asked first: to open a pipe could wait for ever
        raise ConfigError(f"{source}: found no file, expected a TOML file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{source}: found more than the {MAX_FILE_BYTES} bytes of a TOML file")
    return content
