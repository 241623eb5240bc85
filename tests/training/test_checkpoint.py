"""A checkpoint comes back as it was written, or is refused in one line."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from distnet.base import files
from distnet.training.files import checkpoint as module
from distnet.training.files.checkpoint import Checkpoint, CheckpointError, load, save
from distnet.training.files.checkpoint_directory import (
    best_path,
    checkpoint_path,
    latest,
    prune,
    set_aside,
)
from distnet.training.files.compatibility import check_compatible


def state(step: int = 7, seed: int = 0) -> Checkpoint:
    draw = np.random.default_rng(seed)
    shapes = {"conv1.weight": (2, 1, 3, 3), "conv1.bias": (2,), "linear1.weight": (8, 3)}
    params = {f"params.{name}": draw.normal(size=s) for name, s in shapes.items()}
    arrays = {name: array.astype(np.float32) for name, array in params.items()}
    size = sum(array.size for array in params.values())
    arrays |= {f"optimizer.{name}": draw.normal(size=size).astype(np.float32) for name in "mv"}
    return Checkpoint(
        step=step,
        state=arrays | {"statistics.norm1.mean": draw.normal(size=2)},
        config={"model": "ünet", "lr": 0.1, "seed": seed, "batch_size": 100},
        fingerprint={"numpy": np.__version__, "blas_threads": "1"},
        record={"loss_sum": 0.1 + 0.2, "num_samples": 300},
        model={"classes": ["a", "ü"]},
    )


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    arrays, expected = one.state, other.state
    assert set(arrays) == set(expected)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])
    for name in ("step", "config", "fingerprint", "record", "model"):
        assert getattr(one, name) == getattr(other, name)


def save_in(directory: Path, *steps: int) -> list[Path]:
    paths = [checkpoint_path(directory, step) for step in steps]
    for step, path in zip(steps, paths, strict=True):
        save(path, state(step))
    return paths


def error_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.isprintable(), "an error is one line"
    assert str(path) in message
    return message


def test_what_was_saved_is_loaded(tmp_path):
    (path,) = save_in(tmp_path, 7)
    assert path.name == "step-00000007.safetensors"
    assert_same(load(path), state(7))
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no temporary file is left"


def test_views_and_empty_parts_survive(tmp_path):
    flat = np.arange(12, dtype=np.float32)
    odd = replace(
        state(),
        state={
            "params.slice": flat[1::2],
            "params.transposed": flat.reshape(3, 4).T,
            "optimizer.none": flat[:0],
        },
    )
    save(tmp_path / "x", odd)
    assert_same(load(tmp_path / "x"), odd)


def test_loaded_arrays_are_independent_of_the_file(tmp_path):
    (path,) = save_in(tmp_path, 7)
    loaded = load(path)
    loaded.state["params.conv1.bias"][:] = 0
    assert_same(load(path), state(7))
    path.unlink()
    assert not loaded.state["params.conv1.bias"].any()


def test_equal_states_give_equal_files_in_every_process(tmp_path):
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_checkpoint import save, state, Path
        save(Path(sys.argv[1]), state())
    """
    for name in "ab":
        subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path / name], check=True)
    save(tmp_path / "c", state())
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1
    save(tmp_path / "d", state(step=8))
    assert (tmp_path / "d").read_bytes() not in contents


def test_other_programs_can_read_the_file(tmp_path):
    (path,) = save_in(tmp_path, 7)
    tensors = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(tensors["params.conv1.bias"], state().state["params.conv1.bias"])
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert metadata["step"] == "7"
    assert json.loads(metadata["config"]) == state().config


def test_the_old_file_survives_a_writer_that_fails(tmp_path, monkeypatch):
    (path,) = save_in(tmp_path, 7)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left") as full_disk:
        save(path, state(8))
    assert str(full_disk.value) == f"[Errno 28] No space left on device: {str(path)!r}"
    assert load(path).step == 7
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_no_damaged_checkpoint(tmp_path):
    save_in(tmp_path, 1)
    code = f"""
        import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_checkpoint import save_in, Path
        from distnet.base import files
        files.sync = lambda descriptor: os.kill(os.getpid(), 9)
        save_in(Path(sys.argv[1]), 2)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path])
    assert ended.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2, "the partial file is there"
    newest = latest(tmp_path)
    assert (newest.path, newest.warnings) == (checkpoint_path(tmp_path, 1), [])
    prune(tmp_path, keep=3, step=1)
    assert list(tmp_path.iterdir()) == [checkpoint_path(tmp_path, 1)]


def test_latest_is_the_highest_step(tmp_path):
    assert latest(tmp_path / "missing").path is None
    assert latest(tmp_path).checkpoint is None
    save_in(tmp_path, 9, 100_000_000, 20)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "step-99999999999.safetensors.bak").touch()
    newest = latest(tmp_path)
    assert newest.path == checkpoint_path(tmp_path, 100_000_000)
    assert newest.checkpoint is not None
    assert (newest.checkpoint.step, newest.warnings) == (100_000_000, [])


def test_latest_passes_over_damaged_files_and_says_so(tmp_path):
    first, second, third, fourth = save_in(tmp_path, 1, 2, 3, 4)
    fourth.write_bytes(b"")
    third.write_bytes(third.read_bytes()[:-1])
    second.write_bytes(flipped(second.read_bytes(), -3))
    newest = latest(tmp_path)
    assert newest.path == first
    for path, warning in zip((fourth, third, second), newest.warnings, strict=True):
        assert warning.startswith(f"{path}: ") and warning.endswith("; trying the one before it")
    first.unlink()
    none = latest(tmp_path)
    assert none.path is None
    assert not any("before it" in problem for problem in none.problems), "there is none before it"


def test_prune_keeps_the_newest_up_to_the_step(tmp_path):
    paths = save_in(tmp_path, 1, 2, 3, 4, 9)
    prune(tmp_path, keep=0, step=4)
    assert sorted(tmp_path.iterdir()) == paths
    prune(tmp_path, keep=2, step=4)
    assert sorted(tmp_path.iterdir()) == paths[2:], "a step beyond is not ours to delete"
    prune(tmp_path, keep=1, step=4)
    assert sorted(tmp_path.iterdir()) == paths[3:]


def test_what_is_later_is_set_aside(tmp_path):
    early, late = save_in(tmp_path, 3, 5)
    best = best_path(tmp_path)
    save(best, state(3))
    assert set_aside(tmp_path, 5) is None
    aside = set_aside(tmp_path, 3)
    assert aside is not None
    assert latest(tmp_path).path == early
    assert [path.name for path in aside.iterdir()] == [late.name]
    best.write_bytes(b"damaged")
    again = set_aside(tmp_path, 0)
    assert again is not None and again != aside
    assert [path.name for path in aside.iterdir()] == [late.name], "as it was"
    assert {path.name for path in again.iterdir()} == {early.name, best.name}
    assert latest(tmp_path).path is None
    assert load(again / early.name).step == 3
    assert set_aside(tmp_path / "missing", 0) is None


def flipped(content: bytes, at: int) -> bytes:
    data = bytearray(content)
    data[at] ^= 1
    return bytes(data)


def test_each_kind_of_damage_has_its_line(tmp_path):
    (path,) = save_in(tmp_path, 7)
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    cases = {
        "found 0 bytes": b"",
        "found 5 bytes": content[:5],
        f"expected a header of {header + 8} and tensors": content[: header // 2],
        f"a header of {2**63 + 8} and": (2**63).to_bytes(8, "little") + content[8:],
        "truncated, or no safetensors file": b"not a checkpoint, just text",
        "damaged or truncated": content[:-1],
        "damaged (SHA-256": flipped(content, -1),
        "damaged (SHA-256 of the content": content.replace(b'"step":"7"', b'"step":"8"'),
        "found checkpoint version '3', expected '2'": content.replace(
            b'"version":"2"', b'"version":"3"'
        ),
        "found a safetensors file, expected a distnet checkpoint": safetensors.numpy.save({}),
    }
    for expected, damaged in cases.items():
        path.write_bytes(damaged)
        assert expected in error_of(path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        assert "found no file, expected a checkpoint" in error_of(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F8_E5M2", "shape": [2], "data_offsets": [0, 2]},
        {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]},
        {"dtype": "U8", "shape": [1] * 100 + [2], "data_offsets": [0, 2]},
        {"dtype": "F32", "shape": [2**64 - 1, 0], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
    ],
    ids=lambda entry: f"{entry['dtype']} {str(entry['shape'])[:24]}",
)
def test_hostile_headers_are_refused(tmp_path, entry):
    header = json.dumps({"params.x": entry}).encode()
    body = b"\0" * min(entry["data_offsets"][1], 2)
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + body)
    assert "damaged or truncated" in error_of(tmp_path / "x")


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"weights": np.zeros(1)}, {}),
        ({"model.x": np.zeros(1)}, {}),
        ({}, {"step": "x"}),
        ({}, {"step": None}),
        ({}, {"config": "[1]"}),
        ({}, {"config": "[" * 100_000}),
        ({}, {"fingerprint": "7"}),
        ({}, {"record": "true"}),
    ],
)
def test_a_checksum_does_not_make_a_checkpoint(tmp_path, tensors, metadata):
    fields = {"format": "distnet", "version": "2", "step": "1"}
    fields |= dict.fromkeys(("config", "fingerprint", "record", "model"), "{}")
    fields = {key: value for key, value in (fields | metadata).items() if value is not None}
    fields["sha256"] = module._digest(tensors, fields)
    safetensors.numpy.save_file(tensors, tmp_path / "x", fields)
    assert "not a distnet checkpoint" in error_of(tmp_path / "x")


def test_2000_mutations_are_harmless_or_refused(tmp_path):
    (path,) = save_in(tmp_path, 7)
    content, draw = path.read_bytes(), np.random.default_rng(21)
    refused = 0
    for _ in range(2000):
        path.write_bytes(mutated(content, draw))
        try:
            loaded = load(path)
        except CheckpointError as error:
            refused += 1
            assert str(error).isprintable()
        else:
            assert_same(loaded, state(7))
    assert refused > 1500


def mutated(content: bytes, draw: np.random.Generator) -> bytes:
    """Bytes changed, one of them mostly in the header, or a piece cut out, doubled or cut off."""
    data = bytearray(content)
    at = int(draw.integers(0, len(data)))
    length = int(draw.integers(1, 64))
    match draw.integers(0, 6):
        case 0:
            data[at] ^= 1 << draw.integers(0, 8)
        case 1:
            data[draw.integers(0, 8)] = draw.integers(0, 256)
        case 2:
            data[draw.integers(8, 900)] = draw.choice(list(b'0123456789"[]{},:\\ \n\xff'))
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length]
        case _:
            del data[at:]
    return bytes(data)


def test_a_run_goes_on_from_its_own_checkpoint():
    check_compatible(state(7), state(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": state().config | {"lr": 0.2}}, "lr: found 0.1, expected 0.2"),
        ({"config": state().config | {"new": 1}}, "new: found nothing, expected 1"),
        ({"config": {"model": "ünet"}}, "lr: found 0.1, expected nothing"),
        (
            {"params.conv1.bias": np.zeros(3, np.float32)},
            "params.conv1.bias: found float32 (2,), expected float32 (3,)",
        ),
        (
            {"params.conv2.bias": np.zeros(3, np.float32)},
            "params.conv2.bias: found nothing, expected float32 (3,)",
        ),
        ({"optimizer.m": None}, "optimizer.m: found float32 (44,), expected nothing"),
        (
            {"statistics.norm1.mean": np.zeros(2, np.float32)},
            "statistics.norm1.mean: found float64 (2,), expected float32 (2,)",
        ),
    ],
)
def test_another_run_is_told_what_differs(change, message):
    with pytest.raises(CheckpointError) as caught:
        own = state(0)
        arrays = {name: array for name, array in change.items() if name not in ("config",)}
        changed = {name: array for name, array in (own.state | arrays).items() if array is not None}
        config = change.get("config", own.config)
        check_compatible(state(7), replace(own, config=config, state=changed))
    assert f"checkpoint of step 7: {message}; resume with what wrote it" in str(caught.value)
