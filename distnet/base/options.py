"""Dataclass fields that are command-line flags and TOML keys at once, each with its constraints.

A field is declared once by `option(...)`; flags, `--help`, TOML files and constructor are checked
by the same `check_value`. The flags are argparse's, from the standard library, and not tyro's:
tyro reports a wrong value in a box of many lines, while our commands owe their caller one line.
`training/config.py` declares the options of a training run.
"""

import argparse
import difflib
import inspect
import json
import math
import operator
import os
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

MAX_FILE_BYTES = 1 << 20
MAX_TEXT_BYTES = 4096  # PATH_MAX on Linux
EXACT = 1 << 53  # whole numbers below it are floats as well
COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


class ConfigError(ValueError):
    """A setting that cannot be used: one line with the setting, what was found and expected."""


@dataclass(frozen=True)
class Option:
    """A setting: what it means and what values it may have. Its type is that of its default.

    choices: the allowed texts; limits: bounds by comparison, such as `{">=": 1}`; bare: the value
    of the flag given without one; decides: whether the option decides the results of a run.
    owner, takers: of an option that belongs to the entries of a registry, the option that names
    the entry ("optimizer"), and what it is for each entry that takes it, by name.
    """

    help: str
    default: Any = None
    group: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    bare: str | None = None
    decides: bool = True
    owner: str = ""
    takers: Mapping[str, "Option"] = field(default_factory=dict)

    @property
    def is_list(self) -> bool:
        """Whether it takes several values of one type: its default is a tuple that has some."""
        return isinstance(self.sample.default, tuple)

    @property
    def kind(self) -> type:
        """The type of a value: bool, int, float or str."""
        default = self.sample.default
        return type(default[0] if isinstance(default, tuple) else default)

    @property
    def sample(self) -> "Option":
        """Itself or, of an option of entries, what it is for the first one."""
        return next(iter(self.takers.values()), self)


def option(
    default: object,
    help: str,
    *,
    group: str,
    metavar: str = "",
    choices: Iterable[str] = (),
    limits: Mapping[str, float] | None = None,
    bare: str | None = None,
    decides: bool = True,
) -> Any:
    """A dataclass field that is an Option; see there."""
    settings = Option(help, default, group, metavar, tuple(choices), limits or {}, bare, decides)
    return field(default=default, metadata={"option": settings})


def option_of(owner: str, takers: Mapping[str, Option], group: str) -> Any:
    """A dataclass field for an option that belongs to the entries `takers` of a registry.

    owner: the field with the name of the entry. The default, None, is what that entry says.
    """
    if len({(settings.kind, settings.is_list) for settings in takers.values()}) > 1:
        raise TypeError(f"an option has different types for {', '.join(takers)}")
    settings = replace(
        next(iter(takers.values())), default=None, group=group, owner=owner, takers=takers
    )
    return field(default=None, metadata={"option": settings})


Registry = Mapping[str, Mapping[str, Option]]  # the options of its entries, by entry, by name


def with_options_of(group: Mapping[str, str], **registries: Registry) -> Callable[[type], Any]:
    """Gives a class, before `dataclass` sees it, a field for every option that an entry takes.

    registries: by the name of the field that names the entry; group: of the fields, by that name.
    """

    def add_fields(cls: type) -> type:
        annotations = dict(cls.__annotations__)
        for owner, entries in registries.items():
            for name in dict.fromkeys(name for options in entries.values() for name in options):
                if name in annotations:
                    raise TypeError(f"{cls.__name__} has two options {name}, one of {owner}")
                takers = {
                    entry: options[name] for entry, options in entries.items() if name in options
                }
                setattr(cls, name, option_of(owner, takers, group[owner]))
                annotations[name] = Any
        cls.__annotations__ = annotations
        return cls

    return add_fields


def own_options(maker: Callable[..., Any]) -> dict[str, Option]:
    """The options that a function or class declares, by name.

    They are its keyword-only parameters annotated as `Annotated[type, Option(help, ...)]`, with
    their defaults.
    """
    found = {}
    for name, parameter in inspect.signature(maker, eval_str=True).parameters.items():
        for note in getattr(parameter.annotation, "__metadata__", ()):
            if parameter.kind is parameter.KEYWORD_ONLY and isinstance(note, Option):
                found[name] = replace(note, default=parameter.default)
    return found


def pick(registry: Mapping[str, T], what: str, name: str) -> T:
    """The entry called `name`; raises ConfigError with the names that there are."""
    if name not in registry:
        names = ", ".join(registry) or "none"
        hint = _nearest(name, registry, "")
        raise ConfigError(f"unknown {what} {_shown(name)}, expected one of {names}{hint}")
    return registry[name]


def details(item: Field[Any]) -> Option:
    """What was declared for a dataclass field."""
    return item.metadata["option"]


def flag(name: str) -> str:
    """The flag of a field: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def check(settings: Option, value: object, label: str) -> Any:
    """`value` if the option may have it; raises ConfigError if not.

    An int is welcome as float, a list as tuple.
    """
    if not settings.is_list:
        return _checked(settings, value, label)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(
            f"{label}: found {_shown(value)}, expected a list, each {_expected(settings)}"
        )
    return tuple(_checked(settings, each, label) for each in value)


def check_value(item: Field[Any], value: object, label: str) -> Any:
    """`value` if the field may have it, for one entry at least; raises ConfigError if not."""
    failure = None
    for settings in details(item).takers.values() or [details(item)]:
        try:
            return check(settings, value, label)
        except ConfigError as error:
            failure = failure or error
    raise failure or ConfigError(label)


def check_values(cls: type, values: Mapping[str, object], source: str) -> dict[str, Any]:
    """`values` if all of them suit the fields of dataclass `cls`; raises ConfigError if not."""
    known = {item.name: item for item in fields(cls)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{source}: unknown key {_shown(name)}{_nearest(name, known)}")
    return {name: check_value(known[name], v, f"{source}: {name}") for name, v in values.items()}


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

    Who names another entry of a registry than `below` does leaves behind what was said about that.
    """
    left = {
        item.name
        for item in fields(cls)
        if (owner := details(item).owner) in above
        and below.get(owner, above[owner]) != above[owner]
    }
    return {name: value for name, value in below.items() if name not in left} | dict(above)


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
    """All values of a dataclass instance as TOML text, under a comment for every group."""
    lines: list[str] = []
    for group, items in _groups(type(config)):
        lines += ["", f"# {group}"]
        values = {item.name: getattr(config, item.name) for item in items}
        lines += [f"{name} = {_toml_value(v)}" for name, v in values.items() if v is not None]
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
    read = {} if path is None else read_toml(cls, Path(path))
    given_values = {
        item.name: _from_text(item, texts[item.name]) for item in fields(cls) if item.name in texts
    }
    return overlaid(cls, read, given_values)


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
    text = (settings.help + _default_text(settings)).replace("%", "%%")
    if settings.kind is bool:
        section.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, help=text)
        return
    nargs = "+" if settings.is_list else None if settings.bare is None else "?"
    section.add_argument(
        flag(item.name),
        nargs=nargs,
        const=settings.bare,
        metavar=settings.metavar or "{" + ",".join(settings.choices) + "}",
        help=text,
    )


def _default_text(settings: Option) -> str:
    """What follows the help: the default and, of an option of entries, those that take it."""
    if not settings.takers:
        return "" if settings.default == "" else f" (default: {_plain(settings.default)})"
    by_default: dict[str, list[str]] = {}
    for entry, taken in settings.takers.items():
        by_default.setdefault(_plain(taken.default), []).append(entry)
    cases = [f"{value} for {', '.join(entries)}" for value, entries in by_default.items()]
    return f" (default: {'; '.join(cases)})"


def _plain(value: object) -> str:
    return " ".join(map(_plain, value)) if isinstance(value, tuple) else str(value).lower()


def _from_text(item: Field[Any], text: Any) -> Any:
    """The value of a flag, from its text (True or False for the flags that take none)."""
    kind: Any = details(item).kind

    def converted(text: Any) -> Any:
        try:
            return kind(text)
        except ValueError:
            return text

    value = [converted(each) for each in text] if isinstance(text, list) else converted(text)
    return check_value(item, value, flag(item.name))


def _groups(cls: type) -> Iterator[tuple[str, list[Field[Any]]]]:
    names = dict.fromkeys(details(item).group for item in fields(cls))
    for name in names:
        yield name, [item for item in fields(cls) if details(item).group == name]


def _checked(settings: Option, value: object, label: str) -> Any:
    kind = settings.kind
    if kind is float and type(value) is int and abs(value) < EXACT:
        value = float(value)
    if type(value) is not kind or not _allowed(value, settings):
        hint = _nearest(value, settings.choices, "") if isinstance(value, str) else ""
        raise ConfigError(f"{label}: found {_shown(value)}, expected {_expected(settings)}{hint}")
    return value


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


def _shown(value: object) -> str:
    """`repr` in at most 60 characters: always one line, whatever a user typed."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python refuses to write an integer of 4300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _toml_value(value: bool | int | float | str | tuple[Any, ...]) -> str:
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


def _nearest(name: str, known: Iterable[str], otherwise: str = "; --help lists all options") -> str:
    """The hint after an unknown name; leading dashes are no likeness."""
    spelled = {other.lstrip("-"): other for other in known}
    matches = difflib.get_close_matches(name.lstrip("-"), spelled, n=1)
    return f"; did you mean {spelled[matches[0]]}?" if matches else otherwise


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
