"""Exercise 2, solved."""


def hidden(message, spans):
    """What the message has in common with each span."""
    begin, end = message
    return sum(max(0, min(end, stop) - max(begin, start)) for start, stop in spans)


# One bucket for all gradients is full when the first layer's are there: after backward.
BROKEN = ["--bucket-bytes", "1000000000"]
