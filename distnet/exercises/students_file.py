"""The Python file that a student hands in: imported, and what is in it called, with good words.

Whatever goes wrong in it is a sentence for the student (`NotYet`), with the line of the file where
it happened.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from distnet.exercises.finding import NotYet


class StudentsFile:
    """The module in `path`; raises NotYet if it cannot be imported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise NotYet(f"there is no file {path}; the page of the exercise says what is in it")
        self._module = self._imported()

    def _imported(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"exercise_{self.path.stem}", self.path)
        if spec is None or spec.loader is None:
            raise NotYet(f"{self.path} is no Python file: its name has to end with .py")
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(self.path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise NotYet(f"{self.path} cannot be imported: {self._told(error)}") from error
        finally:
            del sys.path[0]
        return module

    def value(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        """What the file calls `name`, of the type `kind`, which is `what` in words."""
        found = getattr(self._module, name, None)
        if found is None or found is ...:
            raise NotYet(f"{name} is still missing; it has to be {what}")
        if not isinstance(found, kind):
            raise NotYet(f"{name} is {found!r:.80}, but has to be {what}")
        return found

    def function(self, name: str) -> Callable[..., Any]:
        """The function `name`, whose errors become NotYet."""
        function = getattr(self._module, name, None)
        if not callable(function):
            raise NotYet(f"{self.path} has no function {name} yet")

        def called(*args: Any) -> Any:
            try:
                return function(*args)
            except NotImplementedError as error:
                raise NotYet(f"{name} is not written yet") from error
            except Exception as error:
                shown = ", ".join(f"{arg!r:.60}" for arg in args)
                raise NotYet(f"{name}({shown}) has failed: {self._told(error)}") from error

        return called

    def _told(self, error: Exception) -> str:
        """The error, and the line of the student's file where it came up."""
        if isinstance(error, SyntaxError) and error.lineno:
            return f"{error.msg}, in line {error.lineno}"
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == self.path.resolve()
        ]
        where = f", in line {lines[-1]}" if lines else ""
        return f"{type(error).__name__}: {error}{where}"
