"""Exercise 2: watch the overlap, then break it. The page is 2-overlap.md."""


def hidden(message, spans):
    """For how long a message was under way while this rank computed, in seconds.

    message: (begin, end); spans: of what this rank computed, [(begin, end), ...], no two at once.
    """
    begin, end = message
    return end - begin


# Options of `distnet train` that make all messages wait until backward is over.
BROKEN = []
