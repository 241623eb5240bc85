"""Signals become a wish to stop, except for the second Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

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


def test_a_second_interrupt_ends_the_process_even_where_python_cannot_run():
    code = """
        import os, signal, subprocess
        from distnet.training.signals import StopSignals
        with StopSignals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            print("goes on", flush=True)
            subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -INT {os.getpid()}"])
            sum(range(10**12))  # one call into C, as a wait inside MPI is
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "goes on\n")
