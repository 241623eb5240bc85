"""Commands: what they begin with, and errors of those without ranks, one line and an exit code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from distnet.base.output import secure_streams

P = ParamSpec("P")
BAD_INPUT = 2


def begin_command() -> None:
    """Looks for garbage again, which `distnet` has put off, but not in what was imported."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def one_line(*expected: type[Exception]) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """A decorator for `main(argv) -> int`: an `expected` error is shown in one line.

    The exit code is then the error's `exit_code`, if it has one, or else BAD_INPUT. Other errors
    are bugs and keep their traceback. Commands on ranks have `parallel.run_command` for that.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def command(*args: P.args, **kwargs: P.kwargs) -> int:
            begin_command()
            secure_streams()
            try:
                return main(*args, **kwargs)
            except expected as error:
                print(f"distnet: error: {error}", file=sys.stderr)
                return getattr(error, "exit_code", BAD_INPUT)

        return command

    return decorate
