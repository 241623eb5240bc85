"""PyTorch's files: both formats, as PyTorch pickles them; nothing in them runs; damage is told."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from distnet.data import DataError
from distnet.data.formats.states import read_state, write_state
from distnet.data.formats.torch_file import MAGIC, PROTOCOL, STORAGES, read_torch, write_torch

STATE = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.running_var": np.linspace(0, 1, 5),
    "bn.num_batches_tracked": np.array(70_000_000_000),
    "half": np.array([1, -2, 3], np.float16),
    "mask": np.array([[True], [False]]),
    "empty": np.zeros((0, 4), np.float32),
}


class Storage:
    """What PyTorch pickles by a persistent id: numbers, and what they are called in the file."""

    def __init__(self, array, key):
        self.array, self.key = np.ascontiguousarray(array), key


class Tensor:
    """Pickled as a tensor is: a call that rebuilds it from a view of its storage."""

    def __init__(self, storage, shape, strides=None, offset=0, rebuild="_rebuild_tensor_v2"):
        strides = strides or [int(np.prod(shape[i:])) for i in range(1, len(shape) + 1)]
        self.arguments = storage, offset, tuple(shape), tuple(strides), False, {}
        self.rebuild = rebuild

    def __reduce__(self):
        return getattr(sys.modules["torch._utils"], self.rebuild), self.arguments


@pytest.fixture
def torch_names(monkeypatch):
    """Modules of PyTorch's names, so that a pickle can refer to what is in them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    torch.BFloat16Storage = type("BFloat16Storage", (), {"__module__": "torch"})
    for name in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter"):

        def rebuild(*arguments):
            raise AssertionError("it was run")

        rebuild.__module__, rebuild.__qualname__ = "torch._utils", name
        setattr(utils, name, rebuild)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def pickled(torch, content, storages, kind=None, view=()):
    """As `torch.save` pickles: storages by persistent ids; they are noted in `storages`."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            storages[value.key] = value
            name = kind or STORAGES[value.array.dtype]
            return "storage", getattr(torch, name), value.key, "cpu", value.array.size, *view

    file = io.BytesIO()
    Pickler(file, 2).dump(content)
    return file.getvalue()


def zipped(torch, content, compression=zipfile.ZIP_STORED, byteorder="little", kind=None):
    storages, file = {}, io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("resnet/data.pkl", pickled(torch, content, storages, kind))
        archive.writestr("resnet/byteorder", byteorder)
        for key, storage in storages.items():
            archive.writestr(f"resnet/data/{key}", storage.array.tobytes())
    return file.getvalue()


def in_a_row(torch, content, magic=MAGIC, little=True, sizes=None):
    """As before PyTorch 1.6."""
    storages = {}
    head = [magic, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": little}]
    body = pickled(torch, content, storages, view=(None,))
    parts = [*(pickle.dumps(each, 2) for each in head), body, pickle.dumps(list(storages), 2)]
    for storage in storages.values():
        size = sizes or storage.array.size
        parts += [struct.pack("<q", size), storage.array.tobytes()]
    return b"".join(parts)


FORMATS = [zipped, in_a_row]


def tensors():
    return {name: Tensor(Storage(a, str(i)), a.shape) for i, (name, a) in enumerate(STATE.items())}


def check(found, expected=STATE):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, name)
        with pytest.raises(ValueError, match="read-only"):
            found[name][...] = 0


@pytest.mark.parametrize("written", FORMATS)
def test_a_state_dict(tmp_path, torch_names, written):
    path = tmp_path / "x.pth"
    path.write_bytes(written(torch_names, tensors()))
    check(read_torch(path))


class Ordered(dict):
    """As a state dict: an OrderedDict with the versions of the layers as an attribute."""

    def __reduce__(self):
        from collections import OrderedDict

        versions = OrderedDict(conv1={"version": 1})
        return OrderedDict, (), {"_metadata": versions}, None, iter(self.items())


@pytest.mark.parametrize("written", FORMATS)
def test_an_ordered_dict_with_attributes(tmp_path, torch_names, written):
    (tmp_path / "x.pt").write_bytes(written(torch_names, Ordered(tensors())))
    check(read_torch(tmp_path / "x.pt"))


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_parameter, (self.tensor, True, {})


@pytest.mark.parametrize("written", FORMATS)
def test_views_of_one_storage_and_parameters(tmp_path, torch_names, written):
    """Transposed, a part, and the same storage twice."""
    numbers = np.arange(30, dtype=np.float32)
    storage = Storage(numbers, "0")
    content = {
        "transposed": Tensor(storage, (6, 5), (1, 6)),
        "part": Tensor(storage, (2, 3), (6, 2), offset=7, rebuild="_rebuild_tensor"),
        "parameter": Parameter(Tensor(storage, (30,))),
    }
    (tmp_path / "x.pth").write_bytes(written(torch_names, content))
    table = numbers.reshape(5, 6)
    expected = {"transposed": table.T, "part": table[1:3, 1::2], "parameter": numbers}
    check(read_torch(tmp_path / "x.pth"), expected)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    state = STATE | {"turned": STATE["conv1.weight"].T, "big": np.arange(3, dtype=">f4")}
    write_state(path, state)
    found = read_state(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        assert found[name].dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found[name], array)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_types_that_no_tensor_has(tmp_path):
    with pytest.raises(ValueError, match="found an array of complex128, expected one of float64"):
        write_torch(tmp_path / "x.pt", {"a": np.zeros(2, complex)})


def test_other_names_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in .safetensors, .pt or .pth"):
        write_state(tmp_path / "x.onnx", STATE)
    with pytest.raises(DataError, match="found no name of a file of arrays"):
        read_state(tmp_path / "x.onnx")


def test_a_damaged_safetensors_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_state(path, STATE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"x\.safetensors: damaged, or no safetensors file"):
        read_state(path)
    with pytest.raises(DataError, match="found no file"):
        read_state(tmp_path / "y.safetensors")


def refusal(path):
    with pytest.raises(DataError) as caught:
        read_torch(path)
    message = str(caught.value)
    assert message.isprintable() and message.startswith(f"{path}: ") and len(message) < 500
    return message.removeprefix(f"{path}: ")


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("written", FORMATS)
def test_a_malicious_file_is_refused_and_not_run(tmp_path, torch_names, written):
    mark = tmp_path / "was-here"
    (tmp_path / "x.pth").write_bytes(written(torch_names, {"a": Evil(mark)}))
    assert "system', expected arrays only; nothing was run" in refusal(tmp_path / "x.pth")
    assert not mark.exists()


@pytest.mark.parametrize("written", FORMATS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: [Tensor(s, (3,))], "found no dict (list), expected tensors by name"),
        (lambda s: {"a": 3}, "found 'a' of type int, expected tensors only"),
        (lambda s: {"a": {"b": Tensor(s, (3,))}}, "found 'a' of type dict, expected tensors"),
        (lambda s: {3: Tensor(s, (3,))}, "found the name 3, expected text"),
        (lambda s: {"a": Tensor(s, (7,))}, "found a tensor (7,) that does not fit into 6 numbers"),
        (lambda s: {"a": Tensor(s, (2,), (6,))}, "found a tensor (2,) that does not fit"),
        (lambda s: {"a": Tensor(s, (2,), offset=5)}, "found a tensor (2,) that does not fit"),
        (lambda s: {"a": Tensor(s, (9, 9), (0, 0))}, "found a tensor (9, 9) that does not fit"),
        (
            lambda s: {"a": Tensor(s, (2,), (-1,), offset=3)},
            "found a tensor of no storage, or of n",
        ),
        (lambda s: {"a": Tensor(s, (-1, -6))}, "found a tensor of no storage, or of negative"),
        (lambda s: {"a": Tensor(3, (1,))}, "found a tensor of no storage"),
        (lambda s: {"a": Tensor(s, (2,), (1, 1))}, "damaged, or no state dict of PyTorch ('zip()"),
        (lambda s: {"a": print}, "print', expected arrays only; nothing was run"),
        (lambda s: {"a": {1, 2}}, "found '__builtin__.set', expected arrays only"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, torch_names, written, make, message):
    content = make(Storage(np.arange(6, dtype=np.float32), "0"))
    (tmp_path / "x.pth").write_bytes(written(torch_names, content))
    assert message in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (lambda t, c: zipped(t, c, zipfile.ZIP_DEFLATED), "found a compressed archive, expected"),
        (lambda t, c: zipped(t, c, byteorder="big"), "found numbers in big-endian order"),
        (lambda t, c: zipped(t, c, kind="BFloat16Storage"), "found 'torch.BFloat16Storage', exp"),
        (lambda t, c: zipped(t, c, kind="DoubleStorage"), "damaged, or no state dict of PyTorch"),
        (lambda t, c: in_a_row(t, c, magic=3), "found another magic number than PyTorch's"),
        (lambda t, c: in_a_row(t, c, little=False), "found numbers in big-endian order"),
        (lambda t, c: in_a_row(t, c, sizes=7), "found a storage of 7 numbers, expected"),
        (lambda t, c: in_a_row(t, c)[:-1], "damaged, or no state dict of PyTorch"),
        (lambda t, c: zipped(t, c)[:-30], "damaged, or no state dict of PyTorch"),
        (lambda t, c: b"", "damaged, or no state dict of PyTorch"),
        (lambda t, c: b"\x80\x02.", "damaged, or no state dict of PyTorch"),
    ],
)
def test_other_files_are_refused(tmp_path, torch_names, written, message):
    content = {"a": Tensor(Storage(np.arange(6, dtype=np.float32), "0"), (2, 3))}
    (tmp_path / "x.pth").write_bytes(written(torch_names, content))
    assert message in refusal(tmp_path / "x.pth")


def test_a_flipped_bit_is_noticed(tmp_path):
    write_torch(tmp_path / "x.pth", {"a": np.arange(100, dtype=np.float32)})
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[content.index(np.float32(70).tobytes())] ^= 1
    (tmp_path / "x.pth").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "x.pth") and "CRC" in refusal(tmp_path / "x.pth")


def test_entries_that_overlap(tmp_path, torch_names):
    """Many entries that lead to the same bytes would make a small file a large state."""
    numbers = np.zeros(1000, np.float32)
    content = bytearray(zipped(torch_names, {"a": Tensor(Storage(numbers, "0"), (1000,))}))
    directory = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entries = [b"PK\x01\x02" + part for part in bytes(content[directory:end]).split(b"PK\x01\x02")]
    many = b"".join(entries[1:3]) + entries[-1] * 50
    count = struct.pack("<HHL", 52, 52, len(many))
    tail = bytes(content[end : end + 8]) + count + bytes(content[end + 16 :])
    (tmp_path / "x.pth").write_bytes(bytes(content[:directory]) + many + tail)
    assert len(zipfile.ZipFile(tmp_path / "x.pth").infolist()) == 52
    assert "found an archive whose entries overlap" in refusal(tmp_path / "x.pth")


# Beside PyTorch itself.


@pytest.mark.parametrize("old", [False, True])
def test_files_that_pytorch_writes(tmp_path, old):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.BatchNorm2d(4))
    state = layers.state_dict() | {"part": torch.arange(12.0).reshape(3, 4)[1:, :2].t()}
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)
    check(read_torch(tmp_path / "x.pth"), {name: value.numpy() for name, value in state.items()})


def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    write_torch(tmp_path / "x.pt", STATE)
    for mmap in (False, True):
        found = torch.load(tmp_path / "x.pt", weights_only=True, mmap=mmap)
        assert list(found) == list(STATE)
        for name, array in STATE.items():
            np.testing.assert_array_equal(found[name].numpy(), array)
            assert found[name].numpy().dtype == array.dtype
