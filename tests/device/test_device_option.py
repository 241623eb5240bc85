"""`--device`: what it says where there is no GPU, and a run whose layers compute on a stand-in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from strict import Strict
from training_runs import read_summary, write_digits

from distnet.device import DeviceError, choose_device, devices
from distnet.device.containers import DEVICE_LAYERS
from distnet.nn import MaxPool2d
from distnet.parallel import RankError, SerialCommunicator
from distnet.train import main, train
from distnet.training.config import ConfigError, parse


def no_cupy(name):
    raise ImportError("No module named 'cupy'")


class CUDARuntimeError(Exception):
    """As CuPy has it."""


def module(count):
    """CuPy on a machine with so many GPUs, or an error that says why there are none."""

    def get_device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError)
    used = []
    device = lambda number: SimpleNamespace(use=lambda: used.append(number))  # noqa: E731
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=device), used=used)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (no_cupy, r"found no CuPy \(No module named 'cupy'\), expected it: pip install 'distnet"),
        (lambda name: module(0), "found no GPU, expected one"),
        (lambda name: module(CUDARuntimeError("no driver")), r"found no GPU \(no driver\), expec"),
    ],
)
def test_without_a_gpu_cuda_is_one_line_and_auto_the_cpu(monkeypatch, capsys, found, words):
    monkeypatch.setattr(devices, "import_module", found)
    assert choose_device("auto") is None
    assert choose_device("cpu") is None
    with pytest.raises(DeviceError, match=f"device cuda: {words}"):
        choose_device("cuda")
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cuda", "--steps", "1"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("distnet: error: ")


def test_ranks_of_a_host_take_its_gpus_in_turn(monkeypatch):
    made = module(2)
    monkeypatch.setattr(devices, "import_module", lambda name: made)
    for number in range(3):
        assert choose_device("auto", number).xp is made
    assert made.used == [0, 1, 0]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the command in this process; returns the hash of the parameters."""
    monkeypatch.setitem(devices.DEVICES, "cuda", lambda number: Strict())
    (tmp_path / "data").mkdir()
    write_digits(tmp_path / "data")

    def run(out, *flags, model="simple_convnet", code=0):
        usual = f"--data-dir {tmp_path / 'data'} --steps 6 --batch-size 50 --optimizer adam"
        paths = ["--out", str(tmp_path / out), "--model", model]
        assert train(SerialCommunicator(), [*usual.split(), *paths, *flags]) == code
        return read_summary(tmp_path / out)["params_sha256"] if code == 0 else ""

    return run


PORTABLE = ["--arithmetic", "portable"]


def test_the_same_run_on_both(run, capsys):
    on_cpu = run("cpu", *PORTABLE)
    assert "device" not in capsys.readouterr().out
    assert run("cuda", *PORTABLE, "--device", "cuda") == on_cpu
    assert "arithmetic portable (12 bits), device numpy, reduction exact" in capsys.readouterr().out
    assert run("float", "--device", "auto") != on_cpu


@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")], ids=" then ".join)
def test_begun_on_one_and_resumed_on_the_other(run, devices):
    first, then = devices
    expected = run("whole", *PORTABLE)
    run("run", *PORTABLE, "--device", first, "--stop-at", "3", code=75)
    resumed = ["--resume", "--device", then]
    assert run("run", *PORTABLE, *resumed) == expected


def test_a_network_that_cannot_is_refused(run, monkeypatch):
    monkeypatch.delitem(DEVICE_LAYERS, MaxPool2d)
    with pytest.raises(RankError, match="simple_convnet on a device: pool1: found MaxPool2"):
        run("none", "--device", "cuda")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--device auto --profile", "--profile: found --device auto beside it, expected cpu: it t"),
        ("--device cuda --arithmetic bfloat16", "--device: found cuda with --arithmetic bfloat16"),
    ],
)
def test_what_does_not_go_with_a_device_is_said_at_once(flags, words):
    with pytest.raises(ConfigError, match=words):
        parse(flags.split())
