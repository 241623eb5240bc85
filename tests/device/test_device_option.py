"""`--device`: what it says where there is no GPU, and a run whose layers compute on a stand-in."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from strict import Strict
from training_runs import read_summary, write_digits

from distnet.__main__ import main as command
from distnet.device import Device, DeviceError, choose_device, devices
from distnet.device.body import OnDevice
from distnet.device.containers import DEVICE_LAYERS
from distnet.device.cuda import CudaKernels
from distnet.device.devices import Cuda
from distnet.nn import MaxPool2d
from distnet.parallel import RankError, SerialCommunicator
from distnet.train import main, train
from distnet.training import placement
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


@pytest.mark.parametrize(
    "error",
    [ImportError("no libcublas"), OSError("not libcublas"), RuntimeError("no libnvrtc")],
    ids=["not there", "cannot be loaded", "said by CuPy"],
)
def test_a_gpu_without_libraries_is_one_line(monkeypatch, error):
    """CuPy is installed without them, unless it is asked for them, and notices when it computes."""

    def load(kernels):
        raise error

    monkeypatch.setattr(devices, "import_module", lambda name: module(1))
    monkeypatch.setattr(CudaKernels, "load", load)
    assert choose_device("auto") is None
    with pytest.raises(DeviceError, match=rf"found no CUDA for CuPy \({error}\), .*\[ctk\]"):
        choose_device("cuda")


def test_a_gpu_for_which_nothing_can_be_compiled_is_one_line(monkeypatch):
    class CompileException(Exception):  # noqa: N818
        """As CuPy has it."""

    def refuse(**settings):
        raise CompileException("no cuda_fp16.h")

    made = module(1)
    made.cuda.compiler, made.RawModule = SimpleNamespace(CompileException=CompileException), refuse
    monkeypatch.setattr(devices, "import_module", lambda name: made)
    assert choose_device("auto") is None
    with pytest.raises(DeviceError, match=r"found no CUDA for CuPy \(no cuda_fp16.h\)"):
        choose_device("cuda")


def test_a_gpu_that_others_have_is_one_line(monkeypatch):
    """To themselves, or all of its memory."""

    def refuse(*arguments):
        raise error

    made, error = module(1), CUDARuntimeError("all busy")
    made.cuda.Device = lambda number: SimpleNamespace(use=refuse)
    monkeypatch.setattr(devices, "import_module", lambda name: made)
    assert choose_device("auto") is None
    with pytest.raises(DeviceError, match=r"found GPU 0 in use \(all busy\), expected one with fr"):
        choose_device("cuda")
    monkeypatch.setattr(devices, "import_module", lambda name: module(1))
    monkeypatch.setattr(CudaKernels, "load", refuse)
    error = MemoryError("no room")
    assert choose_device("auto") is None
    with pytest.raises(DeviceError, match=r"found GPU 0 in use \(no room\)"):
        choose_device("cuda")


def test_a_copy_stays_on_its_gpu(monkeypatch):
    made = module(2)
    monkeypatch.setattr(CudaKernels, "load", lambda kernels: None)
    monkeypatch.setattr(devices, "import_module", lambda name: made)
    device = choose_device("cuda", 1)
    for copied in (copy.deepcopy(device), pickle.loads(pickle.dumps(device))):
        assert copied.number == 1
    assert made.used == [1, 1, 1]


def test_work_goes_to_the_gpu_that_has_its_arrays(monkeypatch):
    """With two of them in one process, and in every thread: CUDA asks each for its own."""
    made = module(2)
    made.array = made.cuda.get_current_stream = lambda *arguments: None
    monkeypatch.setattr(CudaKernels, "load", lambda kernels: None)
    monkeypatch.setattr(devices, "import_module", lambda name: made)
    one, other = choose_device("cuda", 0), choose_device("cuda", 1)
    one.to_device(np.ones(3))
    other.to_device(np.ones(3))
    one.fill(SimpleNamespace(set=lambda values, stream: None), np.ones(3))
    assert made.used == [0, 1, 0, 1, 0]


def test_ranks_of_a_host_take_its_gpus_in_turn(monkeypatch):
    made = module(2)
    monkeypatch.setattr(CudaKernels, "load", lambda kernels: None)
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


NO_GPU = "device cpu (found no GPU; --device cuda says why)"


def test_auto_says_that_there_is_no_gpu(run, monkeypatch, capsys):
    monkeypatch.setattr(devices, "import_module", no_cupy)
    monkeypatch.setitem(devices.DEVICES, "cuda", Cuda)
    run("auto", "--device", "auto")
    assert f"6 steps, {NO_GPU}, reduction exact" in capsys.readouterr().out


@pytest.mark.mpi(min_size=2)
def test_unlike_ranks_are_told(comm):
    on_first, on_others = (
        "numpy x 1",
        f"cpu (found no GPU; --device cuda says why) x {comm.size - 1}",
    )
    assert placement.devices(comm, None if comm.rank else Device()) == f"{on_first}, {on_others}"
    assert placement.devices(comm, Device()) == "numpy"


def said(capsys, *argv):
    assert command(list(map(str, argv))) == 0
    return capsys.readouterr()


def test_evaluation_and_prediction_say_the_same_on_both(run, tmp_path, capsys, monkeypatch):
    """Probabilities, which a table rounds, are compared as JSON has them: to the last bit."""
    passes = []
    monkeypatch.setattr(
        OnDevice,
        "_evaluate",
        lambda body, x, real=OnDevice._evaluate: passes.append(x) or real(body, x),
    )
    images = tmp_path / "data" / "t10k-images-idx3-ubyte"
    run("first", *PORTABLE)
    run("other", *PORTABLE, "--seed", "1")
    capsys.readouterr()
    models = [tmp_path / "first", tmp_path / "other"]
    for argv in (
        ("evaluate", *models),
        ("predict", *models, images),
        ("predict", models[0], images),
    ):
        on_cpu = said(capsys, *argv, "--json")
        assert "device" not in on_cpu.err
        assert not passes
        on_device = said(capsys, *argv, "--json", "--device", "auto")
        assert on_device.out == on_cpu.out
        assert on_device.err == f"{on_cpu.err}distnet: device numpy\n"
        assert passes
        passes.clear()


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_both_without_a_gpu(run, tmp_path, capsys, monkeypatch, name):
    run("run", *PORTABLE)
    capsys.readouterr()
    monkeypatch.setattr(devices, "import_module", no_cupy)
    monkeypatch.setitem(devices.DEVICES, "cuda", Cuda)
    files = [tmp_path / "data" / "t10k-images-idx3-ubyte"] if name == "predict" else []
    argv = [name, tmp_path / "run", *files]
    on_cpu, auto = said(capsys, *argv), said(capsys, *argv, "--device", "auto")
    assert auto.out == on_cpu.out
    assert auto.err == f"{on_cpu.err}distnet: {NO_GPU}\n"
    with pytest.raises(SystemExit) as ended:
        command([*map(str, argv), "--device", "cuda"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distnet: error: device cuda: found no CuPy (No module named 'cupy')")


def test_what_cannot_be_evaluated_there_is_one_line(run, tmp_path, capsys, monkeypatch):
    run("run", *PORTABLE)
    capsys.readouterr()
    monkeypatch.delitem(DEVICE_LAYERS, MaxPool2d)
    with pytest.raises(SystemExit) as ended:
        command(["evaluate", str(tmp_path / "run"), "--device", "cuda"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distnet: error: {tmp_path / 'run'}: pool1: found MaxPool2d, which nob")


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
