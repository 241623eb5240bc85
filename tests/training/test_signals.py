"""Signals become a wish to stop, except for the second Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import textwrap

import launching
import pytest

from distnet.training.signals import STOPPING, StopSignals


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_a_signal_is_a_wish(number):
    outside = signal.signal(number, handler := lambda number, frame: None)  # also under nohup
    try:
        with StopSignals() as signals:
            assert not signals.wanted
            os.kill(os.getpid(), number)
            assert signals.wanted
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, outside)


def test_a_closed_terminal_is_no_wish_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.wanted
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


FIRST_AND_SECOND = """
    import hashlib, os, signal, subprocess
    from distnet.training.signals import StopSignals
    with StopSignals({patience}) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        print("goes on", flush=True)
        subprocess.Popen(["sh", "-c", f"{sends}"])
        # One call into C that lets other threads run, as a wait inside MPI does.
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
    print("goes on to the end")
"""


def interrupted(patience: float, sends: str, rounds: int) -> tuple[int, str]:
    code = textwrap.dedent(FIRST_AND_SECOND).format(patience=patience, sends=sends, rounds=rounds)
    ended = launching.run([sys.executable, "-c", code])
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout


def test_a_second_interrupt_ends_the_process_even_where_python_cannot_run():
    kills = "sleep 0.2; kill -INT {os.getpid()}"
    assert interrupted(0.0, kills, 2**31 - 1) == (130, "goes on\n")


def test_an_interrupt_that_comes_twice_is_one():
    """A terminal sends Ctrl-C to the ranks too, and mpirun passes it on."""
    kills = "kill -INT {os.getpid()}; kill -INT {os.getpid()}"
    assert interrupted(3600.0, kills, 100_000) == (0, "goes on\ngoes on to the end\n")


def test_first_and_second_interrupt_while_python_cannot_run():
    code = """
        import hashlib, os, subprocess
        from distnet.training.signals import StopSignals
        with StopSignals(0.0):
            kills = f"kill -INT {os.getpid()} || exit; sleep 0.2; " * 50
            subprocess.Popen(["sh", "-c", kills], stderr=subprocess.DEVNULL)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = launching.run(command)
    assert (ended.returncode, ended.stderr) == (
        130,
        "distnet: interrupted again: ended without a checkpoint\n",
    )
