"""`python -m distnet.bench NAME`, where NAME is one of NAMES; NAME --help tells more."""

from __future__ import annotations

import importlib
import sys

from distnet.base.command import one_line
from distnet.base.options import ConfigError, pick
from distnet.benchmarks.jobs import JobError

NAMES = {
    "step": "whole training steps against PyTorch, one thread each",
    "conv": "one convolution of any shape, every algorithm, beside PyTorch",
    "memory": "peak resident size of a training process, beside PyTorch",
    "scaling": "1, 2, 4 ... ranks against independent copies and PyTorch's DDP",
    "portability": "the same steps under every kernel, thread and rank setting: the same bits",
    "device": "a GPU: whether it has the CPU's bits, and how fast it is",
    "allreduce": "every wire format against plain MPI calls of the same bytes",
    "plan": "what messages cost between hosts, and whether distnet plan comes true",
    "audit": "what it costs to have micro-batches computed by two ranks",
    "crowd": "many ranks on one host: their memory, their start, their bits",
}


@one_line(ConfigError, JobError)
def main(argv: list[str]) -> int:
    """Runs the benchmark that the first argument names; returns the exit code."""
    if argv[:1] in (["-h"], ["--help"]):
        print("usage: python -m distnet.bench NAME [options]; NAME --help lists its options\n")
        print("\n".join(f"  {name:<12} {what}" for name, what in NAMES.items()))
        return 0
    if not argv:
        raise ConfigError(f"found no benchmark, expected one of {', '.join(NAMES)}")
    pick(NAMES, "benchmark", argv[0])
    return importlib.import_module(f"distnet.benchmarks.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
