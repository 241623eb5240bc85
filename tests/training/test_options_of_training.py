"""Label smoothing, class weights, held-out samples, early stopping, averages: what the flags do.

All at once on one process and on three ranks, unbroken and resumed; then what each of them means.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_runs import (
    ALONE,
    NUM_TRAIN,
    SIZES,
    checkpoint,
    read_metrics,
    read_summary,
    succeed,
    train,
    write_digits,
)

import distnet
from distnet.building.parts import objective_of, parts_of
from distnet.data import DataError, dataset_from_arrays
from distnet.objectives import balanced_weights
from distnet.training.config import ConfigError, TrainConfig, parse
from distnet.training.files import checkpoint as checkpoints

STEPS_PER_EPOCH = 4  # of what is left of the training data
FLAGS = (
    *("--model", "two_layer", "--lr", "0.002", "--steps", str(2 * STEPS_PER_EPOCH)),
    *("--label-smoothing", "0.1", "--class-weights", "balanced", "--validation", "0.2"),
    *("--patience", "5", "--ema", "0.8"),
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def alone(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    succeed(ALONE, *FLAGS, *SIZES, "--data-dir", data_dir, "--out", out)
    return out


RESULTS = ("params_sha256", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")


def results(out: Path) -> list[object]:
    summary = read_summary(out)
    return [summary[name] for name in RESULTS]


@pytest.mark.mpi_launch
def test_any_number_of_ranks_and_a_resumed_run_have_the_same_bits(data_dir, alone, tmp_path):
    args = (*FLAGS, *SIZES, "--data-dir", data_dir, "--out", tmp_path)
    succeed(3, *args, "--stop-at", str(STEPS_PER_EPOCH + 1), code=75)
    succeed(2, *args, "--resume")
    assert results(tmp_path) == results(alone)
    last = 2 * STEPS_PER_EPOCH
    found, expected = (checkpoints.load(checkpoint(out, last)) for out in (tmp_path, alone))
    assert list(found.state) == list(expected.state)
    for name, array in expected.state.items():
        np.testing.assert_array_equal(found.state[name], array)


@pytest.mark.mpi_launch
def test_the_best_checkpoint_is_chosen_by_what_was_held_out(alone):
    epochs = [line for line in read_metrics(alone) if line["event"] == "epoch"]
    assert [line["step"] for line in epochs] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    best = max(epochs, key=lambda line: (line["valid_accuracy"], -line["valid_loss"]))
    summary = read_summary(alone)
    assert summary["best_step"] == best["step"]
    assert summary["best_valid_accuracy"] == best["valid_accuracy"]


@pytest.mark.mpi_launch
def test_a_run_opened_again_has_the_average(alone):
    network = distnet.load(checkpoint(alone, 2 * STEPS_PER_EPOCH))
    state = checkpoints.load(checkpoint(alone, 2 * STEPS_PER_EPOCH)).state
    for name, array in network.parameters.named().items():
        np.testing.assert_array_equal(array, state[f"optimizer.average.{name}"])
        if name.endswith("weight"):
            assert np.any(array != state[f"params.{name}"])


@pytest.mark.mpi_launch
def test_wrong_weights_are_one_line(data_dir):
    process = train(ALONE, "--class-weights", "1,2", "--data-dir", data_dir)
    assert process.returncode == 2
    assert process.stderr.startswith(
        "distnet: error: --class-weights: found 2 numbers, expected 10"
    )


@pytest.mark.parametrize("text", ["1,x", "1,,2", "0,1", "-1", "inf", "nan", "balance"])
def test_weights_are_numbers(text):
    with pytest.raises(ConfigError, match=r"^--class-weights: found .*, expected balanced, or"):
        parse(["--class-weights", text])


def uneven(num: int = 60) -> distnet.Dataset:
    rng = np.random.default_rng(1)
    labels = np.where(np.arange(num) % 6 == 0, 1, 0)
    images = rng.integers(0, 256, (num, 1, 4, 4), np.uint8)
    return dataset_from_arrays(images, labels, images, labels)


def test_options_reach_the_objective():
    data = uneven()
    options = {"model": "two_layer", "hidden_size": 3, "label_smoothing": 0.2}
    config = TrainConfig(**options, class_weights="balanced")
    loss = objective_of(config, data, data.train).loss
    assert loss.smoothing == 0.2
    np.testing.assert_allclose(loss.weights, [60 / (2 * 50), 60 / (2 * 10)])
    given = objective_of(TrainConfig(**options, class_weights="3,0.5"), data, data.train).loss
    assert given.weights.tolist() == [3, 0.5]


def test_balanced_weights_count_all_classes_alike():
    labels = np.array([0, 0, 0, 3, 3, 1])
    weights = balanced_weights(labels, 5)
    np.testing.assert_allclose(weights, [6 / 9, 2, 1, 1, 1])
    sums = np.bincount(labels, weights[labels], minlength=5)
    np.testing.assert_allclose(sums, [2, 2, 0, 2, 0])


def test_samples_are_held_out_of_each_class_by_the_seed():
    data = uneven()
    training, evaluated = parts_of(TrainConfig(validation=0.2), data)
    assert list(evaluated) == ["valid", "test"]
    assert np.bincount(evaluated["valid"].targets).tolist() == [10, 2]
    assert np.bincount(training.targets).tolist() == [40, 8]
    whole = np.concatenate([training.inputs, evaluated["valid"].inputs]).reshape(60, -1)
    assert sorted(map(bytes, whole)) == sorted(map(bytes, data.train.inputs.reshape(60, -1)))
    _, others = parts_of(TrainConfig(validation=0.2, seed=1), data)
    assert np.any(others["valid"].inputs != evaluated["valid"].inputs)
    assert parts_of(TrainConfig(), data)[1].keys() == {"test"}


def test_to_hold_out_nothing_is_an_error():
    with pytest.raises(DataError, match="to be held out"):
        parts_of(TrainConfig(validation=0.001), uneven())


@pytest.mark.mpi_launch
def test_a_run_ends_when_it_gets_no_better(data_dir, tmp_path):
    flags = ("--model", "two_layer", "--optimizer", "sgd", "--lr", "1e-30", "--epochs", "9")
    args = (*flags, *SIZES, "--data-dir", data_dir, "--validation", "0.2", "--patience", "2")
    succeed(2, *args, "--out", tmp_path)
    summary = read_summary(tmp_path)
    assert (summary["epochs"], summary["best_step"]) == (3, STEPS_PER_EPOCH)
    assert summary["ended"] == "no better for 2 evaluations"


def test_training_data_are_fewer_by_what_is_held_out():
    assert -(-int(NUM_TRAIN * 0.8) // 50) == STEPS_PER_EPOCH
