"""The book's weights give the book's logits, and a pickle gets to run nothing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distnet
from distnet.convert import main
from distnet.data import DataError
from distnet.data.formats.pickled import MAX_BYTES, read_pickled_arrays
from distnet.data.formats.states import read_state, write_state
from distnet.models import MODELS, DeepConvNet, SimpleConvNet, ThreeLayerNet, TwoLayerNet
from distnet.nn import Network
from distnet.training.files.checkpoint import Checkpoint, load, save
from distnet.training.files.model_file import about

Arrays = dict[str, np.ndarray]
CONVOLUTIONS = [(16, 1), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64)]
SHAPES = {
    "two_layer": [(784, 50), (50, 10)],
    "three_layer": [(784, 50), (50, 100), (100, 10)],
    "simple_convnet": [(30, 1, 5, 5), (4320, 100), (100, 10)],
    "deep_convnet": [*((*sizes, 3, 3) for sizes in CONVOLUTIONS), (1024, 50), (50, 10)],
}
SIZES: dict[str, dict[str, Any]] = {
    "two_layer": {"hidden_size": 50, "activation": "sigmoid"},
    "three_layer": {"hidden_sizes": [50, 100]},
    "simple_convnet": {"filters": 30, "kernel": 5, "hidden_size": 100},
    "deep_convnet": {},
}
NETWORKS: dict[str, Callable[..., Network]] = {
    "two_layer": TwoLayerNet,
    "three_layer": ThreeLayerNet,
    "simple_convnet": SimpleConvNet,
    "deep_convnet": DeepConvNet,
}


def weights(model: str, dtype: str = "float64") -> Arrays:
    """Random, of the sizes and names of the book, of a scale that keeps the logits near 1."""
    rng = np.random.Generator(np.random.Philox(key=9))
    arrays = {}
    for i, shape in enumerate(SHAPES[model], 1):
        fan_in, fan_out = (shape[0], shape[1]) if len(shape) == 2 else (9 * shape[1], shape[0])
        arrays[f"W{i}"] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(dtype)
        arrays[f"b{i}"] = (0.1 * rng.standard_normal(fan_out)).astype(dtype)
    return arrays


# The networks of the book as it computes them: im2col is a sliding window here, (N, C, H, W).


def convolve(x: np.ndarray, w: np.ndarray, b: np.ndarray, pad: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,fcij->nfhw", windows, w) + b[:, None, None]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def pool(x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def fully_connected(x: np.ndarray, p: Arrays) -> np.ndarray:
    layers = len(p) // 2
    for i in range(1, layers + 1):
        x = flat(x) @ p[f"W{i}"] + p[f"b{i}"]
        x = sigmoid(x) if i < layers else x
    return x


def simple_convnet(x: np.ndarray, p: Arrays) -> np.ndarray:
    x = pool(relu(convolve(x, p["W1"], p["b1"], 0)))
    return relu(flat(x) @ p["W2"] + p["b2"]) @ p["W3"] + p["b3"]


def deep_convnet(x: np.ndarray, p: Arrays) -> np.ndarray:
    """Dropout of 0.5 at test time, after the hidden layer and after the last one."""
    for i, pad in enumerate((1, 1, 1, 2, 1, 1), 1):
        x = relu(convolve(x, p[f"W{i}"], p[f"b{i}"], pad))
        x = pool(x) if i % 2 == 0 else x
    h = relu(flat(x) @ p["W7"] + p["b7"])
    return 0.5 * ((0.5 * h) @ p["W8"] + p["b8"])


BOOK = {
    "two_layer": fully_connected,
    "three_layer": fully_connected,
    "simple_convnet": simple_convnet,
    "deep_convnet": deep_convnet,
}


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def as_numpy_1(content: bytes) -> bytes:
    """As older versions of NumPy pickle: their modules have other names, of another length."""
    for module in (b"multiarray", b"numeric"):
        content = content.replace(b"cnumpy._core.%s\n" % module, b"cnumpy.core.%s\n" % module)
    return content


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", SHAPES)
def test_the_logits_are_those_of_the_book(tmp_path, capsys, model, dtype, protocol):
    arrays = weights(model, dtype)
    source, target = tmp_path / "book.pkl", tmp_path / "out.safetensors"
    source.write_bytes(as_numpy_1(pickle.dumps(arrays, protocol)))
    assert main([str(source), str(target)]) == 0
    size = sum(array.size for array in arrays.values())
    assert capsys.readouterr().out == f"{target}: {model}, {size:,} parameters\n"
    saved = load(target)
    assert saved.config == {"model": model} | SIZES[model]
    assert {array.dtype for array in saved.part("params").values()} == {np.dtype(dtype)}

    network = NETWORKS[model](dtype=np.float64)
    network.parameters.load(saved.part("params"))
    x = np.random.default_rng(2).random((3, 1, 28, 28))
    expected = BOOK[model](x, {name: array.astype(np.float64) for name, array in arrays.items()})
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(network.predict(x), expected, rtol=0, atol=1e-6)

    trained = NETWORKS[model]()  # as distnet computes, in float32
    trained.parameters.load(saved.part("params"))
    np.testing.assert_allclose(trained.predict(x.astype(np.float32)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "shapes", "sizes"),
    [
        ("two_layer", [(784, 100), (100, 26)], {"hidden_size": 100, "activation": "sigmoid"}),
        ("three_layer", [(784, 7), (7, 9), (9, 10)], {"hidden_sizes": [7, 9]}),
        (
            "simple_convnet",
            [(6, 1, 3, 3), (6 * 13 * 13, 20), (20, 10)],
            {"filters": 6, "kernel": 3, "hidden_size": 20},
        ),
    ],
)
def test_other_sizes_of_the_reader(tmp_path, monkeypatch, model, shapes, sizes):
    monkeypatch.setitem(SHAPES, model, shapes)
    arrays = weights(model)
    target = tmp_path / "out.safetensors"
    assert main([str(write(tmp_path / "x.pkl", OrderedDict(arrays))), str(target)]) == 0
    saved = load(target)
    assert saved.config == {"model": model} | sizes
    network = MODELS[model]((1, 28, 28), shapes[-1][1], dtype=np.float64, **sizes)
    network.parameters.load(saved.part("params"))
    x = np.random.default_rng(2).random((3, 1, 28, 28))
    np.testing.assert_allclose(network.predict(x), BOOK[model](x, arrays), rtol=0, atol=1e-9)


def test_the_network_of_chapter_5(tmp_path, capsys):
    source, target = write(tmp_path / "x.pkl", weights("two_layer")), tmp_path / "out.safetensors"
    assert main([str(source), str(target), "--activation", "relu"]) == 0
    assert load(target).config["activation"] == "relu"
    source = write(tmp_path / "x.pkl", weights("three_layer"))
    assert main([str(source), str(tmp_path / "new.safetensors"), "--activation", "relu"]) == 2
    assert "--activation is for two_layer" in capsys.readouterr().err


def test_arrays_in_fortran_order_and_of_other_byte_order(tmp_path):
    arrays = {
        "W1": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "b1": np.arange(3.0, dtype=">f4"),
    }
    found = read_pickled_arrays(write(tmp_path / "x.pkl", arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


class Evil:
    """Unpickles as a call of `os.system`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    source, mark = tmp_path / "evil.pkl", tmp_path / "was-here"
    write(source, {"W1": Evil(mark)}, protocol)
    ended = subprocess.run(
        [sys.executable, "-m", "distnet.convert", str(source), str(tmp_path / "x.safetensors")],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"distnet: error: {source}: found ")
    assert ended.stderr.count("\n") == 1
    if protocol >= 2:
        assert "system', expected arrays only" in ended.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pkl"]
    pickle.loads(source.read_bytes())
    assert mark.exists(), "it would have worked"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_pickled_arrays(path)
    message = str(caught.value)
    assert message.isprintable() and message.startswith(f"{path}: ") and len(message) < 500
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([np.zeros(2)], "found opcode EMPTY_LIST"),
        (np.zeros(2), "found no dict (_Array), expected one of arrays by name"),
        ({"W1": 3}, "found an entry that is no array (int)"),
        ({3: np.zeros(2)}, "found an entry that is no array (_Array)"),
        ({"W1": np.zeros(2, int)}, "found type '<''i8', expected f4 or f8"),
        ({"W1": np.zeros(0)}, "found an array of shape (0,) in 0 bytes"),
        ({"W1": np.array([None])}, "found opcode EMPTY_LIST"),
        ({"W1": np.float64(3)}, "found 'numpy"),
        ({"W1": np.ma.zeros(3)}, "found 'numpy.ma"),
        ({"W1": {1, 2}}, "found opcode EMPTY_SET"),
        ({"W1": print}, "found 'builtins.print', expected arrays only"),
    ],
    ids=repr,
)
def test_what_is_no_dict_of_arrays_is_refused(tmp_path, content, message):
    assert refusal(write(tmp_path / "x.pkl", content)).startswith(message)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        b"\x80\x04.",
        b"\x80\x03}r\xff\xff\xff\x7f.",  # place 2**31 of the memo
        b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".",  # 2**60 bytes
        b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"}.",  # a frame of as many
        b"\x80\x03}" + b"\x85" * 100_000 + b".",  # nested as often
        b"\x80\x03cnumpy\nndarray\nN}b.",
        b"\x80\x03cnumpy\nndarray\n)R.",
        b"\x80\x03cnumpy\ndtype\n}b.",
    ],
)
def test_hostile_bytes_are_refused(tmp_path, content):
    (tmp_path / "x.pkl").write_bytes(content)
    refusal(tmp_path / "x.pkl")


def test_a_run_that_is_not_there_is_not_called_a_pickle(tmp_path, capsys):
    assert main([str(tmp_path / "runs"), str(tmp_path / "x.safetensors")]) == 2
    assert "found no file, expected the directory of a run" in capsys.readouterr().err


def test_what_is_no_small_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    huge = tmp_path / "huge.pkl"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "found more than" in refusal(huge)
    for path in (tmp_path, tmp_path / "missing.pkl"):
        assert "found no file" in refusal(path)
    assert "found a device or a pipe" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W2": np.zeros((50, 11))}, "found (50, 11), expected shape (50, 10), as in the book's"),
        ({"W1": np.zeros((783, 50))}, "found (783, 50), expected shape (784, 50), as in the"),
        ({"W1": np.zeros((784, 51))}, "found (50,), expected shape (51,), as in the book's"),
        ({"W3": np.zeros((10, 10))}, "found 'W1 (784, 50), b1 (50,), W2 (50, 10), b2 (10,), W3"),
        ({"W2": np.zeros((1, 1, 1, 1))}, "expected W1, b1, W2, ... of a network of the book"),
        ({"b2": np.full(10, np.nan)}, "found NaN in params.linear2.bias, expected numbers"),
        ({"b2": np.full(10, -np.inf)}, "found an infinite number in params.linear2.bias, expected"),
    ],
)
def test_other_arrays_are_one_line_and_exit_code_2(tmp_path, capsys, change, message):
    source = write(tmp_path / "x.pkl", weights("two_layer") | change)
    assert main([str(source), str(tmp_path / "x.safetensors")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"distnet: error: {source}: ") and shown.count("\n") == 1
    assert message in shown
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8"])
def test_arrays_of_unlike_types_become_one_type_that_holds_them(tmp_path, dtype):
    arrays = weights("two_layer", "float32")
    source = write(tmp_path / "x.pkl", arrays | {"W1": arrays["W1"].astype(dtype)})
    assert main([str(source), str(tmp_path / "x.safetensors")]) == 0
    named = distnet.load(tmp_path / "x.safetensors").parameters.named()
    assert {array.dtype for array in named.values()} == {np.dtype(dtype).newbyteorder("=")}
    for array, expected in zip(named.values(), arrays.values(), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("argv", [[], ["a"], ["a", "b", "c"], ["a.pkl", "b.pkl"]])
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, argv):
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "distnet convert IN OUT " in capsys.readouterr().out


def test_a_checkpoint_becomes_a_model_file(tmp_path, capsys):
    layers = [distnet.Linear(5), distnet.BatchNorm(), distnet.ReLU(), distnet.Linear(3)]
    network = distnet.Network(layers, (1, 4, 4), seed=2)
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), np.uint8)
    distnet.fit(network, images, np.arange(60) % 3, epochs=1)
    parameters = network.parameters
    state = {f"params.{name}": array for name, array in parameters.named().items()}
    state |= {f"statistics.{name}": a for name, a in parameters.named_statistics().items()}
    moments = {f"optimizer.m.{name}": array for name, array in parameters.named().items()}
    model = about(network, ["a", "b", "c"], name="own", sha256="0" * 64)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    save(best, Checkpoint(7, state | moments, model=model))
    for source in (tmp_path / "run", best):
        target = tmp_path / "model.safetensors"
        assert main([str(source), str(target)]) == 0
        assert capsys.readouterr().out == f"{target}: the model of {source}, 113 parameters\n"
        found = load(target)
        assert (found.step, found.model) == (0, model)
        assert found.state.keys() == state.keys()
        opened = distnet.load(target)
        np.testing.assert_array_equal(opened.predict(images), network.predict(images))
        assert opened.classes == ("a", "b", "c")
        target.unlink()


def test_what_cannot_be_read_or_written_is_told_by_its_name(tmp_path, capsys):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x09")
    for argv, says in (
        (("a.onnx", "b.safetensors"), "a.onnx: found an ONNX file, which can be written, but"),
        (("a.pkl", "none/b.onnx"), "none: found no directory, expected one for the file"),
    ):
        assert main([str(tmp_path / name) for name in argv]) == 2
        assert capsys.readouterr().err.startswith(f"distnet: error: {tmp_path}/{says}")


def test_a_checkpoint_of_a_run_is_not_replaced(tmp_path, capsys):
    network = SimpleConvNet((1, 8, 8), 10)
    state = {f"params.{name}": array for name, array in network.parameters.named().items()}
    path = tmp_path / "step-00000002.safetensors"
    model = about(network, [], name="digits8x8", sha256="")
    save(path, Checkpoint(2, state, record={"best_step": 2}, model=model))
    before = path.read_bytes()
    assert main([str(path), str(path)]) == 2
    assert "found a checkpoint of a run there, expected another name" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main([str(path), str(path), "--overwrite"]) == 2


def test_a_file_that_is_there_is_replaced_only_with_overwrite(tmp_path, capsys):
    source, target = write(tmp_path / "x.pkl", weights("two_layer")), tmp_path / "x.onnx"
    for target in (tmp_path / "x.pth", tmp_path / "x.onnx", tmp_path / "x.safetensors"):
        target.write_bytes(b"mine")
        assert main([str(source), str(target)]) == 2
        assert f"{target}: found a file there already; give --overwr" in capsys.readouterr().err
        assert target.read_bytes() == b"mine"
    assert main([str(source), str(target), "--overwrite"]) == 0
    assert load(target).config["model"] == "two_layer"


def test_an_average_of_parameters_is_what_becomes_the_model(tmp_path):
    network = distnet.Network([distnet.Linear(3)], (4,), seed=2)
    state = {f"params.{name}": array for name, array in network.parameters.named().items()}
    average = {f"optimizer.average.{name[7:]}": array + 1 for name, array in state.items()}
    save(tmp_path / "a.safetensors", Checkpoint(7, state | average, model=about(network)))
    assert main([str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]) == 0
    for name, array in load(tmp_path / "b.safetensors").state.items():
        np.testing.assert_array_equal(array, state[name] + 1)


def test_what_is_no_run_is_one_line_and_exit_code_2(tmp_path, capsys):
    for source in (tmp_path, tmp_path / "missing.safetensors"):
        assert main([str(source), str(tmp_path / "x.safetensors")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("distnet: error: ") and error.count("\n") == 1
    network = distnet.Network([distnet.Linear(3)], (4,))
    distnet.save(network, tmp_path / "a.safetensors")
    argv = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), "--activation"]
    assert main([*argv, "relu"]) == 2
    assert "--activation is for a file of the book" in capsys.readouterr().err


def test_weights_go_to_torchvision_and_back(tmp_path, capsys):
    network = MODELS["resnet18"]((3, 32, 32), 10, width=0.0625, seed=4)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    paths = [tmp_path / name for name in ("a.safetensors", "b.pth", "c.safetensors", "d.pt")]
    distnet.save(network, paths[0])
    for source, target in pairwise(paths):
        assert main([str(source), str(target)]) == 0
        assert f"{target}: the " in capsys.readouterr().out
    opened = distnet.load(paths[2])
    np.testing.assert_array_equal(opened.predict(images), network.predict(images))
    theirs = read_state(paths[1])
    *_, weight, _ = network.parameters.named().values()
    np.testing.assert_array_equal(theirs["fc.weight"], weight.T)
    write_state(tmp_path / "e.safetensors", theirs)  # as others write it
    assert main([str(tmp_path / "e.safetensors"), str(tmp_path / "f.safetensors")]) == 0
    again = distnet.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(again.predict(images), network.predict(images))


def test_the_state_of_something_else_is_one_line(tmp_path, capsys):
    for name in ("x.pth", "x.safetensors"):
        write_state(tmp_path / name, {"what": np.zeros(3, np.float32)})
        assert main([str(tmp_path / name), str(tmp_path / "y.safetensors")]) == 2
        error = capsys.readouterr().err
        assert (
            error.startswith(f"distnet: error: {tmp_path / name}: found") and error.count("\n") == 1
        )
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    assert main([str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")]) == 2
    assert "truncated, or no safetensors file" in capsys.readouterr().err


def test_the_state_of_a_network_that_torchvision_does_not_have(tmp_path, capsys):
    """Layers are called as here; a file of another network says which."""
    net = DeepConvNet((1, 12, 12), 3, seed=1)
    here, state, back = (tmp_path / name for name in ("a.safetensors", "a.pt", "b.safetensors"))
    distnet.save(net, here, classes=("x", "y", "z"))
    assert main([str(here), str(state)]) == 0
    assert list(read_state(state))[-2:] == ["linear2.weight", "linear2.bias"]
    assert main([str(state), str(back)]) == 2
    assert "; --like RUN_OR_FILE names the network of any other\n" in capsys.readouterr().err
    assert main([str(state), str(back), "--like", str(here)]) == 0
    told = f"{back}: the network of {here} with {state}, 84,795 parameters\n"
    assert capsys.readouterr().out == told
    found = distnet.load(back)
    assert found.classes == ("x", "y", "z")
    assert found.parameters.sha256() == net.parameters.sha256()
    assert load(back).model == load(here).model
    double = {name: array.astype(np.float64) for name, array in read_state(state).items()}
    write_state(state, double)
    assert main([str(state), str(back), "--like", str(here), "--overwrite"]) == 0
    assert f"with {state}, in float32 in place of its float64, 84,795" in capsys.readouterr().out
    write_state(state, {**double, "linear2.bias": double["linear2.bias"] + 1e300})
    assert main([str(state), str(back), "--like", str(here), "--overwrite"]) == 2
    assert "found an infinite number in params.linear2.bias" in capsys.readouterr().err
    for argv, message in (
        (
            [state, tmp_path / "c.safetensors", "--like", here, "--image-size", "28"],
            "which it decides",
        ),
        ([here, tmp_path / "c.pt", "--like", here], "found no state_dict, "),
        ([state, tmp_path / "d.pt", "--like", tmp_path / "no"], "no: found no file"),
    ):
        assert main(list(map(str, argv))) == 2
        assert message in capsys.readouterr().err
    write_state(state, {"conv1.weight": np.zeros((2, 2))})
    assert main([str(state), str(tmp_path / "e.safetensors"), "--like", str(here)]) == 2
    assert f"expected floats (16, 1, 3, 3), that of {here}\n" in capsys.readouterr().err
