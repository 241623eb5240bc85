"""The family of commands: every one explains itself, and a wrong name is one line."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import launching
import pytest

import distnet
from distnet.__main__ import COMMANDS, main
from distnet.bench import NAMES

HELPS = [
    [],
    *([name] for name in COMMANDS),
    ["datasets", "fetch"],
    *(["bench", name] for name in NAMES),
]


def code_of(*argv: str) -> int:
    try:
        return main(list(argv))
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("argv", HELPS, ids=" ".join)
def test_every_help_says_how_to_call_it(capsys, argv):
    assert code_of(*argv, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    usage, _, text = out.partition("\n\n")
    usage = usage.replace("python -m distnet.", "distnet ")
    assert usage.startswith(" ".join(["usage: distnet", *(argv or ["COMMAND"])]))
    assert text.strip()


def test_the_first_help_names_all_commands(capsys):
    assert code_of() == 0
    without_arguments = capsys.readouterr().out
    assert code_of("--help") == code_of("-h") == 0
    assert capsys.readouterr().out == 2 * without_arguments
    lines = without_arguments.splitlines()
    for name, text in COMMANDS.items():
        assert sum(line.split() == [name, *text.split()] for line in lines) == 1


PLAN = ["--parameters", "1000", "--batch-size", "8", "--micro-batch-size", "4"]
PLAN += ["--micro-batch-seconds", "0.1"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("argv", [["datasets"], ["plan", *PLAN]], ids=lambda argv: argv[0])
def test_what_cannot_be_told_is_neither_success_nor_wrong_usage(argv):
    command = [sys.executable, "-m", "distnet", *argv]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, timeout=launching.HUNG_SECONDS
        )
    assert (ended.returncode, ended.stderr) == (74, b"")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "found no command 'trian'; did you mean train?"),
        (["xyz"], "found no command 'xyz'; expected one of train, "),
        (["train", "--bach-size", "3"], "unknown option '--bach-size'; did you mean --batch-size?"),
        (["train", "--model", "lenet"], "did you mean lenet5?"),
        (["evaluate", "x", "--jsn"], "unknown option '--jsn'; did you mean --json?"),
        (["predict", "x", "y", "--jsn"], "unknown option '--jsn'; did you mean --json?"),
        (["convert", "a", "b", "--activaton", "relu"], "did you mean --activation?"),
        (["datasets", "--foo"], "unknown option '--foo'"),
        (["datasets", "fetch", "kmnst"], "did you mean kmnist?"),
        (["bench", "sclaing"], "did you mean scaling?"),
        (["bench"], "found no benchmark"),
        (["classroom", "check", "-"], "found no exercise '-', expected one of 1, 2"),
        (["classroom", "check", "-1"], "found no exercise '-1', expected one of 1, 2"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(capsys, argv, message):
    assert code_of(*argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("distnet: error: ")
    assert message in err


@pytest.fixture
def odd(tmp_path, monkeypatch) -> None:
    """A model file, a pipe, a link that leads to itself and files that seem huge."""
    monkeypatch.chdir(tmp_path)
    distnet.save(distnet.Network([distnet.Linear(3)], (4,)), "m.safetensors", classes="abc")
    os.mkdir("set")
    for name in ("pipe", "set/train_images.npy"):
        os.mkfifo(name)
    os.symlink("loop", "loop")
    for name in ("huge.txt", "huge.pt"):
        with open(name, "wb") as file:
            file.truncate(1 << 40)


TRAIN = ["train", "--model", "two_layer", "--steps", "2", "--out", "run"]


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*TRAIN, "--data-dir", "~nouser/x"], "~nouser/x: found no such directory"),
        ([*TRAIN, "--data-dir", "loop"], "loop: found no such directory"),
        ([*TRAIN, "--data-dir", "set"], "set/train_images.npy: found a device or a pipe"),
        ([*TRAIN, "--init", "~nouser/x"], "~nouser/x: found no file"),
        ([*TRAIN, "--resume", "loop"], "loop: found no file"),
        ([*TRAIN, "--timeline", "pipe"], "pipe: found a device or a pipe"),
        ([*TRAIN, "--timeline", "pipe", "--overwrite"], "pipe: found a device or a pipe"),
        (["sweep", "pipe"], "pipe: found a device or a pipe, expected a TOML file"),
        (["datasets", "fetch", "kmnist", "--to", "m.safetensors"], "expected a directory for"),
        (["evaluate", "~nouser/x"], "~nouser/x: found no file"),
        (["predict", "m.safetensors", "pipe"], "pipe: found a device or a pipe, expected a file"),
        (["convert", "~nouser/x", "o.safetensors"], "~nouser/x: found no file"),
        (["convert", "huge.pt", "o.safetensors"], "huge.pt: found more than 4294967296 bytes"),
        (
            ["convert", "m.safetensors", "o.safetensors", "--classes", "pipe"],
            "pipe: found a device",
        ),
        (["convert", "m.safetensors", "o.safetensors", "--classes", "huge.txt"], "found more than"),
        (["plan", *PLAN, "--html", "pipe", "--overwrite"], "pipe: found a device or a pipe"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_is_no_file_is_one_line_and_is_left_as_it_is(capsys, argv, message):
    assert code_of(*argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("distnet: error: ") and message in err
    assert not os.path.isfile("pipe")


def test_the_version_says_what_decides_the_bits(capsys):
    assert code_of("--version") == 0
    out = capsys.readouterr().out
    for name in ("distnet ", "NumPy ", "MPI ", "Python ", f"{sys.version_info.major}."):
        assert name in out
    assert out.count("\n") == 1


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_nobody_who_reads_is_no_traceback(monkeypatch, flag):
    class Closed(io.StringIO):
        def flush(self):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    assert code_of(flag) == 0


def test_it_is_a_module_that_runs():
    command = [sys.executable, "-m", "distnet", "--help"]
    process = launching.run(command, check=True)
    assert process.stdout.startswith("usage: distnet COMMAND")


@pytest.mark.parametrize("command", [("-m", "distnet.train"), ("-m", "distnet", "convert", "a")])
def test_an_interrupt_while_it_imports_is_one_line(tmp_path, command):
    (tmp_path / "numpy.py").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    path = os.pathsep.join([str(tmp_path), launching.SETTINGS["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "interrupted\n")
