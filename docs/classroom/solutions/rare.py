"""Exercise 8, solved."""


def bytes_per_step(num_parameters, sync_every, bytes_per_number):
    """A change for every parameter, once in so many steps."""
    return num_parameters * bytes_per_number / sync_every


SAME_BITS = {
    "4 islands on 1 rank and on 2": True,
    "2 islands and 4 islands": False,
    "1 island with --sync-every 1 --outer-lr 1 --outer-momentum 0, and --sync step": True,
}

# A byte a number in place of 8, every 20 steps; two islands see more of a batch than four.
OPTIONS = ["--sync", "local", "--islands", "2", "--sync-every", "20"]
