"""Training steps whose passes, sums and updates are on a device: they are those of the CPU."""

import numpy as np
import pytest
from strict import Strict

from distnet.base.arithmetic import FLOAT, Portable
from distnet.benchmarks.golden import CASES, GOLDEN, train
from distnet.device import compute_on
from distnet.nn import BatchNorm, Conv2d, Dropout, Linear, MaxPool2d, Network, ReLU
from distnet.objectives import Classification
from distnet.optim import make_schedule
from distnet.parallel import SerialCommunicator
from distnet.training.step.assembly import make_trainer
from distnet.training.step.device_update import DeviceExact, DeviceOptimizer
from distnet.training.step.diagnosis import TrainingDiverged
from distnet.training.step.feed import Feed
from distnet.training.step.updates import optimizer_for

X = np.random.default_rng(0).integers(0, 256, (50, 1, 6, 6), np.uint8)
LABELS = np.arange(50) % 3
RULES = [name for name in CASES if name.startswith("mlp_")]


def layers():
    """What has something of its own on a device."""
    return [Conv2d(4, 3, pad=1), BatchNorm(), ReLU(), MaxPool2d(2), Dropout(0.3), Linear(3)]


def trainer(device, *, inputs=X, labels=LABELS, arithmetic=None, frozen=(), loss=None, **settings):
    """Of a network of `layers`, or what `make` makes; batches of 20, 20 and 10."""
    made = settings.pop("make", layers)()
    network = Network(made, (1, 6, 6), arithmetic=arithmetic or Portable(), seed=1)
    network.freeze(*frozen)
    if device is not None:
        compute_on(network, device)
    objective = settings.pop("objective", Classification)(network, **(loss or {}))
    optimizer = settings.pop("optimizer", "adam")
    return make_trainer(
        objective,
        Feed(objective, inputs, labels, settings.pop("augment", None)),
        optimizer=optimizer_for(objective.parameters, optimizer, weight_decay=0.01),
        schedule=make_schedule("linear", 0.01, 10, arithmetic=network.arithmetic),
        batch_size=50,
        micro_batch_size=20,
        seed=0,
        comm=SerialCommunicator(),
        **settings,
    )


def run(made, steps=4):
    """Losses, counts, and the whole state after some steps."""
    results = [made.advance(step, steps) for step in range(steps)]
    told = {f"step {each.step}": np.array([each.loss, *each.counts]) for each in results}
    return told | {name: array.copy() for name, array in made.state().items()}


def expect_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize(
    "frozen",
    [(), ("conv1.bias",), ("conv1", "batchnorm1"), ("conv", "batchnorm", "linear")],
    ids=["nothing", "a bias", "the first layers", "all"],
)
@pytest.mark.parametrize(
    "loss", [{}, {"label_smoothing": 0.1}, {"class_weights": [1, 2, 0.5], "label_smoothing": 0.2}]
)
def test_steps_are_those_of_the_cpu(loss, frozen):
    on_device = trainer(Strict(), loss=loss, frozen=frozen)
    assert isinstance(on_device.optimizer, DeviceOptimizer)
    expect_same(run(on_device), run(trainer(None, loss=loss, frozen=frozen)))


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_the_bits_of_the_cpu(name):
    assert train(CASES[name], SerialCommunicator(), device=Strict()) == GOLDEN[name]


@pytest.mark.parametrize(
    "settings", [{"reduction": "exact32"}, {"audit": 2}, {"optimizer": "lamb"}]
)
def test_what_needs_the_host_has_it(settings):
    on_device = trainer(Strict(), **settings)
    assert not isinstance(on_device.reducer.exchange.format, DeviceExact)
    expect_same(run(on_device), run(trainer(None, **settings)))


@pytest.mark.parametrize("type_name", [">f4", "f2"])
def test_inputs_may_have_types_that_a_device_computes_nothing_in(type_name):
    """Those of another byte order go over in this machine's: CuPy has no other."""
    settings = {"inputs": (X / 255).astype(type_name)}
    expect_same(run(trainer(Strict(), **settings)), run(trainer(None, **settings)))


def test_in_float32_a_pass_has_one_micro_batch():
    made = trainer(Strict(), arithmetic=FLOAT, optimizer="sgd")
    assert made.group_pass.largest_group(20) == 1
    expected = run(trainer(None, arithmetic=FLOAT, optimizer="sgd"))
    for name, array in run(made).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-4, err_msg=name)


def test_groups_are_bounded_by_the_memory_they_take():
    made = trainer(Strict())
    most = made.group_pass.largest_group(20) * 20 * 36
    assert 2**19 < most <= 2**20


def test_a_state_can_be_given_back():
    expected = run(trainer(None))
    made = trainer(Strict())
    first = {name: array.copy() for name, array in made.state().items()}
    run(made)
    made.restore(first)
    expect_same(run(made), expected)


def test_what_is_not_finite_is_found_as_on_the_cpu():
    inputs = X / 255
    inputs[7, 0, 0, 0] = np.nan
    texts = []
    for device in (Strict(), None):
        with pytest.raises(TrainingDiverged) as error:
            trainer(device, inputs=inputs).advance(0, 1)
        texts.append(str(error.value))
    assert texts[0] == texts[1]
    assert "the data hold nan in the input of sample 7" in texts[0]


def test_a_wrong_label_is_refused():
    with pytest.raises(ValueError, match="labels: found 3, expected at least 0 and below 3"):
        trainer(Strict(), labels=LABELS + 1).advance(0, 1)
