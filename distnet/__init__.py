"""Trains neural networks in NumPy, data-parallel over MPI: the same bits on any number of ranks."""

__version__ = "0.1.0"
