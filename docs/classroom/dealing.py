"""Exercise 5: a slow rank, and micro-batches dealt out by speed. The page is 5-straggler.md."""


def shares(num_micro_batches, speeds):
    """How many micro-batches each rank computes: a list of whole numbers, as many as ranks.

    speeds: whole numbers, one for each rank; a rank of speed 6 computes 6 micro-batches while one
    of speed 2 computes 2. The last rank shall be ready as early as possible.
    """
    ranks = len(speeds)
    even, left = divmod(num_micro_batches, ranks)
    return [even + (rank < left) for rank in range(ranks)]
