"""Exercise 2: messages that travel while backward computes, in a timeline."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distnet.base.words import counted
from distnet.exercises.finding import Finding, NotYet, note, right, until_not_yet, whether
from distnet.exercises.jobs import train
from distnet.exercises.students_file import StudentsFile

Span = tuple[float, float]  # begin and end
STEPS, RANKS = 6, 2
# Most parameters are in the layer behind the convolution, so they leave before its backward.
NETWORK = ("--model", "simple_convnet", "--filters", "4", "--hidden-size", "50")
OVERLAPPING = (*NETWORK, "--exchange", "messages", "--bucket-bytes", "32768")
# A message, what this rank computes, and for how long both go on at once.
CASES: list[tuple[Span, list[Span], float]] = [
    ((0, 4), [(1, 3)], 2),
    ((1, 3), [(0, 4)], 2),
    ((0, 1), [(2, 3)], 0),
    ((2, 3), [(0, 1)], 0),
    ((1, 2), [(2, 3), (0, 1)], 0),
    ((0, 10), [(1, 2), (4, 6), (9, 12)], 4),
    ((5, 6), [], 0),
]


def check(file: Path) -> Iterator[Finding]:
    """A length of time in all cases, then two training runs and their timelines."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from until_not_yet(_findings(file, Path(scratch)))


def _findings(file: Path, scratch: Path) -> Iterator[Finding]:
    student = StudentsFile(file)
    hidden = student.function("hidden")
    for message, spans, expected in CASES:
        found = hidden(message, list(spans))
        if found != expected:
            shown = f"hidden({message}, {spans})"
            raise NotYet(f"{shown} is {found!r:.60}, expected {expected}")
    yield right(f"hidden: right in all {len(CASES)} cases")
    flags = _flags(student.value("BROKEN", (tuple, list), "a list of flags, each a text"))
    runs = {"as it is": OVERLAPPING, "broken": (*OVERLAPPING, *flags)}
    hashes = {}
    steps: dict[str, list[Step]] = {}
    for name, each in runs.items():
        trace, out = scratch / f"{name}.json", scratch / name
        run = train(RANKS, out, "--steps", STEPS, "--timeline", trace, *each)
        hashes[name], steps[name] = run["params_sha256"], read_steps(trace)
    yield from _judged(steps, hashes)
    for name, each_step in steps.items():
        under_way, at_once = _seconds(each_step, hidden)
        yield note(
            f"{name}: {counted(len(each_step[0].messages), 'message')} a step, under way for "
            f"{under_way * 1e3:.2f} ms, {at_once * 1e3:.2f} ms of it while this rank computed"
        )


def _flags(found: Sequence[Any]) -> list[str]:
    flags = [str(flag) for flag in found]
    if not flags:
        raise NotYet("BROKEN is empty; which option makes all messages wait for the last layer?")
    return flags


@dataclass
class Step:
    """What one rank did in a step: messages of gradients, and layers' backward passes."""

    messages: list[Span] = field(default_factory=list)
    backward: list[Span] = field(default_factory=list)

    @property
    def early(self) -> int:
        """Messages that left before backward was over."""
        over = max(end for _, end in self.backward)
        return sum(begin < over for begin, _ in self.messages)


def read_steps(trace: Path, rank: int = 0) -> list[Step]:
    """The steps of a rank in a file of --timeline, in seconds; the tally is no gradient."""
    events = [each for each in json.loads(trace.read_text())["traceEvents"] if each["pid"] == rank]
    bounds = [_span(each) for each in events if each["name"].startswith("step ")]
    steps = [Step() for _ in bounds]

    def step_of(moment: float) -> Step:
        return next(s for s, (begin, end) in zip(steps, bounds, strict=True) if moment <= end)

    began: dict[str, float] = {}
    messages: dict[int, list[Span]] = defaultdict(list)
    for each in events:
        if each["ph"] == "X" and each["name"].startswith("backward"):
            span = _span(each)
            step_of(span[0]).backward.append(span)
        elif each["ph"] == "b":
            began[each["id"]] = each["ts"] / 1e6
        elif each["ph"] == "e":
            begin = began.pop(each["id"])
            messages[id(step_of(begin))].append((begin, each["ts"] / 1e6))
    for step in steps:
        step.messages = sorted(messages[id(step)])[:-1]  # the last to leave is the tally
    return steps


def _span(event: dict[str, Any]) -> Span:
    return event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6


def _judged(steps: dict[str, list[Step]], hashes: dict[str, str]) -> Iterator[Finding]:
    early = {name: max(step.early for step in each) for name, each in steps.items()}
    sent = len(steps["as it is"][0].messages)
    yield note(f"as it is: {early['as it is']} of {sent} messages leave while backward computes")
    yield whether(
        early["broken"] == 0,
        "broken: no message leaves before backward is over",
        f"broken: still, up to {early['broken']} messages a step leave before backward is over; "
        "when does a bucket leave, and how large can it be?",
    )
    yield whether(
        len(set(hashes.values())) == 1,
        f"both networks have the same bits, {hashes['broken'][:16]}...: when a message travels "
        "changes nothing",
        "the network has other bits: what you broke is more than the overlap",
    )


def _seconds(steps: Sequence[Step], hidden: Callable[..., Any]) -> tuple[float, float]:
    """Mean seconds of a step: messages under way, and those hidden as the student counts."""
    under_way = sum(end - begin for step in steps for begin, end in step.messages)
    at_once = sum(hidden(each, list(step.backward)) for step in steps for each in step.messages)
    return under_way / len(steps), float(at_once) / len(steps)
