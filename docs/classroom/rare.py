"""Exercise 8: rare synchronisation. The page is 8-rare.md."""


def bytes_per_step(num_parameters, sync_every, bytes_per_number):
    """What an island sends for a step, on average, if it sends its change every so many steps."""
    return num_parameters * bytes_per_number


# Which of these runs end with the same bits? Say what you think, True or False, before you try.
SAME_BITS = {
    "4 islands on 1 rank and on 2": ...,
    "2 islands and 4 islands": ...,
    "1 island with --sync-every 1 --outer-lr 1 --outer-momentum 0, and --sync step": ...,
}

# Options of `distnet train` with which two ranks send 40 times fewer bytes for a step than with
# --sync step, and lose 1.5 points of accuracy at most.
OPTIONS = ["--sync", "local", "--islands", "4", "--sync-every", "2"]
