"""`distnet COMMAND`, and `python -m distnet COMMAND`: the family of commands.

A command is a module with `main(argv)`, which returns the exit code, and a line of COMMANDS.
"""

from __future__ import annotations

import difflib
import importlib
import platform
import sys
from collections.abc import Sequence

from distnet.base.output import write_now

COMMANDS = {
    "train": "trains a network, in one process or on ranks of mpirun",
    "evaluate": "tells what a trained network gets right, by class",
    "predict": "tells which classes images are of: arrays, IDX files, pictures",
    "serve": "shows a page on which digits are drawn and recognised, answers curl with JSON",
    "compare": "finds where two runs part: the first step, array and element, and why",
    "report": "writes a page about runs: curves, mistakes, layers, ranks, options",
    "plan": "predicts training on more ranks, hosts, slower links: time, bytes, memory, cost",
    "doctor": "tells whether training will work here, alone and on ranks, and what helps",
    "sweep": "trains with many options, and tells which were the best",
    "supervise": "runs a training job until it is finished, whatever happens to it",
    "datasets": "lists the data sets, or fetches the files of one",
    "convert": "writes model files: of runs, of the book's and torchvision's weights",
    "classroom": "lists exercises about parallel training, and checks solutions",
    "bench": "measures steps, convolutions, memory, scaling",
}
USAGE = "usage: distnet COMMAND [options]; distnet COMMAND --help tells more"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        write_now(sys.stdout, "\n".join(_help()) + "\n")
        return 0
    if name == "--version":
        write_now(sys.stdout, version() + "\n")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        print(f"distnet: error: found no command {name!r:.60}; {hint}", file=sys.stderr)
        return 2
    return importlib.import_module(f"distnet.{name}").main(rest)


def _help() -> list[str]:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return [USAGE, "", *lines, "", "  --version: distnet, NumPy, its BLAS kernels, MPI"]


def version() -> str:
    """What decides how and what this installation computes, in one line."""
    from distnet import __version__
    from distnet.checkup.starting import mpi_library
    from distnet.training.fingerprint import numerics_fingerprint

    found, (mpi, _) = numerics_fingerprint(), mpi_library()
    blas = f"{found['blas']} {found['blas_version']} {found['blas_architecture']}"
    python = f"Python {platform.python_version()}"
    return f"distnet {__version__}, NumPy {found['numpy']} ({blas}), MPI {mpi or 'none'}, {python}"


if __name__ == "__main__":
    sys.exit(main())
