"""What the experiments of the book share: flags, ranks, numbers, pictures and requirements.

A script in `docs/book/` has a function `run(lab)` that returns its numbers, a list `REQUIRED` of
what must hold for them, and ends with `main(__file__, run, REQUIRED)`. Alone or under mpirun it
writes the same `NAME.json` and pictures, from rank 0. `docs/book/check.py` calls the same `run`.

Pictures need matplotlib (extra `plot`) but no display; without it the numbers are still written.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.data import Dataset, default_cache_dir, load_dataset
from distnet.nn.layout import Array
from distnet.nn.network import Network
from distnet.parallel import Communicator, agree, run_command, together
from distnet.training.experiment import History, fit
from distnet.training.fingerprint import REMEDY, numerics_fingerprint, one_blas_thread
from distnet.training.options import option, parse_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = dict[str, Any]
Draw = Callable[["Figure"], None]

# Okabe & Ito's palette, which colour-blind people can tell apart, without its yellow and black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))


@dataclass(frozen=True)
class LabOptions:
    """Runs an experiment of the book, alone or under mpirun with the same numbers."""

    out: str = option(
        "runs/book", "directory for numbers and pictures", group="files", metavar="DIR"
    )
    weights: str = option(
        "", "directory with the weight files that the book publishes", group="files", metavar="DIR"
    )
    quick: bool = option(False, "a reduced version, with looser requirements", group="size")
    seed: int = option(
        0, "seed of all randomness", group="size", metavar="N", limits={">=": 0, "<=": 2**63 - 1}
    )


@dataclass(frozen=True)
class Lab:
    """Where an experiment runs: its ranks, its seed, its size, where its results go.

    weights: the directory with the book's own weight files, None if there is none.
    """

    comm: Communicator
    out: Path
    quick: bool = False
    seed: int = 0
    weights: Path | None = None

    @classmethod
    def of(cls, comm: Communicator, options: LabOptions) -> Lab:
        weights = Path(options.weights) if options.weights else None
        return cls(comm, Path(options.out), options.quick, options.seed, weights)

    @cached_property
    def mnist(self) -> Dataset:
        """The digits that ship with the package."""
        return load_dataset("mnist", cache_dir=default_cache_dir(os.environ))

    def fit(self, network: Network, images: Array, labels: Array, **settings: Any) -> History:
        """As `training.experiment.fit`, on all ranks of the lab and with its seed."""
        settings.setdefault("comm", self.comm)
        settings.setdefault("seed", self.seed)
        return fit(network, images, labels, **settings)

    def picture(self, name: str, draw: Draw, size: tuple[float, float] = (6.4, 4.0)) -> None:
        """Writes NAME.png: `draw(figure)` fills an empty figure of `size` inches, 100 dots each."""
        if self.comm.rank > 0 or not can_draw():
            return
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(_style()):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            self.out.mkdir(parents=True, exist_ok=True)
            figure.savefig(self.out / f"{name}.png", metadata={"Software": None})

    def save(self, name: str, numbers: Numbers) -> None:
        """Writes NAME.json; the same bytes on any number of ranks."""
        if self.comm.rank > 0:
            return
        content = {"seed": self.seed, "quick": self.quick, "numbers": numbers}
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, default=_plain, allow_nan=False)
        (self.out / f"{name}.json").write_text(text + "\n")


@dataclass(frozen=True)
class Bound:
    """What a number, or every element of an array of numbers, must lie between, ends included."""

    text: str
    low: Any
    high: Any

    def holds(self, measured: Any) -> bool:
        """Whether `measured` keeps to it; NaN never does, nor an array of another shape."""
        value = np.asarray(measured, np.float64)
        if np.ndim(self.low) and np.shape(self.low) != value.shape:
            return False
        return bool(np.all((value >= self.low) & (value <= self.high)))


def at_least(low: float) -> Bound:
    return Bound(f">= {low:g}", low, np.inf)


def at_most(high: float) -> Bound:
    return Bound(f"<= {high:g}", -np.inf, high)


def between(low: float, high: float) -> Bound:
    return Bound(f"{low:g} to {high:g}", low, high)


def near(value: float | Sequence[Any], tolerance: float) -> Bound:
    """Within `tolerance` of a number or, element by element, of a (nested) list of them."""
    text = f"{_short(value)} ± {tolerance:g}" if tolerance else f"{_short(value)} exactly"
    centre = np.asarray(value, np.float64)
    return Bound(text, centre - tolerance, centre + tolerance)


def exactly(value: float | Sequence[Any]) -> Bound:
    return near(value, 0)


@dataclass(frozen=True)
class Required:
    """A line of the acceptance table: number `key` of an experiment has to keep to `bound`.

    id: the line's name, such as "A7". quick: the looser bound of the reduced version, if any.
    needs_weights: whether it can be measured only where the lab has `weights`.
    """

    id: str
    what: str
    key: str
    bound: Bound
    quick: Bound | None = None
    needs_weights: bool = False

    def judge(self, numbers: Mapping[str, Any], lab: Lab) -> Verdict:
        bound = self.quick if lab.quick and self.quick else self.bound
        if self.needs_weights and lab.weights is None:
            return Verdict(self.id, self.what, "needs --weights DIR", bound.text, None)
        measured = numbers[self.key]
        return Verdict(self.id, self.what, _short(measured), bound.text, bound.holds(measured))


@dataclass(frozen=True)
class Verdict:
    """A judged line of the acceptance table; `holds` is None if it could not be measured."""

    id: str
    what: str
    measured: str
    required: str
    holds: bool | None

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "not run"}[self.holds]
        return f"{self.id:4} {word:7} {self.what}: {self.measured} (required: {self.required})"


Run = Callable[[Lab], Numbers]


def main(script: str, run: Run, required: Sequence[Required] = ()) -> None:
    """The end of an experiment's script: runs it on the ranks it was started on, and exits.

    Writes the numbers to NAME.json and to the terminal. The exit code says whether it ran, not
    whether the requirements hold, which may depend on the seed.
    """
    path = Path(script)

    def command(comm: Communicator) -> int:
        lab = prepare(comm, parse(LabOptions, f"python {path.name}", comm))
        numbers = perform(lab, path.stem, run)
        show(comm, _report(lab, path.stem, numbers, required))
        return 0

    sys.exit(run_command(command, os.environ))


def parse(cls: Any, prog: str, comm: Communicator) -> Any:
    """The options of dataclass `cls` on the command line, which all ranks share.

    Raises RankError on all ranks for a wrong one.
    """
    options = together(comm, lambda: cls(**parse_values(cls, sys.argv[1:], prog)))
    agree(comm, asdict(options))
    return options


def prepare(comm: Communicator, options: LabOptions) -> Lab:
    """The lab that `options` describe, with its directory made.

    Raises AgreedError on all ranks if that cannot be, or if their NumPy would compute unlike bits.
    """
    lab = Lab.of(comm, options)
    with one_blas_thread():
        agree(comm, numerics_fingerprint(), REMEDY)
    together(comm, lambda: lab.out.mkdir(parents=True, exist_ok=True))
    if not can_draw():
        show(comm, ["no pictures: they need matplotlib, pip install 'distnet-mpi[plot]'"])
    return lab


def perform(lab: Lab, name: str, run: Run) -> Numbers:
    """The numbers of an experiment, also written to NAME.json. One BLAS thread, as in training."""
    with one_blas_thread():
        numbers = run(lab)
    lab.save(name, numbers)
    return numbers


def load(path: Path) -> ModuleType:
    """The script at `path` as a module; it finds its neighbours, as when Python runs it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def show(comm: Communicator, lines: Iterable[str]) -> None:
    """Writes to the terminal, once."""
    if comm.rank == 0:
        print(*lines, sep="\n", flush=True)


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _report(lab: Lab, name: str, numbers: Numbers, required: Sequence[Required]) -> Iterator[str]:
    for key, value in numbers.items():
        yield f"{key}: {_short(value)}"
    yield from (str(item.judge(numbers, lab)) for item in required)
    yield f"wrote {lab.out / name}.json"


def _style() -> Any:
    """Matplotlib's settings for all pictures of the book."""
    from cycler import cycler

    return {
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=DASHES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10,
        "grid.alpha": 0.3,
        "image.cmap": "gray_r",
        "legend.frameon": False,
        "savefig.dpi": 100,
    }


def _short(value: Any) -> str:
    """A number in at most 10 digits, a list in full if it is short, else by its shape."""
    if isinstance(value, bool | str):
        return str(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.10g}"
    if array.size > 4:
        return f"{' x '.join(map(str, array.shape))} numbers"
    return str(array.tolist())


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"found a {type(value).__name__} among the numbers, expected numbers and lists")
