"""TOML files of options: read, built upon one another, and written.

A file may name another one that it builds upon, `base = "other.toml"`, and so on; its own values
win. `recipes/NAME` is one of those that come with the package, unless there is such a file.
"""

import json
import os
from pathlib import Path
from typing import Any

from distnet.base.files import is_device
from distnet.base.options.checking import (
    ConfigError,
    check_values,
    nearest,
    overlaid,
    printable,
    shown,
)
from distnet.base.options.declaring import groups

MAX_FILE_BYTES = 1 << 20
BYTE_ORDER_MARK = "\ufeff"  # with which some editors begin a file
RECIPES = Path(__file__).parents[2] / "recipes"


def read_toml(cls: type, name: str, directory: Path = Path()) -> dict[str, Any]:
    """The checked values of the TOML file `name`, which hold fields of dataclass `cls`.

    directory: what a relative name starts from. Raises ConfigError, also for what is no file, is
    larger than 1 MiB or is not UTF-8, and for files that build upon each other.
    """
    files: list[dict[str, Any]] = []
    seen: list[Path] = []
    while True:
        path = _find(name, directory)
        source = printable(str(path))
        if path.resolve() in seen:
            raise ConfigError(
                f"{source}: base: found files in a circle, expected a chain that ends"
            )
        seen.append(path.resolve())
        own = _read(path, source)
        base = own.pop("base", None)
        files.append(check_values(cls, own, source))
        if base is None:
            break
        if not isinstance(base, str):
            raise ConfigError(f"{source}: base: found {shown(base)}, expected the name of a file")
        name, directory = base, path.parent
    values: dict[str, Any] = {}
    for above in reversed(files):  # each upon all that it builds upon
        values = overlaid(cls, values, above)
    return values


def read_unchecked(path: Path) -> dict[str, Any]:
    """What is in a TOML file, whatever it is; raises ConfigError for what is no such file."""
    return _read(path, printable(str(path)))


def recipes() -> list[str]:
    """The names of the files that come with the package."""
    return sorted(f"recipes/{path.stem}" for path in RECIPES.glob("*.toml"))


def to_toml(config: Any) -> str:
    """All values of a dataclass instance as TOML text, under a comment for every group."""
    lines: list[str] = []
    for group, items in groups(type(config)):
        lines += ["", f"# {group}"]
        values = {item.name: getattr(config, item.name) for item in items}
        lines += [f"{name} = {_toml_value(v)}" for name, v in values.items() if v is not None]
    return "\n".join(lines[1:]) + "\n"


def _find(name: str, directory: Path) -> Path:
    """The file called `name`: as it is, or a recipe."""
    path = directory / os.path.expanduser(name)
    if name in recipes() and not os.path.isfile(path):
        return RECIPES / f"{Path(name).name}.toml"
    if not os.path.isfile(path):  # asked first: to open a pipe could wait for ever
        hint = nearest(name, recipes(), "") if name.startswith("recipes/") else ""
        raise ConfigError(f"{printable(str(path))}: found no file, expected a TOML file{hint}")
    return path


def _read(path: Path, source: str) -> dict[str, Any]:
    import tomllib  # most runs read no file

    content = _read_small_file(path, source)
    try:
        return tomllib.loads(content.decode().removeprefix(BYTE_ORDER_MARK))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{source}: found byte {error.object[error.start]:#04x} at offset {error.start},"
            " expected UTF-8 text"
        ) from None
    except RecursionError:
        raise ConfigError(f"{source}: found nested values, expected `key = value` lines") from None
    except ValueError as error:
        raise ConfigError(f"{source}: not valid TOML ({printable(str(error))})") from None


def _toml_value(value: bool | int | float | str | tuple[Any, ...]) -> str:
    # JSON writes these as TOML does: checked text has no character that the two escape unlike.
    return json.dumps(value, ensure_ascii=False)


def _read_small_file(path: Path, source: str) -> bytes:
    if is_device(path):
        raise ConfigError(f"{source}: found a device or a pipe, expected a TOML file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{source}: found more than the {MAX_FILE_BYTES} bytes of a TOML file")
    return content
