"""What each of many ranks does before its first step: nothing that the run has no use for."""

from __future__ import annotations

from training_runs import run_python

PROGRAM = """
import sys
from distnet.data import dataset
from distnet.train import main


def digest(arrays):
    raise AssertionError("a rank has read the digits that ship with the package once more")


dataset.digest = digest
code = main(sys.argv[1:])
print(*sys.modules)
sys.exit(code)
"""
# Each takes the time of ten modules of distnet, or more.
NEEDLESS = {"asyncio", "difflib", "matplotlib", "multiprocessing", "numpy.ma", "socket"} | {
    *("statistics", "tomllib", "unittest", "urllib.request")
}


def test_a_run_imports_and_reads_only_what_it_needs(tmp_path):
    flags = ["--model", "two_layer", "--steps", "1", "--micro-batch-size", "2", "--quiet"]
    done = run_python("-c", PROGRAM, *flags, "--out", str(tmp_path / "run"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not NEEDLESS & set(done.stdout.split())
