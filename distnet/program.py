"""A script of one's own as a program of many ranks: `distnet.run(main)`, under mpirun or alone."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from distnet.base.arithmetic import FLOAT, Arithmetic, arithmetic_of
from distnet.base.arrays import Shape
from distnet.base.blas import one_blas_thread
from distnet.data import Dataset, default_cache_dir
from distnet.data import registry as _registry
from distnet.parallel import Communicator, LaunchError, run_command, together, working_alone
from distnet.parallel import launcher as _launcher
from distnet.training import fit as _fit
from distnet.training import playing as _playing
from distnet.training.known_answer import expect_same_bits
from distnet.training.watching.history import History


def run(main: Callable[[Communicator], Any], *, arithmetic: str | Arithmetic = FLOAT) -> NoReturn:
    """Runs `main(comm)` on every rank that mpirun started, or in this process alone, and exits.

        distnet.run(main)  # the last line of a script

    `comm` is what `fit` and others take as their `comm`. The exit code is what `main` returns, if
    that is a whole number, else 0. An exception on one rank ends all of them; a DataError does so
    with one line and exit code 2. In the same way ranks are refused whose NumPy would compute other
    bits, and what is no function of one argument. arithmetic: in which all networks of the program
    compute; in "portable" ranks may be of any kind.
    """

    def program(comm: Communicator) -> int:
        together(comm, lambda: _check_main(main))
        with one_blas_thread():
            expect_same_bits(comm, arithmetic_of(arithmetic))
            code = main(comm)
        return code if isinstance(code, int) and not isinstance(code, bool) else 0

    sys.exit(run_command(program, os.environ))


def _check_main(main: object) -> None:
    """Raises ValueError unless `main` can be called with the communicator."""
    if not callable(main):
        raise ValueError(
            f"run: found {main!r:.60}, expected a function main(comm); give it by its name, without"
            " calling it: distnet.run(main)"
        )
    try:
        signature = inspect.signature(main)
    except ValueError:
        return  # of a function in C, which does not say
    try:
        signature.bind(None)
    except TypeError:
        name = getattr(main, "__name__", "main")
        raise ValueError(
            f"run: found {name}{signature}, expected a function of one argument, the communicator: "
            f"def {name}(comm)"
        ) from None


@wraps(_fit.fit)
def fit(network: Any, images: Any, labels: Any = None, **settings: Any) -> History:
    _refuse_ranks_that_work_alone("fit", settings)
    return _fit.fit(network, images, labels, **settings)


@wraps(_playing.learn_to_play)
def learn_to_play(game: Any, network: Any, **settings: Any) -> History:
    _refuse_ranks_that_work_alone("learn_to_play", settings)
    return _playing.learn_to_play(game, network, **settings)


def _refuse_ranks_that_work_alone(function: str, settings: Mapping[str, Any]) -> None:
    if settings.get("comm") is None and (problem := working_alone(os.environ)):
        raise LaunchError(f"{function} without comm: {problem}")


@wraps(_registry.load_dataset)
def load_dataset(
    name: str = "mnist",
    data_dir: Path | str | None = None,
    cache_dir: Path | None = None,
    input_shape: Shape = (),
    *,
    prepare: str = "plain",
) -> Dataset:
    # Where the commands look too, `distnet datasets fetch` among them.
    cache_dir = cache_dir or default_cache_dir(os.environ)
    return _registry.load_dataset(name, data_dir, cache_dir, input_shape, prepare=prepare)


def connect() -> Communicator:
    """The communicator of this process's job, for notebooks and for programs with a loop of theirs.

    `run` does more: it also checks the ranks, and gives the exit code. Raises LaunchError.
    """
    return _launcher.connect(os.environ)
