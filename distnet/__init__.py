"""Trains neural networks in NumPy, data-parallel over MPI: the same bits on any number of ranks."""

import sys

# pip runs this file for the version. Otherwise it downloads all that distnet needs, in every
# version, before it tells somebody with Python 3.10 what is wrong.
if sys.version_info < (3, 11):  # noqa: UP036  the reader is that Python
    sys.exit(f"distnet needs Python 3.11 or later, found {sys.version.split()[0]}")

__version__ = "0.1.0"
