"""Numbers of things in sentences, and what text may be in one."""

import unicodedata


def counted(number: int, noun: str, several: str = "", spec: str = "") -> str:
    """`1 step`, `2400 steps`; `several` is the plural that is not made by an s.

    spec: how the number is written, such as "," for 60,000.
    """
    return f"{number:{spec}} {noun if number == 1 else several or noun + 's'}"


def fits_on_a_line(text: str) -> bool:
    """Whether text, such as a name, has no control characters and no broken UTF-8."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
