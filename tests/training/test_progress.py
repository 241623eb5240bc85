"""What a user sees while a run goes on, in a real terminal, alone and behind mpirun."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
from pathlib import Path

import launching
import numpy as np
import pytest
import terminals
from training_runs import NUM_TRAIN, SIZES, run_python, write_digits

import distnet
from distnet.base.screen import ERASE, Screen
from distnet.parallel import SerialCommunicator
from distnet.training.watching.progress import MIN_BAR, REFRESH_SECONDS, Progress, status_line
from distnet.training.watching.terminal import Terminal

ALONE = [sys.executable]
# Slow enough that the line is drawn several times: 4 times a second.
EPOCHS = 4
TRAIN = ["-m", "distnet.train", "--model", "simple_convnet", "--filters", "100", *SIZES]
STATUS = re.compile(
    rf"epoch (\d+)/{EPOCHS}  [━─]+  \d+/{5 * EPOCHS}  loss \d\.\d{{4}}  accuracy \d+\.\d\d%"
    r"  \d+ images/s  \d+:\d\d left"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def ranks(number: int) -> list[str]:
    return [str(launching.find_mpirun()), "-n", str(number), sys.executable]


def command(starter: list[str], data_dir: Path, *flags: str, out: str = "run") -> list[str]:
    length = ("--epochs", str(EPOCHS), "--data-dir", str(data_dir), "--out", out)
    return [*starter, *TRAIN, *length, *flags]


@pytest.mark.mpi_launch
@pytest.mark.parametrize("starter", [ALONE, ranks(3)], ids=["alone", "ranks"])
def test_a_run_in_a_terminal(data_dir, tmp_path, starter):
    seen = terminals.watch(command(starter, data_dir), cwd=tmp_path, size=(30, 110))
    assert seen.code == 0, seen.last
    drawn = seen.status_lines()
    assert len(drawn) >= 2
    assert [line for line in drawn if not STATUS.fullmatch(line)] == []
    # The line is the last one of the screen at every moment, and there is only one.
    for frame in seen.frames:
        shown = [line for line in frame if line]
        at = [number for number, line in enumerate(shown) if re.match(r"epoch +\d+/", line)]
        assert at in ([], [len(shown) - 1]), frame
    lines = seen.last
    assert lines[0].startswith("distnet: simple_convnet (")
    assert lines[2].split()[:3] == ["epoch", "step", "train"]
    table = lines[3:-1]
    assert [line.split()[0] for line in table] == [str(epoch + 1) for epoch in range(EPOCHS)]
    assert len({len(line) for line in table}) == 1, "no rest of another line stands behind it"
    assert lines[-1].startswith("test accuracy ")
    assert seen.cursor == (len(lines), 0)
    assert not seen.hidden
    controls = set(re.findall(rb"\x1b[^a-zA-Z]*[a-zA-Z]", seen.raw))
    assert controls == {b"\x1b[K"}, "nothing was changed that would have to be put back"


@pytest.mark.mpi_launch
@pytest.mark.parametrize("starter", [ALONE, ranks(2)], ids=["alone", "ranks"])
def test_ctrl_c_leaves_the_terminal_clean(data_dir, tmp_path, starter):
    seen = terminals.watch(
        command(starter, data_dir, "--epochs", "10000"),
        cwd=tmp_path,
        # Not the second alone: this process may see nothing for longer than an epoch lasts.
        when=lambda lines: any(re.match(r"epoch (?!1/)\d+/", line) for line in lines),
        keys=b"\x03",
        size=(60, 110),
    )
    assert seen.cursor[1] == 0
    assert not seen.hidden
    if "Open MPI" in launching.version_of_mpirun() and starter != ALONE:
        return  # which may kill its ranks before the step has ended and the line is erased
    assert not [line for line in seen.last if re.match(r"epoch \d+/", line)], seen.last
    assert seen.code == 75
    assert any(line.endswith("go on with --resume") for line in seen.last), seen.last


@pytest.mark.mpi_launch
def test_a_narrow_terminal_and_one_without_control(data_dir, tmp_path):
    seen = terminals.watch(command(ALONE, data_dir), cwd=tmp_path, size=(60, 40))
    drawn = seen.status_lines()
    assert drawn
    assert [
        line for line in drawn if not re.match(r"(epoch.*  )?([━─]+  )?\d+/20  loss", line)
    ] == []
    dumb = terminals.watch(command(ALONE, data_dir, out="b"), cwd=tmp_path, env={"TERM": "dumb"})
    assert dumb.status_lines() == []
    assert b"\x1b" not in dumb.raw


@pytest.mark.mpi_launch
@pytest.mark.parametrize("starter", [ALONE, ranks(2)], ids=["alone", "ranks"])
def test_lines_go_to_a_file_and_the_status_line_to_the_terminal(data_dir, tmp_path, starter):
    run = " ".join(command(starter, data_dir))
    seen = terminals.watch(["sh", "-c", f"{run} > log"], cwd=tmp_path, size=(30, 110))
    assert seen.code == 0
    assert seen.status_lines()
    assert seen.last == []
    log = (tmp_path / "log").read_text()
    assert "\x1b" not in log
    assert log.splitlines()[-1].startswith("test accuracy ")


@pytest.mark.mpi_launch
@pytest.mark.parametrize("starter", [ALONE, ranks(2)], ids=["alone", "ranks"])
def test_no_control_characters_where_standard_error_is_no_terminal(data_dir, tmp_path, starter):
    """Though the shell above has one: what it shows is not this program's."""
    run = " ".join(command(starter, data_dir, "--epochs", "1"))
    seen = terminals.watch(["sh", "-c", f"{run} 2>&1 | cat"], cwd=tmp_path, size=(30, 110))
    assert b"\x1b" not in seen.raw
    assert seen.last[-1].startswith("test accuracy ")


def test_quiet_says_nothing_but_warnings(data_dir, tmp_path):
    flags = [*TRAIN, "--epochs", "1", "--data-dir", str(data_dir), "--quiet", "--out"]
    done = run_python(*flags, str(tmp_path / "a"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    warned = run_python(*flags, str(tmp_path / "b"), "--reduction", "float32")
    assert warned.stdout == ""
    assert warned.stderr.startswith("distnet: warning: reduction float32")


@pytest.mark.mpi_launch
def test_fit_shows_how_far_it_is(tmp_path):
    program = f"""
import numpy as np, distnet
from distnet import Conv2d, Linear
network = distnet.Network([Conv2d(64, 3, pad=1), Linear(10)], (1, 28, 28))
images = np.zeros(({NUM_TRAIN}, 1, 28, 28), np.uint8)
settings = dict(epochs=8, batch_size=50, progress=True)
distnet.fit(network, images, np.arange({NUM_TRAIN}) % 10, **settings)
distnet.fit(network, images, images.astype(float).mean((1, 2, 3)).astype(int), seed=1, **settings)
1 / 0
"""
    seen = terminals.watch([sys.executable, "-c", program])
    assert seen.status_lines()
    assert seen.last[-1] == "ZeroDivisionError: division by zero"
    assert seen.last[0].startswith("Traceback")


class Drawn(Terminal):
    """Keeps what is shown."""

    def __init__(self) -> None:
        super().__init__(SerialCommunicator())
        self.screen, self.texts = Screen(io.StringIO(), os.getpid()), []

    def show(self, status: str) -> None:
        self.texts.append(status)


def test_it_is_not_drawn_at_every_step():
    times = itertools.count(step=REFRESH_SECONDS / 10)
    terminal = Drawn()
    network = distnet.Network([distnet.Linear(2)], (3,))
    progress = Progress(terminal, clock=lambda: next(times))
    distnet.fit(network, np.zeros((4, 3)), [0, 1, 0, 1], steps=100, callbacks=[progress])
    assert 9 <= len(terminal.texts) <= 11
    assert terminal.texts[0].startswith("epoch 1/100  ")
    assert " 1/100  loss 0.6931  accuracy " in terminal.texts[0]


def test_what_does_not_fit_is_left_out():
    pieces = [(2, "epoch 2/4"), (6, "700/2400"), (5, "loss 0.0912"), (1, "1618 images/s")]
    widths = {width: status_line(pieces, 0.5, width, "#-") for width in range(4, 120)}
    assert all(len(line) < width for width, line in widths.items())
    assert widths[119] == (
        "epoch 2/4  ###############---------------  700/2400  loss 0.0912  1618 images/s"
    )
    whole = "epoch 2/4  700/2400  loss 0.0912  1618 images/s"
    assert widths[len(whole) + 1] == whole
    assert widths[len(whole)] == "epoch 2/4  ######------  700/2400  loss 0.0912"
    assert widths[len(whole) + 3 + MIN_BAR] == (
        "epoch 2/4  ###---  700/2400  loss 0.0912  1618 images/s"
    )
    assert widths[30] == "###---  700/2400  loss 0.0912"
    assert widths[12] == "700/2400"
    assert widths[5] == "700/"


def test_a_program_in_the_background_draws_nothing(tmp_path, monkeypatch):
    stat = tmp_path / "7" / "stat"
    stat.parent.mkdir()
    monkeypatch.setattr("distnet.base.screen.PROC", tmp_path)
    with (tmp_path / "out").open("w") as stream:
        screen = Screen(stream, 7)
        drawn = []
        for group, front in ((7, 7), (7, 9), (7, -1)):
            stat.write_text(f"7 (a) b) S 1 {group} 7 34816 {front} 0 0")
            before = stream.tell()
            screen.draw("text")
            drawn.append(stream.tell() > before)
    assert drawn == [True, False, True]
    assert (tmp_path / "out").read_bytes().decode() == 2 * f"{ERASE}text\r"


def test_a_program_in_the_background_draws_nothing_without_proc(tmp_path, monkeypatch):
    monkeypatch.setattr("distnet.base.screen.PROC", tmp_path)
    drawn = []
    with (tmp_path / "out").open("w") as stream:
        screen = Screen(stream, os.getpid())
        screen.draw("text")  # a file, of which nobody can ask that
        drawn.append(stream.tell() > 0)
        for front in (os.getpgrp(), os.getpgrp() + 1):
            monkeypatch.setattr(os, "tcgetpgrp", lambda file, front=front: front)
            before = stream.tell()
            screen.draw("text")
            drawn.append(stream.tell() > before)
    assert drawn == [True, True, False]


def test_pyte_shows_what_was_left_behind():
    """The test of the tests: a status line that nobody erases is seen."""
    program = "import sys; sys.stdout.write('\\x1b[?25lepoch 1/2  left behind')"
    seen = terminals.watch([sys.executable, "-c", program])
    assert seen.hidden
    assert seen.cursor[1] > 0
    assert seen.last == ["epoch 1/2  left behind"]
