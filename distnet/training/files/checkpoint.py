"""Checkpoints: the whole state of a run after a step, in one safetensors file.

Nothing in it depends on the number of ranks or on the host, except the fingerprint, so equal states
give equal files. Arrays have the shapes of the book, conv weights `(F, C, KH, KW)` and linear
weights `(in, out)`. Only rank 0 writes.

A file has the tensors of `Trainer.state`, such as `params.NAME`, `optimizer.MOMENT.NAME` and
`statistics.NAME`, and as safetensors metadata `format`, `version`, `step`, `config`, `fingerprint`,
`record` and `model` (JSON), and `sha256` over all that.
Files are complete or absent, and what was damaged later is noticed (`CheckpointError`).
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from distnet.base.errors import DataError
from distnet.base.files import write_atomically

FORMAT, VERSION = "distnet", "2"
ALIGNMENT = 8  # bytes, of the header of a safetensors file
SUM = "sum."  # the prefix of what belongs to the gradient sum
OUTER, ISLAND = "outer.", "island."  # of what belongs to islands, see `islands`
PREFIXES = ("params.", "optimizer.", "statistics.", "memory.", SUM, OUTER, ISLAND)

Arrays = Mapping[str, np.ndarray]


class CheckpointError(DataError):
    """A checkpoint that cannot be used: one line with the file, what was found and expected."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` updates.

    state: the arrays of `Trainer.state` by name; of a model that is only to be used, its parameters
    and statistics.
    config: the options that decide the results (`config.identity`), as JSON can hold them;
    fingerprint: `fingerprint.numerics_fingerprint` of the writer; record: what the run has measured
    so far (`record.Record`), by name; model: what the network is made of, and for which data, see
    `model_file`. sha256: of all this, as the file has it from which it was read.
    """

    step: int
    state: Arrays
    config: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with `prefix` and a dot, by the rest of their names."""
        start = f"{prefix}."
        arrays = self.state.items()
        return {name.removeprefix(start): a for name, a in arrays if name.startswith(start)}


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint, atomically and to disk; raises OSError if that fails.

    The arrays are read once, in this call; they must not change meanwhile.
    """
    tensors = {name: little_endian(array) for name, array in checkpoint.state.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "step": str(checkpoint.step),
        "config": _json(checkpoint.config),
        "fingerprint": _json(checkpoint.fingerprint),
        "record": _json(checkpoint.record),
        "model": _json(checkpoint.model),
    }
    metadata["sha256"] = _digest(tensors, metadata)
    write_atomically(path, *_format(tensors, metadata))


def load(path: Path) -> Checkpoint:
    """Reads and verifies a checkpoint; raises CheckpointError for whatever is not a valid one."""
    _check_size(path)
    metadata, tensors = _read(path)
    _check_format(path, metadata)
    sha256 = metadata.pop("sha256", "")
    if sha256 != _digest(tensors, metadata):
        raise CheckpointError(f"{path}: damaged (SHA-256 of the content is not the recorded one)")
    return replace(_from_file(path, tensors, metadata), sha256=sha256)


def is_checkpoint(path: Path) -> bool:
    """Whether a file says that it is one of distnet's, or is so damaged that it says nothing."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (safetensors.SafetensorError, OSError, MemoryError):
        return True


def _check_size(path: Path) -> None:
    """The length of the header comes from the file: believed only if the file is that long."""
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: found no file, expected a checkpoint")
    try:
        with path.open("rb") as file:
            header_bytes = 8 + int.from_bytes(file.read(8), "little")
            file_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not 8 < header_bytes <= file_bytes:
        raise CheckpointError(
            f"{path}: found {file_bytes} bytes, expected a header of {header_bytes} and tensors:"
            " truncated, or no safetensors file"
        )


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and tensors of a safetensors file."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    # Besides its own errors, for damaged bytes: types that NumPy lacks, shapes that it refuses.
    except (safetensors.SafetensorError, AttributeError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or truncated ({_one_line(error)})") from None


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: found a safetensors file, expected a distnet checkpoint")
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: found checkpoint version {metadata.get('version')!r}, expected {VERSION!r};"
            " read it with the version of distnet that wrote it"
        )


def _from_file(path: Path, tensors: Arrays, metadata: Mapping[str, str]) -> Checkpoint:
    about = ("config", "fingerprint", "record", "model")
    try:
        for name in tensors:
            if not name.startswith(PREFIXES):
                raise ValueError(f"found an array {name!r:.60}")
        config, prints, record, model = (dict(json.loads(metadata[name])) for name in about)
        return Checkpoint(int(metadata["step"]), tensors, config, prints, record, model)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a distnet checkpoint ({_one_line(error)})") from None


def _digest(tensors: Arrays, metadata: Mapping[str, str]) -> str:
    """SHA-256 over metadata, names, types, shapes and bytes, whatever their order in the file."""
    sha = hashlib.sha256(_json(metadata).encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(_json([name, array.dtype.name, array.shape]).encode())
        sha.update(little_endian(array).data)
    return sha.hexdigest()


def _format(tensors: Arrays, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The content of a safetensors file, whose pieces are the arrays themselves.

    safetensors' own writer copies them twice while no other thread of Python can run, and its
    metadata has another order every time.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # aligns them
    stop = 0
    for name in names:
        array, start = tensors[name], stop
        stop += array.nbytes
        kind = f"{array.dtype.kind.upper()}{8 * array.itemsize}"  # F32, F64
        entry = {"dtype": kind, "shape": array.shape, "data_offsets": [start, stop]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    yield from (tensors[name].data for name in names)


def little_endian(array: np.ndarray) -> np.ndarray:
    """In the order of a file: C-contiguous, a copy only if it is not so already."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.isprintable() else ascii(text)
