"""Metrics tell every step once, throughput counts steady work only, and rank 0 alone speaks."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from distnet.training.metrics import (
    COLUMNS,
    REFRESH_SECONDS,
    Metrics,
    Terminal,
    Throughput,
    clock_time,
    write_summary,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def strict(text: str) -> dict[str, object]:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [strict(line) for line in path.read_text().splitlines()]


def run(path: Path, first: int, last: int) -> None:
    """A run that logs steps first + 1 to last and leaves without closing its file."""
    metrics = Metrics(path, first)
    for step in range(first + 1, last + 1):
        metrics.write("train", step, loss=1 / step)
        if step % 3 == 0:
            metrics.write("epoch", step, test_accuracy=0.5)
    metrics.close()


def test_a_line_is_a_json_object_and_can_be_read_at_once(path):
    metrics = Metrics(path, 0)
    metrics.write("train", 3, loss=0.5, name="ü\n", counts=[1, 2])
    assert lines_of(path) == [
        {"event": "train", "step": 3, "loss": 0.5, "name": "ü\n", "counts": [1, 2]}
    ]
    metrics.close()


def test_numbers_of_numpy_and_numbers_that_json_lacks(path):
    metrics = Metrics(path, 0)
    metrics.write("train", np.int64(3), a=np.float32(0.5), b=np.float64("nan"), c=[-np.inf])
    metrics.close()
    assert lines_of(path) == [{"event": "train", "step": 3, "a": 0.5, "b": None, "c": [None]}]


@pytest.mark.parametrize("killed_at", [6, 7, 8, 9])
def test_a_resumed_run_tells_every_step_once(path, tmp_path, killed_at):
    run(tmp_path / "whole.jsonl", 0, 10)
    run(path, 0, killed_at)
    run(path, 6, 10)
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert len(list(tmp_path.iterdir())) == 2, "no temporary file is left"


def test_a_half_written_line_is_dropped_wherever_it_breaks(path):
    run(path, 0, 6)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) - 1):
        path.write_bytes(whole[:cut])
        Metrics(path, 6).close()
        assert path.read_bytes() == whole[:last]


def test_lines_that_are_none_of_ours_are_dropped(path):
    run(path, 0, 2)
    whole = path.read_bytes()
    foreign = [b"\xff\n", b"[]\n", b"7\n", b'{"event": "x"}\n', b'{"step": "2"}\n', b"\n"]
    path.write_bytes(b"".join(foreign) + b"[" * 10_000 + b"\n" + whole)
    Metrics(path, 2).close()
    assert path.read_bytes() == whole


def test_a_run_from_scratch_starts_a_new_file(path):
    run(path, 0, 4)
    run(path, 0, 2)
    assert [line["step"] for line in lines_of(path)] == [1, 2]


def test_a_resumed_run_may_have_no_file(path):
    run(path, 6, 8)
    assert [line["step"] for line in lines_of(path)] == [7, 8]


def test_the_summary_is_strict_json(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, {"loss": float("inf"), "steps": np.int64(3), "fingerprint": {"a": "b"}})
    assert strict(path.read_text()) == {"loss": None, "steps": 3, "fingerprint": {"a": "b"}}


class Clock:
    """Stands still unless told to move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_throughput_is_of_steady_state():
    clock = Clock()
    throughput = Throughput(num_warmup_steps=2, clock=clock)
    assert throughput.images_per_second == 0
    for seconds, expected in ((9, 100 / 9), (3, 200 / 12), (1, 100), (3, 200 / 4), (0, 300 / 4)):
        clock.now += seconds
        throughput.step(100)
        assert throughput.images_per_second == pytest.approx(expected)


def test_pauses_do_not_count_between_steps_or_within():
    clock = Clock()
    throughput = Throughput(num_warmup_steps=0, clock=clock)
    clock.now += 1
    with throughput.pause():
        clock.now += 1000
    clock.now += 1
    throughput.step(100)
    with throughput.pause():
        clock.now += 1000
    clock.now += 3
    throughput.step(100)
    assert throughput.images_per_second == 200 / 5


def test_rank_0_speaks_and_the_others_are_silent(capsys):
    for speaks in (False, True):
        with Terminal(speaks, progress=True, total_steps=3) as terminal:
            terminal.say("line")
            terminal.warn("careful")
            terminal.header()
            terminal.step(1, 0.5)
        out, err = capsys.readouterr()
        assert bool(out) == bool(err) == speaks
    assert out.splitlines()[0] == "line"
    assert err == "distnet: warning: careful\n", "no bar where there is no terminal"


def test_the_table_is_aligned(capsys):
    terminal = Terminal(True)
    terminal.header()
    terminal.row("1", "600", "0.1234", "0.0567", "98.21%", "12345", "3.2%", "1.10", "3", "1:02:03")
    header, row = capsys.readouterr().out.splitlines()
    ends = [header.index(name) + len(name) for name, _ in COLUMNS]
    assert [match.end() for match in re.finditer(r"\S+", row)] == ends


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_standard_output_while_a_bar_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    with Terminal(True, progress=True, total_steps=40) as terminal:
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
    monkeypatch.setattr("distnet.training.metrics.time.perf_counter", clock)
    with Terminal(True, progress=True, total_steps=1000) as terminal:
        drawn = []
        for step in range(1000):
            clock.now += REFRESH_SECONDS / 100
            before = sys.stderr.tell()
            terminal.step(step, 0.5)
            drawn.append(sys.stderr.tell() > before)
    assert sum(drawn) == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36_061, "10:01:01")]
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text
