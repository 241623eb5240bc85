"""Training runs: configuration, the loop, evaluation, checkpoints, metrics and fingerprints."""
