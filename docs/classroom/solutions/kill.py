"""Exercise 4, solved."""

import os
import signal


def steps_lost(step, checkpoint_every):
    """Those since the last checkpoint."""
    return step % checkpoint_every


def kill(process_id):
    """SIGTERM is a wish, and distnet saves its state; SIGKILL cannot be caught."""
    os.kill(process_id, signal.SIGKILL)


def go_on(directory):
    """With the options of the run, which are in its config.toml."""
    config = os.path.join(directory, "config.toml")
    words = ["mpirun", "-n", "2", "distnet", "train", "--resume", "--config", config]
    return [*words, "--out", directory]
