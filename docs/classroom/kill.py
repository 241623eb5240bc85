"""Exercise 4: a rank is killed, and nothing is lost. The page is 4-kill.md."""

import os
import signal


def steps_lost(step, checkpoint_every):
    """How many steps are computed again if a run with checkpoints is killed after `step`?"""
    return step


def kill(process_id):
    """Ends a rank at once, without a chance to save anything."""
    os.kill(process_id, signal.SIGTERM)


def go_on(directory):
    """The command that goes on with the run in `directory`, on two ranks: a list of words."""
    return ["mpirun", "-n", "2", "distnet", "train", "--out", directory]
