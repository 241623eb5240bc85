"""Dataclass fields that are command-line flags and TOML keys at once, each with its constraints.

A field is declared once by `option(...)` or `argument(...)`; flags, `--help`, TOML files and
constructors are held to it by the same `check`. `training/options.py` declares the options of a
training run; networks, optimizers and schedules declare their own.
"""

from distnet.base.options.checking import (
    ConfigError,
    check,
    check_values,
    overlaid,
    pick,
    settle,
    shown,
)
from distnet.base.options.declaring import (
    Option,
    argument,
    details,
    flag,
    option,
    option_of,
    own_options,
    with_default,
    with_options_of,
)
from distnet.base.options.flags import parse_options, parse_values
from distnet.base.options.toml import read_toml, read_unchecked, recipes, to_toml

__all__ = [
    "ConfigError",
    "Option",
    "argument",
    "check",
    "check_values",
    "details",
    "flag",
    "option",
    "option_of",
    "overlaid",
    "own_options",
    "parse_options",
    "parse_values",
    "pick",
    "read_toml",
    "read_unchecked",
    "recipes",
    "settle",
    "shown",
    "to_toml",
    "with_default",
    "with_options_of",
]
