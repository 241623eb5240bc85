"""`distnet evaluate RUN_OR_FILE ...`: what a trained network gets right on a data set, what not.

Several networks are an ensemble: the mean of their probabilities counts. Under mpirun the ranks
share the samples out, and find the same numbers. The loss is cross-entropy in nats, without the
label smoothing or class weights of the training. Exit code 2 and one line for what cannot be used.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.base.blas import one_blas_thread
from distnet.base.options import argument, option, parse_options, read_unchecked, with_default
from distnet.base.output import write_now
from distnet.base.tables import aligned
from distnet.base.words import counted
from distnet.data import (
    DataError,
    Dataset,
    Samples,
    default_cache_dir,
    load_dataset,
    with_all_as_test,
    with_test,
)
from distnet.data.arrays import checked_samples
from distnet.device import CPU, choose_device
from distnet.nn import Ensemble, Network
from distnet.objectives.confusion import Confusion, EnsembleConfusion, precision_recall_f1
from distnet.parallel import Communicator, agree, run_command, together
from distnet.predict import PredictOptions, preparation
from distnet.training.config import TrainConfig
from distnet.training.evaluation import least_unknown, measure
from distnet.training.files import model_file
from distnet.training.job import DONE, NOT_WRITTEN
from distnet.training.known_answer import expect_same_bits
from distnet.training.placement import devices
from distnet.training.run import EVALUATION_SIZE
from distnet.training.step.feed import Feed

MOST_CLASSES = 25  # of a matrix that fits a terminal
NUM_CONFUSIONS = 10  # that are told of a larger one


@dataclass(frozen=True)
class EvaluateOptions:
    """Tells what a trained network, or several together, get right; mpirun's ranks share it out."""

    models: tuple[str, ...] = argument(
        "directory of a run, checkpoint or model file; several are an ensemble, whose "
        "probabilities are the mean of theirs",
        "RUN_OR_FILE",
        several=True,
        path=True,
    )
    data: str = option(
        "",
        "data set: a name or a path (default: the one it was trained for)",
        group="data",
        metavar="NAME",
    )
    data_dir: str = option(
        "",
        "directory with the files of the data set (default: as in training)",
        group="data",
        metavar="DIR",
        path=True,
    )
    part: str = option("test", "samples of the data set", group="data", choices=("test", "train"))
    pictures: str = with_default(PredictOptions, "pictures", "auto")
    device: str = with_default(TrainConfig, "device", "cpu")
    json: bool = option(False, "JSON in place of tables", group="output")


@dataclass(frozen=True)
class Evaluation:
    """What there is to tell; matrix: `(K, K)`, the classes in rows, what they were taken for."""

    model: str
    data: str
    part: str
    classes: tuple[str, ...]
    loss: float
    accuracy: float
    matrix: Array

    def as_json(self) -> dict[str, Any]:
        """For programs; None is what cannot be divided."""
        names = ("precision", "recall", "f1")
        columns = zip(*precision_recall_f1(self.matrix), strict=True)
        support = self.matrix.sum(axis=1).tolist()
        classes = [
            {"class": name}
            | {
                key: None if np.isnan(x) else float(x)
                for key, x in zip(names, figures, strict=True)
            }
            | {"support": count}
            for name, figures, count in zip(self.classes, columns, support, strict=True)
        ]
        return {
            "model": self.model,
            "data": self.data,
            "part": self.part,
            "samples": sum(support),
            "loss": self.loss,
            "accuracy": self.accuracy,
            "classes": classes,
            "confusion_matrix": self.matrix.tolist(),
        }

    def lines(self) -> list[str]:
        """For people."""
        figures = self.as_json()
        heads = ["class", "precision", "recall", "f1", "support"]
        rows = [[_cell(of_class[key]) for key in heads] for of_class in figures["classes"]]
        samples = counted(figures["samples"], "sample", spec=",")
        return [
            f"{self.model} on {self.data}, {self.part}, {samples}: "
            f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%}",
            "",
            *aligned([heads, *rows]),
            "",
            *self._confusions(),
        ]

    def _confusions(self) -> list[str]:
        if len(self.classes) <= MOST_CLASSES:
            rows = [
                [name, *map(str, row)] for name, row in zip(self.classes, self.matrix, strict=True)
            ]
            return [
                "confusion matrix: classes in rows, what they are taken for in columns",
                "",
                *aligned([["", *self.classes], *rows]),
            ]
        wrong = self.matrix - np.diag(self.matrix.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]
        pairs = [divmod(int(place), len(self.classes)) for place in order]
        rows = [[self.classes[t], self.classes[p], str(wrong[t, p])] for t, p in pairs]
        return [
            "most frequent confusions (--json has the whole matrix)",
            "",
            *aligned([["class", "taken for", "samples"], *rows]),
        ]


def evaluate(comm: Communicator, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The command on one of the ranks of `comm`."""
    options = together(comm, lambda: parse_options(EvaluateOptions, argv, "distnet evaluate"))
    agree(comm, asdict(options))
    checkpoints = model_file.read_alike(comm, options.models)
    device = together(comm, lambda: choose_device(options.device, comm.node.rank))
    network = together(comm, lambda: model_file.classifiers_of(checkpoints, options.models, device))
    expect_same_bits(comm, network.arithmetic, device)
    computing = devices(comm, device)
    shape = network.input_shape
    models = [each.model for each in checkpoints]
    dataset = together(comm, lambda: dataset_for(options, models, shape, environ))
    agree(comm, {"data_sha256": dataset.sha256})
    objective = together(comm, lambda: counting(network))
    samples = together(comm, lambda: samples_for(options, network, dataset))
    with one_blas_thread(), np.errstate(all="ignore"):  # what is not finite is told below
        loss, counts = measure(Feed(objective, *samples), comm, EVALUATION_SIZE)
    if comm.rank:
        return DONE
    if options.device != CPU:
        write_now(sys.stderr, f"distnet: device {computing}\n")
    for note in dataset.notes:
        write_now(sys.stderr, f"distnet: {dataset.name}: {note}\n")
    for warning in dict.fromkeys(other_data(each.model, dataset) for each in checkpoints):
        if warning:
            write_now(sys.stderr, f"distnet: warning: {warning}\n")
    if loss >= least_unknown(len(samples.targets), EVALUATION_SIZE):
        write_now(
            sys.stderr,
            "distnet: warning: outputs of the network overflow, or nearly: the loss is at least as "
            "large as shown, or no number, and the classes mean little\n",
        )
    accuracy = objective.metrics(loss, counts, len(samples.targets))["accuracy"]
    classes = network.classes
    matrix = objective.matrix(counts)
    title = title_of(options.models)
    result = Evaluation(title, dataset.name, options.part, classes, loss, accuracy, matrix)
    text = json.dumps(result.as_json()) if options.json else "\n".join(result.lines())
    return NOT_WRITTEN if write_now(sys.stdout, f"{text}\n") else DONE


def main(argv: Sequence[str]) -> int:
    """`distnet evaluate`; returns the exit code."""
    return run_command(lambda comm: evaluate(comm, argv, os.environ), os.environ)


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def title_of(models: Sequence[str]) -> str:
    """What was evaluated, in words: a network, or several."""
    if len(models) == 1:
        return models[0]
    return f"ensemble of {len(models)} networks ({', '.join(models)})"


def counting(network: Network | Ensemble) -> Confusion:
    """The objective that counts what is taken for what."""
    return EnsembleConfusion(network) if isinstance(network, Ensemble) else Confusion(network)


def dataset_for(
    options: EvaluateOptions,
    models: Sequence[Mapping[str, Any]],
    input_shape: Shape,
    environ: Mapping[str, str],
) -> Dataset:
    """The data set that was asked for, or else the one of the first run; raises DataError.

    Pictures become inputs of the network as they do for `distnet predict`. Data without a test part
    are all the test of `models` of which each says that it was trained on others.
    """
    model, *_ = models
    name, data_dir = "", ""
    if not (options.data and options.data_dir):
        name, data_dir = _trained_on(Path(options.models[0]), model)
    if options.data or options.data_dir:
        name, data_dir = options.data or name or "mnist", options.data_dir
    if not name:
        raise DataError(f"{options.models[0]}: found no data set named in it, expected --data NAME")
    directory = Path(data_dir) if data_dir else None
    prepare = preparation(options.pictures, model, input_shape)
    cache = default_cache_dir(environ)
    dataset = load_dataset(name, directory, cache, input_shape, prepare=prepare)
    trained_on = {each.get("data", {}).get("sha256") for each in models}
    if None in trained_on:
        return with_test(dataset)
    with contextlib.suppress(DataError):  # of so few samples that nobody can train on them
        parted = with_test(dataset)
        if parted.sha256 in trained_on:
            return parted
    return with_all_as_test(dataset)


def _trained_on(path: Path, model: Mapping[str, Any]) -> tuple[str, str]:
    """Name and directory of the data: as the configuration of the run says, or the file itself."""
    for directory in (path, path.parent.parent):  # of a run, or of one of its checkpoints
        if (directory / "config.toml").is_file():
            # Unchecked: options of a model of one's own are unknown here, and of no matter.
            config = read_unchecked(directory / "config.toml")
            return str(config.get("data", "")), str(config.get("data_dir", ""))
    return str(model.get("data", {}).get("name", "")), ""


def samples_for(options: EvaluateOptions, network: Network | Ensemble, dataset: Dataset) -> Samples:
    """The samples to evaluate on, with the labels of the network; raises DataError."""
    images, labels = dataset.train if options.part == "train" else dataset.test
    if network.classes and dataset.classes != network.classes:
        unknown = [name for name in dataset.classes if name not in network.classes]
        if unknown:
            raise DataError(
                f"{dataset.name}: found class {unknown[0]!r:.60}, expected those of the network: "
                f"{', '.join(network.classes)!s:.200}"
            )
        labels = np.array([network.classes.index(name) for name in dataset.classes])[labels]
    (num_classes, *_) = network.output_shape
    return checked_samples(images, labels, network.input_shape, num_classes)


def other_data(model: Mapping[str, Any], dataset: Dataset) -> str:
    """One line if the data are not those of the training, as far as the file says."""
    trained = model.get("data", {})
    if trained.get("sha256") in (None, dataset.sha256):
        return ""
    return (
        f"the network was trained on {trained.get('name', 'data')} of SHA-256 "
        f"{trained['sha256']:.12}..., and {dataset.name} has {dataset.sha256:.12}..."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
