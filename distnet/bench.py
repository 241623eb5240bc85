"""`python -m distnet.bench NAME`, where NAME is one of NAMES; NAME --help tells more."""

from __future__ import annotations

import importlib
import sys

NAMES = ("step", "conv", "memory", "scaling", "allreduce")


def main(argv: list[str]) -> int:
    """Runs the benchmark that the first argument names."""
    if not argv or argv[0] not in NAMES:
        found = repr(argv[0]) if argv else "nothing"
        print(f"distnet.bench: found {found}, expected one of {', '.join(NAMES)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"distnet.benchmarks.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
