"""Trained models in files of their own, and out of runs: `save` and `load`.

A model file is a checkpoint without the state of an optimizer. What the network is made of is in
its metadata, so that nothing else is needed to open it, and nothing in it is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array, bad_array
from distnet.base.files import expanded
from distnet.device import Device, DeviceError, compute_on
from distnet.nn.description import describe, rebuild
from distnet.nn.ensemble import Ensemble, expect_alike
from distnet.nn.layers.binary import BinaryConv2d, BinaryLinear
from distnet.nn.network import Network
from distnet.nn.parameters import Parameters
from distnet.nn.quantization import sum_bounds
from distnet.parallel import Communicator, agree, together
from distnet.training.files import checkpoint as checkpoints
from distnet.training.files.checkpoint import Checkpoint, CheckpointError
from distnet.training.files.checkpoint_directory import best_path, latest
from distnet.training.files.storage import BITS, narrowed, widened

# What a file calls the way in which its parameters are held, and the shapes of those that are bits.
STORAGE, SHAPES = "storage", "shapes"
OTHER_KINDS = (".pt", ".pth", ".onnx")  # names of files that others would not understand
CHECKPOINTS = "checkpoints"  # the folder of a run that holds them


def about(network: Network, classes: Sequence[str] = (), **data: Any) -> dict[str, Any]:
    """What a file says of a model: its network, the names of its classes, the data it was for.

    Raises ValueError unless there is one class for each output, or for each channel of outputs that
    are images, or none.
    """
    if classes and len(classes) != network.output_shape[0]:
        raise ValueError(
            f"classes: found {len(classes)}, expected as many as outputs, {network.output_shape}"
        )
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes: found {list(classes)!r:.60}, expected names that differ")
    return {"network": describe(network), "classes": list(classes), "data": data}


def save(
    network: Network, path: Path | str, *, classes: Sequence[str] = (), storage: str = "full"
) -> None:
    """Writes `network`, its parameters and running statistics, to a safetensors file.

    classes: the names of its outputs, in their order. storage: how parameters are held, "full",
    as they are, or in fewer bytes: "float16" and "bfloat16" round them; "int8" keeps every bit of a
    network that `quantize` has made, and "bits" the signs of weights of which only the signs are
    computed with. Raises OSError, and ValueError for a layer with an argument
    that a file cannot hold, for numbers that do not fit, or for the name of a file of another kind.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"save: found {type(network).__name__}, expected a Network; one that an objective or a "
            "detector is made of can be saved, such as objective.network"
        )
    if Path(path).suffix in OTHER_KINDS:
        raise ValueError(
            f"save: found {path}, expected a name that ends in .safetensors; `distnet convert` "
            "makes files for PyTorch and ONNX of one"
        )
    model = about(network, classes or network.classes)
    state = values_of(network.parameters)
    checkpoints.save(expanded(path), stored(Checkpoint(0, state, model=model), storage))


def stored(model: Checkpoint, storage: str) -> Checkpoint:
    """A model file's content with its parameters in fewer bytes; see `save`."""
    if storage == "full":
        return model
    wide = dict(model.state)
    if storage == BITS:
        signs = _signs(model)
        if not signs:
            raise ValueError(
                "storage bits: found no layer that computes with the signs of its weights, "
                "expected a network of BinaryConv2d or BinaryLinear"
            )
        wide |= signs
    elif storage == "int8" and not sum_bounds(network_of(model, "the network")):
        raise ValueError(
            "storage int8: found a network of floats, expected one that quantize has made"
        )
    state = narrowed(wide, storage)
    shapes = {n: array.shape for n, array in wide.items() if array.shape != state[n].shape}
    return replace(model, state=state, model={**model.model, STORAGE: storage, SHAPES: shapes})


def _signs(model: Checkpoint) -> dict[str, Array]:
    """Signs of the weights of binary layers, whose floats are of use for training alone."""
    leaves = network_of(model, "the network").body.named_leaves()
    return {
        f"params.{name}.weight": leaf.computing_weight().copy()
        for name, leaf in leaves
        if isinstance(leaf, BinaryConv2d | BinaryLinear)
    }


def values_of(parameters: Parameters) -> dict[str, Array]:
    """Parameters and running statistics by the names that a file has for them, as views."""
    state = {f"params.{name}": array for name, array in parameters.named().items()}
    statistics = parameters.named_statistics().items()
    return state | {f"statistics.{name}": array for name, array in statistics}


def load(path: Path | str) -> Network:
    """The network in a model file, in a checkpoint or in the directory of a run, ready to predict.

    Of a run it is the best checkpoint, or the newest if there is no best one, with the average of
    the parameters if the run kept one. Raises CheckpointError, one line, for what is missing,
    damaged or of a later version.
    """
    return network_of(read(path), str(path))


def read(path: Path | str) -> Checkpoint:
    """The checkpoint in `path`, a file or the directory of a run."""
    found = _read(expanded(path))
    if STORAGE not in found.model:
        return found
    model = dict(found.model)
    try:
        state = widened(dict(found.state), model.pop(STORAGE), model.pop(SHAPES, {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: found parameters that cannot be read ({error})") from None
    return replace(found, state=state, model=model)


def read_alike(comm: Communicator, paths: Sequence[str]) -> list[Checkpoint]:
    """What `read` gives for each, on every rank, which reads it from a file system of its host.

    Raises AgreedError on all of them if one cannot read, or if they read other files.
    """
    found = together(comm, lambda: [read(path) for path in paths])
    agree(comm, {path: each.sha256 for path, each in zip(paths, found, strict=True)})
    return found


def _read(path: Path) -> Checkpoint:
    if not path.exists():
        raise CheckpointError(
            f"{path}: found no file, expected the directory of a run, a checkpoint or a model file"
        )
    if not path.is_dir():
        return checkpoints.load(path)
    directory = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    if best_path(directory).exists():
        return checkpoints.load(best_path(directory))
    newest = latest(directory)
    if newest.checkpoint is None:
        raise CheckpointError(f"{path}: {newest.nothing}, expected the directory of a run")
    return newest.checkpoint


def initialize(network: Network, path: Path | str) -> str:
    """Gives the layers of `network` their values in a file or run, see `load`, if all are there.

    A layer that has another name or shape there keeps what it started with, such as the last one
    for other classes. Returns a line that says which, and whether as many classes had other names.
    Raises CheckpointError if none is there, or if there is NaN or an infinity.
    """
    checkpoint, parameters = read(path), network.parameters
    own = parameters.named() | parameters.named_statistics()
    found = checkpoint.part("params") | checkpoint.part("statistics")
    expect_finite(found, str(path))
    layers = dict.fromkeys(_layer(name) for name in own)
    odd = {_layer(n) for n, array in own.items() if n not in found or found[n].shape != array.shape}
    if odd.issuperset(layers):
        raise CheckpointError(
            f"{path}: found no layer with a name and shape of this network, expected some of "
            f"{', '.join(list(layers)[:4])}"
        )
    parameters.load({n: own[n] if _layer(n) in odd else found[n] for n in own})
    anew = [layer for layer in layers if layer in odd]
    rest = f"; begun anew, as they are not there in this shape: {', '.join(anew)}" if anew else ""
    if list(layers)[-1] not in anew and (other := other_class(checkpoint, network.classes)):
        rest += f"; {other} here"
    return f"weights from {path} in {len(layers) - len(anew)} of {len(layers)} layers{rest}"


def other_class(checkpoint: Checkpoint, classes: Sequence[str]) -> str:
    """The first class that a checkpoint calls otherwise, in words; "" if there is none."""
    for number, (found, own) in enumerate(zip(_classes(checkpoint), classes, strict=False)):
        if found != own:
            return f"class {number} is {found!r:.60} there and {own!r:.60}"
    return ""


def _classes(checkpoint: Checkpoint) -> tuple[str, ...]:
    return tuple(map(str, checkpoint.model.get("classes", ())))


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def network_of(checkpoint: Checkpoint, source: str) -> Network:
    """The network that a checkpoint describes, with its values; raises CheckpointError."""
    try:
        params = checkpoint.part("params")
        size = sum(array.size for array in params.values())
        network = rebuild(checkpoint.model["network"], size)
        network.classes = _classes(checkpoint)
        # Of a run with --ema the average is what was evaluated.
        values = params | checkpoint.part("optimizer.average")
        network.parameters.load(values | checkpoint.part("statistics"))
    except KeyError as error:
        raise CheckpointError(
            f"{source}: found no {error} in it, expected a file that says what its network is made "
            "of; `distnet convert` makes one of the book's weights"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    return network


def classifier_of(checkpoint: Checkpoint, source: str) -> Network:
    """The network of a file that is said to tell classes apart, by numbers; or CheckpointError."""
    network = network_of(checkpoint, source)
    if not network.classes:
        raise CheckpointError(
            f"{source}: found a network whose outputs have no names, expected a classifier; if it "
            "is one, save it with classes=[...]"
        )
    if len(network.output_shape) != 1:
        raise CheckpointError(
            f"{source}: found a network with outputs of shape {network.output_shape}, expected a "
            "classifier, (K,); in Python, distnet.load(...).predict gives them"
        )
    expect_finite(values_of(network.parameters), source)
    return network


def expect_finite(state: Mapping[str, Array], source: str) -> None:
    """Raises CheckpointError for NaN or an infinity, with which no network has an answer."""
    if name := bad_array(state):
        found = "NaN" if np.isnan(state[name]).any() else "an infinite number"
        raise CheckpointError(f"{source}: found {found} in {name}, expected numbers")


def classifiers_of(
    checkpoints: Sequence[Checkpoint], sources: Sequence[str], device: Device | None = None
) -> Network | Ensemble:
    """The classifier, or the ensemble of several, on a device or the CPU; raises CheckpointError
    also if they differ, and DeviceError for what cannot be computed there.
    """
    networks = [classifier_of(*each) for each in zip(checkpoints, sources, strict=True)]
    for source, network in zip(sources, networks, strict=True):
        try:
            expect_alike(networks[0], network)
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}, {sources[0]}") from None
        if device is not None:
            try:
                compute_on(network, device)
            except DeviceError as error:
                raise DeviceError(f"{source}: {error}") from None
    return Ensemble(networks) if len(networks) > 1 else networks[0]
