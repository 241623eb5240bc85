"""What the experiments of the book share: flags, ranks, numbers, pictures and requirements.

A script in `docs/book/` has a function `run(lab)` that returns its numbers, a list `REQUIRED` of
what must hold for them, and ends with `main(__file__, run, REQUIRED)`. Alone or under mpirun it
writes the same `NAME.json` and pictures, from rank 0. `docs/book/check.py` calls the same `run`.

Pictures need matplotlib (extra `plot`) but no display; without it the numbers are still written.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.blas import one_blas_thread
from distnet.base.options import option, parse_values, with_default
from distnet.data import Dataset, default_cache_dir, load_dataset
from distnet.data.dataset import Samples
from distnet.data.formats.pickled import read_pickled_arrays
from distnet.device import CPU, Device, choose_device, compute_on
from distnet.experiments.pictures import Draw, can_draw, write_picture
from distnet.experiments.requirements import Required, Verdict, short
from distnet.models.book_weights import from_book
from distnet.nn.network import Network
from distnet.parallel import Communicator, agree, run_command, together
from distnet.training.config import TrainConfig
from distnet.training.files.model_file import save as save_network
from distnet.training.fingerprint import REMEDY
from distnet.training.fit import fit
from distnet.training.known_answer import fingerprint_of
from distnet.training.placement import devices
from distnet.training.watching.history import History

Numbers = dict[str, Any]


@dataclass(frozen=True)
class LabOptions:
    """Runs an experiment of the book, alone or under mpirun with the same numbers."""

    out: str = option(
        "runs/book", "directory for numbers and pictures", group="files", metavar="DIR", path=True
    )
    weights: str = option(
        "",
        "the book's own repository, for the weights in it",
        group="files",
        metavar="DIR",
        path=True,
    )
    quick: bool = option(False, "a reduced version, with looser requirements", group="size")
    seed: int = option(
        0, "seed of all randomness", group="size", metavar="N", limits={">=": 0, "<=": 2**63 - 1}
    )


@dataclass(frozen=True)
class DeviceLabOptions(LabOptions):
    """Runs an experiment of the book whose network a GPU can compute."""

    device: str = with_default(TrainConfig, "device", CPU)


@dataclass(frozen=True)
class Lab:
    """Where an experiment runs: its ranks, its seed, its size, where its results go.

    weights: the book's own repository, whose weights some experiments try, None if it is not here.
    device: what computes the networks of those experiments that ask for it; None: the processor.
    """

    comm: Communicator
    out: Path
    quick: bool = False
    seed: int = 0
    weights: Path | None = None
    device: Device | None = None

    @classmethod
    def of(cls, comm: Communicator, options: LabOptions) -> Lab:
        weights = Path(options.weights) if options.weights else None
        together(comm, lambda: _check_weights(weights))
        device = None
        if isinstance(options, DeviceLabOptions):
            device = together(comm, lambda: choose_device(options.device, comm.node.rank))
        return cls(comm, Path(options.out), options.quick, options.seed, weights, device)

    @cached_property
    def mnist(self) -> Dataset:
        """The digits that ship with the package."""
        return load_dataset("mnist", cache_dir=default_cache_dir(os.environ))

    @property
    def digits(self) -> tuple[Samples, Samples]:
        """MNIST as (images, labels) for training, and the same for testing."""
        return self.mnist.train, self.mnist.test

    def compute(self, network: Network) -> Network:
        """The network itself, whose layers compute on the lab's device; see `DeviceLabOptions`."""
        return network if self.device is None else compute_on(network, self.device)

    def fit(self, network: Network, images: Array, labels: Array, **settings: Any) -> History:
        """As `training.fit.fit`, on all ranks of the lab and with its seed."""
        settings.setdefault("comm", self.comm)
        settings.setdefault("seed", self.seed)
        return fit(network, images, labels, **settings)

    def has_published(self, name: str) -> bool:
        """Whether file `name` of the book's repository is here, such as "ch07/params.pkl"."""
        return self.weights is not None and (self.weights / name).is_file()

    def load_published(self, network: Network, name: str) -> str:
        """Copies the parameters in a file that the book publishes, from `weights`, to `network`.

        Returns the file's SHA-256: the book has published different files under one name. Raises
        RankError on all ranks for a file that cannot be used.
        """
        assert self.weights is not None
        path = self.weights / name

        def read() -> str:
            _, params = from_book(read_pickled_arrays(path), str(path))
            network.parameters.load(params)
            return hashlib.sha256(path.read_bytes()).hexdigest()

        return together(self.comm, read)

    def picture(self, name: str, draw: Draw, size: tuple[float, float] = (6.4, 4.0)) -> None:
        """Writes NAME.png: `draw(figure)` fills an empty figure of `size` inches, 100 dots each."""
        if self.comm.rank == 0 and can_draw():
            self.out.mkdir(parents=True, exist_ok=True)
            write_picture(self.out / f"{name}.png", draw, size)

    def keep(self, name: str, network: Network) -> None:
        """Writes NAME.safetensors, for a script that uses the trained network."""
        if self.comm.rank == 0:
            path = self.out / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_network(network, path)

    def judge(self, required: Required, numbers: Numbers) -> Verdict:
        """Whether `numbers`, measured in this lab, keep to what is required."""
        has_needed = not required.needs or self.has_published(required.needs)
        return required.judge(numbers, self.quick, has_needed)

    def save(self, name: str, numbers: Numbers) -> None:
        """Writes NAME.json; the same bytes on any number of ranks."""
        if self.comm.rank > 0:
            return
        content = {"seed": self.seed, "quick": self.quick, "numbers": numbers}
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, default=_plain, allow_nan=False)
        (self.out / f"{name}.json").write_text(text + "\n")


Run = Callable[[Lab], Numbers]


def main(
    script: str,
    run: Run,
    required: Sequence[Required] = (),
    *,
    options: type[LabOptions] = LabOptions,
) -> None:
    """The end of an experiment's script: runs it on the ranks it was started on, and exits.

    options: `DeviceLabOptions` for one that gives all its networks to `Lab.compute`.

    Writes the numbers to NAME.json and to the terminal. The exit code says whether it ran, not
    whether the requirements hold, which may depend on the seed.
    """
    path = Path(script)

    def command(comm: Communicator) -> int:
        lab = prepare(comm, parse(options, f"python {path.name}", comm))
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
        agree(comm, fingerprint_of(lab.device), REMEDY)
    together(comm, lambda: lab.out.mkdir(parents=True, exist_ok=True))
    if isinstance(options, DeviceLabOptions) and options.device != CPU:
        show(comm, [f"device {devices(comm, lab.device)}"])
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
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
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


def _report(lab: Lab, name: str, numbers: Numbers, required: Sequence[Required]) -> Iterator[str]:
    for key, value in numbers.items():
        yield f"{key}: {short(value)}"
    yield from (str(lab.judge(item, numbers)) for item in required)
    yield f"wrote {lab.out / name}.json"


def _check_weights(weights: Path | None) -> None:
    if weights is not None and not weights.is_dir():
        raise ValueError(f"--weights: found no folder {weights}, expected the book's repository")


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"found a {type(value).__name__} among the numbers, expected numbers and lists")
