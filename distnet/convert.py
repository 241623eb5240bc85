"""`distnet convert IN OUT`: model files of runs, of the book's and torchvision's weights, and back.

Of a run it is the network that `distnet.load` opens, with what it was trained on, without the state
of the optimizer.

Of torchvision it reads the `state_dict` of a model that distnet has, a `.pt`, `.pth` or safetensors
file (`models.published`), and finds out which it is; to OUT.pt or OUT.pth, or with `--published` to
OUT.safetensors, it writes one, with torchvision's names and layouts. That of another network has
the names that its layers have here; `--like` says which network such a file is of.

To OUT.onnx it writes the network in evaluation mode for onnxruntime and others
(`training.onnx_file`).

Of the book it reads a pickle that it publishes, `ch03/sample_weight.pkl`, `ch07/params.pkl` or
`ch08/deep_convnet_params.pkl`, or one that its `save_params` wrote, of whatever sizes, and writes
the same arrays under distnet's names, in the precision that they have. Nothing in a pickle is
run. Exit code 2 and one line for whatever else it is given.

    network = distnet.load(path)
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.base.command import one_line
from distnet.base.files import expect_none
from distnet.base.options import argument, option, parse_options
from distnet.base.output import write_now
from distnet.base.words import counted
from distnet.data import DataError
from distnet.data.classes import read_class_names
from distnet.data.formats.pickled import read_pickled_arrays
from distnet.data.formats.states import EXPECTED, SAFETENSORS, TORCH, read_state, write_state
from distnet.evaluate import EvaluateOptions, dataset_for
from distnet.models import MODELS
from distnet.models.book import DIGITS
from distnet.models.book_weights import Settings, from_book
from distnet.models.published import (
    IMAGENET,
    State,
    from_published,
    left_out,
    load_state,
    published_standardize,
    to_state,
)
from distnet.models.scaling import COLOURS
from distnet.nn import Network, quantize
from distnet.nn.description import describe
from distnet.nn.quantization import EXACT, sum_bounds
from distnet.training.files import checkpoint, model_file
from distnet.training.files.checkpoint import Checkpoint
from distnet.training.files.model_file import about, values_of
from distnet.training.files.onnx_file import SUFFIX as ONNX
from distnet.training.files.onnx_file import write_onnx
from distnet.training.files.storage import STORAGES

NUM_CALIBRATING = 500


@dataclass(frozen=True)
class ConvertOptions:
    """Writes a model file: of a run, a checkpoint, the book's or torchvision's weights."""

    source: str = argument(
        "directory of a run, checkpoint, file of the book such as params.pkl, or a state_dict of "
        "torchvision's, such as resnet18.pth",
        "IN",
        path=True,
    )
    target: str = argument(
        "the file to write: .safetensors for distnet, .pt or .pth for PyTorch, or .onnx",
        "OUT",
        path=True,
    )
    published: bool = option(
        False, "a target in .safetensors is to be a state_dict as well", group="files"
    )
    overwrite: bool = option(False, "replace a file that is there", group="files")
    like: str = option(
        "",
        "directory of a run, checkpoint or model file with the network that a state_dict is of, "
        "where torchvision has no such model",
        group="files",
        metavar="RUN_OR_FILE",
        path=True,
    )
    classes: str = option(
        "",
        "file with the names of the classes: a line for each, or JSON (default: as in IN, or else "
        "their numbers)",
        group="files",
        metavar="FILE",
        path=True,
    )
    image_size: int = option(
        0,
        "rows and columns that the network of a state_dict reads; 0: those it was published for",
        group="network",
        metavar="N",
        limits={">=": 0, "<=": 4096},
    )
    standardize: str = option(
        "auto",
        "what the network of a state_dict does first to pixels between 0 and 1; auto: what "
        "torchvision's weights expect, if they are for 1000 classes of colour pictures",
        group="network",
        choices=("auto", "none", *COLOURS),
    )
    storage: str = option(
        "full",
        "how the file holds parameters: full: as they are; float16, bfloat16: rounded, in half of "
        "the bytes; int8: the network computes with whole numbers of 8 bits from now on; bits: the "
        "signs of weights of which only signs are computed with",
        group="storage",
        choices=STORAGES,
    )
    data: str = option(
        "",
        f"data set, a name or a path: {NUM_CALIBRATING} of its training images decide the units of "
        "int8 (default: the one that IN was trained on)",
        group="storage",
        metavar="NAME",
    )
    data_dir: str = option(
        "", "directory with the files of that data set", group="storage", metavar="DIR", path=True
    )
    activation: str = option(
        "sigmoid",
        "of two_layer's hidden units, which the file does not say: sigmoid as in the book's "
        "chapter 4, relu as in chapter 5",
        group="network",
        choices=("sigmoid", "relu"),
    )


@one_line(ValueError, OSError)
def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    options = parse_options(ConvertOptions, argv, "distnet convert")
    source, target = Path(options.source), Path(options.target)
    if target.suffix not in (SAFETENSORS, ONNX, *TORCH):
        raise ValueError(f"{target}: found no name of a file of arrays, {EXPECTED}, or {ONNX}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: found no directory, expected one for the file")
    _check_target(target)
    if options.storage != "int8" and (options.data or options.data_dir):
        raise ValueError(
            f"--storage {options.storage}: found --data or --data-dir, which are for int8"
        )
    is_state = options.published or target.suffix in TORCH
    if is_state and options.classes:
        raise ValueError(f"{target}: found --classes, and a state_dict has no names of classes")
    expect_none(target, overwrite=options.overwrite)
    what, model = _reader(source)(source, options)
    model_file.expect_finite(model.state, str(source))
    if options.classes:
        names, told = _told_apart(read_class_names(Path(options.classes)))
        model, what = _with_classes(model, names, source), what + told
    note = ""
    if target.suffix == ONNX:
        if options.published or options.storage != "full":
            raise ValueError(
                f"{target}: found --published or --storage, which are for other files than {ONNX}"
            )
        network = model_file.network_of(model, str(source))
        write_onnx(target, network, _described(model, network.classes))
        what += _in_floats(network)
    elif is_state:
        if options.storage != "full":
            raise ValueError(f"--storage {options.storage}: found {target}, expected a model file")
        network = model_file.network_of(model, str(source))
        write_state(target, to_state(network))
        what += "".join(f", without its {each}" for each in left_out(network))
        what += _in_floats(network)
    else:
        if options.storage == "int8":
            what += _in_floats(model_file.network_of(model, str(source)))
            model, note = _quantized(model, source, options)
        checkpoint.save(target, model_file.stored(model, options.storage))
    size = sum(array.size for array in model.part("params").values())
    if options.storage != "full":
        note = f", {target.stat().st_size:,} bytes{note}"
    write_now(sys.stdout, f"{target}: {what}, {size:,} parameters{note}\n")
    return 0


def _check_target(target: Path) -> None:
    """Raises ValueError for a file from which training can go on, as no model file can be."""
    if not target.is_file():
        return
    try:
        is_of_run = bool(checkpoint.load(target).record)
    except checkpoint.CheckpointError:
        return
    if is_of_run:
        raise ValueError(f"{target}: found a checkpoint of a run there, expected another name")


def _in_floats(network: Network) -> str:
    """What is said of a network that computed in another arithmetic than what is made of it."""
    name = network.arithmetic.name
    return "" if name == "float32" else f", in float32 in place of its {name} arithmetic"


def _told_apart(names: Sequence[str]) -> tuple[list[str], str]:
    """Names that all differ, by the number of the class where needed, and what is said of that.

    Two of ImageNet's classes are called crane.
    """
    counts = Counter(names)
    apart = [
        f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)
    ]
    several = [name for name, count in counts.items() if count > 1]
    return apart, f", with their numbers: classes {', '.join(several)!s:.60}" if several else ""


def _described(model: Checkpoint, classes: Sequence[str]) -> dict[str, str]:
    """What an ONNX file says of a model, beside the network."""
    data = {f"data_{key}": str(value) for key, value in dict(model.model.get("data", {})).items()}
    return {"pixels": "0 to 1", "classes": json.dumps(list(classes)), **data}


def _quantized(model: Checkpoint, source: Path, options: ConvertOptions) -> tuple[Checkpoint, str]:
    """The network in whole numbers, and whether their sums are exact."""
    wanted = EvaluateOptions(models=(str(source),), data=options.data, data_dir=options.data_dir)
    network = model_file.network_of(model, str(source))
    try:
        dataset = dataset_for(wanted, [model.model], network.input_shape, os.environ)
    except DataError as error:
        raise DataError(f"--storage int8, whose units images decide: {error}") from None
    apart = ceil_divide(len(dataset.train.inputs), NUM_CALIBRATING)  # some of every class
    small = quantize(network, dataset.train.inputs[::apart])
    bounds = sum_bounds(small)
    largest, inexact = max(bounds.values()), sum(bound > EXACT for bound in bounds.values())
    note = f"; its sums stay below {largest + 1:,}, so that float32 computes them exactly"
    if inexact:
        note = (
            f"; in {inexact} of {len(bounds)} layers sums may reach {largest:,}, more than the "
            f"{EXACT:,} up to which float32 has every whole number: there they are rounded"
        )
    description = {**model.model, "network": describe(small)}
    return replace(model, state=values_of(small.parameters), model=description), note


Reader = Callable[[Path, ConvertOptions], tuple[str, Checkpoint]]


def _reader(source: Path) -> Reader:
    """What reads a file of that kind: it gives a model file's content, and what to call it."""
    if source.suffix == ONNX:
        raise ValueError(f"{source}: found an ONNX file, which can be written, but not be read")
    if source.suffix in TORCH:
        return _of_torchvision
    if source.suffix == SAFETENSORS and source.is_file():
        return _of_run if checkpoint.is_checkpoint(source) else _of_torchvision
    return _of_book if source.is_file() or source.suffix == ".pkl" else _of_run


def _of_torchvision(source: Path, options: ConvertOptions) -> tuple[str, Checkpoint]:
    _check_unused(source, options, of_book=True)
    state = read_state(source)
    if options.like:
        return _like(source, state, options)
    try:
        expected = published_standardize(state)
        network = from_published(
            state,
            image_size=options.image_size or None,
            standardize=expected if options.standardize == "auto" else options.standardize,
            dtype=np.float64 if _is_double(state) else np.float32,
        )
    except ValueError as error:
        raise ValueError(
            f"{source}: {error}; --like RUN_OR_FILE names the network of any other"
        ) from None
    classes = tuple(map(str, range(network.output_shape[0])))  # until a user names them
    model = about(network, classes, name="" if expected == "none" else IMAGENET)
    return f"the network of {source}", Checkpoint(0, values_of(network.parameters), model=model)


def _like(source: Path, state: State, options: ConvertOptions) -> tuple[str, Checkpoint]:
    """A state in a network that is here already, with what is said of that."""
    if options.image_size or options.standardize != "auto":
        raise ValueError("--like: found it with --image-size or --standardize, which it decides")
    path = Path(options.like)
    found = model_file.read(path)
    network = model_file.network_of(found, str(path))
    try:
        load_state(network, state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}, that of {path}") from None
    values = values_of(network.parameters)
    what = f"the network of {path} with {source}"
    if _is_double(state) and network.parameters.dtype != np.float64:
        what += f", in {network.parameters.dtype} in place of its float64"
    return what, Checkpoint(0, values, model=found.model)


def _is_double(state: State) -> bool:
    return any(array.dtype == np.float64 for array in state.values())


def _check_unused(
    source: Path, options: ConvertOptions, of_book: bool = False, of_state: bool = False
) -> None:
    """Raises ValueError for options that are for a file of the book or for a state_dict."""
    if of_book and options.activation != "sigmoid":
        raise ValueError(f"{source}: found no pickle, --activation is for a file of the book")
    if of_state and (options.image_size or options.standardize != "auto" or options.like):
        raise ValueError(
            f"{source}: found no state_dict, --image-size, --standardize and --like are for one"
        )


def _with_classes(model: Checkpoint, names: Sequence[str], source: Path) -> Checkpoint:
    (num_classes, *_) = model_file.network_of(model, str(source)).output_shape
    if len(names) != num_classes:
        raise ValueError(
            f"--classes: found {counted(len(names), 'name')}, expected {num_classes}, the "
            f"classes of {source}"
        )
    return replace(model, model={**model.model, "classes": list(names)})


def _of_run(source: Path, options: ConvertOptions) -> tuple[str, Checkpoint]:
    _check_unused(source, options, of_book=True, of_state=True)
    found = model_file.read(source)
    parameters = model_file.network_of(found, str(source)).parameters
    return f"the model of {source}", Checkpoint(0, values_of(parameters), model=found.model)


def _of_book(source: Path, options: ConvertOptions) -> tuple[str, Checkpoint]:
    _check_unused(source, options, of_state=True)
    config, params = from_book(read_pickled_arrays(source), str(source))
    if config["model"] == "two_layer":
        config["activation"] = options.activation
    elif options.activation != "sigmoid":
        raise ValueError(f"{source}: found {config['model']}, --activation is for two_layer")
    return config["model"], book_checkpoint(config, params)


def book_checkpoint(config: Settings, params: Mapping[str, Array]) -> Checkpoint:
    """A model file's content: the parameters, and what the network is made of."""
    (dtype,) = {array.dtype for array in params.values()}
    *_, bias = params.values()
    settings = {name: value for name, value in config.items() if name != "model"}
    network = MODELS[config["model"]](DIGITS, bias.size, dtype=dtype, **settings)
    classes = [str(digit) for digit in range(bias.size)]
    state = {f"params.{name}": array for name, array in params.items()}
    return Checkpoint(0, state, config=config, model=about(network, classes, name="mnist"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
