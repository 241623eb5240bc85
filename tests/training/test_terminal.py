"""Rank 0 alone speaks, and lines and status line share the terminal."""

from __future__ import annotations

import io
import sys

from distnet.base.screen import ERASE
from distnet.parallel import SerialCommunicator
from distnet.training.watching.terminal import Terminal


class Rank(SerialCommunicator):
    """Only the number of a rank counts here."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rank_0_speaks_and_the_others_are_silent(capsys):
    for rank in (1, 0):
        with Terminal(Rank(rank), progress=True) as terminal:
            terminal.say("line")
            terminal.warn("careful")
            terminal.show("step 1")
        out, err = capsys.readouterr()
        assert bool(out) == bool(err) == (rank == 0)
    assert out.splitlines()[0] == "line"
    assert err == "distnet: warning: careful\n", "no status line where there is no terminal"


def test_lines_come_above_the_status_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    with Terminal(SerialCommunicator(), progress=True) as terminal:
        terminal.show("step 10")
        terminal.show("step 10")
        terminal.say("row")
        terminal.warn("careful")
        terminal.show("step 20")
    terminal.show("after the end")
    shown = ["step 10", "", "step 10", "", "distnet: warning: careful\n", "step 10", "step 20", ""]
    assert sys.stderr.getvalue() == "".join(
        line if line.endswith("\n") else f"{ERASE}{line}\r" if line else ERASE for line in shown
    )
    assert capsys.readouterr().out == "row\n"


def test_quiet_is_silent_but_for_warnings(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    with Terminal(SerialCommunicator(), progress=True, quiet=True) as terminal:
        terminal.show("step 10")
        terminal.say("row")
        terminal.warn("careful")
    assert capsys.readouterr().out == ""
    assert sys.stderr.getvalue() == "distnet: warning: careful\n"


class GoneTerminal(FakeTerminal):
    """Closed after the first piece."""

    def write(self, text: str) -> int:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_terminal_that_is_gone_costs_the_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", GoneTerminal())
    with Terminal(SerialCommunicator(), progress=True) as terminal:
        terminal.show("step 10")
        terminal.warn("nobody sees this")
        terminal.say("row")
        terminal.show("step 20")
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
