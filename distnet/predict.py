"""`distnet predict RUN_OR_FILE ... FILES ...`: which classes images are of, with probabilities.

Several networks are an ensemble, whose probabilities are the mean of theirs. Under mpirun the ranks
share the images out, and find the same numbers. Exit code 2 and one line for what cannot be used.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.base.blas import one_blas_thread
from distnet.base.images import large_floats_hint
from distnet.base.options import ConfigError, argument, option, parse_options, with_default
from distnet.base.output import write_now
from distnet.base.tables import aligned
from distnet.data import DataError
from distnet.data.dataset import digest
from distnet.data.formats.pictures import DIGIT_SHAPE, PREPARATIONS
from distnet.data.image_files import read_images
from distnet.device import CPU, choose_device
from distnet.models.published import IMAGENET
from distnet.nn import Ensemble, Network, softmax
from distnet.nn.network import PREDICT_BLOCK
from distnet.parallel import Communicator, agree, run_command, together
from distnet.parallel.dealing import deal
from distnet.training.config import TrainConfig
from distnet.training.files import model_file
from distnet.training.job import DONE, NOT_WRITTEN
from distnet.training.known_answer import expect_same_bits
from distnet.training.placement import devices

DIGITS = ("mnist", "qmnist", "emnist")  # how the names of data sets begin that are made like MNIST
NUM_BEST = 3  # classes that a line of the table shows


@dataclass(frozen=True)
class PredictOptions:
    """Tells which classes images are of; under mpirun the ranks share the images out."""

    model: str = argument("directory of a run, checkpoint or model file", "RUN_OR_FILE", path=True)
    files: tuple[str, ...] = argument(
        ".npy or .npz arrays, IDX files, pictures; more runs and model files (.safetensors) may "
        "stand in front of them, which make an ensemble",
        "FILES",
        several=True,
        path=True,
    )
    pictures: str = option(
        "auto",
        "what is in pictures. digits: one, drawn or photographed, dark or light and anywhere on "
        "paper, prepared as MNIST's were; plain: scaled and cropped about the centre; imagenet: "
        "their middle, as networks for ImageNet are evaluated; auto: as suits what the network was "
        "trained on: digits for MNIST, QMNIST, EMNIST, and for classes 0 to 9 if no more is known; "
        "plain for pictures of your own; imagenet for published weights",
        group="input",
        choices=("auto", *PREPARATIONS),
    )
    device: str = with_default(TrainConfig, "device", "cpu")
    json: bool = option(False, "JSON in place of a table", group="output")

    @property
    def models(self) -> tuple[str, ...]:
        """The first argument, and what of the next ones is a network too."""
        return (self.model, *takewhile(_is_network, self.files))

    @property
    def images(self) -> tuple[str, ...]:
        """Files with images; raises ConfigError if there are none."""
        if images := self.files[len(self.models) - 1 :]:
            return images
        raise ConfigError(f"found no FILES behind {self.models[-1]}, expected images")


@dataclass(frozen=True)
class Prediction:
    """The probabilities `(K,)` of an image, which is number `image` of `file`, from 0."""

    file: str
    image: int
    probabilities: Array


def predict(comm: Communicator, argv: Sequence[str]) -> int:
    """The command on one of the ranks of `comm`."""
    options = together(comm, lambda: parse_options(PredictOptions, argv, "distnet predict"))
    agree(comm, asdict(options))
    files = together(comm, lambda: options.images)
    checkpoints = model_file.read_alike(comm, options.models)
    device = together(comm, lambda: choose_device(options.device, comm.node.rank))
    network = together(comm, lambda: model_file.classifiers_of(checkpoints, options.models, device))
    expect_same_bits(comm, network.arithmetic, device)
    computing = devices(comm, device)
    prepare = preparation(options.pictures, checkpoints[0].model, network.input_shape)
    found = together(comm, lambda: _read(files, network, prepare))
    agree(comm, {file: digest([images]) for file, images in found})
    for file, images in found:
        if comm.rank == 0 and (hint := large_floats_hint(images)):
            write_now(sys.stderr, f"distnet: warning: {file}: {hint}\n")
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):  # an error says it
        logits = [(file, shared_logits(network, images, comm)) for file, images in found]
    together(comm, lambda: _expect_numbers(logits))
    predictions = [
        Prediction(file, number, probabilities)
        for file, of_file in logits
        for number, probabilities in enumerate(softmax(of_file, network.arithmetic))
    ]
    if comm.rank:
        return DONE
    if options.device != CPU:
        write_now(sys.stderr, f"distnet: device {computing}\n")
    classes = network.classes
    lines = _json(predictions, classes) if options.json else _table(predictions, classes)
    return NOT_WRITTEN if write_now(sys.stdout, "\n".join(lines) + "\n") else DONE


def main(argv: Sequence[str]) -> int:
    """`distnet predict`; returns the exit code."""
    return run_command(lambda comm: predict(comm, argv), os.environ)


def shared_logits(network: Network | Ensemble, images: Array, comm: Communicator) -> Array:
    """`network.predict(images)` with the same bits on all ranks, each of which computes a part."""
    starts = range(0, len(images), PREDICT_BLOCK)
    mine = deal(len(starts), comm.rank, comm.size)
    own = images[mine.start * PREDICT_BLOCK : mine.stop * PREDICT_BLOCK]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rank 0 has said it for all
        logits = network.predict(own) if mine else None  # there may be more ranks
    parts = comm.allgather(logits)
    return np.concatenate([part for part in parts if part is not None])


def _is_network(path: str) -> bool:
    """Whether it is to be opened as a network: a directory, or a file of that kind."""
    return Path(path).is_dir() or Path(path).suffix == ".safetensors"


def preparation(pictures: str, model: Mapping[str, Any], input_shape: Shape) -> str:
    """How pictures are prepared: as `pictures` says, or as suits what the model was trained on."""
    if pictures != "auto":
        return pictures
    data = model.get("data", {})
    if data.get("pictures") in PREPARATIONS:  # it was trained on files that were prepared so
        return str(data["pictures"])
    trained_on = str(data.get("name", ""))
    are_digits = not trained_on and list(model.get("classes", ())) == list("0123456789")
    if (are_digits or trained_on.startswith(DIGITS)) and input_shape == DIGIT_SHAPE:
        return "digits"
    return "imagenet" if trained_on == IMAGENET else "plain"


def _read(
    files: Sequence[str], network: Network | Ensemble, prepare: str
) -> list[tuple[str, Array]]:
    shape = network.input_shape
    return [(file, read_images(Path(file), shape, prepare=prepare)) for file in files]


def _expect_numbers(logits: Sequence[tuple[str, Array]]) -> None:
    """Raises DataError for an image whose outputs are no finite numbers."""
    for file, of_file in logits:
        if not (finite := np.isfinite(of_file).all(axis=1)).all():
            raise DataError(
                f"{file}: the outputs for image {int((~finite).argmax())}, counted from 0, are no "
                "finite numbers; its pixels are probably too large"
            )


def _json(predictions: Sequence[Prediction], classes: Sequence[str]) -> Iterator[str]:
    """One list, a line for each image."""
    entries = [
        json.dumps(
            {
                "file": each.file,
                "image": each.image,
                "class": classes[int(each.probabilities.argmax())],
                "probabilities": dict(zip(classes, map(float, each.probabilities), strict=True)),
            }
        )
        for each in predictions
    ]
    yield "[" + ",\n".join(entries) + "]"


def _table(predictions: Sequence[Prediction], classes: Sequence[str]) -> list[str]:
    """A line for each image: the most probable classes."""
    rows = [["file", "image", "class", "probability", "then"]]
    for each in predictions:
        order = np.argsort(-each.probabilities, kind="stable")[:NUM_BEST]
        shown = [(classes[k], f"{each.probabilities[k]:.2%}") for k in order]
        others = ", ".join(f"{name} {share}" for name, share in shown[1:])
        rows.append([each.file, str(each.image), *shown[0], others])
    return aligned(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
