"""Runs of which a part is frozen, by fit and by the command, on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import SIZES, write_digits

from distnet.nn import BatchNorm, Conv2d, Dropout, Linear, MaxPool2d, Network, ReLU
from distnet.parallel import RankError, SerialCommunicator
from distnet.train import train
from distnet.training.callbacks import Callback
from distnet.training.files.checkpoint import load as load_checkpoint
from distnet.training.files.model_file import load, save
from distnet.training.fit import fit

SHAPE = (1, 8, 8)


def network(dropout: float = 0.25) -> Network:
    layers = [Conv2d(4, 3, pad=1), BatchNorm(), MaxPool2d(2), ReLU(), Conv2d(6, 3), BatchNorm()]
    return Network([*layers, Dropout(dropout), Linear(8), BatchNorm(), Linear(5)], SHAPE)


def samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.random((60, *SHAPE), np.float32), rng.integers(0, 5, 60)


def trained(*names: str, comm=None, **settings) -> Network:
    net = network()
    net.freeze(*names)
    settings = {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1} | settings
    history = fit(
        net, *samples(), steps=8, batch_size=20, micro_batch_size=6, comm=comm, **settings
    )
    assert history.params_sha256 == net.parameters.sha256()
    return net


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("names", [["conv", "batchnorm2"], ["linear1", "batchnorm"]], ids=str)
def test_the_same_bits_on_any_number_of_ranks(comm, names):
    alone, together = (trained(*names, comm=each) for each in (SerialCommunicator(), comm))
    for name, array in alone.parameters.all_named().items():
        np.testing.assert_array_equal(together.parameters.all_named()[name], array)
    assert alone.parameters.sha256() == together.parameters.sha256()


def test_what_is_frozen_stays_and_the_rest_moves():
    """Weight decay, moments and an average leave it alone as well."""
    before, after = network(), trained("conv1", "batchnorm2", "linear2.bias", ema=0.9)
    frozen = ("conv1", "batchnorm2", "linear2.bias")
    for name, array in after.parameters.all_named().items():
        same = np.array_equal(array, before.parameters.all_named()[name])
        assert same == name.startswith(frozen), name


class Freezes(Callback):
    """In the middle of a run."""

    def __init__(self, when: int, *names: str) -> None:
        self.when, self.names = when, names

    def begin(self, run) -> None:
        self.stepped(run, None)

    def stepped(self, run, result) -> None:
        if run.num_done == self.when:
            run.trainer.objective.network.freeze(*self.names)


@pytest.mark.parametrize(("when", "names"), [(0, ()), (3, ()), (3, ("conv1",))])
def test_a_network_that_is_frozen_while_it_trains_is_refused(when, names):
    """Sums would be of vectors that nobody fills any more."""
    with pytest.raises(ValueError, match="parameters have other vectors by now"):
        trained(callbacks=[Freezes(when, *names)])


def test_the_rest_is_trained_as_if_the_frozen_part_were_data():
    """The last layer on the outputs of all before it, in evaluation mode as nothing there moves."""
    net = network(dropout=0.0)
    net.freeze("conv", "batchnorm", "linear1")
    head = Network([Linear(5)], (8,))
    images, labels = samples()
    features = np.concatenate([features_of(net, images[i : i + 6]) for i in range(0, 60, 6)])
    head.parameters.load(
        {
            f"linear1.{part}": net.parameters.named()[f"linear2.{part}"]
            for part in ("weight", "bias")
        }
    )
    settings = {"steps": 6, "batch_size": 20, "micro_batch_size": 6, "lr": 0.5}
    losses = [
        fit(net, images, labels, **settings).losses,
        fit(head, features, labels, **settings).losses,
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    np.testing.assert_allclose(net.parameters.values, head.parameters.values, rtol=1e-4, atol=1e-6)


def features_of(net: Network, images: np.ndarray) -> np.ndarray:
    for layer in net.body.layers[:-1]:
        images = layer.forward(images)
    return images.copy()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains a small network on small data with more flags; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    data = write_digits(tmp_path)
    flags = [*SIZES, "--data-dir", str(data), "--model", "simple_convnet", "--no-progress"]
    return lambda *more: train(SerialCommunicator(), [*flags, *more])


def test_the_command_trains_the_last_layers_of_another_run(run, tmp_path, capsys):
    assert run("--steps", "3", "--out", "source") == 0
    freeze = ["--init", "source", "--freeze", "conv,linear1", "--steps", "6"]
    assert run(*freeze, "--out", "whole") == 0
    assert "parameters, 432,880 frozen) on" in capsys.readouterr().out
    assert run(*freeze, "--out", "parts", "--stop-at", "2") == 75
    assert run(*freeze, "--out", "parts", "--resume") == 0
    names = [
        tmp_path / name / "checkpoints" / "step-00000006.safetensors" for name in ("whole", "parts")
    ]
    assert names[0].read_bytes() == names[1].read_bytes()
    state = load_checkpoint(names[0]).state
    moments = {name for name in state if name.startswith("optimizer.m.")}
    assert moments == {"optimizer.m.linear2.weight", "optimizer.m.linear2.bias"}
    source = load("source").parameters.named()
    found = load("whole")
    assert found.frozen == ("conv", "linear1")
    for name, array in found.parameters.named().items():
        assert np.array_equal(array, source[name]) == (not name.startswith("linear2"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("conv7", "--freeze conv7: freeze: found 'conv7', expected a layer or a kind of layers"),
        ("conv,linear", "--freeze conv,linear: found nothing that is left to be trained"),
    ],
)
def test_the_command_refuses(run, names, message):
    with pytest.raises(RankError, match=message):
        run("--freeze", names)


def test_a_run_goes_on_with_what_is_frozen_alone(run):
    assert run("--freeze", "conv", "--steps", "4", "--stop-at", "2", "--out", "out") == 75
    with pytest.raises(RankError, match="freeze: found 'conv', expected ''"):
        run("--steps", "4", "--out", "out", "--resume")


def test_files_of_frozen_networks_are_starts_as_any_other(tmp_path):
    net = trained("conv")
    save(net, tmp_path / "model")
    other = load(tmp_path / "model")
    other.freeze()
    assert other.parameters.values.size == other.parameters.size
    np.testing.assert_array_equal(other.predict(samples()[0]), net.predict(samples()[0]))
