"""Layers that are not convolutions: a file a family."""
