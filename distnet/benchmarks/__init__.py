"""Benchmarks: whole steps, single convolutions, reductions and scaling, each beside its rivals."""
