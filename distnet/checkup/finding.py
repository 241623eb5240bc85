"""What a check found: whether it is well, what it is, and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from distnet.base.words import counted


class Level(StrEnum):
    """How bad it is: training works, it works but not as it could, it will not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the report: the check, how bad it is, what was found, and the cure if any."""

    check: str
    level: Level
    text: str
    cure: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, cure: str) -> Finding:
    return Finding(check, Level.WARNING, text, cure)


def error(check: str, text: str, cure: str) -> Finding:
    return Finding(check, Level.ERROR, text, cure)


def merged(hosts: Mapping[str, Sequence[Finding]]) -> Iterator[Finding]:
    """What each host has found, check by check: once where all is well, else host by host."""
    checks = dict.fromkeys(finding.check for findings in hosts.values() for finding in findings)
    for check in checks:
        found = [(host, each) for host in hosts for each in hosts[host] if each.check == check]
        bad = [(host, each) for host, each in found if each.level != Level.OK]
        elsewhere = counted(len(hosts) - 1, "other host")
        others = f" (well on {elsewhere}, too)" if len(hosts) > 1 else ""
        if not bad:
            yield replace(found[0][1], text=found[0][1].text + others)
        for host, each in bad:
            yield replace(each, text=f"{host}: {each.text}") if len(hosts) > 1 else each


def will_train(findings: Iterable[Finding]) -> bool:
    """Whether nothing was found with which training will not work."""
    return all(finding.level != Level.ERROR for finding in findings)


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """The report, and what follows from it."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        head = f"{finding.level:<7}  {finding.check:<{width}}"
        yield f"{head}  {finding.text}"
        if finding.cure:
            yield f"{'':<{len(head)}}  -> {finding.cure}"
    warnings = sum(finding.level == Level.WARNING for finding in findings)
    errors = sum(finding.level == Level.ERROR for finding in findings)
    found = [counted(n, name) for n, name in ((errors, "error"), (warnings, "warning")) if n]
    verdict = "training will work" if not errors else "training will not work as it is"
    yield ", ".join([verdict, *found])
