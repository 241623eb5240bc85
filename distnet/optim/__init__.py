"""Optimizers and learning-rate schedules on flat vectors; they never see a network."""
