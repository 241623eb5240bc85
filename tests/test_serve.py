"""`distnet serve`: says where the page is, answers there, and ends when it is asked to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import launching
import numpy as np
import pytest

import distnet
from distnet.nn import Linear, Network
from distnet.predict import preparation
from distnet.serve import main
from distnet.training import known_answer

PATIENCE = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    distnet.save(Network([Linear(10)], (1, 28, 28)), path, classes=tuple("0123456789"))
    return path


@contextmanager
def serving(*argv: object) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, whose output is to be read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distnet", "serve", *map(str, argv)],
        env={**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_interrupted(model, tmp_path, number):
    with serving(model, "--port", 0) as process:
        line = process.stdout.readline()
        found = re.fullmatch(
            r"distnet: net\.safetensors at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line
        )
        assert found, line
        np.save(tmp_path / "x.npy", np.full((28, 28), 7, np.uint8))
        body = (tmp_path / "x.npy").read_bytes()
        with urllib.request.urlopen(found[1] + "predict", body, timeout=PATIENCE) as answer:
            chances = json.load(answer)["probabilities"]
        assert list(chances) == list("0123456789")
        with socket.create_connection(("127.0.0.1", int(found[1][17:-1]))) as slow:
            slow.sendall(b"GET /")  # nobody waits for it
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "\ndistnet: ended\n", "")


@pytest.mark.parametrize(
    ("data", "classes", "expected"),
    [
        ({}, "0123456789", "digits"),
        ({"name": "mnist"}, "0123456789", "digits"),
        ({"name": "emnist-letters"}, "abc", "digits"),
        ({"name": "svhn"}, "0123456789", "plain"),
        ({}, "abcdefghij", "plain"),
        ({"name": "imagenet"}, "ab", "imagenet"),
        ({"name": "mnist_dark", "pictures": "plain"}, "0123456789", "plain"),
        ({"name": "mnist", "pictures": "nonsense"}, "0123456789", "digits"),
    ],
)
def test_how_drawings_are_prepared(data, classes, expected):
    """As suits what the network was trained on, or is for, as a file of one's own says no more."""
    model = {"data": data, "classes": list(classes)}
    assert preparation("auto", model, (1, 28, 28)) == expected
    assert preparation("auto", model, (1, 32, 32)) == expected.replace("digits", "plain")
    assert preparation("plain", model, (1, 28, 28)) == "plain"


def test_everybody_may_come_and_is_warned_of(model):
    with serving(model, "--port", 0, "--host", "0.0.0.0") as process:
        line = process.stdout.readline()
        assert re.match(r"distnet: net\.safetensors at http://127\.0\.0\.1:\d+/", line)
        warning = process.stderr.readline()
        assert warning.startswith("distnet: warning: 0.0.0.0: everybody who can reach this machine")


def test_a_port_that_is_taken(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(model), "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"distnet: error: found no way to listen at 127.0.0.1, port {port} (Address already in "
        "use), expected a free one; --port 0 takes any\n"
    )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["none"], "none"),
        (["--port", "70000"], "--port"),
        (["--host", "no.such.host.invalid"], "found no way to listen at no.such.host.invalid"),
    ],
)
def test_wrong_use_is_one_line(model, capsys, argv, says):
    flags = argv if argv[0] == "none" else [str(model), *argv]
    try:
        assert main(flags) == 2
    except SystemExit as ended:
        assert ended.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err


def test_a_network_that_reads_no_pictures(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    distnet.save(Network([Linear(2)], (7,)), path, classes=("a", "b"))
    assert main([str(path)]) == 2
    assert "found input shape (7,), expected (1 or 3, H, W)" in capsys.readouterr().err


def test_a_machine_without_portable_arithmetic_serves_no_network_in_it(
    tmp_path, capsys, monkeypatch
):
    path = tmp_path / "net.safetensors"
    network = Network([Linear(2)], (1, 8, 8), arithmetic="portable")
    distnet.save(network, path, classes=("a", "b"))
    monkeypatch.setattr(known_answer, "KNOWN_SHA256", "another")
    known_answer.check_machine.cache_clear()
    assert main([str(path)]) == 2
    assert "portable arithmetic: found " in capsys.readouterr().err
    known_answer.check_machine.cache_clear()
