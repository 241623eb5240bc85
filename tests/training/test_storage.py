"""Parameters in fewer bytes: which numbers come back, by Python and by the command."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.convert import main
from distnet.data import load_dataset
from distnet.models import SimpleConvNet
from distnet.nn import (
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Linear,
    Network,
    Quantize,
    Sign,
    quantize,
)
from distnet.training.files.model_file import initialize, load, save
from distnet.training.files.storage import STORAGES


def network() -> Network:
    net = SimpleConvNet((1, 28, 28), filters=8, hidden_size=20, seed=1)
    net.parameters.values *= 20
    return net


def digits(n: int = 50) -> np.ndarray:
    return load_dataset("mnist").test.inputs[:n]


PRECISION = {"full": 0, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.mark.parametrize("storage", PRECISION)
def test_numbers_come_back_rounded(storage, tmp_path):
    net = network()
    save(net, tmp_path / "model", storage=storage)
    other = load(tmp_path / "model")
    assert other.parameters.values.dtype == np.float32
    expected, found = net.parameters.values, other.parameters.values
    np.testing.assert_allclose(found, expected, rtol=PRECISION[storage], atol=1e-7)
    assert np.array_equal(found, expected) == (storage == "full")
    save(net, tmp_path / "whole")
    sizes = [(tmp_path / name).stat().st_size for name in ("model", "whole")]
    assert sizes[0] < sizes[1] * (1 if storage == "full" else 0.55) + 1
    save(other, tmp_path / "again", storage=storage)
    np.testing.assert_array_equal(load(tmp_path / "again").parameters.values, found)
    fresh = SimpleConvNet((1, 28, 28), filters=8, hidden_size=20)
    initialize(fresh, tmp_path / "model")
    np.testing.assert_array_equal(fresh.parameters.values, found)


def test_whole_numbers_keep_every_bit_in_a_quarter_of_the_bytes(tmp_path):
    net = network()
    small = quantize(net, digits())
    save(small, tmp_path / "small", storage="int8")
    save(net, tmp_path / "whole")
    sizes = [(tmp_path / name).stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.3 * sizes[1]
    other = load(tmp_path / "small")
    assert other.parameters.sha256() == small.parameters.sha256()
    np.testing.assert_array_equal(other.predict(digits()), small.predict(digits()))


def test_signs_are_bits(tmp_path, capsys):
    """Sixteen weights to two bytes; the floats behind them, which only training needs, are gone."""
    layers = [BinaryConv2d(5, 3, bias=False), BatchNorm(), Sign(), BinaryLinear(40), Linear(10)]
    net = Network(layers, (1, 28, 28), seed=1)
    for storage in ("full", "bits"):
        save(net, tmp_path / f"{storage}.safetensors", storage=storage)
    source, target = (str(tmp_path / f"{name}.safetensors") for name in ("full", "converted"))
    assert main([source, target, "--storage", "bits"]) == 0
    assert "bytes\n" in capsys.readouterr().out
    sizes = {path.stem: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["bits"] == sizes["converted"] < 0.08 * sizes["full"]
    for name in ("bits", "converted"):
        other = load(tmp_path / f"{name}.safetensors")
        np.testing.assert_array_equal(other.predict(digits()), net.predict(digits()))
        weight = other.parameters.named()["linear1.weight"]
        assert set(np.unique(weight)) == {-1, 1}
        np.testing.assert_array_equal(
            other.parameters.named()["linear2.weight"], net.parameters.named()["linear2.weight"]
        )


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path):
    net = network()
    net.parameters.named()["linear1.bias"][3] = -70_000
    with pytest.raises(ValueError, match=r"^linear1.bias: found numbers up to 7e\+04, expected at"):
        save(net, tmp_path / "model", storage="float16")
    assert not (tmp_path / "model").exists()
    save(net, tmp_path / "model", storage="bfloat16")
    with pytest.raises(ValueError, match="storage: found 'int4', expected one of full, float16"):
        save(net, tmp_path / "model", storage="int4")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("int8", "found a network of floats, expected one that quantize"),
        ("bits", "BinaryConv2d or"),
    ],
)
def test_a_network_that_is_not_made_for_it_is_refused(storage, message, tmp_path, capsys):
    with pytest.raises(ValueError, match=message):
        save(network(), tmp_path / "model", storage=storage)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("storage", [name for name in STORAGES if name != "bits"])
def test_the_command(storage, tmp_path, capsys):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    net = network()
    save(net, source)
    data = ["--data", "mnist"] if storage == "int8" else []
    assert main([str(source), str(target), "--storage", storage, *data]) == 0
    line = capsys.readouterr().out
    assert f"{target}: the model of {source}, " in line
    assert (f"{target.stat().st_size:,} bytes" in line) == (storage != "full")
    assert ("so that float32 computes them exactly" in line) == (storage == "int8")
    expected, found = net.predict(digits()), load(target).predict(digits())
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_the_command_refuses(tmp_path, capsys):
    source = tmp_path / "in.safetensors"
    save(network(), source)
    assert main([str(source), str(tmp_path / "out.safetensors"), "--storage", "int8"]) == 2
    assert "found no data set named in it, expected --data" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "out.safetensors"), "--storage", "bits"]) == 2
    assert "storage bits: found no layer that computes with" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "out.pth"), "--storage", "float16"]) == 2
    assert "--storage float16: found" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "out.safetensors"), "--data", "mnist"]) == 2
    assert "--storage full: found --data or --data-dir, which" in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    names = ["--classes", str(tmp_path / "names.txt")]
    assert main([str(source), str(tmp_path / "out.pth"), *names]) == 2
    assert "out.pth: found --classes, and a state_dict has no" in capsys.readouterr().err


def test_units_of_whole_numbers_come_from_data_of_ones_own(tmp_path, capsys):
    images = digits() // 2
    np.savez(tmp_path / "own.npz", x_train=images, y_train=np.arange(len(images)) % 10)
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save(network(), source)
    own = ["--storage", "int8", "--data-dir", str(tmp_path / "own.npz")]
    assert main([str(source), str(target), *own]) == 0
    found = next(leaf for leaf in load(target).body.leaves() if isinstance(leaf, Quantize))
    assert found.scale == pytest.approx(images.max() / 255 / 255, rel=0.02)
