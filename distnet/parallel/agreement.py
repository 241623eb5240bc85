"""What ranks find out together: whether a task went well on all, whether all have equal inputs.

`together` and `agree` raise an `AgreedError` on every rank or on none. So all leave the program at
the same point, and rank 0 shows the one line of the error, see `failure`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import DisagreementError, RankError, name_ranks

T = TypeVar("T")
MISSING = "(missing)"


class AgreedExit(SystemExit):
    """Every rank is leaving with this exit code."""


def together(
    comm: Communicator,
    action: Callable[[], T],
    expected: tuple[type[Exception], ...] = (ValueError, OSError),
) -> T:
    """`action()` on every rank; if it raised an expected error on any, RankError on all.

    A message common to all ranks stays as it is; otherwise the ranks are named. If `action` left by
    sys.exit with the same code on all ranks (a command line that was shown its help), AgreedExit is
    raised. Other exceptions are bugs and pass through, to be shown with their traceback.
    """
    failure: BaseException | None = None
    caught: tuple[type[BaseException], ...] = (*expected, SystemExit)
    try:
        result = action()
    except caught as error:
        failure = error
    messages = comm.allgather(_message(failure))
    if not any(message is not None for message in messages):
        return result
    if isinstance(failure, SystemExit) and len(set(messages)) == 1:
        raise AgreedExit(failure.code)
    raise RankError(_summary(messages)) from failure


def _message(failure: BaseException | None) -> str | None:
    if isinstance(failure, SystemExit):
        return f"left with exit code {failure.code}"
    return None if failure is None else str(failure)


def _summary(messages: list[str | None]) -> str:
    """One line: every distinct message with its ranks; without them if all ranks say the same."""
    ranks: dict[str, list[int]] = {}
    for rank, message in enumerate(messages):
        if message is not None:
            ranks.setdefault(message, []).append(rank)
    if len(ranks) == 1 and None not in messages:
        return next(iter(ranks))
    return "; ".join(f"{name_ranks(who)} of {len(messages)}: {what}" for what, who in ranks.items())


def agree(
    comm: Communicator,
    description: Mapping[str, Any],
    remedy: str = "start every rank with the same command, files and environment",
) -> None:
    """Raises DisagreementError on every rank unless all have an equal `description`.

    The error names the first key that differs, the values, and the ranks that have them.
    """
    # The descriptions themselves travel only if they differ: of many ranks they are large together.
    digest = hashlib.sha256(repr(dict(description)).encode()).digest()
    if len(set(comm.allgather(digest))) == 1:
        return
    descriptions = comm.allgather(dict(description))
    for key in dict.fromkeys(key for each in descriptions for key in each):
        values = [repr(each[key]) if key in each else MISSING for each in descriptions]
        if len(set(values)) > 1:
            found = "; ".join(
                f"{value} on {name_ranks([r for r, v in enumerate(values) if v == value])}"
                for value in dict.fromkeys(values)
            )
            raise DisagreementError(f"the ranks differ in {key}: {found}; {remedy}")
