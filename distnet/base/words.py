"""Numbers of things in sentences."""


def counted(number: int, noun: str, several: str = "", spec: str = "") -> str:
    """`1 step`, `2400 steps`; `several` is the plural that is not made by an s.

    spec: how the number is written, such as "," for 60,000.
    """
    return f"{number:{spec}} {noun if number == 1 else several or noun + 's'}"
