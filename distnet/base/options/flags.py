"""The command line of a dataclass of options, by argparse.

It is argparse, from the standard library, and not tyro: tyro reports a wrong value in a box of many
lines, while our commands owe their caller one line.
"""

import argparse
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn, TypeVar

from distnet.base.options.checking import (
    ConfigError,
    check_value,
    nearest,
    overlaid,
    printable,
    shown,
)
from distnet.base.options.declaring import Option, details, flag, groups
from distnet.base.options.toml import read_toml, recipes

T = TypeVar("T")


def parse_values(cls: type, argv: Sequence[str], prog: str) -> dict[str, Any]:
    """The values that a command line gives to fields of `cls`: arguments, flags, `--config FILE`.

    Flags win over the file; what neither mentions is absent. Dashes and underscores are the same,
    except in what is verbatim. Raises ConfigError; prints the help and raises SystemExit(0) for
    `--help`.
    """
    parser = _make_parser(cls, prog)
    argv, verbatim = _apart(cls, argv)
    given, unknown = parser.parse_known_intermixed_args([_dashed(argument) for argument in argv])
    early = [
        word
        for item in _positionals(cls)
        if details(item).verbatim
        for word in getattr(given, item.name, [])
    ]
    if unknown and (verbatim or not early):
        raise ConfigError(_unknown_argument(unknown[0], cls))
    if early:
        raise ConfigError(f"found {shown(early[0])} before --, expected {_usage(cls, prog)}")
    texts = vars(given) | verbatim
    read = read_toml(cls, texts["config"]) if "config" in texts else {}
    values = {
        item.name: _from_text(item, texts[item.name])
        for item in fields(cls)
        if texts.get(item.name) not in (None, [])
    }
    values = overlaid(cls, read, values)
    needed = [item for item in _positionals(cls) if not details(item).optional]
    missing = [item for item in needed if item.name not in values]
    if missing:
        raise ConfigError(f"found no {details(missing[0]).metavar}, expected {_usage(cls, prog)}")
    return values


def parse_options(cls: type[T], argv: Sequence[str], prog: str) -> T:
    """The instance of dataclass `cls` that a command line asks for; see `parse_values`."""
    return cls(**parse_values(cls, argv, prog))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(printable(message.removeprefix("argument ")))


def _positionals(cls: type) -> list[Field[Any]]:
    return [item for item in fields(cls) if details(item).positional]


def _usage(cls: type, prog: str) -> str:
    names = {}
    for item in _positionals(cls):
        word = details(item).metavar + (" ..." if details(item).is_list else "")
        names[item] = f"[{word}]" if details(item).optional else word
    words = [prog, *(name for item, name in names.items() if not details(item).verbatim)]
    if len(_positionals(cls)) < len(fields(cls)):
        words += ["[--config FILE.toml]", "[options]"]
    words += [f"-- {name}" for item, name in names.items() if details(item).verbatim]
    return " ".join(words)


def _apart(cls: type, argv: Sequence[str]) -> tuple[Sequence[str], dict[str, Any]]:
    """What comes before `--`, and all after it as the value of the field that is verbatim."""
    names = [item.name for item in _positionals(cls) if details(item).verbatim]
    if not names or "--" not in argv:
        return argv, {}
    cut = list(argv).index("--")
    return argv[:cut], {names[0]: list(argv[cut + 1 :])}


def _make_parser(cls: type, prog: str) -> _Parser:
    parser = _Parser(
        usage=_usage(cls, prog).replace("%", "%%"),
        description=(cls.__doc__ or "").partition("\n\n")[0],
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    if len(_positionals(cls)) < len(fields(cls)):
        parser.add_argument("--config", metavar="FILE.toml", help=_help_of_config(cls))
    for group, items in groups(cls):
        section = parser.add_argument_group(group) if group else parser
        for item in items:
            _add_flag(section, item)
    return parser


def _help_of_config(cls: type) -> str:
    text = "read options from a TOML file; flags win over it"
    owners = dict.fromkeys(details(item).owner for item in fields(cls) if details(item).owner)
    if owners:
        text += f"; another {' or '.join(map(flag, owners))} than the file's leaves behind what the"
        text += f" file says of its own; in the package: {', '.join(recipes())}"
    return text


def _add_flag(section: "argparse._ActionsContainer", item: Field[Any]) -> None:
    settings = details(item)
    text = (settings.help + _default_text(settings)).replace("%", "%%")
    if settings.positional:
        section.add_argument(
            item.name, nargs="*" if settings.is_list else "?", metavar=settings.metavar, help=text
        )
    elif settings.kind is bool:
        section.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, help=text)
    else:
        section.add_argument(
            flag(item.name),
            nargs="+" if settings.is_list else None if settings.bare is None else "?",
            const=settings.bare,
            metavar=settings.metavar or "{" + ",".join(settings.choices) + "}",
            help=text,
        )


def _default_text(settings: Option) -> str:
    """What follows the help: the default and, of an option of entries, those that take it."""
    if not settings.takers:
        has_none = settings.positional or settings.default == ""
        return "" if has_none else f" (default: {_plain(settings.default)})"
    by_default: dict[str, list[str]] = {}
    for entry, taken in settings.takers.items():
        by_default.setdefault(_plain(taken.default), []).append(entry)
    cases = [f"{value} for {', '.join(entries)}" for value, entries in by_default.items()]
    return f" (default: {'; '.join(cases)})"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def _dashed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument
    if value == "--":  # which argparse leaves out, and with it the option
        raise ConfigError(f"{name}: found '--', expected a value")
    return name.replace("_", "-") + equals + value


def _unknown_argument(argument: str, cls: type) -> str:
    name = argument.partition("=")[0]
    if not name.startswith("-"):
        names = [details(item).metavar for item in _positionals(cls)]
        expected = f"no more than {' '.join(names)}" if names else "options only (--name value)"
        return f"found {shown(argument)}, expected {expected}"
    flags = ["--config", *(flag(item.name) for item in fields(cls) if not details(item).positional)]
    return f"unknown option {shown(name)}{nearest(name, flags)}"
