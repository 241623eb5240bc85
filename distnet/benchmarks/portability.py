"""`python -m distnet.bench portability`: the same training under every setting of this machine.

Each row trains the same steps in portable arithmetic and in float32, with other kernels of the
BLAS, more threads, without some SIMD units, on ranks, or by another Python that `--python` starts,
such as one for another processor. The portable hash has to be the one in `golden` in every row;
that of float32 shows that the settings do make a difference.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module

from distnet.base.options import option, parse_options
from distnet.base.tables import aligned
from distnet.benchmarks.golden import CASES, GOLDEN
from distnet.benchmarks.jobs import ROOT, Result, find_mpirun, run_words
from distnet.benchmarks.rounds import describe_machine
from distnet.checkup.starting import mpi_library

# The kernels that OpenBLAS can be told to take on x86-64, and what a processor needs to run them.
KERNELS = {
    "Prescott": "SSE3",
    "Nehalem": "SSE42",
    "Sandybridge": "AVX",
    "Haswell": "AVX2",
    "SkylakeX": "AVX512_SKX",
}


# MPICH: messages between ranks of one host by sockets. An emulator has not all that its quicker way
# through memory takes (process_vm_readv).
BY_SOCKETS = {"MPIR_CVAR_NOLOCAL": "1"}


@dataclass(frozen=True)
class PortabilityOptions:
    """Trains the same steps under every setting that this machine has, and compares the hashes."""

    cases: tuple[str, ...] = option(
        ("deep_convnet", "residual"), "trainings", group="portability", choices=CASES
    )
    ranks: tuple[int, ...] = option(
        (2, 3), "numbers of ranks", group="portability", metavar="N", limits={">=": 1, "<=": 64}
    )
    python: str = option(
        "",
        "also with the Python that this starts, such as one for another processor",
        group="portability",
        metavar="COMMAND",
    )
    control: bool = option(True, "also in float32", group="portability")


@dataclass(frozen=True)
class Program:
    """A Python that trains, alone or as a rank: the words that start it, and its variables."""

    words: tuple[str, ...] = (sys.executable,)
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> Result:
        """What it says in its last line; raises JobError."""
        return run_words([*self.words, *arguments], {**_threads(1), **self.environ})

    def with_variables(self, environ: Mapping[str, str]) -> Program:
        return replace(self, environ={**self.environ, **environ})


@dataclass(frozen=True)
class Setting:
    """What trains: one program, or several, each of which is a rank."""

    name: str
    programs: tuple[Program, ...]

    @property
    def is_job(self) -> bool:
        return len(self.programs) > 1

    def command(self, *arguments: str) -> list[str]:
        """The command that starts the job; raises JobError without mpirun."""
        words = [find_mpirun()]
        for number, program in enumerate(self.programs):
            variables = [f"{name}={value}" for name, value in program.environ.items()]
            words += [":"] * bool(number)
            words += ["-n", "1", "env", *variables, *program.words, *arguments]
        return words

    def hashes(self, cases: Iterable[str], *more: str) -> dict[str, str]:
        """What the trainings end with, by case; raises JobError."""
        arguments = ("-m", "distnet.benchmarks.golden", *cases, *more)
        if self.is_job:
            return run_words(self.command(*arguments), _threads(1))
        return self.programs[0].run(*arguments)


@dataclass(frozen=True)
class OtherPython:
    """What `--python` starts, and what it says of itself."""

    program: Program
    machine: str  # such as "aarch64"
    description: str
    mpi: str  # its library and version, empty where there is none

    @classmethod
    def ask(cls, command: str) -> OtherPython:
        """The one that a command line starts; raises JobError."""
        # Not this environment's packages: they are for this Python's processor.
        program = Program(tuple(shlex.split(command)), {"PYTHONPATH": str(ROOT)})
        return cls(program, **program.run("-m", "distnet.benchmarks.python_worker"))


def main(argv: list[str]) -> int:
    """The benchmark; exit code 1 if a portable hash is not the known one. Raises JobError."""
    options = parse_options(PortabilityOptions, argv, "python -m distnet.bench portability")
    print(describe_machine())
    other = OtherPython.ask(options.python) if options.python.strip() else None
    if other is not None:
        print(other.description)
    rows, is_right = [["setting", "case", "portable", "", "float32"]], True
    for setting in settings(options.ranks, other):
        found = setting.hashes(options.cases)
        control = setting.hashes(options.cases, "--float32") if options.control else {}
        for case in options.cases:
            same = found[case] == GOLDEN[case]
            is_right = is_right and same
            mark = "as known" if same else f"NOT {GOLDEN[case]:.12}"
            name = setting.name if case == options.cases[0] else ""
            rows.append([name, case, f"{found[case]:.12}", mark, f"{control.get(case, '-'):.12}"])
    print("\n".join(aligned(rows)))
    return 0 if is_right else 1


def settings(ranks: Iterable[int], other: OtherPython | None = None) -> Iterator[Setting]:
    """The settings that this machine offers, the plain one first."""
    alone = Program()
    yield Setting("plain", (alone,))
    yield Setting("2 BLAS threads", (Program(environ=_threads(2)),))
    pinned = {
        name: Program(environ={"OPENBLAS_CORETYPE": name})
        for name, needed in KERNELS.items()
        if needed in cpu_features()
    }
    for name, program in pinned.items():
        yield Setting(f"{name} kernels", (program,))
    without = " ".join(optional_features())
    if without:
        program = Program(environ={"NPY_DISABLE_CPU_FEATURES": without})
        yield Setting("NumPy without SIMD", (program,))
    for number in ranks:
        yield Setting(f"{number} ranks", (alone,) * number)
    if len(pinned) > 1:
        first, *_, last = pinned
        yield Setting(f"ranks of {first} and {last}", (pinned[first], pinned[last]))
    if other is not None:
        yield Setting(other.machine, (other.program,))
    if other is not None and other.mpi and other.mpi == mpi_library()[0]:
        both = (alone.with_variables(BY_SOCKETS), other.program.with_variables(BY_SOCKETS))
        yield Setting(f"ranks of this Python and of {other.machine}", both)


def _threads(number: int) -> dict[str, str]:
    return {"OPENBLAS_NUM_THREADS": str(number), "OMP_NUM_THREADS": str(number)}


def cpu_features() -> list[str]:
    """What NumPy found on this processor."""
    features = import_module("numpy._core._multiarray_umath").__cpu_features__
    return [name for name, enabled in features.items() if enabled]


def optional_features() -> list[str]:
    """The CPU features that NumPy can do without."""
    dispatched = import_module("numpy._core._multiarray_umath").__cpu_dispatch__
    return [name for name in dispatched if name in cpu_features()]
