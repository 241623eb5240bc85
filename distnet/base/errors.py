"""What a program cannot help and no traceback explains: each is one line for its user."""


class InputChangedError(ValueError):
    """Input that was there when the program began is another one now, or gone.

    It may come up on one rank alone. Its one line says all, so the program ends with that line and
    exit code 2.
    """


class DataError(ValueError):
    """Data that cannot be used; one line says where, what was found and what was expected.

    A program that it leaves ends with that line and exit code 2, as well.
    """
