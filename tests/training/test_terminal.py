"""Rank 0 alone speaks, and lines and bar share the terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from distnet.parallel import SerialCommunicator
from distnet.training.terminal import REFRESH_SECONDS, Terminal


class Rank(SerialCommunicator):
    """Only the number of a rank counts here."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank


class Clock:
    """Stands still unless told to move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rank_0_speaks_and_the_others_are_silent(capsys):
    for rank in (1, 0):
        with Terminal(Rank(rank), progress=True, total_steps=3) as terminal:
            terminal.say("line")
            terminal.warn("careful")
            terminal.step(1, 0.5)
        out, err = capsys.readouterr()
        assert bool(out) == bool(err) == (rank == 0)
    assert out.splitlines()[0] == "line"
    assert err == "distnet: warning: careful\n", "no bar where there is no terminal"


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_standard_output_while_a_bar_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    with Terminal(SerialCommunicator(), progress=True, total_steps=40) as terminal:
        terminal.step(10, 0.25)
        terminal.say("row")
        terminal.warn("careful")
    shown = sys.stderr.getvalue()
    assert "step 10/40" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "0.2500" in shown
    assert capsys.readouterr().out == "row\n"
    assert "\x1b[2Kdistnet: warning: careful\n" in shown, "on a line that was cleared"


def test_the_bar_is_not_drawn_at_every_step(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    clock = Clock()
    monkeypatch.setattr("distnet.training.terminal.time.perf_counter", clock)
    with Terminal(SerialCommunicator(), progress=True, total_steps=1000) as terminal:
        drawn = []
        for step in range(1000):
            clock.now += REFRESH_SECONDS / 100
            before = sys.stderr.tell()
            terminal.step(step, 0.5)
            drawn.append(sys.stderr.tell() > before)
    assert sum(drawn) == pytest.approx(10, abs=1)


class GoneTerminal(FakeTerminal):
    """Closed after the first piece."""

    def write(self, text: str) -> int:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_terminal_that_is_gone_costs_the_bar_and_the_lines(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", GoneTerminal())
    with Terminal(SerialCommunicator(), progress=True, total_steps=40) as terminal:
        terminal.step(10, 0.25)
        terminal.warn("nobody sees this")
        terminal.say("row")
        terminal.step(20, 0.25)
    assert capsys.readouterr().out == "row\n"


def test_standard_output_that_is_gone_is_told_on_the_other_one(capsys, monkeypatch):
    gone = GoneTerminal()
    gone.write("x")
    monkeypatch.setattr(sys, "stdout", gone)
    Terminal(SerialCommunicator()).say("row")
    assert capsys.readouterr().err == (
        "distnet: warning: standard output cannot be written any more (Input/output error); "
        "the run goes on\n"
    )


def test_the_rank_that_becomes_number_0_speaks(capsys):
    comm = Rank(1)
    terminal = Terminal(comm)
    terminal.say("nobody hears this")
    comm.rank = 0
    terminal.say("line")
    assert capsys.readouterr().out == "line\n"
