"""Sums of gradients over micro-batches and ranks: formats, exchange, and the reducer."""
