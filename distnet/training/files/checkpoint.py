"""Checkpoints: the whole state of a run after a step, in one safetensors file.

Nothing in it depends on the number of ranks or on the host, except the fingerprint, so equal states
give equal files. Arrays have the shapes of the book, conv weights `(F, C, KH, KW)` and linear
weights `(in, out)`. Only rank 0 writes.

A file has the tensors of `Trainer.state`, such as `params.NAME`, `optimizer.MOMENT.NAME` and
`statistics.NAME`, and as safetensors metadata `format`, `version`, `step`, `config`, `fingerprint`,
`record` and `model` (JSON), and `sha256` over all that.
Files are complete or absent, and what was damaged later is noticed (`CheckpointError`).
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from distnet.base.files import remove_partial_files, write_atomically

FORMAT, VERSION = "distnet", "2"
ALIGNMENT = 8  # bytes, of the header of a safetensors file
SUM = "sum."  # the prefix of what belongs to the gradient sum
OUTER, ISLAND = "outer.", "island."  # of what belongs to islands, see `islands`
PREFIXES = ("params.", "optimizer.", "statistics.", "memory.", SUM, OUTER, ISLAND)
SET_ASIDE = "set-aside"
LATEST = "latest"  # as a source: the newest valid file of a directory
LENGTH = ("steps", "epochs")  # of which `config` has the one in force, or none
NAME = re.compile(r"step-(\d{8,})\.safetensors")

Arrays = Mapping[str, np.ndarray]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one line with the file, what was found and expected."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` updates.

    state: the arrays of `Trainer.state` by name; of a model that is only to be used, its parameters
    and statistics.
    config: the options that decide the results (`config.identity`), as JSON can hold them;
    fingerprint: `fingerprint.numerics_fingerprint` of the writer; record: what the run has measured
    so far (`record.Record`), by name; model: what the network is made of, and for which data, see
    `model_file`.
    """

    step: int
    state: Arrays
    config: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with `prefix` and a dot, by the rest of their names."""
        start = f"{prefix}."
        arrays = self.state.items()
        return {name.removeprefix(start): a for name, a in arrays if name.startswith(start)}


@dataclass(frozen=True)
class Latest:
    """The newest valid checkpoint of a directory, if any, and one warning per damaged newer one."""

    path: Path | None
    checkpoint: Checkpoint | None
    warnings: list[str]


def checkpoint_path(directory: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return directory / f"step-{step:08d}.safetensors"


def best_path(directory: Path) -> Path:
    """Where the checkpoint with the best test accuracy lies once more, whatever is pruned."""
    return directory / "best.safetensors"


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
    if metadata.pop("sha256", "") != _digest(tensors, metadata):
        raise CheckpointError(f"{path}: damaged (SHA-256 of the content is not the recorded one)")
    return _from_file(path, tensors, metadata)


def is_checkpoint(path: Path) -> bool:
    """Whether a file says that it is one of distnet's, or is so damaged that it says nothing."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (safetensors.SafetensorError, OSError):
        return True


def latest(directory: Path) -> Latest:
    """The newest valid checkpoint in `directory`; changes nothing. Raises OSError."""
    warnings: list[str] = []
    for _, path in sorted(_files(directory), reverse=True):
        try:
            return Latest(path, load(path), warnings)
        except CheckpointError as error:
            warnings.append(f"{error}; trying the one before it")
    return Latest(None, None, warnings)


def by_step(directory: Path) -> dict[int, Path]:
    """The checkpoints in `directory`, by the step after which they were written."""
    return dict(sorted(_files(directory)))


def prune(directory: Path, keep: int, step: int) -> None:
    """Deletes partial files and, of the checkpoints up to `step`, all but the newest `keep`.

    A `keep` of 0 deletes no checkpoint. For the only writer of the directory, after it saved
    `step`.
    """
    remove_partial_files(directory)
    if keep:
        reached = sorted(file for file in _files(directory) if file[0] <= step)
        for _, path in reached[:-keep]:
            path.unlink(missing_ok=True)


def newest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint in `directory`, valid or not; None if there is none."""
    return max((step for step, _ in _files(directory)), default=None)


def set_aside(directory: Path, step: int) -> Path | None:
    """Moves the checkpoints of later steps than `step` to a directory, which is returned, if any.

    For a run that starts at `step` where another one got further: they are not of its own past,
    and must not be what it is resumed from.
    """
    later = [path for number, path in _files(directory) if number > step]
    best = best_path(directory)
    if best.exists() and not _is_reached(best, step):
        later.append(best)
    if not later:
        return None
    aside = new_aside(directory)
    for path in later:
        path.replace(aside / path.name)
    return aside


def new_aside(directory: Path) -> Path:
    """Another directory for what is set aside: "set-aside", "set-aside-2" and so on."""
    for number in count(1):
        aside = directory / (SET_ASIDE if number == 1 else f"{SET_ASIDE}-{number}")
        with contextlib.suppress(FileExistsError):
            aside.mkdir(parents=True)
            return aside
    raise AssertionError("there is no last number")


def remove_all(directory: Path) -> None:
    """Deletes the checkpoints of an earlier run, those set aside excepted."""
    for _, path in list(_files(directory)):
        path.unlink()
    best_path(directory).unlink(missing_ok=True)


def _is_reached(path: Path, step: int) -> bool:
    try:
        return load(path).step <= step
    except CheckpointError:
        return False


def check_compatible(checkpoint: Checkpoint, own: Checkpoint) -> None:
    """Raises CheckpointError unless a run whose state is `own` can go on from `checkpoint`.

    They need the same `config` (where the caller may put more than options, such as a hash of the
    data) and arrays of the same names, shapes and types.
    """
    where = f"checkpoint of step {checkpoint.step}"
    remedy = "resume with what wrote it, or start a new run in another --out"
    for what, found, expected in _contents(checkpoint, own):
        if found != expected:
            raise CheckpointError(f"{where}: {what}: found {found}, expected {expected}; {remedy}")


def with_defaults(
    own: Checkpoint, checkpoint: Checkpoint, defaults: Mapping[str, Any]
) -> Checkpoint:
    """`checkpoint` with `defaults` for the options of `own` that it does not know.

    One of an earlier version was computed as these options are by default. How long a run is
    (LENGTH) has no default: a checkpoint names it only where the schedule depends on it.
    """
    unknown = defaults.keys() & own.config.keys() - checkpoint.config.keys() - set(LENGTH)
    missing = {name: defaults[name] for name in unknown}
    return replace(checkpoint, config={**checkpoint.config, **missing})


def with_reduction_of(own: Checkpoint, checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint` as the start of a run that sums gradients as `own`, whose sum starts anew."""
    found, new = checkpoint.state.items(), own.state.items()
    kept = {name: array for name, array in found if not name.startswith(SUM)}
    fresh = {name: array for name, array in new if name.startswith(SUM)}
    config = {**checkpoint.config, "reduction": own.config["reduction"]}
    return replace(checkpoint, state=kept | fresh, config=config)


def _contents(checkpoint: Checkpoint, own: Checkpoint) -> Iterator[tuple[str, str, str]]:
    """What there is on either side, in words, the most telling first."""
    for key in dict.fromkeys([*own.config, *checkpoint.config]):
        yield key, _described(checkpoint.config, key, repr), _described(own.config, key, repr)
    found, expected = checkpoint.state, own.state
    for name in dict.fromkeys([*expected, *found]):
        yield name, _described(found, name, _shape), _described(expected, name, _shape)


def _described(entries: Mapping[str, Any], name: str, describe: Callable[[Any], str]) -> str:
    return describe(entries[name]) if name in entries else "nothing"


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype.name} {array.shape}"


def _files(directory: Path) -> Iterator[tuple[int, Path]]:
    if directory.is_dir():
        for path in directory.iterdir():
            if match := NAME.fullmatch(path.name):
                yield int(match[1]), path


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
        read = {name: dict(json.loads(metadata[name])) for name in about}
        return Checkpoint(step=int(metadata["step"]), state=tensors, **read)
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
