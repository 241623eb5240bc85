"""`distnet report RUN... --out FILE.html`: one page that shows what runs have learned, and how.

It needs no network and no script, so that it can be kept beside a run or sent on. Under mpirun the
ranks share out the samples that are looked at. Exit codes: 0 done, 2 wrong usage or input.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from distnet.base.blas import one_blas_thread
from distnet.base.files import expect_none, write_atomically
from distnet.base.options import argument, option, parse_options
from distnet.base.output import write_now
from distnet.base.words import counted
from distnet.data import DataError
from distnet.evaluate import EvaluateOptions, dataset_for, other_data, samples_for
from distnet.parallel import Communicator, agree, run_command, together
from distnet.predict import shared_logits
from distnet.reporting.page import Examined, page
from distnet.reporting.run_files import RunFiles
from distnet.training.files.checkpoint import CheckpointError
from distnet.training.files.model_file import classifier_of
from distnet.training.job import DONE

NOT_WRITTEN = "--out: found {out}, which cannot be written ({why}), expected a file for the page"


@dataclass(frozen=True)
class ReportOptions:
    """Writes a page that shows one or several runs: curves, mistakes, layers, ranks, options."""

    runs: tuple[str, ...] = argument("directories of runs", "RUN", several=True, path=True)
    out: str = option(
        "",
        "the page (default: report.html in the first run)",
        group="files",
        metavar="FILE.html",
        path=True,
    )
    picture: int = option(
        0,
        "the test sample that is followed through the layers, counted from 0",
        group="input",
        metavar="N",
        limits={">=": 0},
    )
    overwrite: bool = option(False, "replace a page that is there", group="files")


def report(comm: Communicator, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command on one of the ranks of `comm`."""
    options = together(comm, lambda: parse_options(ReportOptions, argv, "distnet report"))
    agree(comm, asdict(options))
    out = Path(options.out) if options.out else Path(options.runs[0]) / "report.html"
    runs = together(comm, lambda: named([RunFiles.read(Path(path)) for path in options.runs]))
    agree(comm, {run.name: run.best and run.best.sha256 for run in runs})
    together(comm, lambda: check(out, runs, options))
    examined, notes = {}, []
    with one_blas_thread():
        for run in runs:
            try:
                examined[run.name] = examine(run, options.picture, comm, environ)
            except DataError as error:  # the rest of the page is worth having
                notes.append(f"distnet: warning: {run.path}: no pictures of it: {error}\n")
    for note in notes if comm.rank == 0 else []:
        write_now(sys.stderr, note)
    together(comm, lambda: write(out, None if comm.rank else page(runs, examined)))
    if comm.rank == 0:
        write_now(sys.stdout, f"{out}: {counted(len(runs), 'run')}\n")
    return DONE


def main(argv: Sequence[str]) -> int:
    """`distnet report`; returns the exit code."""
    return run_command(lambda comm: report(comm, argv, os.environ), os.environ)


def named(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """With paths in place of names that several have, such as trials of two sweeps."""
    names = [run.name for run in runs]
    return [replace(run, name=str(run.path)) if names.count(run.name) > 1 else run for run in runs]


def check(out: Path, runs: Sequence[RunFiles], options: ReportOptions) -> None:
    """Raises ValueError or OSError for a page that cannot be written, or runs of one name."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"found runs called {', '.join(names)}, expected names that differ")
    if options.out:
        expect_none(out, overwrite=options.overwrite)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: found no directory, expected one for the page")
    if not os.access(out.parent, os.W_OK):  # before anything is computed
        raise PermissionError(NOT_WRITTEN.format(out=out, why="a directory that is read-only"))


def write(out: Path, text: str | None) -> None:
    """On the rank that has the text; raises OSError, one line."""
    if text is None:
        return
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise OSError(NOT_WRITTEN.format(out=out, why=error.strerror)) from error


def examine(
    run: RunFiles, picture: int, comm: Communicator, environ: Mapping[str, str]
) -> Examined:
    """What the network of a run makes of its test samples; raises DataError."""
    if run.best is None:
        raise CheckpointError("found no checkpoint in it")
    network = classifier_of(run.best, str(run.path))
    chosen = EvaluateOptions(models=(str(run.path),))
    dataset = dataset_for(chosen, [run.best.model], network.input_shape, environ)
    if other := other_data(run.best.model, dataset):
        raise DataError(other)
    samples = samples_for(chosen, network, dataset)
    if picture >= len(samples.targets):
        raise DataError(
            f"--picture: found {picture}, expected less than {len(samples.targets)}, the number of "
            "test samples"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        logits = shared_logits(network, samples.inputs, comm)
    return Examined(network, f"{dataset.name}, test", samples, logits, picture)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
