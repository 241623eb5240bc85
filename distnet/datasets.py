"""`distnet datasets` lists the data sets; `distnet datasets fetch NAME` downloads the files of one.

Nothing is ever downloaded without this command. Exit code 2 and one line for what cannot be done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distnet.base.command import one_line
from distnet.base.options import ConfigError, argument, option, parse_options, pick, shown
from distnet.base.output import write_now
from distnet.data import DATASETS, default_cache_dir
from distnet.data.errors import DataError
from distnet.data.fetch import fetch, is_whole
from distnet.data.source import Source
from distnet.parallel import SerialCommunicator
from distnet.training.job import DONE, NOT_WRITTEN
from distnet.training.watching.terminal import Terminal


@dataclass(frozen=True)
class ListOptions:
    """Lists the data sets that have a name; "distnet datasets fetch NAME" downloads one."""


@dataclass(frozen=True)
class FetchOptions:
    """Downloads the files of a data set, verifies them, and unpacks what is an archive."""

    name: str = argument("data set, as in the list", "NAME")
    to: str = option(
        "",
        "directory to put them into (default: where --data looks for them)",
        group="files",
        metavar="DIR",
        path=True,
    )
    mirror: str = option(
        "",
        "address that the same files lie under, in place of the publisher's",
        group="files",
        metavar="URL",
    )


@one_line(ValueError, OSError)
def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """The command; returns its exit code."""
    cache_dir = default_cache_dir(environ)
    if argv[:1] == ["fetch"]:
        _fetch(parse_options(FetchOptions, argv[1:], "distnet datasets fetch"), cache_dir)
    elif argv and not argv[0].startswith("-"):
        raise ConfigError(f"found {shown(argv[0])}, expected fetch NAME, or nothing for the list")
    else:
        parse_options(ListOptions, argv, "distnet datasets")
        if write_now(sys.stdout, "\n".join(table(cache_dir)) + "\n"):
            return NOT_WRITTEN
    return DONE


def table(cache_dir: Path | None) -> list[str]:
    """A line for each data set: its name, what is in it, its licence, and where its files are."""
    rows = [("name", "contents", "licence", "files")]
    for name, source in DATASETS.items():
        rows.append((name, source.contents, source.licence, _where(source, cache_dir, name)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _where(source: Source, cache_dir: Path | None, name: str) -> str:
    if not source.files:
        return source.place
    if cache_dir is None:
        return "--data-dir"
    directory = _in_cache(source, cache_dir, name)
    if not directory.is_dir():
        return f"fetch {name} ({source.download})"
    if is_whole(source, directory):
        return str(directory)
    return f"fetch {name} ({source.download}); not whole in {directory}"


def _in_cache(source: Source, cache_dir: Path, name: str) -> Path:
    return cache_dir / (source.directory or name)


def _fetch(options: FetchOptions, cache_dir: Path | None) -> None:
    source = pick(DATASETS, "data set", options.name)
    if not source.files:
        raise DataError(f"{options.name}: found nothing to fetch, it is {source.place}")
    if options.to:
        directory = Path(options.to)
    elif cache_dir is not None:
        directory = _in_cache(source, cache_dir, options.name)
    else:
        raise DataError("found no home directory for the files, expected --to DIR")
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory}: found a file, expected a directory for the files")
    about = f"{options.name}: {source.contents}; licence: {source.licence}; see {source.page}\n"
    write_now(sys.stdout, about)
    with Terminal(SerialCommunicator(), progress=True) as terminal:

        def show(name: str, done: int, total: int) -> None:
            whole = f" of {total / 1e6:.1f}" if total else ""
            terminal.show(f"{name}: {done / 1e6:.1f}{whole} MB")

        fetched = fetch(source, directory, options.mirror, show)
    what = f"fetched {', '.join(fetched)}" if fetched else "found all files there already"
    write_now(sys.stdout, f"{what}; they are in {directory}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
